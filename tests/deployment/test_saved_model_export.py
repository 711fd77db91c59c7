"""What is exported runs without this package and says what the live network says."""

import getpass
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from intensity_run import LEVEL, SETTINGS, intensity_model, write_fold
from synthetic_shards import SyntheticShards

from doubleunet_bs.deployment.model_description import (
    INTENDED_USE,
    ModelDescription,
    read_description,
)
from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.network.inputs import network_input
from doubleunet_bs.training.run_folder import open_run

SHAPE = (32, 48)

# Every way in, in a process where this package cannot be imported. Written for sys.argv: model, images, answers.
STRANGER = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "doubleunet_bs":
            raise ImportError("this package is not here")

sys.meta_path.insert(0, Blocked())
import keras
import numpy as np
import tensorflow as tf

model, images, answers = sys.argv[1:]
images = np.load(images)
loaded = tf.saved_model.load(model)
endpoint = loaded.signatures["serving_default"]
(names,) = [list(endpoint.structured_input_signature[1])]
assert names == ["image"], names
answer = {"load": endpoint(image=tf.constant(images))}
answer["keras"] = keras.layers.TFSMLayer(model, call_endpoint="serving_default")(images)
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], model)
    signature = meta.signature_def["serving_default"]
    fetches = {name: tensor.name for name, tensor in signature.outputs.items()}
    answer["session"] = session.run(fetches, {signature.inputs["image"].name: images})
assert "doubleunet_bs" not in sys.modules
np.savez(answers, **{f"{way}/{name}": np.asarray(value) for way, part in answer.items() for name, value in
part.items()})
"""


def description(shape=SHAPE, classes=3) -> ModelDescription:
    return ModelDescription(
        experiment={"name": "dice", "classes": classes},
        fold=1,
        preparation=SETTINGS,
        image_shape=shape,
        data_fingerprint="data",
        weights_sha256="0" * 64,
        best_epoch=7,
        validation_f1=0.5,
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tensorflow):
    """The export of a fold with the real network, images, and the live network's probabilities and masks of them."""
    import keras

    from doubleunet_bs.deployment.saved_model import export_fold
    from doubleunet_bs.evaluation.predictions import Segmenter
    from doubleunet_bs.network import double_unet
    from doubleunet_bs.training.experiments import paper_experiment
    from doubleunet_bs.training.run_folder import create_run

    dataset = SyntheticShards(scans=12)
    dataset.path = "in-memory"
    keras.utils.set_random_seed(0)
    model = double_unet((32, 32, 3))
    live = Segmenter.from_model(model)
    # Untrained, the network may never call a pixel metastatic: shift that bias so that it does in about half of them.
    probability = model.predict(network_input(dataset._grey[:4]), verbose=0)["output2"]
    margin = np.log(probability[..., 2]) - np.log(probability[..., :2].max(axis=-1))
    bias = model.get_layer("output2_logits").bias
    bias.assign(bias + np.array([0, 0, -np.median(margin)], np.float32))
    path = tmp_path_factory.mktemp("real") / "run"
    run = create_run(path, paper_experiment("dice-otsu", folds=3, encoder_weights="none"), dataset, dataset.path, 1)
    write_fold(run, dataset, 1, model)
    export_fold(run, 1)
    return run.fold_path(1) / "saved_model", dataset._grey[:3], *live(dataset._grey[:3])


