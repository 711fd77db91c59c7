"""Requests to a TensorFlow Serving model server, over gRPC or REST: deadline, tries, and errors a person can act on."""

import contextlib
import dataclasses
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from doubleunet_bs.errors import ServerError, SettingsError

PREDICT = "/tensorflow.serving.PredictionService/Predict"

_KINDS = {
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    "float": descriptor_pb2.FieldDescriptorProto.TYPE_FLOAT,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
}
# message -> field -> (number, type); "*" repeated, "map:" from string to that message. Other fields are passed over.
_MESSAGES = {
    "tensorflow": {
        "Dimension": {"size": (1, "int64")},
        "TensorShapeProto": {"dim": (2, "*tensorflow.Dimension"), "unknown_rank": (3, "bool")},
        "TensorProto": {
            "dtype": (1, "int32"),
            "tensor_shape": (2, "tensorflow.TensorShapeProto"),
            "tensor_content": (4, "bytes"),
            "float_val": (5, "*float"),
            "int_val": (7, "*int32"),
            "string_val": (8, "*bytes"),
        },
    },
    "tensorflow.serving": {
        "Version": {"value": (1, "int64")},
        "ModelSpec": {
            "name": (1, "string"),
            "version": (2, "tensorflow.serving.Version"),
            "signature_name": (3, "string"),
        },
        "PredictRequest": {
            "model_spec": (1, "tensorflow.serving.ModelSpec"),
            "inputs": (2, "map:tensorflow.TensorProto"),
        },
        "PredictResponse": {
            "outputs": (1, "map:tensorflow.TensorProto"),
            "model_spec": (2, "tensorflow.serving.ModelSpec"),
        },
        "PredictLog": {"request": (1, "tensorflow.serving.PredictRequest")},
        "PredictionLog": {"predict_log": (6, "tensorflow.serving.PredictLog")},
    },
}
# NumPy type -> (number in tensorflow.DataType, field of values)
_TYPES = {"float32": (1, "float_val"), "int32": (3, "int_val"), "uint8": (4, "int_val"), "uint16": (17, "int_val")}
_STRING = 7


def _build() -> dict[str, type]:
    pool, classes = descriptor_pool.DescriptorPool(), {}
    for package, messages in _MESSAGES.items():
        file = descriptor_pb2.FileDescriptorProto(
            name=f"doubleunet_bs/{package}.proto", package=package, syntax="proto3"
        )
        file.dependency.extend(f"doubleunet_bs/{other}.proto" for other in _MESSAGES if len(other) < len(package))
        for name, fields in messages.items():
            message = file.message_type.add(name=name)
            for field, (number, kind) in fields.items():
                _add_field(message, f"{package}.{name}", field, number, kind)
        pool.Add(file)
        for name in messages:
            classes[name] = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
    return classes


def _add_field(message, full_name: str, name: str, number: int, kind: str) -> None:
    field = message.field.add(name=name, number=number, label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL)
    if kind.startswith("map:"):
        entry = message.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        _add_field(entry, "", "key", 1, "string")
        _add_field(entry, "", "value", 2, kind.removeprefix("map:"))
        kind = f"*{full_name}.{entry.name}"
    if kind.startswith("*"):
        field.label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
        kind = kind[1:]
    if kind in _KINDS:
        field.type = _KINDS[kind]
    else:
        field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{kind}"


_CLASSES = _build()
PredictRequest, PredictResponse = _CLASSES["PredictRequest"], _CLASSES["PredictResponse"]
PredictionLog = _CLASSES["PredictionLog"]


def predict_request(model: str, signature: str, inputs: dict[str, np.ndarray], version: int | None = None):
    """A request to an endpoint of a model.

    Args:
        model: its name on the server.
        signature: the endpoint.
        inputs: name -> array of type float32, int32, uint8 or uint16.
        version: of the model; None for the server's newest.
    """
    request = PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    if version is not None:
        request.model_spec.version.value = version
    for name, array in inputs.items():
        tensor = request.inputs[name]
        tensor.dtype = _TYPES[array.dtype.name][0]
        for length in array.shape:
            tensor.tensor_shape.dim.add(size=length)
        tensor.tensor_content = np.ascontiguousarray(array).tobytes()
    return request


def warmup_record(request) -> bytes:
    """A request as TensorFlow Serving wants it in `tf_serving_warmup_requests`."""
    log = PredictionLog()
    log.predict_log.request.CopyFrom(request)
    return log.SerializeToString()


