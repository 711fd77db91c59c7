"""Prepared grey images -> metastatic probability and mask, computed by a Keras network.

Evaluation uses it, and the export puts the same function into its graph.
"""

import dataclasses
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from doubleunet_bs.errors import RunError
from doubleunet_bs.inference.engines import (
    INPUT,
    MASK,
    PROBABILITY,
    REGION_PROBABILITY,
    check_images,
    damaged_model,
    probability_name,
)
from doubleunet_bs.network.metrics import (
    lesion_mask,
    metastatic_probability,
    network_input,
    region_mask,
    region_probability,
    segmentation,
    segments_skeleton,
)
from doubleunet_bs.preparation.shards import ShardedDataset

Network = Callable[..., Any]
"""A Keras model, or a function with its arguments (`image`, `training`) and outputs."""


def segmentation_function(network: Network) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Masks and probabilities with their names, for the live network and inside the exported one.

    Returns:
        A function of (n, rows, columns) uint8 images. It returns "metastatic_probability", (n, rows, columns) float32
        between 0 and 1, and "mask", uint8 of the same shape, 1 where metastatic is the most probable class of output 2,
        2 where benign is, in a network with that class.
        For a network of the skeleton "region_probability", and "mask" with the numbers of the regions.
    """

    def segment(image):
        outputs = network(network_input(image), training=False)
        if segments_skeleton(outputs):
            return {REGION_PROBABILITY: region_probability(outputs), MASK: region_mask(outputs)}
        return {PROBABILITY: metastatic_probability(outputs), MASK: lesion_mask(outputs)}

    return segment


def mean_of(networks: Sequence[keras.Model]) -> Network:
    """An ensemble: the input of the networks -> {"output2": mean of their class probabilities of output 2, float32}."""

    def mean(image, training: bool = False):
        members = [tf.cast(segmentation(network(image, training=training)), tf.float32) for network in networks]
        return {"output2": tf.add_n(members) / len(members)}

    return mean


def image_signature(rows: int, columns: int) -> tf.TensorSpec:
    """The input of `segmentation_function`, for any number of images."""
    return tf.TensorSpec((None, rows, columns), tf.uint8, name=INPUT)


class Segmenter:
    """An `engines.Engine` for a network in memory, in float32.

    Args:
        network: see `Network`.
        image_shape: (rows, columns) of its input.
    """

    def __init__(self, network: Network, image_shape: tuple[int, int]):
        self.image_shape = image_shape
        self.name = f"tensorflow {tf.__version__}, float32, in memory"
        self._function = tf.function(
            segmentation_function(network), input_signature=[image_signature(*image_shape)], autograph=False
        )

    def __call__(self, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `engines.Engine`."""
        check_images(grey, self.image_shape)
        result = self._function(tf.constant(grey, tf.uint8))
        return result[probability_name(result)].numpy(), result[MASK].numpy()


def load_keras_model(path: str | os.PathLike) -> keras.Model:
    """Load a `.keras` file for prediction.

    Raises:
        RunError: the file is missing, damaged, or not a network for images of three channels.
    """
    path = Path(path)
    if not path.is_file():
        raise RunError(f"{path}: no such model")
    if not zipfile.is_zipfile(path):
        raise RunError(f"{path}: not a readable Keras model: not a .keras archive, or cut off")
    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error) as cause:
        raise damaged_model(path, cause, "Keras model") from cause
    shape = model.input_shape
    if not (isinstance(shape, tuple) and len(shape) == 4 and shape[3] == 3 and None not in shape[1:]):
        raise RunError(f"{path}: a Keras model, but not one for images of three channels")
    return model


@dataclasses.dataclass(frozen=True)
class CasePrediction:
    """One case of a dataset with its prediction.

    Attributes:
        index: number of the case in the dataset.
        grey, labels: (rows, columns) uint8.
        probability: (rows, columns) float32.
        mask: (rows, columns) uint8, 1 where metastatic is predicted, 2 where benign is.
    """

    index: int
    grey: np.ndarray
    labels: np.ndarray
    probability: np.ndarray
    mask: np.ndarray


Segment = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Takes (n, rows, columns) uint8 images, returns probabilities (float32) and masks (uint8) of the same shape."""


def predict_cases(
    segmenter: Segment, dataset: ShardedDataset, cases: Sequence[int], batch_size: int = 4
) -> Iterator[CasePrediction]:
    """Predict cases in batches; only one batch is in memory at a time.

    Args:
        segmenter: the model, a `Segmenter` for instance.
        dataset: opened shards.
        cases: indices into it, predicted in this order.
        batch_size: images in one batch, at least 1.
    """
    for start in range(0, len(cases), batch_size):
        batch = list(cases[start : start + batch_size])
        grey = np.stack([dataset.grey(index) for index in batch])
        probability, mask = segmenter(grey)
        for place, index in enumerate(batch):
            yield CasePrediction(index, grey[place], np.asarray(dataset.labels(index)), probability[place], mask[place])
