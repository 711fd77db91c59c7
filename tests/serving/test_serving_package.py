"""A repository as TensorFlow Serving reads it."""

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed: pip install -e '.[serving]'")

from google.protobuf import text_format
from intensity_run import SETTINGS, description, export_regions, intensity_model
from model_server import LoopbackServer
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from doubleunet_bs.__main__ import main
from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.inference.saved_model_check import hash_files
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.serving import package
from doubleunet_bs.serving.export import write_saved_model
from doubleunet_bs.serving.package import BATCH_SIZES, package_model

NAME = "focal-tversky-otsu-fold-01"
COMPOSE = Path(package.__file__).parent / "compose.yaml"
DEPLOYMENT = Path(__file__).parents[2] / "assets" / "docs" / "deployment.md"


@pytest.fixture(scope="module")
def repository(trained_run, tmp_path_factory):
    """The fold twice under its own name, once under another."""
    out = tmp_path_factory.mktemp("served") / "models"
    model = str(trained_run / "fold_01")
    for options in ((), ("--force",), ("--name", "bone-metastasis")):
        assert main(["serve-package", model, "--out", str(out), *options]) == 0
    return out


def test_versions_and_files(repository, trained_run):
    files = {str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file()}
    assert {path.split("/")[0] for path in files} == {
        NAME,
        "bone-metastasis",
        "models.config",
        "compose.yaml",
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


@pytest.mark.slow
def test_lesions_and_skeleton_in_one_repository(trained_run, exported_skeleton, tmp_path, capsys):
    lesions, out = str(trained_run / "fold_01"), tmp_path / "both"
    assert main(["serve-package", lesions, str(exported_skeleton), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"--server grpc://HOST:8500 --model {NAME} --skeleton skeleton-fold-01" in printed
    config = text_format.Parse((out / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    assert [one.name for one in config.model_config_list.config] == [NAME, "skeleton-fold-01"]
    for name in (NAME, "skeleton-fold-01"):
        assert (out / name / "1" / "assets.extra" / "tf_serving_warmup_requests").stat().st_size > 10_000
    # Once more nothing is added; one model of a wrong pair keeps the other from being packaged.
    assert main(["serve-package", str(exported_skeleton), lesions, "--out", str(out)]) == 0
    assert capsys.readouterr().out.count("nothing added") == 2
    other = export_regions(tmp_path / "other", dataclasses.replace(SETTINGS, brightness="per_view"))
    for arguments, code, message in (
        ([lesions, lesions], 2, "name one of lesions and one of the skeleton"),
        ([lesions, str(exported_skeleton), "--name", "x"], 2, "--name is for one model"),
        ([lesions, str(other)], 1, "lesions and skeleton are prepared differently (brightness)"),
        ([lesions, str(tmp_path / "none")], 1, "no such model folder"),
    ):
        assert main(["serve-package", *arguments, "--out", str(tmp_path / "no")]) == code
        assert message in capsys.readouterr().err
        assert not (tmp_path / "no").exists()


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
    """Each is a PredictionLog of an endpoint in the model beside it, and that endpoint finds the hot spot in it."""
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
        package_model(trained_run / "fold_01", tmp_path, force=True)
    assert [one.name for one in (tmp_path / NAME).iterdir()] == ["1"]


def add_an_operation(path):
    """One that writes a file, with hashes to match: only the check of the graph sees it."""
    graph = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    graph.meta_graphs[0].graph_def.node.add(name="evil", op="WriteFile")
    (path / "saved_model.pb").write_bytes(graph.SerializeToString())
    description = path / "assets.extra" / "model.json"
    write_json(description, read_json(description) | {"files_sha256": hash_files(path)})


def change_a_weight(path):
    [data] = path.glob("variables/variables.data*")
    data.write_bytes(data.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize(
    ("alter", "message"),
    [(add_an_operation, "operation 'WriteFile' is not one"), (change_a_weight, "damaged, or changed since its export")],
)
def test_a_foreign_or_damaged_model_is_refused(trained_run, tmp_path, alter, message):
    model = shutil.copytree(trained_run / "fold_01" / "saved_model", tmp_path / "model")
    alter(model)
    with pytest.raises(RunError, match=message):
        package_model(model, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_wrong_arguments(trained_run, tmp_path):
    with pytest.raises(SettingsError, match="name '../up'"):
        package_model(trained_run / "fold_01", tmp_path, "../up")
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="--mounted-at models: TensorFlow Serving needs an absolute path, or a URL"):
        package_model(trained_run / "fold_01", tmp_path / "models", mounted_at="models")
    with pytest.raises(SettingsError, match="is a file"):
        package_model(trained_run / "fold_01", tmp_path / "file")
    with pytest.raises(RunError, match="a run, not a fold"):
        package_model(trained_run, tmp_path / "out")
    assert main(["serve-package", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 1
    assert not (tmp_path / "out").exists()


def test_the_same_weights_make_no_new_version(repository, trained_run, tmp_path, capsys):
    out = shutil.copytree(repository, tmp_path / "models")
    arguments = ["serve-package", str(trained_run / "fold_01"), "--out", str(out)]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert main(arguments) == 0
    assert f"nothing added: version 2 of {NAME} already holds these weights" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    # Version 2 is another model: version 1, which is no longer served, does not count.
    path = out / NAME / "2" / "assets.extra" / "model.json"
    write_json(path, read_json(path) | {"weights_sha256": "f" * 64})
    assert main(arguments) == 0
    assert sorted(path.name for path in (out / NAME).iterdir()) == ["1", "2", "3"]


def test_a_model_that_found_nothing_is_packaged_by_force_only(trained_run, tmp_path, capsys):
    run = shutil.copytree(trained_run, tmp_path / "run")
    path = run / "fold_01" / "saved_model" / "assets.extra" / "model.json"
    write_json(path, read_json(path) | {"validation_f1": 0.0})
    arguments = ["serve-package", str(path.parents[1]), "--out", str(tmp_path / "models")]
    assert main(arguments) == 1
    assert not (tmp_path / "models").exists()
    assert "found no metastasis on its own validation scans (fold 1: F1 0.0 %)" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0
    assert "warning  This model found no metastasis" in capsys.readouterr().out


def test_what_a_user_configures_is_kept(repository, trained_run, tmp_path):
    out = shutil.copytree(repository, tmp_path / "models")
    config = text_format.Parse((out / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    [own] = [one for one in config.model_config_list.config if one.name == NAME]
    own.version_labels["stable"], own.version_labels["canary"] = 1, 2
    own.model_version_policy.specific.versions.extend([1, 2])
    config.model_config_list.config.add(name="other", base_path="/elsewhere/other", model_platform="tensorflow")
    (out / "models.config").write_text(text_format.MessageToString(config))
    (out / "compose.yaml").write_text("mine")
    shutil.rmtree(out / "bone-metastasis")
    package_model(trained_run / "fold_01", out, "third")
    config = text_format.Parse((out / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    assert [one.name for one in config.model_config_list.config] == [NAME, "other", "third"]
    assert dict(config.model_config_list.config[0].version_labels) == {"stable": 1, "canary": 2}
    assert list(config.model_config_list.config[0].model_version_policy.specific.versions) == [1, 2]
    assert config.model_config_list.config[1].base_path == "/elsewhere/other"
    assert (out / "compose.yaml").read_text() == "mine"
    (out / "models.config").write_text("model_config_list: 7")
    with pytest.raises(RunError, match="models.config: not a list of models .*: correct or remove it"):
        package_model(trained_run / "fold_01", out, "fourth")


def test_sizes_that_the_documentation_states():
    """The answer to four scans at full size, in the bytes of the arrays."""
    prepared, raw = 4 * 640 * 512 * (1 + 4), 4 * 2 * 1024 * 256 * (1 + 4)
    for size in (prepared, raw):
        assert size > 4 * 2**20
        assert f"{np.round(size / 1e6, 1)} MB" in DEPLOYMENT.read_text()
    for file in ("models.config", "batching_parameters.txt", "monitoring.config"):
        assert f"/models/{file}" in COMPOSE.read_text()


@pytest.mark.slow
def test_the_signatures_and_statuses_that_the_documentation_states(tmp_path, tensorflow):
    """The tables of the page against an export at full size."""
    model = dataclasses.replace(description((640, 512)), preparation=PreparationSettings())
    write_saved_model(tmp_path, intensity_model(640, 512), model)
    loaded = tensorflow.saved_model.load(str(tmp_path))
    found = set()
    for name, function in loaded.signatures.items():
        tensors = [("input", one) for one in function.structured_input_signature[1].items()]
        for kind, (tensor, spec) in tensors + [("output", one) for one in function.structured_outputs.items()]:
            shape = ", ".join("n" if length is None else str(length) for length in spec.shape)
            found.add((name, f"{kind} {tensor}", spec.dtype.name, f"({shape})"))
    text = DEPLOYMENT.read_text().partition("### Signatures")[2].partition("### ")[0]
    rows = [
        [cell.strip().replace("`", "") for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line
    ]
    stated, endpoint = set(), ""
    for row in (row for row in rows if len(row) == 5 and row[1].split(" ")[0] in ("input", "output")):
        endpoint = row[0] or endpoint
        stated.add((endpoint, *row[1:4]))
        assert row[4]
    assert stated == found
    statuses = {row[0]: row[1] for row in rows if len(row) == 3 and row[0].isdecimal()}
    assert statuses == model.to_json()["endpoints"]["raw_counts"]["outputs"]["status"]["values"]


def test_the_health_check_asks_for_every_model(repository, trained_run, tmp_path):
    """The script of the compose file, against the stand-in, which serves one of the two models."""
    service = yaml.safe_load((repository / "compose.yaml").read_text())["services"]["serving"]
    *_, script = service["healthcheck"]["test"]
    server = LoopbackServer(repository / NAME / "1", NAME)
    one = tmp_path / "models" / NAME
    one.mkdir(parents=True)
    script = script.replace("$$", "$").replace("8501", server.rest.rpartition(":")[2])

    def healthy(models):
        return subprocess.run(["bash", "-c", script.replace("/models/*/", f"{models}/*/")], timeout=20).returncode == 0

    try:
        assert healthy(one.parent)
        assert not healthy(repository)
        server.state = "LOADING"
        assert not healthy(one.parent)
    finally:
        server.close()
    assert not healthy(one.parent)
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}


def test_both_ways_to_start_a_server_give_it_the_same():
    """The compose file, and the `docker run` line in its head."""
    text = COMPOSE.read_text()
    line = text.partition("#   docker run")[2].partition("#\n")[0]
    composed = re.findall(r"^ +- (--\S+)$", text, re.MULTILINE)
    assert "--model_config_file_poll_wait_seconds=60" in composed
    image, _, arguments = line.partition("tensorflow/serving:2.21.0")
    assert sorted(re.findall(r"--[a-z_]+=\S+", arguments)) == sorted(composed)
    for limit, option in (('cpus: "${CPUS:-4}"', "--cpus=4"), ("memory: ${MEMORY:-8g}", "--memory=8g")):
        assert limit in text and option in image


def test_the_extra_is_asked_for(trained_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["serve-package", str(trained_run / "fold_01"), "--out", str(tmp_path / "out")]) == 2
    assert 'pip install -e ".[serving]"' in capsys.readouterr().err