def read_tensor(tensor, dtype: str, shape: tuple[int, ...], name: str) -> np.ndarray:
    """A tensor of an answer as an array; TensorFlow Serving sends values, other servers the bytes of memory.

    Args:
        tensor: a TensorProto.
        dtype: the type it must have, also "string".
        shape: the shape it must have.
        name: its name, for the message.

    Returns:
        Array of that type and shape; of bytes objects for "string".

    Raises:
        ServerError: it has another type or shape, less or more values, or values that the type cannot hold.
    """
    found = tuple(dimension.size for dimension in tensor.tensor_shape.dim)
    number, field = (_STRING, "string_val") if dtype == "string" else _TYPES[dtype]
    if tensor.dtype != number or found != shape:
        raise ServerError(f"its {name} has type {tensor.dtype} and shape {found}, not {dtype} and {shape}")
    size = int(np.prod(shape))
    if tensor.tensor_content and dtype != "string":
        if len(tensor.tensor_content) != size * np.dtype(dtype).itemsize:
            raise ServerError(f"its {name} is cut off")
        return np.frombuffer(tensor.tensor_content, dtype).reshape(shape)
    values = getattr(tensor, field)
    if not 0 < len(values) <= size and size:
        raise ServerError(f"its {name} has {len(values)} values instead of {size}")
    array = np.array(values, object) if dtype == "string" else exact(np.array(values), dtype, name)
    # Values that are left out are equal to the last one.
    return np.concatenate([array, np.repeat(array[-1:], size - len(values))]).reshape(shape)


