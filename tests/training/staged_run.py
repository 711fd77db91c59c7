"""Short trainings of all stages on synthetic shards, for tests."""

import keras
import numpy as np
from synthetic_shards import SyntheticShards
from trainers import train_run

from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.runs.history import read_history

BREAST = SyntheticShards(scans=18)
PROSTATE = SyntheticShards(scans=12, seed=1, patient="other")
# With the term of the lesions alone this network soon calls too much metastatic: there is something to mine.
SETTINGS = {
    "folds": 3,
    "epochs": 2,
    "learning_rate": 3e-2,
    "encoder_weights": "none",
    "bn_momentum": 0.8,
    "loss_classes": (2,),
}


def write_mark(run, fold):
    """In place of the export, which has tests of its own: the file that says it is done."""
    path = run.fold_path(fold) / "saved_model" / "saved_model.pb"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")


def train(path, name="focal-tversky-mining-transfer", fold=1, resume=False, export=write_mark, **changes):
    experiment = paper_experiment(name, **{**SETTINGS, **changes})
    return train_run(path, experiment, BREAST, fold, PROSTATE if experiment.transfer else None, resume, export)


def result(path):
    """History without times, weights, and what was mined, of all stages of a fold."""
    found = {}
    for folder in (path.parent / "pretrain", path / "mining_model", path):
        if (folder / "history.csv").exists():
            rows = [tuple(vars(row).items())[:-1] for row in read_history(folder / "history.csv")]
            weights = [weight.numpy() for weight in keras.models.load_model(folder / "model.keras").weights]
            found[folder.name] = rows, weights
    if (path / "mined_negatives").exists():
        found["mined"] = (path / "mined_negatives" / "mined.json").read_text(), []
    return found


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, (rows, weights) in expected.items():
        assert found[name][0] == rows, name
        for one, other in zip(found[name][1], weights, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)
