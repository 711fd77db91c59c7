"""A model behind a server that speaks TensorFlow Serving's protocols: gRPC by `predict`, REST by hand."""

import json
import shutil
import socket
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed: pip install -e '.[serving]'")

from model_server import BINARY, LoopbackServer, RealServer

from doubleunet_bs.__main__ import main
from doubleunet_bs.errors import RunError, ServerError, SettingsError
from doubleunet_bs.inference import Predictor, engine_serving
from doubleunet_bs.inference.engine_serving import TRIES
from doubleunet_bs.serving.package import package_model

NAME = "focal-tversky-otsu-fold-01"
ordered = pytest.mark.skipif(BINARY is not None, reason="a real server takes no orders to fail")


@pytest.fixture(scope="module")
def started(trained_run, tmp_path_factory):
    """The stand-in; the real one where TENSORFLOW_MODEL_SERVER names it."""
    repository = tmp_path_factory.mktemp("repository")
    package = package_model(trained_run / "fold_01", repository, mounted_at=str(repository))
    assert package.name == NAME
    server = RealServer(repository, NAME) if BINARY else LoopbackServer(package.path, NAME)
    yield server
    server.close()


@pytest.fixture
def server(started):
    started.reset()
    return started


@pytest.fixture
def soon(monkeypatch):
    """Tries follow each other after a tenth of the usual time."""
    options = dict(engine_serving._OPTIONS)
    options["grpc.service_config"] = options["grpc.service_config"].replace('"0.25s"', '"0.025s"')
    monkeypatch.setattr(engine_serving, "_OPTIONS", tuple(options.items()))


@pytest.fixture
def predictor(server):
    return Predictor(NAME, engine="serving", server=server.grpc, deadline=20)


def test_same_masks_as_here(server, trained_run, scan, record_property):
    record_property("note", f"model server: {BINARY or 'a stand-in; TENSORFLOW_MODEL_SERVER names no binary'}")
    expected = Predictor(trained_run / "fold_01", precision="float32").predict(scan)
    for model in (trained_run / "fold_01", NAME):
        predictor = Predictor(model, engine="serving", server=server.grpc)
        assert predictor.description == expected.model
        assert predictor.engine == f"serving, model {NAME} at {server.grpc}"
        found = predictor.predict(scan)
        for view in ("anterior", "posterior"):
            assert np.array_equal(found.masks[view], expected.masks[view])
            assert np.allclose(found.probabilities[view], expected.probabilities[view], rtol=0, atol=1e-5)


@pytest.mark.slow
@ordered
def test_predict_asks_one_server_for_lesions_and_skeleton(
    served_skeleton, trained_run, exported_skeleton, phantoms, tmp_path, capsys
):
    """By the models' names and by their folders; the index is that of the engine here."""
    scan, results = str(phantoms / "phantom_0001.dcm"), []
    server = ["--engine", "serving", "--server", served_skeleton.grpc]
    folders = ["--model", str(trained_run / "fold_01"), "--skeleton", str(exported_skeleton)]
    for name, options in (
        ("here", ["--engine", "tensorflow", "--precision", "float32", *folders]),
        ("names", ["--model", NAME, "--skeleton", "skeleton-fold-01", *server]),
        ("folders", [*folders, *server]),
    ):
        arguments = ["--out", str(tmp_path / name), "--outputs", "none", *options]
        assert main(["predict", scan, *arguments]) == 0, capsys.readouterr().err
        [path] = (tmp_path / name).glob("case-*/result.json")
        results.append(json.loads(path.read_text())["bone_scan_index"])
    assert results[0]["value"] > 0 and results[0] == results[1] == results[2]
    # One name for both: neither kind of model passes for the other.
    for names, message in (
        ([NAME, NAME], f"{NAME}: a model of lesions: give one of the skeleton"),
        (["skeleton-fold-01"] * 2, "skeleton-fold-01: a model of the skeleton: give one of lesions"),
        ([NAME, "bones"], "no model 'bones' is ready"),
    ):
        words = ["predict", scan, "--out", str(tmp_path / "no"), "--model", names[0], "--skeleton", names[1], *server]
        assert main(words) == 1 and message in capsys.readouterr().err
    dry = ["predict", scan, "--out", str(tmp_path / "no"), *folders[:2], "--skeleton", "skeleton-fold-01", *server]
    assert main([*dry, "--dry-run"]) == 2
    assert "skeleton-fold-01: a dry run asks no server: name the folder" in capsys.readouterr().err


