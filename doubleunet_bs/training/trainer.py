"""The training loop: a network, the cases it trains on and those it is validated on (paper, sections 2.6 to 2.10 and 3.1)."""

import dataclasses
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from doubleunet_bs.dataset.augmentation import Augmentation
from doubleunet_bs.dataset.pipeline import (
    ReadingErrors,
    epoch_images,
    evaluation_pieces,
    images_per_epoch,
    load_piece,
    training_pieces,
)
from doubleunet_bs.errors import DatasetError, RunError
from doubleunet_bs.files import replace_file, write_json
from doubleunet_bs.network import double_unet
from doubleunet_bs.network.double_unet import prior_head_bias
from doubleunet_bs.network.encoder_weights import CONV_LAYERS
from doubleunet_bs.network.metrics import metastatic_mask, network_input
from doubleunet_bs.pixel_counts import precision_sensitivity_f1
from doubleunet_bs.preparation.records import PHANTOMS, scans_are
from doubleunet_bs.preparation.shards import Dataset
from doubleunet_bs.stop_signals import Interrupted, StopSignals
from doubleunet_bs.training import run_folder
from doubleunet_bs.training.checkpoints import Position, load_state, save_state
from doubleunet_bs.training.cpu_kernels import FusedAdam
from doubleunet_bs.training.devices import Replicas, check_batch_size, images_at_once
from doubleunet_bs.training.experiments import Experiment
from doubleunet_bs.training.fingerprint import ENVIRONMENT, training_environment, training_identity
from doubleunet_bs.training.history import Epoch, draw_progress, epoch_line, write_history
from doubleunet_bs.training.run_folder import remove_leftovers
from doubleunet_bs.training.steps import Steps, make_loss
from doubleunet_bs.training.tensorboard import EXAMPLES, TensorBoardLog


def starting_head_bias(experiment: Experiment, dataset: Dataset, cases: Sequence[int]) -> list[float] | None:
    """The biases of the heads from the labels of the training cases; None, for zeros, where the experiment says so."""
    if experiment.head_bias == "zeros":
        return None
    pixels = np.zeros(3, np.int64)
    for index in cases:
        labels = dataset.labels(index)
        # A tenth of the time that np.bincount takes, which first makes eight bytes of each.
        pixels += [np.count_nonzero(labels == number) for number in range(3)]
    return prior_head_bias(pixels.tolist(), experiment.classes)


def load_initial_weights(model: keras.Model, path: Path) -> None:
    """Start a network from the weights of another one of the same kind.

    Raises:
        RunError: the file is missing, damaged, or of another network.
    """
    try:
        model.load_weights(path)
    # Keras and h5py raise whatever the damaged or foreign part runs into.
    except Exception as cause:
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:160]
        raise RunError(f"{path}: not weights of this network ({reason})") from None


def encoder_variables(model: keras.Model) -> list[keras.Variable]:
    """Kernels and biases of the VGG19 encoder."""
    return [variable for name in CONV_LAYERS for variable in model.get_layer(name).trainable_variables]


def build_network(
    experiment: Experiment,
    dataset: Dataset,
    train_cases: Sequence[int],
    replicas: Replicas,
    precision: str,
    initial_weights: Path | None,
) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    """The network at its start, and Adam with its variables made.

    Args:
        experiment: what is trained. dataset: opened shards. train_cases: indices into it. replicas: the devices.
        precision: of the layers; with "mixed_float16" the optimiser scales the loss.
        initial_weights: a file of weights of the whole network; None for the experiment's own start.

    Raises:
        RunError: weights that do not fit.
    """
    keras.utils.set_random_seed(experiment.seed)
    keras.config.set_dtype_policy(precision)
    try:
        with replicas.strategy.scope():
            model = double_unet(
                (*dataset.image_shape, 3),
                experiment.classes,
                experiment.encoder_weights if initial_weights is None else None,
                starting_head_bias(experiment, dataset, train_cases),
                synchronized=replicas.count > 1,
                bn_momentum=experiment.bn_momentum,
            )
            if initial_weights is not None:
                load_initial_weights(model, initial_weights)
            optimizer = FusedAdam(
                experiment.learning_rate,
                late=encoder_variables(model) if experiment.freeze_encoder else (),
                name="adam",
            )
            if precision == "mixed_float16":
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale")
            optimizer.build(model.trainable_variables)
    finally:
        keras.config.set_dtype_policy("float32")
    return model, optimizer


