"""A server that stalls, floods or lies costs a deadline and little memory. Frames of HTTP/2 are written by hand."""

import contextlib
import gzip
import socket
import struct
import threading
import time
from concurrent import futures
from pathlib import Path

import pytest

pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed: pip install -e '.[serving]'")

import grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from doubleunet_bs.errors import ServerError
from doubleunet_bs.inference.engine_serving import ServingEngine

DEADLINE = 0.8
SHAPES = ((10**9,), (10**6, 10**6), (), (1, 2**40))
MEMORY = 200 * 2**20
SETTINGS, HEADERS, DATA, PING, CONTINUATION = 4, 1, 0, 6, 9
# ":status: 200" and "content-type: application/grpc" in HPACK.
STATUS = b"\x88\x0f\x10\x10application/grpc"
GZIP = b"\x00\x0dgrpc-encoding\x04gzip"


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def message(length: int, compressed: int = 0) -> bytes:
    return bytes((compressed,)) + struct.pack(">I", length)


def answer(headers: bytes = STATUS) -> bytes:
    return frame(SETTINGS) + frame(SETTINGS, flags=1) + frame(HEADERS, headers, 4, 1)


def silence(connection):
    time.sleep(60)


def stall(connection):
    """In the middle of a message."""
    connection.sendall(answer() + frame(DATA, message(1000) + b"only ten b", stream=1))
    time.sleep(60)


def ping(connection):
    """Asks for echoes without end and reads none of them."""
    connection.sendall(frame(SETTINGS))
    flood = frame(PING, b"12345678") * 1000
    while True:
        connection.sendall(flood)


def huge(connection):
    """A message of 2 GB."""
    connection.sendall(answer() + frame(DATA, message(2**31 - 1), stream=1))
    while True:
        connection.sendall(frame(DATA, bytes(16000), stream=1))


def growing(connection):
    """60 MB of zeros in 60 kB, a hundred times."""
    bomb = gzip.compress(bytes(60 * 2**20), 9)
    connection.sendall(answer(STATUS + GZIP))
    for _ in range(100):
        content = message(len(bomb), 1) + bomb
        for start in range(0, len(content), 16000):
            connection.sendall(frame(DATA, content[start : start + 16000], stream=1))
    time.sleep(60)


def endless_headers(connection):
    connection.sendall(frame(SETTINGS) + frame(HEADERS, STATUS, 0, 1))
    while True:
        connection.sendall(frame(CONTINUATION, b"\x00\x01a\x7f\x80\x7e" + bytes(16000), 0, 1))


@contextlib.contextmanager
def server(behave):
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=once, args=(connection,), daemon=True).start()

    def once(connection):
        with contextlib.suppress(OSError), connection:
            connection.recv(2**16)
            behave(connection)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"grpc://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.close()


def peak() -> int:
    """Most bytes of memory since `forget_peak`."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def forget_peak() -> None:
    """Otherwise a larger test before this one in the process would hide what is used here."""
    Path("/proc/self/clear_refs").write_text("5")


@pytest.mark.parametrize(
    "behave",
    [silence, huge, growing, endless_headers, *(pytest.param(one, marks=pytest.mark.slow) for one in (stall, ping))],
)
def test_deadline_and_memory(behave, record_property):
    forget_peak()
    before, start = peak(), time.monotonic()
    with server(behave) as url, pytest.raises(ServerError) as caught:
        ServingEngine(url, "model", DEADLINE)
    seconds, grown = time.monotonic() - start, peak() - before
    record_property("note", f"{behave.__name__}: {seconds:.1f} s, {grown >> 20} MiB more, {caught.value}")
    assert "\n" not in str(caught.value)
    assert seconds < DEADLINE + 10  # Other processes may keep this one waiting.
    assert grown < MEMORY


@pytest.mark.parametrize(
    ("shape", "text", "message"),
    [
        *((shape, b"{}", r"description is string \(.*\), not string \(1,\)") for shape in SHAPES),
        ((1,), b"[" * 10**6, "the description of model 'model' is not JSON"),
    ],
)
def test_claimed_shapes_and_deep_json(shape, text, message):
    """One value that says it stands for many would be copied into all of them; brackets would exhaust the stack."""

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):  # noqa: N802
            response = predict_pb2.PredictResponse()
            tensor = response.outputs["description"]
            tensor.dtype = 7
            for size in shape:
                tensor.tensor_shape.dim.add(size=size)
            tensor.string_val.append(text)
            return response

    one = grpc.server(futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), one)
    port = one.add_insecure_port("127.0.0.1:0")
    one.start()
    before = peak()
    try:
        with pytest.raises(ServerError, match=message):
            ServingEngine(f"grpc://127.0.0.1:{port}", "model", 20)
    finally:
        one.stop(None)
    assert peak() - before < MEMORY