def test_more_images_than_one_request_takes(predictor):
    images = np.random.default_rng(0).integers(0, 256, (6, 160, 128), dtype=np.uint8)
    probability, mask = predictor._segmenter(images)
    assert np.array_equal(mask == 1, images > 150)
    assert np.array_equal(probability > 0.5, images > 150)
    with pytest.raises(ServerError, match="serving_default failed .*Task size 6 is larger than maximum .* 4"):
        predictor._segmenter._ask("serving_default", {"image": images}, {})


@pytest.mark.slow
def test_raw_counts(predictor, trained_run, scan):
    """Four scans: more than gRPC's default message size, both ways."""
    counts = np.stack([np.stack([scan.anterior, scan.posterior])] * 4)
    outputs = {
        "mask": (np.uint8, counts.shape),
        "metastatic_probability": (np.float32, counts.shape),
        "gains": (np.float32, (4, 2)),
        "body": (np.int32, (4, 2, 4)),
        "status": (np.uint8, (4,)),
    }
    answer = predictor._segmenter._ask("raw_counts", {"counts": counts}, outputs)
    assert counts.nbytes >= 4 * 2**20
    assert sum(array.nbytes for array in answer.values()) > 2 * 4 * 2**20
    expected = Predictor(trained_run / "fold_01", precision="float32").predict(scan)
    assert answer["status"].tolist() == [0] * 4
    for place in range(4):
        for index, view in enumerate(("anterior", "posterior")):
            assert np.array_equal(answer["mask"][place, index], expected.masks[view])
        assert tuple(answer["gains"][place].tolist()) == expected.prepared.gains


@ordered
def test_unavailable_is_tried_again_and_nothing_else(soon, server, predictor):
    """Also with a request larger than gRPC keeps for another try by default, 256 KiB."""
    images = np.zeros((4, 160, 128), np.uint8)
    server.requests.clear()
    server.troubles = ["UNAVAILABLE", "UNAVAILABLE"]
    assert not predictor._segmenter(images)[1].any()
    assert len(server.requests) == 3
    server.reset()
    server.troubles = ["UNAVAILABLE"]
    counts = np.zeros((2, 2, 1024, 256), np.uint16)
    assert counts.nbytes > 2**18
    predictor._segmenter._ask("raw_counts", {"counts": counts}, {"status": (np.uint8, (2,))})
    assert len(server.requests) == 2
    for trouble, words in (
        ("INTERNAL", "serving_default failed with INTERNAL (trouble was ordered)"),
        ("NOT_FOUND", f"no model '{NAME}' is ready (trouble was ordered): check --model"),
        ("RESOURCE_EXHAUSTED", "serving_default failed with RESOURCE_EXHAUSTED (trouble was ordered)"),
    ):
        server.reset()
        server.troubles = [trouble]
        with pytest.raises(ServerError) as caught:
            predictor._segmenter(images)
        assert str(caught.value) == f"{server.grpc}: {words}"
        assert len(server.requests) == 1
    server.reset()
    server.troubles = ["UNAVAILABLE"] * TRIES
    with pytest.raises(ServerError, match="not available .*check the address"):
        predictor._segmenter(images)
    assert len(server.requests) == TRIES


@ordered
def test_deadline(server):
    server.delay = 0.6
    start = time.monotonic()
    with pytest.raises(ServerError, match=r"no answer within 0\.3 s: .*give a longer --deadline"):
        Predictor(NAME, engine="serving", server=server.grpc, deadline=0.3)
    assert len(server.requests) <= 1
    assert time.monotonic() - start < 10  # Other processes may keep this one waiting.


@ordered
def test_another_version_during_the_run(server, predictor):
    image = np.zeros((1, 160, 128), np.uint8)
    predictor._segmenter(image)
    server.version = 2
    try:
        with pytest.raises(ServerError, match=rf"model '{NAME}' changed from version 1 to 2: start again"):
            predictor._segmenter(image)
        Predictor(NAME, engine="serving", server=server.grpc)._segmenter(image)
    finally:
        server.version = 1


