"""`doubleunet-bs train` with transfer, mining and all folds, on a network of one convolution."""

import dataclasses
import os
import shutil
import signal

import numpy as np
import pytest
from intensity_run import intensity_model, make_shards

from doubleunet_bs.__main__ import main
from doubleunet_bs.errors import RunError
from doubleunet_bs.evaluation.evaluate import evaluate_run
from doubleunet_bs.evaluation.scorer import EvaluationSettings
from doubleunet_bs.evaluation.tables import summary_text
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.preparation.shards import ShardWriter, open_shards
from doubleunet_bs.runs.run_folder import open_run
from doubleunet_bs.training import devices

pytestmark = pytest.mark.usefixtures("no_export")


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    """Shards of seven cases, and the same counts of seven other people, one pixel changed in each."""
    folder = tmp_path_factory.mktemp("cohorts")
    breast = open_shards(make_shards(folder / "breast"))
    (folder / "prostate").mkdir()
    writer = ShardWriter(folder / "prostate", breast.settings)
    for index, record in enumerate(breast.cases):
        counts = np.array(breast.counts(index))
        counts[0, 0] += 1
        changes = {name: getattr(record, name).replace("00", "ff", 1) for name in ("case", "patient", "pixel_sha256")}
        writer.add(dataclasses.replace(record, **changes), counts, np.array(breast.labels(index)))
    writer.finish()
    return folder / "breast", folder / "prostate"


def run(*arguments):
    return main(["train", *map(str, arguments)])


@pytest.mark.parametrize("option", ["--data", "--pretrain-data"])
def test_shards_that_changed_do_not_train(tmp_path, cohorts, small_network, capsys, option):
    paths = dict(zip(("--data", "--pretrain-data"), cohorts, strict=True))
    paths[option] = shutil.copytree(paths[option], tmp_path / "changed")
    labels = bytearray((tmp_path / "changed" / "labels-00000.npy").read_bytes())
    labels[-1] ^= 1
    (tmp_path / "changed" / "labels-00000.npy").write_bytes(labels)
    arguments = [word for pair in paths.items() for word in pair]
    arguments += ["--run", tmp_path / "run", "--experiment", "dice-otsu-transfer", "--fold", 1, "--folds", 3]
    assert run(*arguments, "--encoder-weights", "none", "--epochs", 1) == 1
    assert "labels-00000.npy: its content has changed" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_training_that_finds_nothing_says_so(tmp_path, cohorts, monkeypatch, capsys):
    run_with = ["--data", cohorts[0], "--experiment", "dice", "--folds", 3, "--epochs", 1, "--encoder-weights", "none"]
    found = {}
    for name, options in (("seeing", {}), ("blind", {"level": 1000})):
        monkeypatch.setattr(
            "doubleunet_bs.training.build_network.double_unet",
            lambda shape, *args, options=options, **kwargs: intensity_model(*shape[:2], **options),
        )
        assert run(*run_with, "--run", tmp_path / name, "--fold", 1) == 0
        found[name] = "fold 1: no epoch found a metastatic pixel" in capsys.readouterr().out
    assert found == {"seeing": False, "blind": True}


@pytest.mark.slow
def test_a_changed_row_with_all_stages(tmp_path, cohorts, small_network, capsys):
    breast, prostate = cohorts
    common = ["--data", breast, "--run", tmp_path / "run", "--experiment", "dice-mining-transfer", "--folds", 3]
    common += ["--epochs", 1, "--encoder-weights", "none"]
    for extra, code, message in (
        (["--fold", "all", "--pretrain-data", breast], 1, "the same shards"),
        (["--fold", 1, "--pretrain-data", prostate, "--set", "epochs=3"], 2, "epochs is set twice"),
        (["--fold", 1, "--pretrain-data", prostate, "--folds-file", tmp_path / "gone.json"], 1, "no such folds file"),
    ):
        assert run(*common, *extra) == code, extra
        assert message in capsys.readouterr().err and not (tmp_path / "run").exists()
    good = [*common, "--pretrain-data", prostate, "--set", "flip=per_view", "--set", "variants_per_epoch=one"]
    assert run(*good, "--fold", "pretrain") == 0
    assert "next:" not in capsys.readouterr().out
    assert run(*good, "--fold", 2) == 0
    said = capsys.readouterr().out
    assert "changed: flip, variants_per_epoch, epochs, encoder_weights, folds, preparation.bin" in said
    assert "each in 2 variants" in said and "mining  " in said and f"done: {tmp_path / 'run' / 'fold_02'}\n" in said
    assert read_json(tmp_path / "run" / "experiment.json")["is_paper_row"] is False
    folder = tmp_path / "run" / "fold_02"
    assert all(stage["done"] for stage in read_json(folder / "stages.json")["stages"])
    assert list((folder / "mined_negatives").glob("case-*.png"))

    # Another division than that of the run; a row without transfer with the other cohort.
    content = read_json(tmp_path / "run" / "folds.json")
    write_json(tmp_path / "own.json", {**content, "parts": content["parts"][::-1]})
    assert run(*good, "--fold", 1, "--folds-file", tmp_path / "own.json") == 1
    assert "has other folds than" in capsys.readouterr().err
    other = ["--data", breast, "--run", tmp_path / "two", "--experiment", "dice", *common[6:]]
    assert run(*other, "--fold", 1, "--pretrain-data", prostate) == 2
    assert "does not pre-train" in capsys.readouterr().err


