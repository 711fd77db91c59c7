"""A loopback stand-in for TensorFlow Serving that computes with the SavedModel it is given.

gRPC: the service class and messages of `tensorflow-serving-api`. REST: status, metadata and predict API in the forms
"inputs" (columns) and "instances" (rows), by version and label. Errors carry the codes
and the words of TensorFlow Serving (`servables/tensorflow/predict_util.cc`, `batching_util/shared_batch_scheduler.h`).
With TENSORFLOW_MODEL_SERVER set to a `tensorflow_model_server` binary, `RealServer` starts that one on a repository
made by `serve-package`.
"""

import json
import os
import re
import socket
import subprocess
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from orthanc import free_port
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

LARGEST_TASK = 4
"""`max_batch_size` of the batching parameters that `serve-package` writes."""
BINARY = os.environ.get("TENSORFLOW_MODEL_SERVER")


class RefusedError(Exception):
    """`code` is the name of a gRPC status code."""

    def __init__(self, code: str, words: str):
        super().__init__(words)
        self.code = code


class LoopbackServer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """A model under its name; `load` adds others.

    Attributes:
        grpc, rest: URLs.
        version: of all models; it may change while the server runs. "stable" is its label.
        state: of the version, as the status tells it.
        troubles: names of status codes with which the next requests are answered, for instance ["UNAVAILABLE"].
        models: name -> session and signatures.
        requests: the endpoint of every request that has come in.
        delay: seconds before every answer.
        spoil: changes the arrays of an answer, a dict.
    """

    def __init__(self, saved_model: Path, name: str):
        self.name, self.version, self.state = name, 1, "AVAILABLE"
        self.models = {}
        self.load(saved_model)
        self.reset()
        # As TensorFlow Serving: messages of up to 2 GB come in, what goes out has no limit.
        options = (("grpc.max_receive_message_length", 2**31 - 1), ("grpc.max_send_message_length", -1))
        self._grpc_server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(self, self._grpc_server)
        self.grpc = f"grpc://127.0.0.1:{self._grpc_server.add_insecure_port('127.0.0.1:0')}"
        self._grpc_server.start()
        self._rest_server = ThreadingHTTPServer(("127.0.0.1", 0), _rest_handler(self))
        self.rest = f"http://127.0.0.1:{self._rest_server.server_address[1]}"
        threading.Thread(target=self._rest_server.serve_forever, daemon=True).start()

    def load(self, saved_model: Path, name: str | None = None) -> None:
        """Serve a model, under another name than the first or in place of it."""
        # A session, as in TensorFlow Serving: it checks what is fed against the shape of the signature.
        graph = tf.Graph()
        session = tf.compat.v1.Session(graph=graph)
        with graph.as_default():
            meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(saved_model))
        self.models[name or self.name] = session, dict(meta.signature_def)

    def reset(self) -> None:
        self.troubles, self.requests, self.delay, self.spoil = [], [], 0.0, lambda answer: answer

    def close(self) -> None:
        self._grpc_server.stop(None)
        self._rest_server.shutdown()
        self._rest_server.server_close()

    def compute(self, model: str, version: int | str | None, signature: str, convert) -> dict[str, np.ndarray]:
        """`version` is a number or a label. `convert` gives the arrays for the types of the endpoint's inputs."""
        self.requests.append(signature)
        time.sleep(self.delay)
        if self.troubles:
            raise RefusedError(self.troubles.pop(0), "trouble was ordered")
        if model not in self.models:
            raise RefusedError("NOT_FOUND", f"Servable not found for request: Latest({model})")
        if version not in (None, self.version, "stable"):
            which = f"Specific({model}, {version})"
            raise RefusedError("NOT_FOUND", f"Servable not found for request: {which}")
        session, signatures = self.models[model]
        if signature not in signatures:
            raise RefusedError("FAILED_PRECONDITION", f'Serving signature key "{signature}" not found.')
        endpoint = signatures[signature]
        arrays = convert({name: tf.as_dtype(one.dtype).as_numpy_dtype for name, one in endpoint.inputs.items()})
        size = max(len(array) for array in arrays.values())
        if size > LARGEST_TASK:
            words = f"Task size {size} is larger than maximum input batch size {LARGEST_TASK}"
            raise RefusedError("INVALID_ARGUMENT", words)
        try:
            feeds = {endpoint.inputs[name].name: array for name, array in arrays.items()}
            return self.spoil(session.run({name: one.name for name, one in endpoint.outputs.items()}, feeds))
        except (tf.errors.OpError, ValueError, TypeError) as cause:
            raise RefusedError("INVALID_ARGUMENT", str(cause)) from None

    def Predict(self, request, context):  # noqa: N802
        spec = request.model_spec
        try:
            arrays = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
            choice = spec.WhichOneof("version_choice")
            version = spec.version.value if choice == "version" else spec.version_label or None
            outputs = self.compute(spec.name, version, spec.signature_name, lambda types: arrays)
        except RefusedError as cause:
            context.abort(getattr(grpc.StatusCode, cause.code), str(cause))
        response = predict_pb2.PredictResponse(model_spec=spec)
        response.model_spec.version.value = self.version
        for name, array in outputs.items():
            _fill_as_values(response.outputs[name], array)
        return response