def tested_model(image_shape: tuple[int, int], classes: int, weights: Path) -> keras.Model:
    """A plain float32 network with the weights of a file, which any single device opens."""
    model = double_unet((*image_shape, 3), classes)
    model.load_weights(weights)
    return model


@dataclasses.dataclass
class Plateau:
    """Counts epochs without improvement; its fields are all its state, so that a resumed run goes on exactly.

    Attributes:
        factor: what the learning rate is multiplied with.
        patience: epochs without improvement before that happens.
        min_delta: how much lower the loss must be to count as better (Keras' ReduceLROnPlateau: 1e-4).
        best: lowest loss so far.
        wait: epochs since then, or since the last reduction.
    """

    factor: float
    patience: int
    min_delta: float = 1e-4
    best: float = math.inf
    wait: int = 0

    def learning_rate(self, val_loss: float, current: float) -> float:
        """The learning rate of the next epoch, given the validation loss of this one."""
        if val_loss < self.best - self.min_delta:
            self.best, self.wait = val_loss, 0
            return current
        self.wait += 1
        if self.wait < self.patience:
            return current
        self.wait = 0
        return current * self.factor


def cosine(start: float, done: float) -> float:
    """The learning rate after a fraction `done` of all steps, falling from `start` to 0 along half a cosine."""
    return start * 0.5 * (1.0 + math.cos(math.pi * done))


PROGRESS_PICTURE_SECONDS = 15.0


