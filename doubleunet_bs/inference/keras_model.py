"""Prepared grey images -> metastatic probability and mask, with a `model.keras`."""

import dataclasses
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from doubleunet_bs.errors import RunError
from doubleunet_bs.inference.endpoints import INPUT, MASK, PROBABILITY
from doubleunet_bs.network.metrics import metastatic_mask, metastatic_probability, network_input, segmentation
from doubleunet_bs.preparation.shards import ShardedDataset


def segmentation_function(model: Callable[..., Any]) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """The one way from a grey image to the answer, used for the live model and inside the exported one.

    Args:
        model: the network, or another function of its input (and `training`) with outputs of the same kind.

    Returns:
        A function of (n, rows, columns) uint8 images. It returns "metastatic_probability", (n, rows, columns) float32
        between 0 and 1, and "mask", uint8 of the same shape, 1 where metastatic is the likeliest class of output 2.
    """

    def segment(image):
        outputs = model(network_input(image), training=False)
        return {PROBABILITY: metastatic_probability(outputs), MASK: tf.cast(metastatic_mask(outputs), tf.uint8)}

    return segment


def mean_of(networks: Sequence[keras.Model]) -> Callable[..., dict[str, tf.Tensor]]:
    """The networks as one: their input -> {"output2": mean of the class probabilities of output 2, float32}."""

    def mean(image, training: bool = False):
        members = [tf.cast(segmentation(network(image, training=training)), tf.float32) for network in networks]
        return {"output2": tf.add_n(members) / len(members)}

    return mean


def image_signature(rows: int, columns: int) -> tf.TensorSpec:
    """The input of `segmentation_function`, for any number of images."""
    return tf.TensorSpec((None, rows, columns), tf.uint8, name=INPUT)


class Segmenter:
    """A loaded model.

    Args:
        function: takes a tensor of (n, rows, columns) uint8, returns the dict of `segmentation_function`.
        image_shape: (rows, columns) that it accepts.
    """

    def __init__(self, function: Callable[[tf.Tensor], dict[str, tf.Tensor]], image_shape: tuple[int, int]):
        self.image_shape = image_shape
        self._function = function

    @classmethod
    def from_model(cls, model: keras.Model) -> "Segmenter":
        """Of a network in memory."""
        return cls.from_function(model, model.input_shape[1:3])

    @classmethod
    def from_function(cls, model: Callable[..., Any], image_shape: tuple[int, int]) -> "Segmenter":
        """Of a network, or another function of its input, that takes images of `image_shape`, (rows, columns)."""
        function = tf.function(
            segmentation_function(model), input_signature=[image_signature(*image_shape)], autograph=False
        )
        return cls(function, image_shape)

    @classmethod
    def from_keras(cls, path: str | os.PathLike) -> "Segmenter":
        """Of a `.keras` file.

        Raises:
            RunError: the file is missing, damaged, or another network.
        """
        return cls.from_model(load_keras_model(path))

    def __call__(self, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Segment images.

        Args:
            grey: (n, rows, columns) uint8 prepared images.

        Returns:
            Probabilities, (n, rows, columns) float32; masks, (n, rows, columns) uint8 of 0 and 1.

        Raises:
            RunError: images of another size than the model takes.
        """
        if grey.shape[1:] != self.image_shape:
            raise RunError(
                f"the model takes images of {self.image_shape[0]} x {self.image_shape[1]} pixels, "
                f"not {' x '.join(map(str, grey.shape[1:]))}"
            )
        result = self._function(tf.constant(grey, tf.uint8))
        return result[PROBABILITY].numpy(), result[MASK].numpy()


def load_keras_model(path: str | os.PathLike) -> keras.Model:
    """Load a `.keras` file for prediction.

    Raises:
        RunError: the file is missing, damaged, or no image segmentation network.
    """
    if not Path(path).is_file():
        raise RunError(f"{path}: no such model")
    if not zipfile.is_zipfile(path):
        raise RunError(f"{path}: not a readable Keras model (not a .keras archive, or cut off)")
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as cause:  # Keras raises whatever the damaged part runs into; the file is the one thing to blame.
        raise RunError(f"{path}: not a readable Keras model ({_first_line(cause)})") from None
    shape = model.input_shape
    if not (isinstance(shape, tuple) and len(shape) == 4 and shape[3] == 3 and None not in shape[1:]):
        raise RunError(f"{path}: a Keras model, but not one that takes images of three channels")
    return model


@dataclasses.dataclass(frozen=True)
class CasePrediction:
    """One case of a dataset with its prediction.

    Attributes:
        index: number of the case in the dataset.
        grey, labels: (rows, columns) uint8.
        probability: (rows, columns) float32.
        mask: (rows, columns) uint8, 1 where metastatic is predicted.
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
    """Predict cases one batch at a time; never more than one batch is in memory.

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


def _first_line(cause: BaseException) -> str:
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0][:160]