def test_no_server_at_the_address(soon):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    with pytest.raises(ServerError, match="not available .*check the address and that the server runs") as caught:
        Predictor(NAME, engine="serving", server=f"grpc://127.0.0.1:{port}", deadline=5)
    assert "\n" not in str(caught.value)


def test_a_version_or_a_label_of_a_model(server, scan):
    """The stand-in has version 1 with the label "stable"."""
    names = [f"{NAME}@1"] + ([] if BINARY else [f"{NAME}@stable"])
    for name in names:
        assert Predictor(name, engine="serving", server=server.grpc).predict(scan).engine.startswith("serving, model")
    for version in ("2", "canary"):
        with pytest.raises(ServerError, match=f"no model '{NAME}@{version}' is ready"):
            Predictor(f"{NAME}@{version}", engine="serving", server=server.grpc)


@ordered
def test_the_rest_port(server):
    with pytest.raises(ServerError, match="check the (address|port)"):
        Predictor(NAME, engine="serving", server=server.rest.replace("http:", "grpc:"), deadline=1)


def test_wrong_model_wrong_endpoint_wrong_shape(server, predictor):
    with pytest.raises(ServerError, match="no model 'nobody' is ready"):
        Predictor("nobody", engine="serving", server=server.grpc)
    ask, query = predictor._segmenter._ask, {"query": np.zeros(1, np.uint8)}
    with pytest.raises(ServerError, match="has no endpoint older: package it again"):
        ask("older", query, {})
    with pytest.raises(ServerError, match="serving_default failed with INVALID_ARGUMENT"):
        ask("serving_default", {"image": np.zeros((1, 16, 16), np.uint8)}, {})
    with pytest.raises(ServerError, match=r"mask is missing, not uint8 \(1,\)"):
        ask("model_description", query, {"mask": (np.uint8, (1,))})
    with pytest.raises(ServerError, match=r"mask is uint8 \(1, 160, 128\), not uint8 \(2, 160, 128\)"):
        ask("serving_default", {"image": np.zeros((1, 160, 128), np.uint8)}, {"mask": (np.uint8, (2, 160, 128))})


def test_another_model_under_the_name(server, trained_run, tmp_path):
    """The folder named with --model was trained further than what is served."""
    run = shutil.copytree(trained_run, tmp_path / "run")
    with open(run / "fold_01" / "best.weights.h5", "ab") as file:
        file.write(b"further")
    with pytest.raises(ServerError, match="has other weights than --model"):
        Predictor(run / "fold_01", engine="serving", server=server.grpc)


def test_a_description_of_another_format(server, monkeypatch):
    monkeypatch.setattr("doubleunet_bs.inference.model_description.FORMAT", 7)
    with pytest.raises(RunError, match="reads format 7"):
        Predictor(NAME, engine="serving", server=server.grpc)


@ordered
@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("metastatic_probability", lambda values: values * np.float32("nan"), "is not everywhere between 0 and 1"),
        ("metastatic_probability", lambda values: values + np.float32(3), "is not everywhere between 0 and 1"),
        ("metastatic_probability", lambda values: values - np.float32(2), "is not everywhere between 0 and 1"),
        ("mask", lambda values: values * np.uint8(2), "has other values than 0 and 1"),
        ("mask", lambda values: values.astype(np.int32), r"is int32 \(1, 160, 128\), not uint8"),
    ],
    ids=["nan", "above", "below", "2", "int32"],
)
def test_values_that_cannot_be_are_refused(server, predictor, name, spoil, message):
    server.spoil = lambda answer: answer | {name: spoil(answer[name])}
    with pytest.raises(ServerError, match=f"{name} {message}"):
        predictor._segmenter(np.full((1, 160, 128), 200, np.uint8))


@ordered
def test_an_answer_that_is_too_large_is_refused(server, predictor):
    server.spoil = lambda answer: answer | {"more": np.zeros(70 * 2**20, np.uint8)}
    with pytest.raises(ServerError, match="an answer of more than 64 MiB is refused: check the model"):
        predictor._segmenter(np.zeros((1, 160, 128), np.uint8))


