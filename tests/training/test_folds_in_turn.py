"""Folds and pre-training of a run, in turn and by several processes: who waits, who is skipped."""

import os
import signal
import threading

import pytest
import tensorflow as tf
from staged_run import BREAST, PROSTATE, SETTINGS, assert_same, result, train
from synthetic_shards import SyntheticShards
from trainers import train_run
from two_convolutions import two_convolutions

from doubleunet_bs.errors import DatasetError
from doubleunet_bs.files import create_file
from doubleunet_bs.runs import locks
from doubleunet_bs.runs.create_run import create_run
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.runs.history import read_history
from doubleunet_bs.runs.locks import FOLDER, LockedError, locked
from doubleunet_bs.runs.run_folder import open_run
from doubleunet_bs.training import run_training
from doubleunet_bs.training.trainer import Interrupted

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def network(monkeypatch):
    monkeypatch.setattr("doubleunet_bs.training.build_network.double_unet", two_convolutions)
    monkeypatch.setattr("doubleunet_bs.training.trainer.draw_progress", lambda *arguments: None)
    # Compiling each of the short trainings takes longer.
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def test_a_patient_in_both_cohorts_leaves_nothing_behind(tmp_path):
    experiment = paper_experiment("dice-otsu-transfer", **SETTINGS)
    with pytest.raises(DatasetError, match="of the same patient as .*: leave one out, or name .* patients.csv if"):
        train_run(tmp_path / "run", experiment, BREAST, 1, SyntheticShards(scans=20))
    assert not (tmp_path / "run").exists()


def test_all_folds_that_are_not_trained_and_that_nobody_works_on(tmp_path, monkeypatch, capsys):
    path = tmp_path / "run"
    train(path, "dice", fold=2, epochs=1)
    before = (path / "fold_02" / "best.weights.h5").stat().st_mtime_ns
    with locked(path, "fold_03"):
        assert [folder.name for folder in train(path, "dice", fold="all", epochs=1)] == ["fold_01"]
        said = capsys.readouterr().out
        assert "fold 2 is trained" in said and "skipping fold 3: locked by " in said
        monkeypatch.setattr(run_training, "TAKEOVER_SECONDS", 0)
        with pytest.raises(LockedError, match="locked by .*fold_03.lock"):
            train(path, "dice", fold=3, epochs=1)
        assert not (path / "fold_03").exists()
    assert [folder.name for folder in train(path, "dice", fold="all", epochs=1)] == ["fold_03"]
    assert open_run(path).trained_folds() == [1, 2, 3]
    assert (path / "fold_02" / "best.weights.h5").stat().st_mtime_ns == before
    assert train(path, "dice", fold="all", epochs=1) == []
    # In whatever order and process a fold is trained, it is the same.
    train(tmp_path / "alone", "dice", fold=3, epochs=1)
    assert_same(result(tmp_path / "alone" / "fold_03"), result(path / "fold_03"))


def test_the_pretraining_is_done_once_and_the_others_wait(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.05)
    path = tmp_path / "run"
    create_run(path, paper_experiment("dice-otsu-transfer", **SETTINGS), BREAST, pretrain=PROSTATE)
    held = locked(path, "pretrain")
    held.__enter__()

    def finish():
        (path / "pretrain").mkdir()
        (path / "pretrain" / "model.keras").touch()
        held.__exit__(None, None, None)

    # Whoever holds the lock finishes it in the meantime.
    timer = threading.Timer(0.5, finish)
    timer.start()
    assert train(path, "dice-otsu-transfer", fold="pretrain") == [path / "pretrain"]
    timer.join()
    assert capsys.readouterr().out.count("waiting: ") == 1
    assert [file.name for file in (path / "pretrain").iterdir()] == ["model.keras"], "it did not train a second time"


def test_the_fold_of_a_holder_that_was_killed_on_another_machine_is_waited_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "LIFETIME_SECONDS", 1.0)
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.05)
    trained = []
    monkeypatch.setattr(
        run_training, "_train_locked_fold", lambda run, dataset, folds, fold, *rest: trained.append(fold)
    )
    path = tmp_path / "run"
    create_run(path, paper_experiment("dice", **SETTINGS), BREAST)
    create_file(path / FOLDER / "fold_02.lock", "node-7, process 12, since then\nother 12\ntoken\n")
    train(path, "dice", fold=2)
    assert trained == [2] and capsys.readouterr().out.count("waiting: locked by node-7") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_waiting(tmp_path, monkeypatch, number):
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.05)
    before = signal.getsignal(number)
    timer = threading.Timer(0.5, os.kill, [os.getpid(), number])
    create_run(tmp_path / "run", paper_experiment("dice-otsu-transfer", **SETTINGS), BREAST, pretrain=PROSTATE)
    with locked(tmp_path / "run", "pretrain"), pytest.raises(Interrupted):
        timer.start()
        train(tmp_path / "run", "dice-otsu-transfer", fold="pretrain")
    timer.join()
    assert signal.getsignal(number) == before and not (tmp_path / "run" / "pretrain").exists()


def test_the_pretraining_alone(tmp_path):
    assert train(tmp_path / "run", fold="pretrain", pretrain_epochs=1) == [tmp_path / "run" / "pretrain"]
    assert len(read_history(tmp_path / "run" / "pretrain" / "history.csv")) == 1
    assert not list((tmp_path / "run").glob("fold_*"))
