"""A model behind a server that speaks TensorFlow Serving's protocols, asked by the clients of this package."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed: pip install -e '.[test]'")

from model_server import BINARY, LoopbackServer, RealServer, fill_as_values

from doubleunet_bs.__main__ import main
from doubleunet_bs.errors import RunError, ServerError, SettingsError
from doubleunet_bs.inference import Predictor
from doubleunet_bs.inference.serving_client import TRIES, Output, open_client
from doubleunet_bs.serving.package import package_model

NAME = "focal-tversky-otsu-fold-01"
PROTOCOLS = ("grpc", "rest")
ordered = pytest.mark.skipif(BINARY is not None, reason="a real server takes no orders to fail")


@pytest.fixture(scope="module")
def server(trained_run, tmp_path_factory):
    """The stand-in; the real one where TENSORFLOW_MODEL_SERVER names it."""
    repository = tmp_path_factory.mktemp("repository")
    package = package_model(trained_run / "fold_01", repository, mounted_at=str(repository))
    assert package.name == NAME
    server = RealServer(repository, NAME) if BINARY else LoopbackServer(package.path, NAME)
    yield server
    server.close()


@pytest.fixture(autouse=True)
def fast_pauses(monkeypatch):
    monkeypatch.setattr("doubleunet_bs.inference.serving_client.FIRST_PAUSE", 0.01)


@pytest.fixture(params=PROTOCOLS)
def url(request, server):
    if not BINARY:
        server.troubles, server.delay = [], 0.0
        server.requests.clear()
    return getattr(server, request.param)


def test_same_masks_as_here(url, trained_run, scan, record_property):
    record_property("note", f"model server: {BINARY or 'a stand-in; TENSORFLOW_MODEL_SERVER names no binary'}")
    expected = Predictor(trained_run / "fold_01", precision="float32").predict(scan)
    for model in (trained_run / "fold_01", NAME):
        predictor = Predictor(model, engine="serving", server=url)
        assert predictor.description == expected.model
        assert predictor.engine == f"serving, model {NAME} at {url}"
        found = predictor.predict(scan)
        for view in ("anterior", "posterior"):
            assert np.array_equal(found.masks[view], expected.masks[view])
            assert np.allclose(found.probabilities[view], expected.probabilities[view], rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def other_model(tmp_path_factory, tensorflow):
    """The SavedModel of a fold that calls grey levels above 60 metastatic, not 150."""
    from intensity_run import make_run, make_shards

    from doubleunet_bs.serving.export import export_fold
    from doubleunet_bs.training.run_folder import open_run

    folder = tmp_path_factory.mktemp("other")
    run = make_run(folder / "run", make_shards(folder / "shards"), folds=(1,), level=60)
    return export_fold(open_run(run), 1)


@ordered
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_run_stays_with_the_version_whose_description_it_has(trained_run, other_model, scan, protocol):
    server = LoopbackServer(trained_run / "fold_01" / "saved_model", NAME)
    try:
        for model in (trained_run / "fold_01", NAME):
            predictor = Predictor(model, engine="serving", server=getattr(server, protocol))
            before = predictor.predict(scan)
            server.load(2, other_model)
            after = predictor.predict(scan)
            assert after.lesion_pixels == before.lesion_pixels
            assert after.model == before.model
            # Whoever begins now gets the new version, its name and its results.
            newest = Predictor(NAME, engine="serving", server=getattr(server, protocol)).predict(scan)
            assert newest.model.weights_sha256 != before.model.weights_sha256
            assert sum(newest.lesion_pixels.values()) > sum(before.lesion_pixels.values())
            with pytest.raises(ServerError, match="has other weights than the one named with --model"):
                Predictor(trained_run / "fold_01", engine="serving", server=getattr(server, protocol))
            first = server.versions.pop(1)
            with pytest.raises(ServerError, match=f"has no version 1 of its model '{NAME}' any more, .*start again"):
                predictor.predict(scan)
            server.versions = {1: first}
    finally:
        server.close()


@ordered
def test_a_server_that_names_no_version_is_not_believed(server, monkeypatch):
    monkeypatch.setattr(server, "names_version", False)
    with pytest.raises(ServerError, match="does not say which version of its model"):
        Predictor(NAME, engine="serving", server=server.grpc)


def test_more_scans_than_one_request_takes(url):
    predictor = Predictor(NAME, engine="serving", server=url)
    images = np.random.default_rng(0).integers(0, 256, (6, 160, 128), dtype=np.uint8)
    image, outputs = {"image": images}, {"mask": Output("uint8", images.shape)}
    with pytest.raises(ServerError, match=r"refuses .*Task size 6 is larger than maximum input batch size 4"):
        open_client(url, NAME, 20).call("serving_default", image, outputs)
    probability, mask = predictor._segmenter(images)
    assert np.array_equal(mask == 1, images > 150)
    assert np.array_equal(probability > 0.5, images > 150)


def test_raw_counts_over_grpc(server, trained_run, scan):
    """Four scans: more than gRPC's default message size, both ways."""
    counts = np.stack([np.stack([scan.anterior, scan.posterior])] * 4)
    shape = counts.shape
    outputs = {
        "mask": Output("uint8", shape),
        "metastatic_probability": Output("float32", shape),
        "gains": Output("float32", (4, 2)),
        "body": Output("int32", (4, 2, 4)),
        "status": Output("uint8", (4,)),
    }
    answer = open_client(server.grpc, NAME, 60).call("raw_counts", {"counts": counts}, outputs)
    assert counts.nbytes >= 4 * 2**20
    assert sum(array.nbytes for array in answer.values()) > 2 * 4 * 2**20
    expected = Predictor(trained_run / "fold_01", precision="float32").predict(scan)
    assert answer["status"].tolist() == [0] * 4
    for place in range(4):
        for index, view in enumerate(("anterior", "posterior")):
            assert np.array_equal(answer["mask"][place, index], expected.masks[view])
        assert tuple(answer["gains"][place].tolist()) == expected.gains