@pytest.mark.slow
def test_cohorts_with_different_keys_need_a_confirmation(tmp_path, cohorts, small_network, capsys):
    copies = []
    for number, cohort in enumerate(cohorts):
        copies.append(shutil.copytree(cohort, tmp_path / str(number)))
        write_json(copies[-1] / "dataset.json", {**read_json(cohort / "dataset.json"), "key_mark": f"key {number}"})
    path = tmp_path / "run"
    options = ["--data", copies[0], "--run", path, "--experiment", "dice-otsu-transfer", "--folds", 3, "--epochs", 1]
    options += ["--encoder-weights", "none", "--fold", 1, "--pretrain-data", copies[1]]
    assert run(*options) == 1
    assert "prepared with another key" in capsys.readouterr().err and not path.exists()
    assert run(*options, "--assume-disjoint-patients") == 0
    assert "no scan is in both cohorts; patients could not be compared, their keys differ" in capsys.readouterr().out
    content = read_json(path / "experiment.json")
    assert content["pretrain_data"]["patients_compared"] is False
    # It holds for the run: the next fold does not ask again.
    options[options.index("--fold") + 1] = 2
    assert run(*options) == 0
    summary = evaluate_run(path, 1, settings=EvaluationSettings(pictures=False, show_progress=False), report=False)
    sentence = "The shards of the pre-training have pseudonyms of another key"
    assert sentence in summary_text(summary)
    write_json(
        path / "experiment.json", {**content, "pretrain_data": {**content["pretrain_data"], "patients_compared": "no"}}
    )
    with pytest.raises(RunError, match="the data for pre-training is incomplete"):
        open_run(path)


def test_one_image_at_a_time_is_warned_of(tmp_path, cohorts, monkeypatch, capsys):
    """Before the training, which is left out."""
    monkeypatch.setattr("doubleunet_bs.training.run_training.train_fold", lambda run, *others: run.fold_path(1))
    common = ["--data", cohorts[0], "--experiment", "dice", "--folds", 3, "--epochs", 1, "--encoder-weights", "none"]
    said = []
    for options in (
        ["--batch-size", 1],
        ["--batch-size", 2, "--accumulate", 2],
        ["--batch-size", 4, "--accumulate", 2],
    ):
        assert run(*common, "--run", tmp_path / str(len(said)), "--fold", 1, *options) == 0
        printed = capsys.readouterr().out
        assert "devices     " in printed
        said.append("warning     one image at a time" in printed)
    assert said == [True, True, False]


def test_a_signal_before_the_training_is_heard(tmp_path, cohorts, small_network, monkeypatch, capsys):
    """While the devices are opened. Nothing is trained after it."""
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    open_devices = devices.open_devices

    def signalled(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return open_devices(*arguments)

    monkeypatch.setattr(devices, "open_devices", signalled)
    options = ["--data", cohorts[0], "--run", tmp_path / "run", "--experiment", "dice", "--folds", 3, "--fold", "all"]
    assert run(*options, "--encoder-weights", "none", "--epochs", 1) == 130
    # Nothing has begun: the run holds all settings, and the command would start it.
    assert f"continue with `doubleunet-bs train --run {tmp_path / 'run'} --fold all`" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("fold_*"))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers


def test_pretraining_alone_needs_an_experiment_with_transfer(tmp_path, cohorts, capsys):
    options = ["--data", cohorts[0], "--run", tmp_path / "run", "--experiment", "dice", "--fold", "pretrain"]
    assert run(*options) == 2
    assert "dice does not pre-train" in capsys.readouterr().err and not (tmp_path / "run").exists()
