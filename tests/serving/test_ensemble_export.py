"""Several folds as one model: the mean of their probabilities, by hand and by every way in."""

import shutil

import numpy as np
import pytest
from intensity_run import intensity_model, make_run, make_shards, write_fold

from doubleunet_bs.__main__ import main
from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.inference import Predictor
from doubleunet_bs.inference.model_description import describe_saved_model
from doubleunet_bs.inference.model_folder import find_model
from doubleunet_bs.preparation import prepare_scan
from doubleunet_bs.preparation.shards import open_shards
from doubleunet_bs.runs.run_folder import open_run

LEVELS = {1: 120, 2: 150, 3: 190}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory, tensorflow):
    """A run of three folds whose models see grey levels above 120, 150 and 190."""
    folder = tmp_path_factory.mktemp("ensemble")
    shards = make_shards(folder / "shards")
    path = make_run(folder / "run", shards, folds=())
    opened, dataset = open_run(path), open_shards(shards)
    for fold, level in LEVELS.items():
        write_fold(opened, dataset, fold, intensity_model(*dataset.image_shape, level=level))
    return path


@pytest.fixture(scope="module")
def ensemble(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "ensemble"
    assert main(["ensemble", str(run), "--out", str(out)]) == 0
    return out


def test_it_is_the_mean_by_hand(run, ensemble, scan, tensorflow):
    import keras

    predictor = Predictor(ensemble, engine="tensorflow", precision="float32")
    prediction = predictor.predict(scan)
    prepared = prepare_scan(scan, settings=predictor.description.preparation)
    image = np.repeat(prepared.grey[None, ..., None] / np.float32(255), 3, axis=-1)
    members = [keras.models.load_model(run / f"fold_0{fold}" / "model.keras") for fold in LEVELS]
    mean = np.mean([np.asarray(member(image)["output2"]) for member in members], axis=0)[0]
    mask = (mean.argmax(axis=-1) == 2).astype(np.uint8)
    # Two of three decide.
    assert np.array_equal(mask == 1, prepared.grey > LEVELS[2])
    assert mask.any()
    for view, expected in prepared.map_back(mask).items():
        assert np.array_equal(prediction.masks[view], expected)
    for view, expected in prepared.map_back(mean[..., 2]).items():
        assert np.allclose(prediction.probabilities[view], expected, rtol=0, atol=1e-6)
    loaded = tensorflow.saved_model.load(str(ensemble))
    raw = loaded.signatures["raw_counts"](counts=np.stack([scan.anterior, scan.posterior])[None])
    for index, view in enumerate(("anterior", "posterior")):
        assert np.array_equal(raw["mask"].numpy()[0, index], prediction.masks[view])


def test_its_description_names_its_members(run, ensemble):
    description = describe_saved_model(ensemble)
    assert description.name == "focal-tversky-otsu (changed settings), ensemble of folds 1, 2, 3"
    assert description.served_name == "focal-tversky-otsu-folds-01-02-03"
    assert (description.fold, description.best_epoch, description.validation_f1) == (None, None, None)
    assert [(one.fold, one.best_epoch, one.validation_f1) for one in description.members] == [
        (1, 3, 0.6),
        (2, 3, 0.6),
        (3, 3, 0.6),
    ]
    assert len({one.weights_sha256 for one in description.members} | {description.weights_sha256}) == 4


def test_some_folds_and_a_second_time(run, tmp_path, capsys):
    out = tmp_path / "pair"
    for folds in ("3,1", "2,3"):
        assert main(["ensemble", str(run), "--out", str(out), "--folds", folds]) == 0
    printed = capsys.readouterr().out
    assert "ensemble of folds 1, 3" in printed
    assert "Only for scans outside of the cross-validation" in printed
    assert [one.fold for one in Predictor(out).description.members] == [2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["pair"]


def test_a_fold_that_found_nothing_is_taken_by_force_only(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    history = copy / "fold_02" / "history.csv"
    history.write_text(history.read_text().replace(",0.6,0.6,0.6,", ",0.0,0.0,0.0,"))
    arguments = ["ensemble", str(copy), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert not (tmp_path / "out").exists()
    message = (
        "found no metastasis on its own validation scans (fold 2: F1 0.0 %): leave the fold out with --folds, or use"
    )
    assert message in capsys.readouterr().err
    assert main([*arguments, "--folds", "1,3"]) == 0
    assert "warning" not in capsys.readouterr().out
    assert main([*arguments, "--force"]) == 0
    assert "warning This model found no metastasis" in capsys.readouterr().out
    assert "(fold 2: F1 0.0 %)" in find_model(tmp_path / "out").description.quality_warning


def test_what_is_refused(run, ensemble, tmp_path, capsys, monkeypatch):
    from doubleunet_bs.serving.export import export_ensemble

    opened, out = open_run(run), tmp_path / "out"
    for folds in ([1], [1, 1], []):
        with pytest.raises(SettingsError, match="two different trained folds or more"):
            export_ensemble(opened, out, folds)
    with pytest.raises(RunError, match="fold_07: not a trained fold"):
        export_ensemble(opened, out, [1, 7])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").touch()
    with pytest.raises(SettingsError, match="is not an exported model"):
        export_ensemble(opened, tmp_path / "mine")
    copy = shutil.copytree(run, tmp_path / "run")
    environment = copy / "fold_02" / "environment.json"
    write_json(environment, read_json(environment) | {"folds_sha256": "0" * 64})
    with pytest.raises(RunError, match="different splits of the scans"):
        export_ensemble(open_run(copy), out)
    assert not out.exists()
    # At once, before TensorFlow is imported.
    monkeypatch.setattr("doubleunet_bs.tensorflow_setup.import_tensorflow", lambda: pytest.fail("imported"))
    assert main(["ensemble", str(run), "--out", str(out), "--folds", "1"]) == 2
    with pytest.raises(SystemExit) as stopped:
        main(["ensemble", str(run), "--out", str(out), "--folds", "one"])
    assert stopped.value.code == 2
    with pytest.raises(SystemExit):
        main(["ensemble", "--help"])
    assert "outside of the cross-validation" in capsys.readouterr().out
