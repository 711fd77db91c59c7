"""The rows of the paper as settings."""

import dataclasses

import pytest

from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.training.experiments import (
    PAPER_EXPERIMENTS,
    Experiment,
    paper_experiment,
)


@pytest.mark.parametrize(
    ("name", "classes", "loss", "negatives"),
    [
        ("baseline", 1, "dice", "none"),
        ("dice", 3, "dice", "none"),
        ("dice-otsu", 3, "dice", "otsu"),
        ("focal-tversky", 3, "focal-tversky", "none"),
        ("focal-tversky-otsu", 3, "focal-tversky", "otsu"),
    ],
)
def test_rows(name, classes, loss, negatives):
    row = paper_experiment(name)
    assert (row.classes, row.loss, row.negatives) == (classes, loss, negatives)
    # What the paper states for all of them (sections 2.8, 2.10 and 3.1), and Keras' and the original code's defaults.
    assert (row.learning_rate, row.batch_size, row.epochs, row.folds) == (1e-4, 4, 500, 10)
    assert (row.alpha, row.beta, row.gamma) == (0.3, 0.7, 0.75)
    assert (row.schedule, row.plateau_factor, row.plateau_patience, row.early_stopping) == ("plateau", 0.1, 20, 0)
    assert (row.encoder_weights, row.bn_momentum) == ("imagenet", 0.99)
    assert row.is_paper_row and not row.changed_settings()


def test_a_changed_row_says_so():
    changed = paper_experiment("dice", epochs=3, seed=7)
    assert not changed.is_paper_row and changed.changed_settings() == {"epochs": 3, "seed": 7}
    assert PAPER_EXPERIMENTS["dice"].epochs == 500


def test_an_own_experiment_is_no_paper_row():
    own = Experiment("mine", loss="focal-tversky")
    assert not own.is_paper_row and own.changed_settings() == dataclasses.asdict(own)


def test_unknown_name():
    with pytest.raises(SettingsError, match="no experiment 'dize'; there are baseline, dice"):
        paper_experiment("dize")


@pytest.mark.parametrize(
    "change",
    [
        {"classes": 2},
        {"loss": "cross-entropy"},
        {"negatives": "some"},
        {"head_bias": "ones"},
        {"batch_size": 0},
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"plateau_factor": 0.0},
        {"plateau_patience": 0},
        {"schedule": "steps"},
        {"early_stopping": -1},
        {"bn_momentum": 1.0},
        {"folds": 2},
        {"seed": -1},
        {"seed": 2**32},
        {"folds": 100},
        {"loss_classes": ()},
        {"loss_classes": (3,)},
    ],
)
def test_impossible_settings(change):
    with pytest.raises(SettingsError):
        paper_experiment("dice", **change)


def test_json_round_trip():
    import json

    row = paper_experiment("focal-tversky-otsu", loss_classes=(2,))
    assert Experiment.from_json(json.loads(json.dumps(row.to_json())), "x") == row


@pytest.mark.parametrize("content", [{}, {"name": "dice"}, {"name": "d", "loss_classes": [1], "colour": 1}])
def test_other_json_is_refused(content):
    with pytest.raises(RunError, match="run.json: not the settings of an experiment"):
        Experiment.from_json(content, "run.json")
