"""A loopback server that speaks TensorFlow Serving's protocols and computes with the SavedModel it is given.

gRPC: the service and messages of `tensorflow-serving-api`. REST: the predict API. Errors carry the codes and the words of
TensorFlow Serving (`servables/tensorflow/predict_util.cc`, `model_servers/http_rest_api_handler.cc`). With TENSORFLOW_MODEL_SERVER
set to a `tensorflow_model_server` binary that one is started instead, on a repository made by `serve-package`.
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

import numpy as np

LARGEST_TASK = 4
"""`max_batch_size` of the batching parameters that `serve-package` writes."""
BINARY = os.environ.get("TENSORFLOW_MODEL_SERVER")


class Refused(Exception):
    """`code` is the name of a gRPC status code."""

    def __init__(self, code: str, words: str):
        super().__init__(words)
        self.code = code


class LoopbackServer:
    """One model under one name, in versions of which a request without a version gets the newest.

    Attributes:
        name: of the model.
        versions: number -> (session, signatures) of those that can be asked.
        grpc, rest: URLs for `--server`.
        troubles: names of status codes with which the next requests are answered, for instance ["UNAVAILABLE"].
        requests: (protocol, endpoint) of every request that has come in.
        delay: seconds before every answer.
        names_version: whether answers over gRPC say which version they are of, as TensorFlow Serving's do.
    """

    names_version = True

    def __init__(self, saved_model: Path, name: str):
        self.name, self.troubles, self.requests, self.delay = name, [], [], 0.0
        self.versions: dict[int, tuple] = {}
        self.load(1, saved_model)
        self._start_grpc()
        self._start_rest()

    def load(self, version: int, saved_model: Path) -> None:
        """Add a version, as a running server does when a folder of that number appears."""
        import tensorflow as tf

        # A session, as in TensorFlow Serving: it holds what is fed against the shape of the signature.
        graph = tf.Graph()
        session = tf.compat.v1.Session(graph=graph)
        with graph.as_default():
            meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(saved_model))
        self.versions[version] = (session, dict(meta.signature_def))

    def close(self) -> None:
        self._grpc_server.stop(None)
        self._rest_server.shutdown()
        self._rest_server.server_close()

    def predict(
        self, protocol: str, model: str, version: int | None, signature: str, convert
    ) -> tuple[int, dict[str, np.ndarray]]:
        """The part both protocols share; `convert` turns the request's inputs into arrays, given the signature's types.

        Also returns the version that has answered.
        """
        import tensorflow as tf

        self.requests.append((protocol, signature))
        time.sleep(self.delay)
        if self.troubles:
            raise Refused(self.troubles.pop(0), "trouble was ordered")
        asked = f"Latest({model})" if version is None else f"Specific({model}, {version})"
        version = max(self.versions) if version is None else version
        if model != self.name or version not in self.versions:
            raise Refused("NOT_FOUND", f"Servable not found for request: {asked}")
        session, signatures = self.versions[version]
        if signature not in signatures:
            if protocol == "rest":
                raise Refused("INVALID_ARGUMENT", f'Serving signature name: "{signature}" not found in signature def')
            raise Refused("FAILED_PRECONDITION", f'Serving signature key "{signature}" not found.')
        endpoint = signatures[signature]
        arrays = convert({name: tf.as_dtype(one.dtype).as_numpy_dtype for name, one in endpoint.inputs.items()})
        if set(arrays) != set(endpoint.inputs):
            raise Refused("INVALID_ARGUMENT", "input size does not match signature")
        size = max(len(array) for array in arrays.values())
        if size > LARGEST_TASK:
            # `batching_util/shared_batch_scheduler.h`
            raise Refused(
                "INVALID_ARGUMENT", f"Task size {size} is larger than maximum input batch size {LARGEST_TASK}"
            )
        fetches = {name: one.name for name, one in endpoint.outputs.items()}
        try:
            feeds = {endpoint.inputs[name].name: array for name, array in arrays.items()}
            return version, session.run(fetches, feeds)
        except (tf.errors.OpError, ValueError, TypeError) as cause:
            raise Refused("INVALID_ARGUMENT", str(cause)) from None

    def _start_grpc(self) -> None:
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

        outer = self

        class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
            def Predict(self, request, context):
                spec = request.model_spec
                try:
                    version, outputs = outer.predict(
                        "grpc",
                        spec.name,
                        spec.version.value if spec.HasField("version") else None,
                        spec.signature_name,
                        lambda types: {name: tf.make_ndarray(one) for name, one in request.inputs.items()},
                    )
                except Refused as cause:
                    context.abort(getattr(grpc.StatusCode, cause.code), str(cause))
                response = predict_pb2.PredictResponse()
                response.model_spec.CopyFrom(spec)
                if outer.names_version:
                    response.model_spec.version.value = version
                for name, array in outputs.items():
                    fill_as_values(response.outputs[name], array)
                return response

        # As TensorFlow Serving: messages of up to 2 GB come in, what goes out has no limit.
        options = (("grpc.max_receive_message_length", 2**31 - 1), ("grpc.max_send_message_length", -1))
        self._grpc_server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), self._grpc_server)
        self.grpc = f"grpc://127.0.0.1:{self._grpc_server.add_insecure_port('127.0.0.1:0')}"
        self._grpc_server.start()

    def _start_rest(self) -> None:
        outer = self
        statuses = {"NOT_FOUND": 404, "INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 412, "UNAVAILABLE": 503}

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                try:
                    found = re.fullmatch(r"/v1/models/([^/:]+)(?:/versions/(\d+))?:predict", self.path)
                    if not found:
                        raise Refused("INVALID_ARGUMENT", f"Malformed request: POST {self.path}")
                    version = None if found[2] is None else int(found[2])
                    _, outputs = outer.predict(
                        "rest", found[1], version, body["signature_name"], lambda types: from_json(body, types)
                    )
                except Refused as cause:
                    return self.answer(statuses.get(cause.code, 500), {"error": str(cause)})
                lists = {
                    name: [one.decode() for one in array] if array.dtype == object else array.tolist()
                    for name, array in outputs.items()
                }
                # One output comes without its name.
                return self.answer(200, {"outputs": lists if len(lists) > 1 else next(iter(lists.values()))})

            def do_GET(self):
                if self.path != f"/v1/models/{outer.name}":
                    return self.answer(404, {"error": f"Could not find any versions of model {self.path[11:]}"})
                # An older version stays in the list after it has gone; numbers are text.
                states = {str(max(outer.versions) + 1): "LOADING", "0": "END"}
                states |= {str(version): "AVAILABLE" for version in sorted(outer.versions)}
                fine = {"error_code": "OK", "error_message": ""}
                status = [{"version": one, "state": state, "status": fine} for one, state in states.items()]
                return self.answer(200, {"model_version_status": status})

            def answer(self, status: int, content) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments) -> None:
                pass

        self._rest_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.rest = f"http://127.0.0.1:{self._rest_server.server_address[1]}"
        threading.Thread(target=self._rest_server.serve_forever, daemon=True).start()


def from_json(body: dict, types: dict) -> dict[str, np.ndarray]:
    """Columnar inputs of the REST API. TensorFlow Serving converts no uint16 (`util/json_tensor.cc`)."""
    for name, kind in types.items():
        if kind == np.uint16:
            raise Refused("UNIMPLEMENTED", f"Conversion of JSON Value of {name} to type: uint16")
    return {name: np.array(value, types.get(name)) for name, value in body["inputs"].items()}


def fill_as_values(tensor, array: np.ndarray) -> None:
    """As TensorFlow Serving fills an answer: values in their own field, not the bytes of memory."""
    import tensorflow as tf

    tensor.dtype = tf.as_dtype(tf.string if array.dtype == object else array.dtype).as_datatype_enum
    for length in array.shape:
        tensor.tensor_shape.dim.add(size=length)
    if array.dtype == object:
        tensor.string_val.extend(array.ravel())
    elif array.dtype == np.float32:
        tensor.float_val.extend(array.ravel())
    else:
        tensor.int_val.extend(array.ravel().tolist())


class RealServer:
    """A `tensorflow_model_server` on a repository; attributes as of `LoopbackServer`, but it takes no orders."""

    def __init__(self, repository: Path, name: str):
        self.name = name
        ports = [_free_port(), _free_port()]
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

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