@pytest.mark.slow
def test_a_stranger_gets_the_same_masks(exported, tmp_path):
    path, images, probability, mask = exported
    assert 0.1 < mask.mean() < 0.9
    np.save(tmp_path / "images.npy", images)
    arguments = [path, tmp_path / "images.npy", tmp_path / "answers.npz"]
    done = subprocess.run([sys.executable, "-c", STRANGER, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answers = np.load(tmp_path / "answers.npz")
    for way in ("load", "keras", "session"):
        assert answers[f"{way}/mask"].dtype == np.uint8
        assert answers[f"{way}/metastatic_probability"].dtype == np.float32
        assert np.array_equal(answers[f"{way}/mask"], mask), way
        assert np.allclose(answers[f"{way}/metastatic_probability"], probability, rtol=0, atol=1e-5), way


def test_any_number_of_images_of_one_size(trained_run):
    from doubleunet_bs.evaluation.predictions import Segmenter

    segmenter = Segmenter.from_saved_model(trained_run / "fold_01" / "saved_model")
    images = np.random.default_rng(1).integers(0, 256, (3, *segmenter.image_shape), dtype=np.uint8)
    for number in (1, 2, 3):
        assert np.array_equal(segmenter(images[:number])[1] == 1, images[:number] > LEVEL)
    with pytest.raises(RunError, match="160 x 128 pixels, not 128 x 160"):
        segmenter(images.transpose(0, 2, 1))


def test_weights_are_in_it_once(exported):
    path, *_ = exported
    assert 29_299_430 * 4 < sum(file.stat().st_size for file in (path / "variables").iterdir()) < 1.1 * 29_299_430 * 4


def test_nothing_of_the_machine_is_in_it(exported, trained_run):
    secrets = {str(Path(__file__).parents[2]), str(Path.home()), sys.prefix, str(trained_run), "site-packages", ".py"}
    if len(getpass.getuser()) > 3:
        secrets.add(getpass.getuser())
    for folder in (exported[0], trained_run / "fold_01" / "saved_model"):
        for file in folder.rglob("*"):
            # The weights are random bytes, in which three characters occur by chance.
            if file.is_file() and not file.name.startswith("variables.data"):
                content = file.read_bytes()
                assert not [secret for secret in secrets if secret.encode() in content], file


@pytest.mark.parametrize("classes", [1, 3])
def test_mask_and_probability_of_both_networks(classes, tmp_path, tensorflow):
    from doubleunet_bs.deployment.saved_model import write_saved_model
    from doubleunet_bs.evaluation.predictions import Segmenter

    write_saved_model(tmp_path, intensity_model(*SHAPE, classes=classes), description(classes=classes))
    grey = np.arange(256, dtype=np.uint8).repeat(SHAPE[0] * SHAPE[1] // 256).reshape(1, *SHAPE)
    probability, mask = Segmenter.from_saved_model(tmp_path)(grey)
    assert np.array_equal(mask == 1, grey > LEVEL)
    assert np.array_equal(probability > 0.5, grey > LEVEL)
    assert probability.min() >= 0
    assert probability.max() <= 1


def test_export_of_a_fold(trained_run):
    path = trained_run / "fold_01" / "saved_model"
    content = json.loads((path / "assets.extra" / "model.json").read_text())
    experiment = json.loads((trained_run / "experiment.json").read_text())
    assert content["intended_use"] == INTENDED_USE
    assert "not a medical device" in INTENDED_USE
    assert content["experiment"] == experiment["experiment"]
    assert content["preparation"] == experiment["data"]["preparation"] == SETTINGS.to_json()
    assert content["data_fingerprint"] == experiment["data"]["fingerprint"]
    assert (content["image_shape"], content["fold"]) == ([160, 128], 1)
    assert (content["best_epoch"], content["validation_f1"]) == (3, 0.6)
    assert content["class_names"] == ["air", "non-metastatic", "metastatic"]
    from doubleunet_bs.preparation.shards import file_sha256

    assert content["weights_sha256"] == file_sha256(trained_run / "fold_01" / "best.weights.h5")
    assert [file.name for file in trained_run.joinpath("fold_01").glob(".*")] == []


def test_a_second_export_replaces_the_first(trained_run, tmp_path):
    from doubleunet_bs.deployment.saved_model import export_fold

    run = shutil.copytree(trained_run, tmp_path / "run")
    (run / "fold_01" / "saved_model" / "left over").touch()
    path = export_fold(open_run(run), 1)
    assert path == run / "fold_01" / "saved_model"
    assert not (path / "left over").exists()
    assert (path / "saved_model.pb").stat().st_size > 0


def test_a_failed_export_leaves_the_old_one(trained_run, tmp_path, monkeypatch):
    from doubleunet_bs.deployment import saved_model

    def fail(folder, model, description):
        (folder / "saved_model.pb").write_bytes(b"half")
        raise OSError("disk full")

    run = shutil.copytree(trained_run, tmp_path / "run")
    before = sorted(file.name for file in (run / "fold_01").iterdir())
    old = (run / "fold_01" / "saved_model" / "saved_model.pb").read_bytes()
    monkeypatch.setattr(saved_model, "write_saved_model", fail)
    with pytest.raises(OSError, match="disk full"):
        saved_model.export_fold(open_run(run), 1)
    assert (run / "fold_01" / "saved_model" / "saved_model.pb").read_bytes() == old
    assert sorted(file.name for file in (run / "fold_01").iterdir()) == before


def test_folds_that_cannot_be_exported(trained_run):
    from doubleunet_bs.deployment.saved_model import export_fold

    with pytest.raises(RunError, match="fold_02: not a trained fold"):
        export_fold(open_run(trained_run), 2)
    with pytest.raises(SettingsError, match="counted from 1"):
        export_fold(open_run(trained_run), 0)


def test_path_of_encoder_weights_stays_at_home(trained_run, tmp_path):
    from doubleunet_bs.deployment.model_description import describe_fold
    from doubleunet_bs.evaluation.trained_fold import open_fold

    run = shutil.copytree(trained_run, tmp_path / "run", ignore=shutil.ignore_patterns("saved_model"))
    content = read_json(run / "experiment.json")
    content["experiment"]["encoder_weights"] = "/home/somebody/vgg19.h5"
    write_json(run / "experiment.json", content)
    assert describe_fold(open_fold(open_run(run), 1)).experiment["encoder_weights"] == "vgg19.h5"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2 of package version 0.1.0; this is version .* reads format 1"),
        ({"preparation": {"bin": 3}}, "damaged"),
        ({"fold": "one"}, "fold is impossible"),
        ({"image_shape": [0, 16]}, "image_shape is impossible"),
        ({"weights_sha256": "abc"}, "weights_sha256 is impossible"),
        ({"experiment": {}}, "experiment is impossible"),
        ({"validation_f1": 7}, "validation_f1 is impossible"),
    ],
)
def test_descriptions_that_are_refused(trained_run, tmp_path, change, message):
    source = trained_run / "fold_01" / "saved_model" / "assets.extra" / "model.json"
    assert read_description(source).to_json() == read_json(source)
    write_json(tmp_path / "model.json", {**read_json(source), **change})
    with pytest.raises(RunError, match=message):
        read_description(tmp_path / "model.json")
    for key in change:
        write_json(tmp_path / "model.json", {name: value for name, value in read_json(source).items() if name != key})
        with pytest.raises(RunError, match="model.json"):
            read_description(tmp_path / "model.json")
