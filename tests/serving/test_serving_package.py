"""A repository as TensorFlow Serving reads it."""

import functools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed: pip install -e '.[serving]'")

from google.protobuf import text_format
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from doubleunet_bs.__main__ import main
from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.serving import package
from doubleunet_bs.serving.package import BATCH_SIZES, package_model

NAME = "focal-tversky-otsu-fold-01"
COMPOSE = Path(__file__).parents[2] / "assets" / "serving" / "compose.yaml"


@pytest.fixture(scope="module", autouse=True)
def phantoms_made_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "make_phantom", functools.cache(package.make_phantom))
        yield


@pytest.fixture(scope="module")
def repository(trained_run, tmp_path_factory):
    """The fold twice under its own name, once under another."""
    out = tmp_path_factory.mktemp("served") / "models"
    model = str(trained_run / "fold_01")
    for options in ((), (), ("--name", "bone-metastasis")):
        assert main(["serve-package", model, "--out", str(out), *options]) == 0
    return out


def test_versions_and_files(repository, trained_run):
    files = {str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file()}
    assert {path.split("/")[0] for path in files} == {
        NAME,
        "bone-metastasis",
        "models.config",
        "batching_parameters.txt",
        "monitoring.config",
    }
    source = trained_run / "fold_01" / "saved_model"
    for version in (f"{NAME}/1", f"{NAME}/2", "bone-metastasis/1"):
        for path in source.rglob("*"):
            if path.is_file():
                assert (repository / version / path.relative_to(source)).read_bytes() == path.read_bytes()
        assert f"{version}/assets.extra/tf_serving_warmup_requests" in files
    assert not [path for path in repository.rglob(".*")]


def test_configuration_is_what_the_server_reads(repository):
    config = text_format.Parse((repository / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    found = {(one.name, one.base_path, one.model_platform) for one in config.model_config_list.config}
    assert found == {(name, f"/models/{name}", "tensorflow") for name in (NAME, "bone-metastasis")}
    # The API's wheel lacks the message of the batching parameters (session_bundle_config.proto): by its field names.
    lines = [line for line in (repository / "batching_parameters.txt").read_text().splitlines() if line[:1] != "#"]
    fields = [line.partition(" ")[0].rstrip(":") for line in lines]
    assert set(fields) == {
        "max_batch_size",
        "batch_timeout_micros",
        "max_enqueued_batches",
        "num_batch_threads",
        "allowed_batch_sizes",
    }
    sizes = [int(line.split()[1]) for line in lines if line.startswith("allowed_batch_sizes")]
    # The server refuses parameters whose last allowed size is not the largest batch.
    assert tuple(sizes) == BATCH_SIZES
    assert f"max_batch_size {{ value: {BATCH_SIZES[-1]} }}" in lines


def test_warmup_requests_run(repository, tensorflow):
    """Each is a PredictionLog of an endpoint in the model beside it, and that endpoint segments its phantoms."""
    version = repository / "bone-metastasis" / "1"
    loaded = tensorflow.saved_model.load(str(version))
    seen = []
    for record in tensorflow.data.TFRecordDataset(str(version / "assets.extra" / "tf_serving_warmup_requests")):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        assert request.model_spec.name == "bone-metastasis"
        endpoint = request.model_spec.signature_name
        inputs = {name: tensorflow.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        assert all(tensor.tensor_content for tensor in request.inputs.values())  # Not value by value: that is slow.
        answer = loaded.signatures[endpoint](**{name: tensorflow.constant(array) for name, array in inputs.items()})
        seen.append((endpoint, len(next(iter(inputs.values())))))
        if endpoint == "raw_counts":
            assert not answer["status"].numpy().any()
        if endpoint != "model_description":
            assert answer["mask"].numpy().any(axis=tuple(range(1, answer["mask"].shape.rank))).all()
    assert sorted(seen) == sorted(
        [
            ("model_description", 1),
            *((name, size) for name in ("serving_default", "raw_counts") for size in BATCH_SIZES),
        ]
    )


def test_an_interrupted_version_is_never_seen(trained_run, tmp_path, monkeypatch):
    """A running server takes every numbered folder for a finished version."""
    package_model(trained_run / "fold_01", tmp_path)

    def fail(path, records):
        assert path.parent.is_dir()
        assert [one.name for one in (tmp_path / NAME).iterdir() if one.name.isdecimal()] == ["1"]
        raise OSError("disk full")

    monkeypatch.setattr(package, "_write_records", fail)
    with pytest.raises(OSError, match="disk full"):
        package_model(trained_run / "fold_01", tmp_path)
    assert [one.name for one in (tmp_path / NAME).iterdir()] == ["1"]


def test_older_exports(trained_run, tmp_path):
    """A fold in its run is exported again; an export away from its run cannot be."""
    run = shutil.copytree(trained_run, tmp_path / "run")
    path = run / "fold_01" / "saved_model" / "assets.extra" / "model.json"
    content = read_json(path)
    write_json(path, {name: value for name, value in content.items() if name != "endpoints"})
    alone = shutil.copytree(run / "fold_01" / "saved_model", tmp_path / "alone")
    with pytest.raises(RunError, match="exported by an older version of this package"):
        package_model(alone, tmp_path / "models")
    assert not (tmp_path / "models").exists()
    packaged = package_model(run / "fold_01", tmp_path / "models")
    assert json.loads((packaged.path / "assets.extra" / "model.json").read_text()) == content


def test_wrong_arguments(trained_run, tmp_path):
    with pytest.raises(SettingsError, match="name '../up'"):
        package_model(trained_run / "fold_01", tmp_path, "../up")
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="is a file"):
        package_model(trained_run / "fold_01", tmp_path / "file")
    with pytest.raises(RunError, match="a run, not a fold"):
        package_model(trained_run, tmp_path / "out")
    assert main(["serve-package", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 1
    assert not (tmp_path / "out").exists()


def test_sizes_that_the_compose_file_states():
    """The answer to four scans at full size, in the bytes of the arrays."""
    text = COMPOSE.read_text()
    prepared, raw = 4 * 640 * 512 * (1 + 4), 4 * 2 * 1024 * 256 * (1 + 4)
    for size in (prepared, raw):
        assert size > 4 * 2**20
        assert f"{np.round(size / 1e6, 1)} MB" in text
    for file in ("models.config", "batching_parameters.txt", "monitoring.config"):
        assert f"/models/{file}" in text


def test_both_ways_to_start_a_server_give_it_the_same():
    """The compose file, and the `docker run` line in its head."""
    text = COMPOSE.read_text()
    line = text.partition("#   docker run")[2].partition("#\n")[0]
    composed = re.findall(r"^ +- (--\S+)$", text, re.MULTILINE)
    assert "--model_config_file_poll_wait_seconds=60" in composed
    assert sorted(re.findall(r"--[a-z_]+=\S+", line)) == sorted(composed)


def test_the_extra_is_asked_for(trained_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["serve-package", str(trained_run / "fold_01"), "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'doubleunet-bs[serving]'" in capsys.readouterr().err
