"""The training loop: a network is fitted to some cases of a dataset (paper, sections 2.6 to 2.10 and 3.1).

`Trainer.train` reads from top to bottom: build the network, continue from a saved state if there is one, train and
validate epoch by epoch, keep the best weights, save the model. One step on the devices is in `training.steps`.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from doubleunet_bs.dataset.augmentation import Augmentation
from doubleunet_bs.dataset.pipeline import (
    EpochPlan,
    ReadingErrors,
    evaluation_micro_batches,
    load_micro_batch,
    training_micro_batches,
)
from doubleunet_bs.errors import DatasetError, RunError
from doubleunet_bs.files import replace_file, write_json
from doubleunet_bs.network.metrics import metastatic_mask, network_input
from doubleunet_bs.pixel_counts import precision_sensitivity_f1
from doubleunet_bs.preparation.records import PHANTOMS, scans_are
from doubleunet_bs.runs.history import Epoch, epoch_line, write_history
from doubleunet_bs.runs.run_folder import (
    BEST_WEIGHTS,
    ENVIRONMENT,
    HISTORY,
    KERAS_MODEL,
    PROGRESS,
    STATE,
    remove_temporary,
)
from doubleunet_bs.stop_signals import Interrupted, StopSignals
from doubleunet_bs.training.build_network import build_network, plain_network
from doubleunet_bs.training.devices import Replicas, check_batch_size, images_at_once
from doubleunet_bs.training.progress import EXAMPLES, TensorBoardLog, draw_progress
from doubleunet_bs.training.steps import Steps, make_loss
from doubleunet_bs.training.training_state import (
    Plateau,
    TrainingState,
    TrainingTask,
    cosine,
    load_state,
    save_state,
    training_environment,
    training_fingerprint,
)

PROGRESS_PICTURE_SECONDS = 15.0


class Trainer:
    """Fits a network to some cases of a dataset.

    Raises:
        SettingsError: a batch with fewer images than replicas times micro-batches.
        DatasetError: no lesion to learn from or to validate on.
    """

    def __init__(self, task: TrainingTask, replicas: Replicas, show_progress: bool = True):
        self.task, self.replicas, self.show_progress = task, replicas, show_progress
        self.path, self.experiment, self.dataset = task.path, task.experiment, task.dataset
        self.train_cases, self.validation_cases = task.train_cases, task.validation_cases
        check_batch_size(self.experiment.batch_size, replicas.count, self.experiment.accumulate)
        self._searched = "bone" if self.experiment.is_skeleton else "metastatic"
        for what, cases in (("training", self.train_cases), ("validation", self.validation_cases)):
            if not any(self.dataset.cases[index].metastatic_pixels for index in cases):
                raise DatasetError(f"{self.path}: no {self._searched} pixel in the {what} scans")
        benign = self.experiment.has_benign
        if benign and not any(self.dataset.cases[index].benign_pixels for index in self.train_cases):
            raise DatasetError(f"{self.path}: no benign pixel in the training scans: prepare without --benign own")
        self.augmentation = self._make_augmentation() if task.augmented and self.experiment.variants > 1 else None
        variants = self.augmentation.variants if self.augmentation else 1
        all_variants = self.experiment.variants_per_epoch == "all"
        seed = self.experiment.seed
        # Replicas normalise a micro-batch together, so that theirs never is a single image.
        pairs = replicas.count == 1 and self.experiment.batch_size // self.experiment.accumulate >= 2
        self.plan = EpochPlan(self.train_cases, self.experiment.batch_size, seed, variants, all_variants, pairs)
        self.compiles = True
        self.signals, self.reading_errors = StopSignals(), ReadingErrors()

    def train(self, resume: bool = False) -> Path:
        """Train to the last epoch; write best weights, `history.csv`, `progress.png`, `model.keras`; return the folder.

        Args:
            resume: continue from the saved state. Without it a folder with results is left alone.

        Raises:
            RunError: the folder has results and `resume` is off, or the saved state does not fit.
            Interrupted: stopped by a signal. `resume` continues from the last whole batch. After the last batch the
                training is finished first, and `resume` finds it done.
        """
        state_file = self.path / STATE
        if not resume and self.path.exists() and any(self.path.iterdir()):
            raise RunError(f"{self.path}: has results already: continue with --resume, or choose another --run folder")
        if resume and (self.path / KERAS_MODEL).exists():
            state_file.unlink(missing_ok=True)
            remove_temporary(self.path)
            return self.path
        self._build()
        self.state = TrainingState()
        self._fingerprint = training_fingerprint(self.task, self.replicas)
        if resume and state_file.exists():
            self._restore(state_file)
        remove_temporary(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        environment = training_environment(self.task, self.replicas, self._fingerprint)
        write_json(self.path / ENVIRONMENT, environment)
        self.board = TensorBoardLog(self.path)
        try:
            with self.signals, self.reading_errors:
                self._fit()
        finally:
            self.board.close()
        replace_file(self.path / KERAS_MODEL, plain_network(self.task, self.path / BEST_WEIGHTS).save)
        state_file.unlink(missing_ok=True)
        self.signals.check()
        return self.path

    def _build(self) -> None:
        experiment = self.experiment
        self.model, self.optimizer = build_network(self.task, self.replicas)
        self.plateau = Plateau(experiment.plateau_factor, experiment.plateau_patience)
        self.steps = Steps(
            self.model,
            self.optimizer,
            make_loss(experiment),
            self.replicas,
            experiment.accumulate,
        )

    def _make_augmentation(self) -> Augmentation:
        experiment = self.experiment
        levels, reach = experiment.brightness_levels, experiment.brightness_reach
        return Augmentation(self.dataset, self.train_cases, levels, reach, experiment.flip)

    def _fit(self) -> None:
        state, experiment = self.state, self.experiment
        batches = -(-len(self.plan) // experiment.batch_size)
        micro_batches = training_micro_batches(
            self.dataset,
            self.plan,
            range(state.epoch, experiment.epochs),
            # Micro-batches go to the replicas in turn, so that a replica takes its own one after the other.
            self.replicas.count * experiment.accumulate,
            first_batch=state.batch,
            augmentation=self.augmentation,
            errors=self.reading_errors,
        )
        iterator = iter(self._distribute(micro_batches))
        bar = tqdm(
            total=experiment.epochs * batches,
            initial=state.epoch * batches + state.batch,
            desc=self.task.title,
            unit="batch",
            disable=None if self.show_progress else True,  # None: only on a terminal. Elsewhere lines are enough.
            dynamic_ncols=True,
            smoothing=0.05,
        )
        bar.set_postfix_str("TensorFlow compiles the first batch")
        drawn = time.monotonic()
        with bar:
            while state.epoch < experiment.epochs and not self._stopped_early():
                self._train_epoch(iterator, batches, bar)
                self._end_epoch(bar)
                if time.monotonic() - drawn > PROGRESS_PICTURE_SECONDS:
                    self._draw()
                    drawn = time.monotonic()
        self._draw()

    def _train_epoch(self, iterator, batches: int, bar: tqdm) -> None:
        state = self.state
        while state.batch < batches:
            if self.signals.requested:
                self._save_state()
                raise Interrupted
            start = time.monotonic()
            if self.experiment.schedule == "cosine":
                done = (state.epoch * batches + state.batch) / (self.experiment.epochs * batches)
                self.optimizer.learning_rate = cosine(self.experiment.learning_rate, done)
            loss, counts, indices = self.steps.train(iterator)
            if not np.isfinite(loss):
                cases = ", ".join(self.dataset.cases[index].case for index in indices)
                raise self._not_finite("loss", loss, f" with {cases}")
            state.add_batch(loss, counts, time.monotonic() - start)
            if self.compiles:
                # The time left of the bar does not count what is compiled once.
                bar.unpause()
                self.compiles = False
            bar.set_postfix_str(f"epoch {state.epoch + 1}/{self.experiment.epochs}, loss {loss:.4f}", refresh=False)
            bar.update()

    def _end_epoch(self, bar: tqdm) -> None:
        state, experiment = self.state, self.experiment
        start = time.monotonic()
        val_loss, val_counts = self._validate()
        if not np.isfinite(val_loss):
            # Before anything is saved: the state of the epoch before is still good.
            raise self._not_finite("validation loss", val_loss)
        learning_rate = float(keras.ops.convert_to_numpy(self.optimizer.learning_rate))
        precision, sensitivity, f1 = precision_sensitivity_f1(*state.counts)
        val_precision, val_sensitivity, val_f1 = precision_sensitivity_f1(*val_counts)
        row = Epoch(
            epoch=state.epoch + 1,
            loss=float(np.mean(state.losses)),
            precision=precision,
            sensitivity=sensitivity,
            f1=f1,
            val_loss=val_loss,
            val_precision=val_precision,
            val_sensitivity=val_sensitivity,
            val_f1=val_f1,
            learning_rate=learning_rate,
            seconds=round(state.seconds + time.monotonic() - start, 3),
        )
        best = state.end_epoch(row)
        if experiment.schedule == "plateau":
            self.optimizer.learning_rate = self.plateau.learning_rate(val_loss, learning_rate)
        # First the weights under the name of their epoch, then the state that names this epoch, then the final name: if
        # the process is killed at any point, the best weights are those of the epoch that the state calls the best.
        candidate = self._candidate(row.epoch)
        if best:
            replace_file(candidate, self.model.save_weights)
        self._save_state()
        if best:
            os.replace(candidate, self.path / BEST_WEIGHTS)
            self._log_examples(row.epoch)
        write_history(self.path / HISTORY, state.history)
        self.board.epoch(row)
        if self.show_progress:
            bar.write(epoch_line(state.history, experiment.epochs, self._searched))
            sys.stdout.flush()

    def _validate(self) -> tuple[float, list[int]]:
        """Loss of all validation scans as one batch, and [true positives, false positives, false negatives]."""
        # As many images at once as in a micro-batch over all replicas: the memory suffices.
        images = images_at_once(self.experiment)
        cases, errors = self.validation_cases, self.reading_errors
        micro_batches = evaluation_micro_batches(self.dataset, cases, images, self.replicas.count, errors)
        total, counts = None, [0, 0, 0]
        iterator = iter(self._distribute(micro_batches))
        for _ in range(-(-len(cases) // images)):
            sums, batch_counts = self.steps.evaluate(iterator)
            total = sums if total is None else total + sums
            counts = [a + b for a, b in zip(counts, batch_counts, strict=True)]
        return self.steps.loss_from_sums(total), counts

    def _distribute(self, micro_batches: tf.data.Dataset):
        # Consecutive elements go to the replicas in turn: the micro-batches of one batch.
        return self.replicas.strategy.distribute_datasets_from_function(lambda context: micro_batches)

    def _stopped_early(self) -> bool:
        patience = self.experiment.early_stopping
        return bool(patience) and self.state.epoch - self.state.best_epoch >= patience

    def _save_state(self) -> None:
        progress: dict[str, Any] = {
            # These names are part of the file format.
            "position": self.state.to_json(),
            "plateau": {"best": self.plateau.best, "wait": self.plateau.wait},
            "identity": self._fingerprint,
        }
        save_state(self.path / STATE, self.model, self.optimizer, progress)

    def _restore(self, path: Path) -> None:
        progress = load_state(path, self.model, self.optimizer, self._fingerprint)
        self.state = TrainingState.from_json(progress["position"])
        self.plateau.best, self.plateau.wait = progress["plateau"]["best"], progress["plateau"]["wait"]
        candidate = self._candidate(self.state.best_epoch)
        if candidate.exists():
            os.replace(candidate, self.path / BEST_WEIGHTS)
        if self.state.history:
            write_history(self.path / HISTORY, self.state.history)
        batch = f"batch {self.state.batch} of epoch {self.state.epoch + 1}"
        print("resumed     after", batch if self.state.batch else f"epoch {self.state.epoch}", flush=True)

    def _candidate(self, epoch: int) -> Path:
        return self.path / f".best-{epoch:05d}.weights.h5"

    def _log_examples(self, epoch: int) -> None:
        if self.experiment.is_skeleton:  # its errors have no colours
            return
        # Called without a compiled function: tracing would cost more than it saves for a few scans.
        examples = self.validation_cases[:EXAMPLES]
        loaded = load_micro_batch(self.dataset, examples, [1.0] * len(examples))
        mask = metastatic_mask(self.model(network_input(loaded["grey"]), training=False))
        records = [self.dataset.cases[index] for index in examples]
        self.board.examples(epoch, loaded["grey"], loaded["labels"], keras.ops.convert_to_numpy(mask), records)

    def _not_finite(self, what: str, value: float, batch: str = "") -> RunError:
        return RunError(
            f"{self.path}: the {what} became {value} in epoch {self.state.epoch + 1}{batch}: "
            "start a new --run with a lower --learning-rate or --precision float32"
        )

    def _draw(self) -> None:
        changed = "" if self.experiment.is_paper_row and not self.dataset.settings.changes() else " (changed)"
        phantoms = f", {PHANTOMS}" if scans_are(self.dataset.cases) == PHANTOMS else ""
        title = f"{self.experiment.name}{changed}, {self.task.title}{phantoms}"
        draw_progress(self.path / PROGRESS, self.state.history, title)
