"""What a network starts training from: the heads' biases, and the weights of an earlier stage."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from doubleunet_bs.errors import RunError
from doubleunet_bs.network.encoder_weights import CONV_LAYERS
from doubleunet_bs.network.head_bias import prior_head_bias
from doubleunet_bs.preparation.shards import ShardedDataset
from doubleunet_bs.training.experiments import Experiment


def starting_head_bias(experiment: Experiment, dataset: ShardedDataset, cases: Sequence[int]) -> list[float] | None:
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
