"""An interrupted run goes on as if nothing had happened: the same weights, to the bit, and the same history."""

import dataclasses
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from synthetic_shards import SyntheticShards
from trainers import fold_trainer
from two_convolutions import two_convolutions

from doubleunet_bs.errors import RunError
from doubleunet_bs.runs.create_run import create_run
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.runs.history import read_history
from doubleunet_bs.runs.run_folder import STATE
from doubleunet_bs.training.trainer import Interrupted

pytestmark = pytest.mark.slow

SHARDS = SyntheticShards(scans=18)


@pytest.fixture(autouse=True, scope="module")
def network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("doubleunet_bs.training.build_network.double_unet", two_convolutions)
        patch.setattr("doubleunet_bs.training.trainer.draw_progress", lambda *arguments: None)
        yield
        tf.config.run_functions_eagerly(False)


def trainer_in(path, **changes):
    """Compiled steps with the cosine schedule, as in `test_killed`. Compiling all of them takes most of the time."""
    tf.config.run_functions_eagerly(changes.get("schedule") != "cosine")
    settings = {
        "folds": 3,
        "epochs": 4,
        "learning_rate": 1e-2,
        "encoder_weights": "none",
        **({} if changes.get("schedule") == "cosine" else {"plateau_patience": 1}),
        **changes,
    }
    run = create_run(path, paper_experiment("focal-tversky-otsu", **settings), SHARDS)
    return fold_trainer(run, SHARDS, 1)


def interrupt_after(trainer, batches):
    """Send this process a SIGTERM during batch number `batches`."""
    build = trainer._build

    def build_and_count():
        build()
        train, done = trainer.steps.train, []

        def counted(*arguments):
            done.append(None)
            if len(done) == batches:
                os.kill(os.getpid(), signal.SIGTERM)
            return train(*arguments)

        trainer.steps.train = counted

    trainer._build = build_and_count


def count_steps(trainer):
    """The list grows by one with each training step."""
    build, steps = trainer._build, []

    def build_and_count():
        build()
        train = trainer.steps.train

        def counted(*arguments):
            steps.append(None)
            return train(*arguments)

        trainer.steps.train = counted

    trainer._build = build_and_count
    return steps


def all_steps(trainer):
    """Of a whole run; there is one variant of each scan."""
    return trainer.experiment.epochs * -(-len(trainer.train_cases) // trainer.experiment.batch_size)


def result(path):
    model = keras.models.load_model(path / "model.keras")
    rows = [tuple(vars(row).items())[:-1] for row in read_history(path / "history.csv")]
    return rows, [weight.numpy() for weight in model.weights]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, network):
    """Results of whole runs, by schedule."""
    return {
        schedule: result(trainer_in(tmp_path_factory.mktemp(schedule), schedule=schedule).train())
        for schedule in ("plateau", "cosine")
    }


def assert_same(found, expected):
    assert found[0] == expected[0]
    for one, other in zip(found[1], expected[1], strict=True):
        np.testing.assert_array_equal(one, other)


# Within the first epoch, after an epoch's last batch, within a later one.
@pytest.mark.parametrize(("batches", "schedule"), [(1, "plateau"), (2, "plateau"), (5, "cosine")])
def test_resumed_run_is_bit_identical(tmp_path, uninterrupted, batches, schedule, capsys):
    trainer = trainer_in(tmp_path, schedule=schedule)
    interrupt_after(trainer, batches)
    with pytest.raises(Interrupted):
        trainer.train()
    assert (trainer.path / STATE).exists() and not (trainer.path / "model.keras").exists()
    resumed = trainer_in(tmp_path, schedule=schedule)
    steps = count_steps(resumed)
    assert_same(result(resumed.train(resume=True)), uninterrupted[schedule])
    place = {1: "batch 1 of epoch 1", 2: "epoch 1", 5: "batch 1 of epoch 3"}[batches]
    assert f"resumed     after {place}\n" in capsys.readouterr().out
    # From the start again would give the same result: it is what is left that is trained.
    assert len(steps) == all_steps(resumed) - batches
    assert not (trainer.path / STATE).exists()


def test_interrupted_more_than_once(tmp_path, uninterrupted):
    for _ in range(3):
        trainer = trainer_in(tmp_path)
        interrupt_after(trainer, 2)
        with pytest.raises(Interrupted):
            trainer.train(resume=True)
    resumed = trainer_in(tmp_path)
    steps = count_steps(resumed)
    assert_same(result(resumed.train(resume=True)), uninterrupted["plateau"])
    assert len(steps) == all_steps(resumed) - 3 * 2


def test_a_state_of_other_settings_or_folds_is_refused_by_name(tmp_path):
    trainer = trainer_in(tmp_path / "run")
    interrupt_after(trainer, 2)
    with pytest.raises(Interrupted):
        trainer.train()
    other = trainer_in(tmp_path / "run")
    other.replicas = dataclasses.replace(other.replicas, precision="mixed_bfloat16")
    with pytest.raises(RunError, match="precision was float32, is mixed_bfloat16"):
        other.train(resume=True)


def test_without_resume_a_state_is_not_overwritten(tmp_path):
    trainer = trainer_in(tmp_path / "run")
    interrupt_after(trainer, 2)
    with pytest.raises(Interrupted):
        trainer.train()
    before = (trainer.path / STATE).read_bytes()
    with pytest.raises(RunError, match="--resume"):
        trainer_in(tmp_path / "run").train()
    assert (trainer.path / STATE).read_bytes() == before


def test_early_stopping_ends_after_so_many_epochs_without_a_better_f1(tmp_path):
    trainer = trainer_in(tmp_path / "run", epochs=50, early_stopping=2, learning_rate=1e-9)
    rows = read_history(trainer.train() / "history.csv")
    best = max(rows, key=lambda row: (row.val_f1 or 0.0, -row.val_loss)).epoch
    assert len(rows) == best + 2 < 50
