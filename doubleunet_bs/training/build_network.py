"""The network and the optimiser as a training begins, and the plain network that it leaves (paper, section 2.9)."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from doubleunet_bs.constants import BENIGN, NON_METASTATIC
from doubleunet_bs.errors import RunError
from doubleunet_bs.network import double_unet
from doubleunet_bs.network.double_unet import prior_head_bias
from doubleunet_bs.preparation.shards import Dataset
from doubleunet_bs.runs.experiments import BENIGN_CLASSES, Experiment
from doubleunet_bs.training.devices import Replicas
from doubleunet_bs.training.fast_kernels import FusedAdam
from doubleunet_bs.training.training_state import TrainingTask


def build_network(task: TrainingTask, replicas: Replicas) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    """The network at its start, and Adam with its variables. In "mixed_float16" the optimiser scales the loss.

    Raises `RunError` for initial weights that do not fit.
    """
    experiment = task.experiment
    keras.utils.set_random_seed(experiment.seed)
    keras.config.set_dtype_policy(replicas.precision)
    try:
        with replicas.strategy.scope():
            model = double_unet(
                (*task.dataset.image_shape, 3),
                experiment.classes,
                experiment.encoder_weights if task.initial_weights is None else None,
                starting_head_bias(experiment, task.dataset, task.train_cases),
                synchronized=replicas.count > 1,
                bn_momentum=experiment.bn_momentum,
            )
            if task.initial_weights is not None:
                load_initial_weights(model, task.initial_weights)
            optimizer = FusedAdam(experiment.learning_rate, name="adam")
            if replicas.precision == "mixed_float16":
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale")
            optimizer.build(model.trainable_variables)
    finally:
        keras.config.set_dtype_policy("float32")
    return model, optimizer


def starting_head_bias(experiment: Experiment, dataset: Dataset, cases: Sequence[int]) -> list[float] | None:
    """The biases of the heads from the labels of the training cases. None for zeros, if the experiment says so."""
    if experiment.head_bias == "zeros":
        return None
    # The last is benign; the network of one class counts it with the rest that is not metastatic.
    classes = max(BENIGN_CLASSES, experiment.classes)
    pixels = np.zeros(classes, np.int64)
    for index in cases:
        labels = dataset.labels(index)
        # A tenth of the time of np.bincount, which first makes eight bytes of each.
        pixels += [np.count_nonzero(labels == number) for number in range(classes)]
    if experiment.classes < BENIGN_CLASSES:
        pixels[NON_METASTATIC] += pixels[BENIGN]
    return prior_head_bias(pixels[: max(3, experiment.classes)].tolist(), experiment.classes)


def load_initial_weights(model: keras.Model, path: Path) -> None:
    """Start from the weights of another network of this kind; `RunError` where they are missing, damaged or others."""
    try:
        model.load_weights(path)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as cause:
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:160]
        raise RunError(f"{path}: not weights of this network ({reason})") from None


def plain_network(task: TrainingTask, weights: Path) -> keras.Model:
    """A float32 network with these weights, which any single device can open."""
    model = double_unet((*task.dataset.image_shape, 3), task.experiment.classes)
    model.load_weights(weights)
    return model
