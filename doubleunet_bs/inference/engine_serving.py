"""A model on a TensorFlow Serving server, asked over gRPC: scans are prepared here and segmented there.

The extra `serving` brings the messages (`tensorflow-serving-api`), whose modules import TensorFlow.
"""

import json
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework.types_pb2 import DataType
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from doubleunet_bs.errors import ServerError
from doubleunet_bs.inference.engines import (
    DESCRIPTION_ENDPOINT,
    DESCRIPTION_INPUT,
    DESCRIPTION_OUTPUT,
    ENDPOINT,
    INPUT,
    MASK,
    PROBABILITY,
    REGION_PROBABILITY,
    check_images,
    find_fault,
)
from doubleunet_bs.inference.model_description import ModelDescription, parse_description

LARGEST_BATCH = 4
"""Images in one request, the `max_batch_size` of a packaged server."""
TRIES = 5
"""Attempts while the server is unavailable; gRPC allows no more."""
MESSAGE_BYTES = 64 * 2**20
"""Largest message in either direction. gRPC's default for receiving is 4 MiB; the answer to four images of 640 x 512
pixels has 6.6 MB. The buffer for repeated requests must be as large, or gRPC sends large requests only once."""

_RETRY = {
    "maxAttempts": TRIES,
    "initialBackoff": "0.25s",
    "maxBackoff": "4s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.per_rpc_retry_buffer_size", MESSAGE_BYTES),
    ("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": _RETRY}]})),
    ("grpc.enable_http_proxy", 0),
    # Uncompressed answers only: a small compressed message can grow a thousandfold.
    ("grpc.compression_enabled_algorithms_bitset", 1),
)


def predict_request(model: str, signature: str, inputs: dict[str, np.ndarray]) -> predict_pb2.PredictRequest:
    """A request to an endpoint (`signature`) of a model on a server.

    Args:
        model: its name, or NAME@LABEL or NAME@VERSION for another version than the highest.
        signature: name of the endpoint.
        inputs: its arrays by name.
    """
    request = predict_pb2.PredictRequest()
    request.model_spec.name, _, version = model.partition("@")
    request.model_spec.signature_name = signature
    if version.isdecimal():
        request.model_spec.version.value = int(version)
    elif version:
        request.model_spec.version_label = version
    for name, array in inputs.items():
        tensor = request.inputs[name]
        # By hand: tf.make_tensor_proto writes uint16 value by value, two seconds for the raw counts of four scans.
        tensor.dtype = tf.as_dtype(array.dtype).as_datatype_enum
        tensor.tensor_shape.CopyFrom(tf.TensorShape(array.shape).as_proto())
        tensor.tensor_content = array.tobytes()
    return request


