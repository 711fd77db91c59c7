"""Train one fold of one experiment (paper, sections 2.6 to 2.10 and 3.1)."""

import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from doubleunet_bs.dataset.pipeline import evaluation_pieces, load_piece, training_pieces
from doubleunet_bs.errors import DatasetError, RunError
from doubleunet_bs.files import replace_file, write_json
from doubleunet_bs.network import double_unet
from doubleunet_bs.network.head_bias import prior_head_bias
from doubleunet_bs.network.metrics import precision_sensitivity_f1
from doubleunet_bs.preparation.shards import ShardedDataset
from doubleunet_bs.training import run_folder
from doubleunet_bs.training.checkpoints import load_state, save_state
from doubleunet_bs.training.environment import describe_environment
from doubleunet_bs.training.experiments import Experiment
from doubleunet_bs.training.history import Epoch, draw_progress, write_history
from doubleunet_bs.training.learning_rate import Plateau, cosine
from doubleunet_bs.training.position import Position
from doubleunet_bs.training.replicas import Replicas, check_batch_size
from doubleunet_bs.training.steps import Steps, make_loss
from doubleunet_bs.training.stop_signals import StopSignals

PROGRESS_PICTURE_SECONDS = 15.0


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop and has saved its state."""


class FoldTrainer:
    """Builds the network under the strategy and fits it to one fold.

    Args:
        run: the run folder.
        dataset: its shards.
        fold: 1 ... number of folds.
        replicas: the devices.
        precision: "float32", "mixed_bfloat16" or "mixed_float16". Heads and losses are float32 in any case.
        jit_compile: let XLA compile the training step (one replica only).
        show_progress: progress bar and one line an epoch on the terminal.

    Raises:
        SettingsError: fold out of range, batch smaller than the replicas, image size not divisible by 16.
        DatasetError: the fold has no lesion to learn or to validate on.
    """

    def __init__(
        self,
        run: run_folder.Run,
        dataset: ShardedDataset,
        fold: int,
        replicas: Replicas,
        precision: str = "float32",
        jit_compile: bool = False,
        show_progress: bool = True,
    ):
        self.run, self.dataset, self.fold, self.replicas = run, dataset, fold, replicas
        self.experiment: Experiment = run.experiment
        self.precision, self.jit_compile, self.show_progress = precision, jit_compile, show_progress
        check_batch_size(self.experiment.batch_size, replicas.count)
        self.folds = run.folds(dataset)
        split = self.folds.split(fold)
        numbers = {case.case: index for index, case in enumerate(dataset.cases)}
        train = split.train + (split.negatives if self.experiment.negatives != "none" else ())
        # In the order of the shards: the pseudonyms, and so their key, have no say in the result.
        self.train_cases = sorted(numbers[case] for case in train)
        self.validation_cases = sorted(numbers[case] for case in split.validation)
        for what, cases in (("training", self.train_cases), ("validation", self.validation_cases)):
            if not any(dataset.cases[index].metastatic_pixels for index in cases):
                raise DatasetError(f"{run.path}: fold {fold} has no metastatic pixel in its {what} scans")
        self.path = run.fold_path(fold)
        self.signals = StopSignals()

    def train(self, resume: bool = False) -> Path:
        """Fit until the last epoch and leave `best.weights.h5`, `history.csv`, `progress.png` and `model.keras`.

        Args:
            resume: go on from the saved state. Without it a fold folder with results in it is left alone.

        Returns:
            The fold's folder.

        Raises:
            RunError: the folder has results and `resume` is off, or the saved state does not fit.
            Interrupted: stopped by a signal; `resume` goes on from the last whole batch.
        """
        state = self.path / run_folder.STATE
        if not resume and self.path.exists() and any(self.path.iterdir()):
            raise RunError(f"{self.path}: has results already; go on with --resume, or choose another --run folder")
        if resume:
            # What a killed process may have left: files it was writing, and the state of a fold that has ended.
            for leftover in self.path.glob(".*"):
                if leftover.is_file():
                    leftover.unlink()
            if (self.path / run_folder.KERAS_MODEL).exists():
                state.unlink(missing_ok=True)
                return self.path
        self._build()
        self.position = Position()
        if resume and state.exists():
            self._restore(state)
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "environment.json", self._environment())
        with self.signals:
            self._fit()
        self._save_model()
        state.unlink(missing_ok=True)
        return self.path

    def _build(self) -> None:
        experiment = self.experiment
        keras.utils.set_random_seed(experiment.seed)
        keras.config.set_dtype_policy(self.precision)
        try:
            with self.replicas.strategy.scope():
                self.model = double_unet(
                    (*self.dataset.image_shape, 3),
                    experiment.classes,
                    experiment.encoder_weights,
                    self._head_bias(),
                    synchronized=self.replicas.count > 1,
                    bn_momentum=experiment.bn_momentum,
                )
                optimizer = keras.optimizers.Adam(experiment.learning_rate, name="adam")
                if self.precision == "mixed_float16":
                    optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale")
                optimizer.build(self.model.trainable_variables)
        finally:
            keras.config.set_dtype_policy("float32")
        self.optimizer = optimizer
        self.plateau = Plateau(experiment.plateau_factor, experiment.plateau_patience)
        self.steps = Steps(self.model, optimizer, make_loss(experiment), self.replicas, self.jit_compile)

    def _head_bias(self) -> list[float] | None:
        if self.experiment.head_bias == "zeros":
            return None
        pixels = np.zeros(3, np.int64)
        for index in self.train_cases:
            pixels += np.bincount(self.dataset.labels(index).reshape(-1), minlength=3)
        return prior_head_bias(pixels.tolist(), self.experiment.classes)

    def _fit(self) -> None:
        position, experiment = self.position, self.experiment
        batches = -(-len(self.train_cases) // experiment.batch_size)
        pieces = training_pieces(
            self.dataset,
            self.train_cases,
            experiment.batch_size,
            self.replicas.count,
            experiment.seed,
            position.epoch,
            experiment.epochs,
            first_batch=position.batch,
        )
        iterator = iter(self._distribute(pieces))
        bar = tqdm(
            total=experiment.epochs * batches,
            initial=position.epoch * batches + position.batch,
            desc=f"fold {self.fold}",
            unit="batch",
            disable=not self.show_progress,
            dynamic_ncols=True,
            smoothing=0.05,
        )
        drawn = time.monotonic()
        with bar:
            while position.epoch < experiment.epochs and not self._stopped_early():
                self._train_epoch(iterator, batches, bar)
                self._end_epoch(bar)
                save_state(self.path / run_folder.STATE, self.model, self.optimizer, self._progress())
                if time.monotonic() - drawn > PROGRESS_PICTURE_SECONDS:
                    self._draw()
                    drawn = time.monotonic()
        self._draw()

    def _train_epoch(self, iterator, batches: int, bar: tqdm) -> None:
        position = self.position
        while position.batch < batches:
            if self.signals.requested:
                save_state(self.path / run_folder.STATE, self.model, self.optimizer, self._progress())
                raise Interrupted
            start = time.monotonic()
            if self.experiment.schedule == "cosine":
                done = (position.epoch * batches + position.batch) / (self.experiment.epochs * batches)
                self.optimizer.learning_rate = cosine(self.experiment.learning_rate, done)
            loss, counts, indices = self.steps.train(iterator)
            if not np.isfinite(loss):
                self._save_bad_batch(indices, loss)
            position.add_batch(loss, counts, time.monotonic() - start)
            bar.set_postfix_str(f"epoch {position.epoch + 1}/{self.experiment.epochs}, loss {loss:.4f}", refresh=False)
            bar.update()

    def _end_epoch(self, bar: tqdm) -> None:
        position = self.position
        start = time.monotonic()
        val_loss, val_counts = self._validate()
        if not np.isfinite(val_loss):
            # Before anything is saved: the state of the epoch before is still good.
            raise RunError(
                f"{self.path}: the validation loss became {val_loss} in epoch {position.epoch + 1}; lower --learning-rate "
                "or use --precision float32 in a new --run"
            )
        learning_rate = float(keras.ops.convert_to_numpy(self.optimizer.learning_rate))
        precision, sensitivity, f1 = precision_sensitivity_f1(*position.counts)
        val_precision, val_sensitivity, val_f1 = precision_sensitivity_f1(*val_counts)
        row = Epoch(
            epoch=position.epoch + 1,
            loss=float(np.mean(position.losses)),
            precision=precision,
            sensitivity=sensitivity,
            f1=f1,
            val_loss=val_loss,
            val_precision=val_precision,
            val_sensitivity=val_sensitivity,
            val_f1=val_f1,
            learning_rate=learning_rate,
            seconds=round(position.seconds + time.monotonic() - start, 3),
        )
        best = position.end_epoch(row)
        if best:
            replace_file(self.path / run_folder.BEST_WEIGHTS, self.model.save_weights)
        if self.experiment.schedule == "plateau":
            self.optimizer.learning_rate = self.plateau.learning_rate(val_loss, learning_rate)
        write_history(self.path / run_folder.HISTORY, position.history)
        if self.show_progress:
            bar.write(
                f"epoch {row.epoch:>3}/{self.experiment.epochs}  loss {row.loss:.4f}  F1 {_percent(row.f1)}  |  "
                f"validation loss {row.val_loss:.4f}  F1 {_percent(row.val_f1)}  |  {row.seconds:.1f} s{'  best' if best else ''}"
            )

    def _validate(self) -> tuple[float, list[int]]:
        pieces = evaluation_pieces(self.dataset, self.validation_cases, self.experiment.batch_size, self.replicas.count)
        total, counts = None, [0, 0, 0]
        iterator = iter(self._distribute(pieces))
        for _ in range(-(-len(self.validation_cases) // self.experiment.batch_size)):
            sums, batch_counts = self.steps.evaluate(iterator)
            total = sums if total is None else total + sums
            counts = [a + b for a, b in zip(counts, batch_counts, strict=True)]
        return self.steps.loss_from_sums(total), counts

    def _distribute(self, pieces: tf.data.Dataset):
        # Consecutive elements go to the replicas in turn: the pieces of one batch.
        return self.replicas.strategy.distribute_datasets_from_function(lambda context: pieces)

    def _stopped_early(self) -> bool:
        patience = self.experiment.early_stopping
        return bool(patience) and self.position.epoch - self.position.best_epoch >= patience

    def _progress(self) -> dict:
        plateau = {"best": self.plateau.best, "wait": self.plateau.wait}
        return {"position": self.position.to_json(), "plateau": plateau, "identity": self._identity()}

    def _identity(self) -> dict:
        """What must be the same for a state to be continued."""
        return {
            "experiment": self.experiment.to_json(),
            "data": self.dataset.fingerprint,
            "folds": self.folds.sha256(),
            "fold": self.fold,
            "precision": self.precision,
        }

    def _restore(self, path: Path) -> None:
        progress = load_state(path, self.model, self.optimizer)
        differing = [key for key, value in self._identity().items() if progress["identity"].get(key) != value]
        if differing:
            raise RunError(f"{path}: {', '.join(differing)} changed since it was saved; it cannot be continued")
        self.position = Position.from_json(progress["position"])
        self.plateau.best, self.plateau.wait = progress["plateau"]["best"], progress["plateau"]["wait"]

    def _save_model(self) -> None:
        """The tested model: the best weights in a plain float32 network that any single device opens."""
        model = double_unet((*self.dataset.image_shape, 3), self.experiment.classes)
        model.load_weights(self.path / run_folder.BEST_WEIGHTS)
        replace_file(self.path / run_folder.KERAS_MODEL, model.save)

    def _save_bad_batch(self, indices: list[int], loss: float) -> None:
        piece = load_piece(self.dataset, indices, [1.0] * len(indices))
        cases = np.array([self.dataset.cases[index].case for index in indices])
        path = self.path / "bad_batch.npz"
        replace_file(path, lambda temporary: np.savez(temporary, case=cases, **piece))
        raise RunError(
            f"{path}: the loss became {loss} in epoch {self.position.epoch + 1} with the batch saved there; "
            "lower --learning-rate or use --precision float32"
        )

    def _draw(self) -> None:
        title = f"{self.experiment.name}, fold {self.fold}"
        draw_progress(self.path / "progress.png", self.position.history, title)

    def _environment(self) -> dict:
        return {
            **describe_environment(),
            "devices": list(self.replicas.devices),
            "replicas": self.replicas.count,
            "precision": self.precision,
            "xla": self.jit_compile,
            "scans": {"training": len(self.train_cases), "validation": len(self.validation_cases)},
            "data_fingerprint": self.dataset.fingerprint,
            "folds_sha256": self.folds.sha256(),
        }


def _percent(value: float | None) -> str:
    return "  –   " if value is None else f"{100 * value:5.1f} %"


def train_fold(
    run: run_folder.Run, dataset: ShardedDataset, fold: int, replicas: Replicas, resume: bool = False, **options
) -> Path:
    """Train one fold; see `FoldTrainer` for the options and errors.

    Returns:
        The fold's folder with `best.weights.h5`, `model.keras`, `history.csv`, `progress.png` and `environment.json`.
    """
    return FoldTrainer(run, dataset, fold, replicas, **options).train(resume)