def _rest_handler(server: LoopbackServer) -> type[BaseHTTPRequestHandler]:
    statuses = {"NOT_FOUND": 404, "INVALID_ARGUMENT": 400, "UNIMPLEMENTED": 501, "UNAVAILABLE": 503}

    def from_json(body: dict, types: dict) -> dict[str, np.ndarray]:
        """TensorFlow Serving reads no uint16 from JSON (`util/json_tensor.cc`)."""
        if np.uint16 in types.values():
            raise RefusedError("UNIMPLEMENTED", "Conversion of JSON Value to type: uint16")
        if "inputs" in body:
            values = body["inputs"]
        else:  # Rows: one list for each input, which only a request with one input may leave unnamed.
            rows = body["instances"]
            named = rows and isinstance(rows[0], dict)
            values = {name: [row[name] for row in rows] if named else rows for name in types}
        if len(types) == 1 and not isinstance(values, dict):
            values = {next(iter(types)): values}
        return {name: np.array(value, types[name]) for name, value in values.items()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            match = re.fullmatch(r"/v1/models/([^/:]+)(/metadata)?", self.path)
            if not match or match[1] not in server.models:
                return self.answer(404, {"error": f"Could not find any versions of model {match and match[1]}"})
            if match[2]:
                return self.answer(200, metadata(server, match[1]))
            status = {"error_code": "OK", "error_message": ""}
            version = {"version": str(server.version), "state": server.state, "status": status}
            return self.answer(200, {"model_version_status": [version]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            path = r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:predict"
            model, number, label = re.fullmatch(path, self.path).groups()
            signature = body.get("signature_name", "serving_default")
            try:
                version = int(number) if number else label
                outputs = server.compute(model, version, signature, lambda types: from_json(body, types))
            except RefusedError as cause:
                return self.answer(statuses.get(cause.code, 500), {"error": str(cause)})
            lists = {
                name: array.astype(str if array.dtype == object else array.dtype).tolist()
                for name, array in outputs.items()
            }
            # A single output comes without its name.
            if "inputs" in body:
                return self.answer(200, {"outputs": lists if len(lists) > 1 else next(iter(lists.values()))})
            rows = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
            return self.answer(200, {"predictions": rows if len(lists) > 1 else next(iter(lists.values()))})

        def answer(self, status: int, content) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *arguments) -> None:
            pass

    return Handler


def metadata(server: LoopbackServer, name: str) -> dict:
    """The answer of /metadata: signatures as JSON of the protocol buffers."""
    signatures = {
        key: MessageToDict(one, preserving_proto_field_name=True) for key, one in server.models[name][1].items()
    }
    kind = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    spec = {"name": name, "signature_name": "", "version": str(server.version)}
    return {
        "model_spec": spec,
        "metadata": {"signature_def": {"@type": kind, "signature_def": signatures}},
    }


def _fill_as_values(tensor, array: np.ndarray) -> None:
    """As TensorFlow Serving fills an answer: values in their own field, not the bytes of memory."""
    proto = tf.make_tensor_proto(array)
    tensor.CopyFrom(proto)
    if array.dtype != object and array.nbytes < 2**25:
        tensor.ClearField("tensor_content")
        field = tensor.float_val if array.dtype == np.float32 else tensor.int_val
        del field[:]
        field.extend(array.ravel().tolist())


class RealServer:
    """A `tensorflow_model_server` on a repository; attributes as of `LoopbackServer`, but it takes no orders."""

    def __init__(self, repository: Path, name: str):
        self.name = name
        ports = [free_port(), free_port()]
        self.grpc, self.rest = f"grpc://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
        arguments = [
            BINARY,
            f"--port={ports[0]}",
            f"--rest_api_port={ports[1]}",
            f"--model_config_file={repository / 'models.config'}",
            "--enable_batching=true",
            f"--batching_parameters_file={repository / 'batching_parameters.txt'}",
            f"--monitoring_config_file={repository / 'monitoring.config'}",
        ]
        self._process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while time.monotonic() < end:
            assert self._process.poll() is None, "the model server has ended"
            try:
                for port in ports:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.5)
        raise AssertionError("the model server does not open its ports")

    def reset(self) -> None:
        pass

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
