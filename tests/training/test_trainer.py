"""One small fold trained for real, and everything it leaves behind."""

import json
import os

import keras
import numpy as np
import pytest
from small_network import small_network
from synthetic_shards import SyntheticShards
from trainers import fold_trainer
from two_convolutions import two_convolutions

from doubleunet_bs.dataset.pipeline import load_micro_batch
from doubleunet_bs.errors import DatasetError, RunError, SettingsError
from doubleunet_bs.network.metrics import confusion_counts, metastatic_mask, network_input
from doubleunet_bs.pixel_counts import precision_sensitivity_f1
from doubleunet_bs.runs.create_run import create_run
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.runs.history import read_history
from doubleunet_bs.training.build_network import starting_head_bias
from doubleunet_bs.training.devices import open_replicas
from doubleunet_bs.training.trainer import Trainer
from doubleunet_bs.training.training_state import TrainingTask

SHARDS = SyntheticShards(scans=18)
SETTINGS = {"folds": 3, "epochs": 3, "learning_rate": 1e-2, "bn_momentum": 0.8, "encoder_weights": "none"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """With a small network of the same layers; `test_learning` trains the Double U-Net."""
    run = create_run(tmp_path_factory.mktemp("run"), paper_experiment("focal-tversky-otsu", **SETTINGS), SHARDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("doubleunet_bs.training.build_network.double_unet", small_network)
        path = fold_trainer(run, SHARDS, 2).train()
    return run, path


@pytest.mark.slow
def test_it_leaves_what_it_should_and_nothing_temporary(trained):
    _, path = trained
    assert sorted(file.name for file in path.iterdir()) == [
        "best.weights.h5",
        "environment.json",
        "history.csv",
        "model.keras",
        "progress.png",
        "tensorboard",
    ]


@pytest.mark.slow
def test_history_has_a_row_an_epoch_and_the_loss_falls(trained):
    rows = read_history(trained[1] / "history.csv")
    assert [row.epoch for row in rows] == [1, 2, 3]
    assert rows[-1].loss < 0.9 * rows[0].loss
    assert all(np.isfinite([row.loss, row.val_loss]).all() and row.seconds > 0 for row in rows)


@pytest.mark.slow
def test_the_saved_model_is_the_best_epoch(trained):
    """Scored by hand on the validation scans, the exported weights give the best F1 (or loss) of the history."""
    run, path = trained
    model = keras.models.load_model(path / "model.keras")
    split = run.folds(SHARDS).split(2)
    loaded = load_micro_batch(
        SHARDS, [int(case[-3:]) for case in sorted(split.validation)], [1.0] * len(split.validation)
    )
    counts = np.sum(confusion_counts(loaded["labels"], metastatic_mask(model(network_input(loaded["grey"])))), axis=0)
    rows = read_history(path / "history.csv")
    best = max(rows, key=lambda row: (row.val_f1 or 0.0, -row.val_loss))
    assert (precision_sensitivity_f1(*counts)[2] or 0.0) == pytest.approx(best.val_f1 or 0.0, abs=1e-6)
    fresh = small_network((32, 32, 3))
    fresh.load_weights(path / "best.weights.h5")
    for one, other in zip(model.weights, fresh.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.slow
def test_environment_says_what_the_result_depends_on(trained):
    content = json.loads((trained[1] / "environment.json").read_text())
    assert (
        content["devices"] == ["CPU:0"]
        and content["gpus"] == []
        and content["replicas"] == 1
        and content["precision"] == "float32"
    )
    assert content["packages"]["keras"] == keras.__version__
    assert content["data_fingerprint"] == SHARDS.fingerprint
    for name, number in content["scans"].items():
        counts = content["cohorts"][name]
        assert (counts["scans"], counts["patients"], counts["cancers"]) == (number, number, {"not stated": number})


@pytest.mark.slow
def test_results_are_never_overwritten(trained):
    run, path = trained
    before = {file.name: file.stat().st_mtime_ns for file in path.iterdir()}
    with pytest.raises(RunError, match="has results already: continue with --resume"):
        fold_trainer(run, SHARDS, 2).train()
    assert fold_trainer(run, SHARDS, 2).train(resume=True) == path
    assert {file.name: file.stat().st_mtime_ns for file in path.iterdir()} == before


def test_negatives_train_only_where_the_experiment_says_so(tmp_path):
    groups = [case.group for case in SHARDS.cases]
    for name, expected in (("focal-tversky", 0), ("focal-tversky-otsu", groups.count("negative"))):
        run = create_run(tmp_path / name, paper_experiment(name, **SETTINGS), SHARDS)
        trainer = fold_trainer(run, SHARDS, 1)
        assert [groups[index] for index in trainer.train_cases].count("negative") == expected
        assert "negative" not in {groups[index] for index in trainer.validation_cases}


def test_head_bias_starts_at_the_frequencies_of_the_training_labels(tmp_path):
    run = create_run(tmp_path, paper_experiment("dice", **SETTINGS), SHARDS)
    trainer = fold_trainer(run, SHARDS, 1)
    pixels = np.concatenate([SHARDS.labels(index).ravel() for index in trainer.train_cases])
    bias = np.array(starting_head_bias(trainer.experiment, SHARDS, trainer.train_cases))
    np.testing.assert_allclose(np.exp(bias), np.bincount(pixels, minlength=3) / pixels.size, rtol=1e-9)
    [one] = starting_head_bias(paper_experiment("baseline"), SHARDS, trainer.train_cases)
    assert 1 / (1 + np.exp(-one)) == pytest.approx(np.mean(pixels == 2), rel=1e-9)
    assert starting_head_bias(paper_experiment("dice", head_bias="zeros"), SHARDS, trainer.train_cases) is None


def test_fold_out_of_range_and_batch_too_small(tmp_path):
    run = create_run(tmp_path, paper_experiment("dice", **SETTINGS), SHARDS)
    with pytest.raises(SettingsError, match="folds 1 to 3"):
        fold_trainer(run, SHARDS, 4)
    with pytest.raises(SettingsError, match="this machine has"):
        open_replicas("7")
    assert not run.fold_path(1).exists()


def test_a_fold_without_lesions_is_refused(tmp_path):
    class NoLesions(SyntheticShards):
        def __init__(self):
            super().__init__()
            self.cases = tuple(type(case)(case.case, case.patient, case.group, 0) for case in self.cases)

    shards = NoLesions()
    run = create_run(tmp_path, paper_experiment("dice", **SETTINGS), shards)
    with pytest.raises(DatasetError, match="fold_01: no metastatic pixel in the training scans"):
        fold_trainer(run, shards, 1)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        # The second epoch is no better than the first: from the third on a tenth.
        ("plateau", [1e-2] * 4 + [1e-3] * 4 + [1e-4] * 2),
        pytest.param("cosine", [5e-3 * (1 + np.cos(np.pi * step / 12)) for step in range(10)], marks=pytest.mark.slow),
    ],
)
def test_figures_rates_and_kept_weights_of_scripted_steps(tmp_path, monkeypatch, schedule, rates):
    """Two batches an epoch, whose losses and counts are given: everything else follows by hand."""
    losses = [1.0, 0.5, 0.4, 0.2, 0.3, 0.1, 0.2, 0.2, 0.2, 0.1]
    counts = [[1, 0, 3], [2, 1, 0]] * 5
    val_losses = [0.9, 0.9, 0.8, 0.8, 0.7]
    val_counts = [[1, 2, 0], [0, 0, 4], [1, 0, 0], [0, 0, 6], [1, 0, 1], [1, 0, 1], *[[0, 1, 2], [1, 0, 0]] * 2]
    shown, validated, learning_rates = [], [], []

    class ScriptedSteps:
        def __init__(self, model, optimizer, *others):
            self.model, self.optimizer = model, optimizer

        def train(self, iterator):
            shown.append(next(iterator)["index"].numpy().tolist())
            learning_rates.append(float(keras.ops.convert_to_numpy(self.optimizer.learning_rate)))
            self.model.set_weights([np.full(weight.shape, len(shown)) for weight in self.model.weights])
            return losses[len(shown) - 1], counts[len(shown) - 1], shown[-1]

        def evaluate(self, iterator):
            validated.append(next(iterator)["index"].numpy().tolist())
            return (len(shown) // 2 - 1) / 2, val_counts[len(validated) - 1]

        def loss_from_sums(self, total):
            return val_losses[int(total)]

    monkeypatch.setattr("doubleunet_bs.training.trainer.Steps", ScriptedSteps)
    # What only takes time here.
    monkeypatch.setattr(Trainer, "_distribute", lambda self, micro_batches: micro_batches)
    monkeypatch.setattr(Trainer, "_log_examples", lambda self, epoch: None)
    monkeypatch.setattr("doubleunet_bs.training.trainer.draw_progress", lambda *arguments: None)
    monkeypatch.setattr("doubleunet_bs.training.build_network.double_unet", two_convolutions)
    changes = {"epochs": 6, "early_stopping": 2, "schedule": schedule}
    changes |= {"plateau_patience": 1} if schedule == "plateau" else {}
    experiment = paper_experiment("dice", **{**SETTINGS, **changes})
    rename, killed = os.replace, []

    def kill_once(source, target):
        # After the state that calls the third epoch the best, before its weights have their name.
        if schedule == "cosine" and str(target).endswith("best.weights.h5") and len(shown) == 6 and not killed:
            killed.append(True)
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", kill_once)
    task = TrainingTask(tmp_path / "run", "t", experiment, SHARDS, [0, 1, 2, 3, 4, 6], [7, 8, 9, 10, 12])
    if schedule == "cosine":
        with pytest.raises(KeyboardInterrupt):
            Trainer(task, open_replicas("cpu"), show_progress=False).train()
    path = Trainer(task, open_replicas("cpu"), show_progress=False).train(resume=bool(killed))

    assert [sorted(sum(shown[batch : batch + 2], [])) for batch in range(0, 10, 2)] == [[0, 1, 2, 3, 4, 6]] * 5
    assert validated == [[7, 8, 9, 10], [12]] * 5
    assert learning_rates == pytest.approx(rates, rel=1e-5)
    rows = read_history(path / "history.csv")
    assert [row.epoch for row in rows] == [1, 2, 3, 4, 5], "two epochs after the best the training ends"
    assert [row.loss for row in rows] == pytest.approx([0.75, 0.3, 0.2, 0.2, 0.15])
    assert [row.learning_rate for row in rows] == pytest.approx(rates[1::2], rel=1e-5)
    assert {(row.precision, row.sensitivity, row.f1) for row in rows} == {(3 / 4, 3 / 6, 6 / 10)}
    assert [row.val_loss for row in rows] == val_losses
    assert [(row.val_precision, row.val_sensitivity, row.val_f1) for row in rows] == [
        (1 / 3, 1 / 5, 2 / 8),
        (1.0, 1 / 7, 2 / 8),
        (1.0, 1 / 2, 4 / 6),
        *[(1 / 2, 1 / 3, 2 / 5)] * 2,
    ]
    kept = keras.models.load_model(path / "model.keras").get_weights()
    assert {value for weight in kept for value in np.unique(weight)} == {6.0}, "those of the third epoch's end"


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_batch(tmp_path, monkeypatch):
    run = create_run(tmp_path, paper_experiment("dice", **{**SETTINGS, "batch_size": 2}), SHARDS)
    trainer = fold_trainer(run, SHARDS, 1)

    batches = []

    class BadSteps:
        def __init__(self, *args):
            pass

        def train(self, iterator):
            batches.append(next(iterator)["index"].numpy().tolist())
            return 1.0 if len(batches) < 2 else float("nan"), [0, 0, 0], batches[-1]

    monkeypatch.setattr("doubleunet_bs.training.trainer.Steps", BadSteps)
    with pytest.raises(RunError, match="the loss became nan in epoch 1 with case") as stopped:
        trainer.train()
    # The second batch of the epoch, and no other.
    assert len(batches) == 2 and batches[0] != batches[1]
    assert ", ".join(SHARDS.cases[index].case for index in batches[1]) + ": start" in str(stopped.value)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["training", "validation"])
def test_an_error_of_reading_arrives_as_it_was_raised(tmp_path, monkeypatch, where):
    """Not as TensorFlow's, with its traceback: the line says which file it is and what to do."""
    monkeypatch.setattr("doubleunet_bs.training.build_network.double_unet", two_convolutions)
    run = create_run(tmp_path, paper_experiment("dice", **SETTINGS), SHARDS)
    trainer = fold_trainer(run, SHARDS, 1)
    damaged = trainer.train_cases[1] if where == "training" else trainer.validation_cases[-1]

    class Damaged(SyntheticShards):
        def grey(self, index):
            if index == damaged:
                raise DatasetError("shards/counts-00000.npy: changed since it was opened; prepare the scans again")
            return super().grey(index)

    trainer.dataset = Damaged(scans=18)
    with pytest.raises(DatasetError, match="^shards/counts-00000.npy: changed since it was opened; prepare"):
        trainer.train()