class ServingEngine:
    """An `engines.Engine` that asks a server. More than four images go in several requests.

    Args:
        server: "grpc://HOST:PORT". The connection is not encrypted.
        model: name of the model on the server, NAME@LABEL or NAME@VERSION; not used when `local` is given.
        deadline: seconds within which each request must be answered, retries included.
        local: description of a model folder; the server's model must have the same weights.

    Attributes:
        description: of the server's model. Every answer must come from the version that gave it.

    Raises:
        ServerError: the server does not answer, or its model is not one of this package, or not `local`.
        RunError: the description has another format.
    """

    def __init__(self, server: str, model: str, deadline: float, local: ModelDescription | None = None):
        self._server, self._model, self._deadline = server.rstrip("/"), model, deadline
        if local:
            self._model = local.served_name
        self._version: int | None = None
        channel = grpc.insecure_channel(urlsplit(server).netloc, _OPTIONS)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        text = self._ask(
            DESCRIPTION_ENDPOINT, {DESCRIPTION_INPUT: np.zeros(1, np.uint8)}, {DESCRIPTION_OUTPUT: (object, (1,))}
        )[DESCRIPTION_OUTPUT][0]
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            raise self._error(f"the description of model {self._model!r} is not JSON") from None
        self.description = parse_description(content, f"{self._server}, model {self._model}")
        if local and self.description.weights_sha256 != local.weights_sha256:
            raise self._error(
                f"model {self._model!r} has other weights than --model: package it again, or name the server's model"
            )
        self.image_shape = self.description.image_shape
        self.name = f"serving, model {self._model} at {self._server}"

    def __call__(self, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `engines.Engine`.

        Raises:
            ServerError: no answer, or one with impossible values.
        """
        check_images(grey, self.image_shape)
        name = REGION_PROBABILITY if self.description.is_skeleton else PROBABILITY
        answers = []
        for start in range(0, len(grey), LARGEST_BATCH):
            batch = grey[start : start + LARGEST_BATCH]
            expected = {name: (np.float32, batch.shape), MASK: (np.uint8, batch.shape)}
            answer = self._ask(ENDPOINT, {INPUT: batch}, expected)
            if (
                fault := find_fault(answer[name], answer[MASK], batch.shape, self.description.largest_mask)
            ) is not None:
                raise self._error(fault)
            answers.append(answer)
        probability, mask = (np.concatenate([answer[one] for answer in answers]) for one in (name, MASK))
        return probability, mask

    def _ask(
        self, signature: str, inputs: dict[str, np.ndarray], expected: dict[str, tuple[Any, tuple[int, ...]]]
    ) -> dict[str, np.ndarray]:
        """Ask an endpoint. `expected` gives the type and shape of each output; `object` stands for strings."""
        try:
            answer = self._stub.Predict(predict_request(self._model, signature, inputs), timeout=self._deadline)
        except grpc.RpcError as error:
            raise self._explain(error, signature) from None
        version = answer.model_spec.version.value
        if self._version is None:
            self._version = version
        if version != self._version:
            raise self._error(f"model {self._model!r} changed from version {self._version} to {version}: start again")
        arrays = {}
        for name, (dtype, shape) in expected.items():
            tensor = answer.outputs[name]
            # Looked at before an array is made: a tensor of one value may claim to have any number of them.
            kind, dimensions = tensor.dtype, tuple(one.size for one in tensor.tensor_shape.dim)
            if kind != tf.as_dtype(dtype).as_datatype_enum or dimensions != shape:
                known = kind and kind in DataType.values()
                found = f"{DataType.Name(kind)[3:].lower()} {dimensions}" if known else "missing"
                raise self._error(f"{name} is {found}, not {tf.as_dtype(dtype).name} {shape}")
            try:
                arrays[name] = tf.make_ndarray(tensor)
            except (TypeError, ValueError) as cause:
                raise self._error(f"{name} in the answer is damaged ({cause})") from None
        return arrays

    def _explain(self, error: grpc.RpcError, signature: str) -> ServerError:
        code, reason = error.code(), " ".join((error.details() or "").split())[:200]
        match code:
            case grpc.StatusCode.UNAVAILABLE:
                return self._error(f"not available ({reason}): check the address and that the server runs")
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return self._error(
                    f"no answer within {self._deadline:g} s: check the address, or give a longer --deadline"
                )
            case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" in reason:
                return self._error(f"an answer of more than {MESSAGE_BYTES >> 20} MiB is refused: check the model")
            case grpc.StatusCode.UNIMPLEMENTED:
                return self._error("not the gRPC port of TensorFlow Serving: check the port")
            case grpc.StatusCode.NOT_FOUND:
                return self._error(f"no model {self._model!r} is ready ({reason}): check --model")
            case _ if "ignature" in reason and "not found" in reason:
                return self._error(f"model {self._model!r} has no endpoint {signature}: package it again")
            case _:
                return self._error(f"{signature} failed with {code.name} ({reason})")

    def _error(self, message: str) -> ServerError:
        return ServerError(f"{self._server}: {message}")