@ordered
def test_unavailable_is_tried_again_and_nothing_else(server, url):
    query, outputs = {"query": np.zeros(1, np.uint8)}, {"description": Output("string", (1,))}
    client = open_client(url, NAME, 20)
    server.troubles = ["UNAVAILABLE", "UNAVAILABLE"]
    assert json.loads(client.call("model_description", query, outputs)["description"][0])["fold"] == 1
    assert len(server.requests) == 3
    rest = url.startswith("http")
    for trouble, words in (
        ("INTERNAL", "fails with HTTP 500" if rest else "fails with INTERNAL"),
        ("NOT_FOUND", f"has no model '{NAME}' ready"),
        ("FAILED_PRECONDITION", "refuses the request to model_description"),
        ("RESOURCE_EXHAUSTED", "fails with HTTP 500" if rest else "fails with RESOURCE_EXHAUSTED"),
    ):
        server.requests.clear()
        server.troubles = [trouble]
        with pytest.raises(ServerError) as caught:
            client.call("model_description", query, outputs)
        assert str(caught.value) == f"{url}: {words} (trouble was ordered)"
        assert len(server.requests) == 1
    server.requests.clear()
    server.troubles = ["UNAVAILABLE"] * TRIES
    with pytest.raises(ServerError, match=f"not available after {TRIES} tries"):
        client.call("model_description", query, outputs)
    assert len(server.requests) == TRIES


@ordered
def test_deadline(server, url):
    server.delay = 0.6
    start = time.monotonic()
    with pytest.raises(ServerError, match=r"no answer within 0\.3 s; give a longer deadline"):
        Predictor(NAME, engine="serving", server=url, deadline=0.3)
    assert time.monotonic() - start < 2
    assert len(server.requests) <= 1