@pytest.mark.slow
def test_command(server, phantoms, tmp_path, capsys):
    arguments = ["predict", str(phantoms), "--model", NAME, "--out", str(tmp_path / "out"), "--engine", "serving"]
    assert main([*arguments, "--server", server.grpc]) == 0
    printed = capsys.readouterr()
    assert f"serving, model {NAME} at {server.grpc}" in printed.out
    assert "2 of 2 scans segmented" in printed.out
    results = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/result.json")]
    assert {result["engine"] for result in results} == {f"serving, model {NAME} at {server.grpc}"}
    assert main([*arguments[:-2]]) == 1
    assert "no such model folder" in capsys.readouterr().err
    if not BINARY:
        server.spoil = lambda answer: answer | {"mask": answer.get("mask", np.zeros(1, np.uint8)) + np.uint8(2)}
        failed = [*arguments[:5], str(tmp_path / "failed"), *arguments[6:]]
        assert main([*failed, "--server", server.grpc, "--outputs", "masks,report"]) == 1
        printed = capsys.readouterr()
        assert "0 of 2 scans segmented" in printed.out
        assert printed.err.count(f"{server.grpc}: mask has other values than 0 and 1") == 2
        assert not list(tmp_path.glob("failed/*"))


@pytest.mark.parametrize(
    "url", ["host:8500", "http://host:8501", "grpc://host", "grpc://host:8500/models", "grpc://:1", "grpc://h:x"]
)
def test_servers_that_are_none(url):
    with pytest.raises(SettingsError, match="give it as grpc://HOST:PORT"):
        Predictor(NAME, engine="serving", server=url)


def test_arguments_that_belong_together(trained_run, monkeypatch):
    fold, url = trained_run / "fold_01", "grpc://host:8500"
    for settings, message in (
        ({"engine": "serving"}, "give both or neither"),
        ({"server": url}, "give both or neither"),
        # What would be ignored is refused.
        ({"engine": "serving", "server": url, "precision": "float32"}, "float32: the server chooses its own"),
        ({"deadline": 60}, "only for --engine serving"),
        ({"engine": "serving", "server": url, "deadline": 0}, "deadline of 0 s"),
    ):
        with pytest.raises(SettingsError, match=message):
            Predictor(fold, **settings)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r'pip install -e "\.\[serving\]"'):
        Predictor(NAME, engine="serving", server=url)


def rest(server, path, content=None):
    body = None if content is None else json.dumps(content).encode()
    with urllib.request.urlopen(f"{server.rest}/v1/models/{path}", body, timeout=60) as answer:
        return json.load(answer)


def test_rest_by_hand(server, scan, predictor):
    """Both forms of TensorFlow Serving's REST API; `raw_counts` is refused, as the documentation says."""
    grey = predictor.prepare(scan).grey
    columns = rest(
        server, f"{NAME}:predict", {"signature_name": "serving_default", "inputs": {"image": [grey.tolist()]}}
    )
    rows = rest(server, f"{NAME}/versions/1:predict", {"instances": [grey.tolist()] * 2})
    named = rest(server, f"{NAME}:predict", {"instances": [{"image": grey.tolist()}]})
    for mask in (
        columns["outputs"]["mask"][0],
        *(row["mask"] for row in rows["predictions"]),
        named["predictions"][0]["mask"],
    ):
        assert np.array_equal(np.array(mask) == 1, grey > 150)
    counts = np.stack([scan.anterior, scan.posterior])[None]
    with pytest.raises(urllib.error.HTTPError) as caught:
        rest(server, f"{NAME}:predict", {"signature_name": "raw_counts", "inputs": {"counts": counts.tolist()}})
    assert "uint16" in caught.value.read().decode()


def test_rest_status_and_metadata(server):
    [version] = rest(server, NAME)["model_version_status"]
    assert (version["version"], version["state"], version["status"]["error_code"]) == ("1", "AVAILABLE", "OK")
    content = rest(server, f"{NAME}/metadata")["metadata"]["signature_def"]["signature_def"]
    assert content["raw_counts"]["inputs"]["counts"]["dtype"] == "DT_UINT16"
    shape = content["serving_default"]["outputs"]["mask"]["tensor_shape"]["dim"]
    assert [int(dimension["size"]) for dimension in shape] == [-1, 160, 128]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        rest(server, "nobody")