def exact(values: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """Numbers of an answer in another type. An integer type must hold every one: NumPy would wrap 257 to 1.

    Raises:
        ServerError: it cannot; `name` is whose values they are.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        array = values.astype(dtype)
    if np.issubdtype(array.dtype, np.integer) and not np.array_equal(array, values):
        raise ServerError(f"its {name} has values that are not {dtype}")
    return array


TRIES = 5
FIRST_PAUSE = 0.25
MESSAGE_BYTES = 256 * 2**20
"""Largest message either way. gRPC's own limit for receiving is 4 MiB; a batch of four images of 640 x 512 pixels is
answered with 6.6 MB. TensorFlow Serving itself takes messages of up to 2 GB."""


@dataclasses.dataclass(frozen=True)
class Output:
    """What an output must be: a type, "string" among them, and a shape."""

    dtype: str
    shape: tuple[int, ...]


class Unavailable(Exception):
    """The server cannot take the request now: the one reason to try again."""


def open_client(server: str, model: str, deadline: float) -> "GrpcClient | RestClient":
    """A client for `server`. Nothing is sent yet.

    Args:
        server: "grpc://HOST:PORT" or "http://HOST:PORT".
        model: name of the model on it.
        deadline: seconds within which each request must be answered, all its tries together.

    Raises:
        SettingsError: another kind of URL, or a deadline that is not positive.
    """
    scheme, address = parse_server(server)
    check_deadline(deadline)
    return {"grpc": GrpcClient, "http": RestClient}[scheme](server.rstrip("/"), address, model, deadline)


def check_deadline(deadline: float) -> None:
    """Raises `SettingsError` for a deadline that is not a positive number of seconds."""
    if not (np.isfinite(deadline) and deadline > 0):
        raise SettingsError(f"a deadline of {deadline:g} s: it must be a positive number of seconds")


def parse_server(server: str) -> tuple[str, str]:
    """The scheme and the address of "grpc://HOST:PORT" or "http://HOST:PORT"; `SettingsError` for anything else."""
    try:
        parts = urlsplit(server)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme not in ("grpc", "http") or parts.path.strip("/") or parts.query:
        raise SettingsError(f"server {server!r}: it must be grpc://HOST:PORT or http://HOST:PORT")
    return parts.scheme, parts.netloc


class _Client:
    """Attributes: version: of the model, asked for in every request; None, until `pin`, for the server's newest."""

    def __init__(self, server: str, address: str, model: str, deadline: float):
        self.server, self.model, self.deadline = server, model, deadline
        self.version: int | None = None
        self._address = address

    def pin(self, signature: str, inputs: dict[str, np.ndarray], outputs: dict[str, Output]) -> dict[str, np.ndarray]:
        """`call` the newest version, and ask no other one from then on.

        A running server changes to a new version by itself; what was learnt of the model would then be of another one.

        Raises:
            ServerError: as `call`, or the server does not say which version that is.
        """
        raise NotImplementedError

    def call(self, signature: str, inputs: dict[str, np.ndarray], outputs: dict[str, Output]) -> dict[str, np.ndarray]:
        """Ask an endpoint. May be called from several threads.

        Args:
            signature: the endpoint.
            inputs: name -> array.
            outputs: name -> what it must be.

        Returns:
            name -> array, exactly `outputs`.

        Raises:
            ServerError: no answer within the deadline, a refusal (the pinned version is gone, say), or an answer that is
                not what it must be.
        """
        return self._ask(self._prepare(signature, inputs), lambda answer: self._read(answer, outputs))

    def _ask(self, send: Callable[[float], Any], read: Callable[[Any], Any]) -> Any:
        """What `read` makes of the answer; `send` gets the seconds that are left."""
        end = time.monotonic() + self.deadline
        pause = FIRST_PAUSE
        for number in range(1, TRIES + 1):
            try:
                return read(send(self._left(end)))
            except Unavailable as cause:
                if number == TRIES or time.monotonic() + pause >= end:
                    raise ServerError(
                        f"{self.server}: not available after {number} {'try' if number == 1 else 'tries'} ({cause}); "
                        "is the server running, and is this its address?"
                    ) from None
            except ServerError as error:
                raise ServerError(f"{self.server}: {error}") from None
            time.sleep(pause)
            pause *= 2
        raise AssertionError("the last try returns or raises")

    def _left(self, end: float) -> float:
        left = end - time.monotonic()
        if left <= 0:
            raise self._late()
        return left

    def _late(self) -> ServerError:
        return ServerError(f"no answer within {self.deadline:g} s; give a longer deadline")

    def _refusal(self, signature: str, reason: str, not_found: bool) -> ServerError:
        """The error for a request that the server understood and refused."""
        reason = " ".join(reason.split())[:200]
        if "ignature" in reason and "not found" in reason:
            return ServerError(
                f"its model {self.model!r} has no endpoint {signature}: not a model of this package, or exported by an "
                "older version of it; package it again"
            )
        if not_found and self.version is not None:
            return ServerError(
                f"has no version {self.version} of its model {self.model!r} any more, with which this run began; "
                f"start again for the present one ({reason})"
            )
        if not_found:
            return ServerError(f"has no model {self.model!r} ready ({reason})")
        return ServerError(f"refuses the request to {signature} ({reason})")

    def _prepare(self, signature: str, inputs: dict[str, np.ndarray]) -> Callable[[float], Any]:
        raise NotImplementedError

    def _read(self, answer: Any, outputs: dict[str, Output]) -> dict[str, np.ndarray]:
        raise NotImplementedError


class GrpcClient(_Client):
    """Over gRPC, without encryption. Arrays travel as they lie in memory."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        import grpc

        options = (
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
            ("grpc.max_send_message_length", MESSAGE_BYTES),
            ("grpc.enable_retries", 0),  # The tries are counted here.
            ("grpc.enable_http_proxy", 0),
        )
        self._grpc = grpc
        self._channel = grpc.insecure_channel(self._address, options)
        self._predict = self._channel.unary_unary(
            PREDICT,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=PredictResponse.FromString,
        )

    def pin(self, signature, inputs, outputs):
        def read(answer):
            if not answer.model_spec.HasField("version"):
                raise ServerError(f"does not say which version of its model {self.model!r} has answered")
            return answer.model_spec.version.value, self._read(answer, outputs)

        self.version, values = self._ask(self._prepare(signature, inputs), read)
        return values

    def _prepare(self, signature, inputs):
        request = predict_request(self.model, signature, inputs, self.version)

        def send(seconds: float):
            try:
                return self._predict(request, timeout=seconds)
            except self._grpc.RpcError as error:
                raise self._translate(error, signature) from None

        return send

    def _translate(self, error, signature: str) -> Exception:
        code, details = error.code(), error.details() or ""
        codes = self._grpc.StatusCode
        if code == codes.UNAVAILABLE:
            return Unavailable(" ".join(details.split())[:120] or "UNAVAILABLE")
        if code == codes.DEADLINE_EXCEEDED:
            return self._late()
        if code == codes.UNIMPLEMENTED:
            return ServerError("is not the gRPC port of a TensorFlow Serving model server")
        if code in (codes.NOT_FOUND, codes.INVALID_ARGUMENT, codes.FAILED_PRECONDITION):
            return self._refusal(signature, details, code == codes.NOT_FOUND)
        return ServerError(f"fails with {code.name} ({' '.join(details.split())[:200]})")

    def _read(self, answer, outputs):
        if missing := sorted(set(outputs) - set(answer.outputs)):
            raise ServerError(f"its answer has no {missing[0]}")
        return {
            name: read_tensor(answer.outputs[name], output.dtype, output.shape, name)
            for name, output in outputs.items()
        }


class RestClient(_Client):
    """Over HTTP, without encryption. Numbers travel as text: several times the bytes of gRPC."""

    def pin(self, signature, inputs, outputs):
        # An answer of the predict API names no version.
        self.version = self._ask(
            lambda seconds: self._send(
                "GET", self._path(), None, seconds, "the model's status", "model_version_status"
            ),
            self._newest,
        )
        return self.call(signature, inputs, outputs)

    def _newest(self, status: Any) -> int:
        try:
            versions = [int(one["version"]) for one in status if one["state"] == "AVAILABLE"]
        except (TypeError, ValueError, KeyError):
            raise ServerError(f"its status of the model {self.model!r} is not that of a model server") from None
        if not versions:
            raise ServerError(f"has no model {self.model!r} ready (no version of it is available)")
        return max(versions)

    def _path(self) -> str:
        path = f"/v1/models/{quote(self.model, safe='')}"
        return path if self.version is None else f"{path}/versions/{self.version}"

    def _prepare(self, signature, inputs):
        content = {"signature_name": signature, "inputs": {name: array.tolist() for name, array in inputs.items()}}
        body = json.dumps(content, separators=(",", ":")).encode()
        return lambda seconds: self._send("POST", f"{self._path()}:predict", body, seconds, signature, "outputs")

    def _send(self, method: str, path: str, body: bytes | None, seconds: float, what: str, key: str) -> Any:
        """What the JSON answer has under `key`; `what` names for messages what is asked."""
        end = time.monotonic() + seconds
        connection = http.client.HTTPConnection(self._address, timeout=seconds)
        alarm = None
        try:
            connection.connect()
            # A socket's time limit is for each wait: a server that drips, headers or body, would hold it for ever. Shut
            # from outside, it ends whatever waits for it.
            alarm = threading.Timer(self._left(end), _shut, (connection.sock,))
            alarm.daemon = True
            alarm.start()
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer, content = connection.getresponse(), bytearray()
            while piece := answer.read1(2**16):
                content += piece
                if len(content) > MESSAGE_BYTES:
                    raise ServerError(f"its answer is larger than {MESSAGE_BYTES} bytes")
                self._left(end)
            self._left(end)  # What was shut ends without an error.
            if answer.length:
                raise Unavailable("the answer was cut off")
        except TimeoutError:
            raise self._late() from None
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() >= end:
                raise self._late() from None
            if isinstance(error, OSError):
                # Refused, or reset before an answer; asking twice does no harm, since nothing changes on the server.
                raise Unavailable(error.strerror or type(error).__name__) from None
            if isinstance(error, http.client.IncompleteRead):
                raise Unavailable("the answer was cut off") from None
            raise ServerError(f"does not speak HTTP ({type(error).__name__})") from None
        finally:
            if alarm is not None:
                alarm.cancel()
            connection.close()
        return self._checked(answer.status, bytes(content), what, key)

    def _checked(self, status: int, content: bytes, what: str, key: str) -> Any:
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        reason = str(answer.get("error", "")) if isinstance(answer, dict) else ""
        if status == 503:
            raise Unavailable(" ".join(reason.split())[:120] or "HTTP 503")
        if status in (408, 504):
            raise self._late()
        if status >= 500 and reason:
            raise ServerError(f"fails with HTTP {status} ({' '.join(reason.split())[:200]})")
        if status != 200 and reason:
            raise self._refusal(what, reason, status == 404)
        if status != 200 or not isinstance(answer, dict) or key not in answer:
            raise ServerError(
                f"is not the REST port of a TensorFlow Serving model server (HTTP {status}) {reason[:120]}"
            )
        return answer[key]

    def _read(self, answer, outputs):
        if len(outputs) == 1 and not isinstance(answer, dict):
            # A single output comes without its name.
            answer = {next(iter(outputs)): answer}
        arrays = {}
        for name, output in outputs.items():
            if not isinstance(answer, dict) or name not in answer:
                raise ServerError(f"its answer has no {name}")
            try:
                array = np.array(answer[name], object if output.dtype == "string" else np.float64)
            except (TypeError, ValueError):
                raise ServerError(f"its {name} is not an array of {output.dtype}") from None
            if array.shape != output.shape:
                raise ServerError(f"its {name} has shape {array.shape}, not {output.shape}")
            arrays[name] = array if output.dtype == "string" else exact(array, output.dtype, name)
        return arrays


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # Closed already.
        sock.shutdown(socket.SHUT_RDWR)