@contextlib.contextmanager
def answering(*pieces: bytes, pause: float = 0.0):
    """The URL of a server that answers every request with these bytes and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with contextlib.suppress(OSError), connection, connection.makefile("rb") as request:
                    # To the end: hanging up on unread bytes would be a reset.
                    head = list(iter(request.readline, b"\r\n"))
                    request.read(sum(int(line.split()[1]) for line in head if line.startswith(b"Content-Length")))
                    for piece in pieces:
                        connection.sendall(piece)
                        time.sleep(pause)

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        (HEAD + b"\r\n", *[b" " * 700] * 100),
        (HEAD, *[b"X-Drip: 1\r\n"] * 90),
        (HEAD + b"Connection: close\r\n", *[b"X-Drip: 1\r\n"] * 90),
        tuple(bytes([one]) for one in b"HTTP/1.1 200 " + b"O" * 90),
    ],
    ids=["body", "headers", "headers-and-close", "status-line"],
)
def test_a_deadline_holds_for_a_server_that_drips(pieces):
    """Bytes that keep coming, but slower than the deadline: no single wait is long."""
    with answering(*pieces, pause=0.05) as url:
        start = time.monotonic()
        with pytest.raises(ServerError, match=r"no answer within 0\.5 s; give a longer deadline"):
            Predictor(NAME, engine="serving", server=url, deadline=0.5)
        assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    "answer",
    [HEAD + b'\r\n{"outputs"', b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n{"outputs"'],
    ids=["length", "chunks"],
)
def test_an_answer_that_is_cut_off_is_asked_for_again(answer):
    message = rf"not available after {TRIES} tries \(the answer was cut off\)"
    with answering(answer) as url, pytest.raises(ServerError, match=message):
        Predictor(NAME, engine="serving", server=url, deadline=20)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_nobody_there(scheme):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    with pytest.raises(ServerError, match=f"not available after {TRIES} tries.*is the server running") as caught:
        Predictor(NAME, engine="serving", server=f"{scheme}://127.0.0.1:{port}")
    assert "\n" not in str(caught.value)


def test_wrong_model_wrong_endpoint_wrong_shape(server, url):
    with pytest.raises(ServerError, match="has no model 'nobody' ready"):
        Predictor("nobody", engine="serving", server=url)
    client = open_client(url, NAME, 20)
    query, outputs = {"query": np.zeros(1, np.uint8)}, {"description": Output("string", (1,))}
    with pytest.raises(
        ServerError, match="has no endpoint older: not a model of this package, or exported by an older"
    ):
        client.call("older", query, outputs)
    image = {"image": np.zeros((1, 16, 16), np.uint8)}
    with pytest.raises(ServerError, match="refuses the request to serving_default"):
        client.call("serving_default", image, {"mask": Output("uint8", (1, 16, 16))})
    with pytest.raises(ServerError, match="its answer has no mask"):
        client.call("model_description", query, {"mask": Output("uint8", (1,)), "description": Output("string", (1,))})
    with pytest.raises(ServerError, match="its mask has .*shape"):
        image = {"image": np.zeros((1, 160, 128), np.uint8)}
        client.call(
            "serving_default",
            image,
            {"mask": Output("uint8", (2, 160, 128))} | {"metastatic_probability": Output("float32", (1, 160, 128))},
        )


def test_another_model_under_the_name(server, url, trained_run, tmp_path):
    """The folder named with --model has been trained further than what is served."""
    import shutil

    run = shutil.copytree(trained_run, tmp_path / "run")
    with open(run / "fold_01" / "best.weights.h5", "ab") as file:
        file.write(b"further")
    with pytest.raises(ServerError, match="has other weights than the one named with --model"):
        Predictor(run / "fold_01", engine="serving", server=url)


@ordered
def test_the_other_port(server):
    """gRPC sent to the REST port and the other way round."""
    with pytest.raises(ServerError, match=r"does not speak HTTP \(BadStatusLine\)"):
        Predictor(NAME, engine="serving", server=server.grpc.replace("grpc:", "http:"), deadline=3)
    with pytest.raises(ServerError, match=r"not available after \d+ tries .*is this its address"):
        Predictor(NAME, engine="serving", server=server.rest.replace("http:", "grpc:"), deadline=3)


def test_raw_counts_cannot_be_asked_over_rest(server, scan):
    """As the compose file says: TensorFlow Serving reads no 16-bit numbers from JSON."""
    counts = np.stack([scan.anterior, scan.posterior])[None]
    with pytest.raises(ServerError, match=r"\(Conversion of JSON Value of .*uint16"):
        open_client(server.rest, NAME, 60).call("raw_counts", {"counts": counts}, {"status": Output("uint8", (1,))})


@pytest.mark.parametrize(
    "url", ["host:8500", "ftp://host:1", "grpc://host", "grpc://host:8500/models", "http://:1", "grpc://h:x"]
)
def test_servers_that_are_none(url):
    with pytest.raises(SettingsError, match="it must be grpc://HOST:PORT or http://HOST:PORT"):
        Predictor(NAME, engine="serving", server=url)


def test_arguments_that_belong_together(trained_run):
    with pytest.raises(SettingsError, match="give both or neither"):
        Predictor(trained_run / "fold_01", engine="serving")
    with pytest.raises(SettingsError, match="give both or neither"):
        Predictor(trained_run / "fold_01", server="grpc://host:8500")
    # What would be ignored is refused.
    with pytest.raises(SettingsError, match="precision float32: the engine serving computes in the server's own"):
        Predictor(NAME, engine="serving", server="grpc://host:8500", precision="float32")
    with pytest.raises(SettingsError, match="a deadline is for the answers of a server"):
        Predictor(trained_run / "fold_01", deadline=60)
    with pytest.raises(SettingsError, match="deadline of 0 s"):
        Predictor(NAME, engine="serving", server="grpc://host:8500", deadline=0)


def test_a_description_of_another_format(server, url, monkeypatch):
    monkeypatch.setattr("doubleunet_bs.inference.model_description.FORMAT", 7)
    with pytest.raises(RunError, match="reads format 7"):
        Predictor(NAME, engine="serving", server=url)


def test_command(url, phantoms, tmp_path, capsys):
    arguments = ["predict", str(phantoms), "--model", NAME, "--out", str(tmp_path / "out"), "--engine", "serving"]
    assert main([*arguments, "--server", url]) == 0
    printed = capsys.readouterr()
    assert f"serving, model {NAME} at {url}" in printed.out
    assert "2 of 2 scans segmented" in printed.out
    results = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/result.json")]
    assert {result["engine"] for result in results} == {f"serving, model {NAME} at {url}"}
    assert main([*arguments, "--server", "grpc://nowhere"]) == 2
    assert main([*arguments[:-2]]) == 1
    assert "no such model folder" in capsys.readouterr().err


@ordered
@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("metastatic_probability", lambda values: values * np.float32("nan"), "is not everywhere between 0 and 1"),
        ("metastatic_probability", lambda values: values + np.float32(3), "is not everywhere between 0 and 1"),
        ("metastatic_probability", lambda values: values - np.float32(2), "is not everywhere between 0 and 1"),
        ("mask", lambda values: values * np.uint8(2), "has other values than 0 and 1"),
        ("mask", lambda values: values.astype(np.int32) + 256, "has values that are not uint8"),
    ],
    ids=["nan", "above", "below", "2", "256"],
)
def test_values_that_cannot_be_are_refused(server, url, phantoms, tmp_path, monkeypatch, capsys, name, spoil, message):
    real, fill = server.predict, fill_as_values

    def spoilt(*request):
        version, outputs = real(*request)
        return version, outputs | ({name: spoil(outputs[name])} if name in outputs else {})

    def as_announced(tensor, array):
        fill(tensor, array)
        if array.dtype == np.int32:
            tensor.dtype = 4  # uint8, in whose field larger numbers fit.

    monkeypatch.setattr(server, "predict", spoilt)
    monkeypatch.setattr("model_server.fill_as_values", as_announced)
    arguments = ["predict", str(phantoms), "--model", NAME, "--out", str(tmp_path / "out"), "--engine", "serving"]
    assert main([*arguments, "--server", url, "--outputs", "masks,report"]) == 1
    printed = capsys.readouterr()
    assert "0 of 2 scans segmented" in printed.out
    assert printed.err.count(f"{url}: its {name} {message}") == 2
    assert not list(tmp_path.glob("out/*"))


# For sys.argv: name of the model, server. Asks the server, and says what was imported.
ALONE = """
import sys
import numpy as np
from doubleunet_bs.inference import Predictor

predictor = Predictor(sys.argv[1], engine="serving", server=sys.argv[2])
predictor._segmenter(np.zeros((1, *predictor.description.image_shape), np.uint8))
assert not {"tensorflow", "keras", "tensorflow_serving"} & set(sys.modules)
"""


def test_the_client_needs_no_tensorflow(url):
    done = subprocess.run([sys.executable, "-c", ALONE, NAME, url], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