class Trainer:
    """Builds the network under the strategy and fits it to some cases of a dataset.

    Args:
        path: where everything goes: a fold's folder, or that of another stage of a run.
        experiment: what is trained.
        dataset: opened shards.
        train_cases, validation_cases: indices into it.
        replicas: the devices.
        title: what the progress bar and the picture are headed with.
        identity: whatever else must be the same for an interrupted training to be continued, by name; plain JSON values.
        precision: "float32", "mixed_bfloat16" or "mixed_float16". Heads and losses are float32 in any case.
        jit_compile: let XLA compile the training step (one replica only).
        initial_weights: a file of weights of the whole network to start from; None for the experiment's own start.
        augmented: show the training scans in the variants that the experiment asks for.
        show_progress: progress bar and one line an epoch on the terminal.
        signals: of whoever works with several trainers; None for signals of its own.

    Raises:
        SettingsError: a batch smaller than replicas times pieces.
        DatasetError: no lesion to learn from or to validate on.
    """

    def __init__(
        self,
        path: Path,
        experiment: Experiment,
        dataset: Dataset,
        train_cases: Sequence[int],
        validation_cases: Sequence[int],
        replicas: Replicas,
        *,
        title: str,
        identity: dict[str, Any] | None = None,
        precision: str = "float32",
        jit_compile: bool = False,
        initial_weights: Path | None = None,
        augmented: bool = True,
        show_progress: bool = True,
        signals: StopSignals | None = None,
    ):
        self.path, self.experiment, self.dataset, self.replicas = path, experiment, dataset, replicas
        self.title, self.identity, self.initial_weights = title, identity or {}, initial_weights
        self.precision, self.jit_compile, self.show_progress = precision, jit_compile, show_progress
        check_batch_size(experiment.batch_size, replicas.count, experiment.accumulate)
        self.train_cases, self.validation_cases = list(train_cases), list(validation_cases)
        for what, cases in (("training", self.train_cases), ("validation", self.validation_cases)):
            if not any(dataset.cases[index].metastatic_pixels for index in cases):
                raise DatasetError(f"{path}: no metastatic pixel in the {what} scans")
        self.augmentation = self._make_augmentation() if augmented and experiment.variants > 1 else None
        self.signals = StopSignals() if signals is None else signals
        self.reading_errors = ReadingErrors()

    def train(self, resume: bool = False) -> Path:
        """Fit until the last epoch and leave `best.weights.h5`, `history.csv`, `progress.png` and `model.keras`.

        Args:
            resume: go on from the saved state. Without it a folder with results in it is left alone.

        Returns:
            The folder.

        Raises:
            RunError: the folder has results and `resume` is off, or the saved state does not fit.
            Interrupted: stopped by a signal; `resume` goes on from the last whole batch. After the last batch the training
                is finished first, and `resume` finds it done.
        """
        state = self.path / run_folder.STATE
        if not resume and self.path.exists() and any(self.path.iterdir()):
            raise RunError(f"{self.path}: has results already; go on with --resume, or choose another --run folder")
        if resume and (self.path / run_folder.KERAS_MODEL).exists():
            state.unlink(missing_ok=True)
            remove_leftovers(self.path)
            return self.path
        self._build()
        self.position = Position()
        self._identity = training_identity(self)
        if resume and state.exists():
            self._restore(state)
        remove_leftovers(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / ENVIRONMENT, training_environment(self, self._identity))
        self.board = TensorBoardLog(self.path)
        try:
            with self.signals, self.reading_errors:
                self._fit()
        finally:
            self.board.close()
        self._save_model()
        state.unlink(missing_ok=True)
        self.signals.check()
        return self.path

    def _build(self) -> None:
        experiment = self.experiment
        self.model, self.optimizer = build_network(
            experiment, self.dataset, self.train_cases, self.replicas, self.precision, self.initial_weights
        )
        self.plateau = Plateau(experiment.plateau_factor, experiment.plateau_patience)
        self.steps = Steps(
            self.model,
            self.optimizer,
            make_loss(experiment),
            self.replicas,
            self.jit_compile,
            experiment.accumulate,
            encoder_variables(self.model) if experiment.freeze_encoder else (),
        )

    def _make_augmentation(self) -> Augmentation:
        experiment = self.experiment
        levels, reach = experiment.brightness_levels, experiment.brightness_reach
        return Augmentation(self.dataset, self.train_cases, levels, reach, experiment.flip)

    def _images(self, epoch: int) -> list[tuple[int, int]]:
        """(case, variant) of every image that an epoch shows, in its order."""
        variants = self.augmentation.variants if self.augmentation else 1
        all_variants = self.experiment.variants_per_epoch == "all"
        return epoch_images(self.train_cases, self.experiment.seed, epoch, variants, all_variants)

    def _fit(self) -> None:
        position, experiment = self.position, self.experiment
        all_variants = experiment.variants_per_epoch == "all"
        images = images_per_epoch(len(self.train_cases), self.augmentation, all_variants)
        batches = -(-images // experiment.batch_size)
        pieces = training_pieces(
            self.dataset,
            self.train_cases,
            experiment.batch_size,
            # Pieces are dealt out to the replicas in turn, so that a replica takes its own one after the other.
            self.replicas.count * experiment.accumulate,
            experiment.seed,
            position.epoch,
            experiment.epochs,
            first_batch=position.batch,
            augmentation=self.augmentation,
            all_variants=all_variants,
            errors=self.reading_errors,
            # Replicas normalise a piece together, so that theirs never is a single image.
            no_single=self.replicas.count == 1 and experiment.batch_size // experiment.accumulate >= 2,
        )
        iterator = iter(self._distribute(pieces))
        bar = tqdm(
            total=experiment.epochs * batches,
            initial=position.epoch * batches + position.batch,
            desc=self.title,
            unit="batch",
            disable=None if self.show_progress else True,  # None: where the output is no terminal, lines are enough.
            dynamic_ncols=True,
            smoothing=0.05,
        )
        drawn = time.monotonic()
        with bar:
            while position.epoch < experiment.epochs and not self._stopped_early():
                self._train_epoch(iterator, batches, bar)
                self._end_epoch(bar)
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
            frozen = position.epoch < self.experiment.freeze_encoder
            loss, counts, _ = self.steps.train(iterator, frozen)
            if not np.isfinite(loss):
                self._save_bad_batch(loss)
            position.add_batch(loss, counts, time.monotonic() - start)
            bar.set_postfix_str(f"epoch {position.epoch + 1}/{self.experiment.epochs}, loss {loss:.4f}", refresh=False)
            bar.update()

    def _end_epoch(self, bar: tqdm) -> None:
        position, experiment = self.position, self.experiment
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
        if self.experiment.schedule == "plateau":
            self.optimizer.learning_rate = self.plateau.learning_rate(val_loss, learning_rate)
        # First the weights under the name of their epoch, then the state that speaks of it, then the well-known name: killed
        # at any point, the best weights are those of the epoch that the state calls the best.
        candidate = self._candidate(row.epoch)
        if best:
            replace_file(candidate, self.model.save_weights)
        save_state(self.path / run_folder.STATE, self.model, self.optimizer, self._progress())
        if best:
            os.replace(candidate, self.path / run_folder.BEST_WEIGHTS)
            self._log_examples(row.epoch)
        write_history(self.path / run_folder.HISTORY, position.history)
        self.board.epoch(row)
        if self.show_progress:
            bar.write(epoch_line(position.history, experiment.epochs, best))
            sys.stdout.flush()

    def _validate(self) -> tuple[float, list[int]]:
        # As many as a piece of a training batch has over all replicas: the sums add up the same, and the memory suffices.
        images = images_at_once(self.experiment)
        cases, errors = self.validation_cases, self.reading_errors
        pieces = evaluation_pieces(self.dataset, cases, images, self.replicas.count, errors)
        total, counts = None, [0, 0, 0]
        iterator = iter(self._distribute(pieces))
        for _ in range(-(-len(cases) // images)):
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
        return {"position": self.position.to_json(), "plateau": plateau, "identity": self._identity}

    def _restore(self, path: Path) -> None:
        progress = load_state(path, self.model, self.optimizer, self._identity)
        self.position = Position.from_json(progress["position"])
        self.plateau.best, self.plateau.wait = progress["plateau"]["best"], progress["plateau"]["wait"]
        candidate = self._candidate(self.position.best_epoch)
        if candidate.exists():
            os.replace(candidate, self.path / run_folder.BEST_WEIGHTS)
        if self.position.history:
            write_history(self.path / run_folder.HISTORY, self.position.history)

    def _candidate(self, epoch: int) -> Path:
        return self.path / f".best-{epoch:05d}.weights.h5"

    def _log_examples(self, epoch: int) -> None:
        # Called without a compiled function: a trace of its own would cost more than it saves for a few scans.
        examples = self.validation_cases[:EXAMPLES]
        piece = load_piece(self.dataset, examples, [1.0] * len(examples))
        mask = metastatic_mask(self.model(network_input(piece["grey"]), training=False))
        self.board.examples(epoch, piece["grey"], piece["labels"], keras.ops.convert_to_numpy(mask))

    def _save_model(self) -> None:
        model = tested_model(self.dataset.image_shape, self.experiment.classes, self.path / run_folder.BEST_WEIGHTS)
        replace_file(self.path / run_folder.KERAS_MODEL, model.save)

    def _save_bad_batch(self, loss: float) -> None:
        first = self.position.batch * self.experiment.batch_size
        images = self._images(self.position.epoch)[first : first + self.experiment.batch_size]
        indices, variants = zip(*images, strict=True)
        piece = load_piece(self.dataset, indices, [1.0] * len(images), variants, self.augmentation)
        cases = np.array([self.dataset.cases[index].case for index in indices])
        path = self.path / "bad_batch.npz"
        replace_file(path, lambda temporary: np.savez(temporary, case=cases, **piece))
        raise RunError(
            f"{path}: the loss became {loss} in epoch {self.position.epoch + 1} with the batch saved there; "
            "lower --learning-rate or use --precision float32 in a new --run"
        )

    def _draw(self) -> None:
        changed = "" if self.experiment.is_paper_row and not self.dataset.settings.changes() else " (changed)"
        phantoms = f", {PHANTOMS}" if scans_are(self.dataset.cases) == PHANTOMS else ""
        title = f"{self.experiment.name}{changed}, {self.title}{phantoms}"
        draw_progress(self.path / run_folder.PROGRESS, self.position.history, title)
