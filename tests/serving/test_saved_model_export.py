"""What is exported runs without this package and says what the live network says."""

import getpass
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from intensity_run import LEVEL, SETTINGS, SHAPE, description, intensity_model

from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.inference.model_description import INTENDED_USE, read_description
from doubleunet_bs.inference.model_folder import find_model, open_fold
from doubleunet_bs.inference.predictor import open_engine
from doubleunet_bs.training.run_folder import open_run


def test_any_number_of_images_of_one_size(trained_run):
    segmenter = open_engine(find_model(trained_run / "fold_01"), "tensorflow", "float32")
    images = np.random.default_rng(1).integers(0, 256, (3, *segmenter.image_shape), dtype=np.uint8)
    for number in (1, 2, 3):
        assert np.array_equal(segmenter(images[:number])[1] == 1, images[:number] > LEVEL)
    with pytest.raises(RunError, match="160 x 128 pixels, not 128 x 160"):
        segmenter(images.transpose(0, 2, 1))


def test_weights_are_in_it_once_for_all_endpoints(exported_network):
    size = sum(file.stat().st_size for file in (exported_network / "variables").iterdir())
    assert 29_299_430 * 4 < size < 1.1 * 29_299_430 * 4


def test_nothing_of_the_machine_is_in_it(exported_network, trained_run):
    secrets = {str(Path(__file__).parents[2]), str(Path.home()), sys.prefix, str(trained_run), "site-packages", ".py"}
    if len(getpass.getuser()) > 3:
        secrets.add(getpass.getuser())
    for folder in (exported_network, trained_run / "fold_01" / "saved_model"):
        for file in folder.rglob("*"):
            # The weights are random bytes, in which three characters occur by chance.
            if file.is_file() and not file.name.startswith("variables.data"):
                content = file.read_bytes()
                assert not [secret for secret in secrets if secret.encode() in content], file


@pytest.mark.parametrize("classes", [1, 3])
def test_mask_and_probability_of_both_networks(classes, tmp_path, tensorflow):
    from doubleunet_bs.serving.export import write_saved_model

    write_saved_model(tmp_path, intensity_model(*SHAPE, classes=classes), description(classes=classes))
    grey = np.arange(256, dtype=np.uint8).repeat(SHAPE[0] * SHAPE[1] // 256).reshape(1, *SHAPE)
    probability, mask = open_engine(find_model(tmp_path), "tensorflow", "float32")(grey)
    assert np.array_equal(mask == 1, grey > LEVEL)
    assert np.array_equal(probability > 0.5, grey > LEVEL)
    assert probability.min() >= 0
    assert probability.max() <= 1


def test_export_of_a_fold(trained_run):
    path = trained_run / "fold_01" / "saved_model"
    content = json.loads((path / "assets.extra" / "model.json").read_text())
    experiment = json.loads((trained_run / "experiment.json").read_text())
    assert read_description(path / "assets.extra" / "model.json").to_json() == content
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
    from doubleunet_bs.serving.export import export_fold

    run = shutil.copytree(trained_run, tmp_path / "run")
    (run / "fold_01" / "saved_model" / "left over").touch()
    path = export_fold(open_run(run), 1)
    assert path == run / "fold_01" / "saved_model"
    assert not (path / "left over").exists()
    assert (path / "saved_model.pb").stat().st_size > 0


def test_a_failed_export_leaves_the_old_one(trained_run, tmp_path, monkeypatch):
    from doubleunet_bs.serving import export

    def fail(folder, model, description):
        (folder / "saved_model.pb").write_bytes(b"half")
        raise OSError("disk full")

    run = shutil.copytree(trained_run, tmp_path / "run")
    before = sorted(file.name for file in (run / "fold_01").iterdir())
    old = (run / "fold_01" / "saved_model" / "saved_model.pb").read_bytes()
    monkeypatch.setattr(export, "write_saved_model", fail)
    with pytest.raises(OSError, match="disk full"):
        export.export_fold(open_run(run), 1)
    assert (run / "fold_01" / "saved_model" / "saved_model.pb").read_bytes() == old
    assert sorted(file.name for file in (run / "fold_01").iterdir()) == before


def test_folds_that_cannot_be_exported(trained_run):
    from doubleunet_bs.serving.export import export_fold

    with pytest.raises(RunError, match="fold_02: not a trained fold"):
        export_fold(open_run(trained_run), 2)
    with pytest.raises(SettingsError, match="counted from 1"):
        export_fold(open_run(trained_run), 0)


def test_path_of_encoder_weights_stays_at_home(trained_run, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run", ignore=shutil.ignore_patterns("saved_model"))
    content = read_json(run / "experiment.json")
    content["experiment"]["encoder_weights"] = "/home/somebody/vgg19.h5"
    write_json(run / "experiment.json", content)
    assert open_fold(open_run(run), 1).describe().experiment["encoder_weights"] == "vgg19.h5"
