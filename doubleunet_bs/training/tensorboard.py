"""What TensorBoard shows of a run: the figures of every epoch, and a few validation scans with the prediction laid over."""

import dataclasses
from pathlib import Path

import numpy as np
import tensorflow as tf

from doubleunet_bs.constants import FALSE_NEGATIVE, FALSE_POSITIVE, METASTATIC, TRUE_POSITIVE
from doubleunet_bs.training.history import Epoch

FOLDER = "tensorboard"
EXAMPLES = 3
"""Validation scans pictured, at every epoch that is the best so far."""


class TensorBoardLog:
    """An event file in `folder`/tensorboard, flushed after every epoch. A resumed run adds another file beside it."""

    def __init__(self, folder: Path):
        self._writer = tf.summary.create_file_writer(str(folder / FOLDER))

    def epoch(self, row: Epoch) -> None:
        """Write the figures of an epoch; one that is undefined is left out."""
        with self._writer.as_default():
            for name, value in dataclasses.asdict(row).items():
                if name != "epoch" and value is not None:
                    tf.summary.scalar(_tag(name), value, step=row.epoch)
        self._writer.flush()

    def examples(self, step: int, grey: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> None:
        """Write pictures of (n, rows, columns) images, labels and predicted masks, see `overlay`."""
        pictures = np.stack([overlay(*case) for case in zip(grey, labels, mask, strict=True)])
        with self._writer.as_default():
            tf.summary.image("validation", pictures, step=step, max_outputs=len(pictures))
        self._writer.flush()

    def close(self) -> None:
        """End the event file."""
        self._writer.close()


def overlay(grey: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A scan, dark on white, with found, wrong and missed metastatic pixels in their colours.

    Args:
        grey: (rows, columns) uint8 prepared image.
        labels: (rows, columns) uint8 classes.
        mask: (rows, columns) bool, True where metastatic is predicted.

    Returns:
        (rows, columns, 3) uint8.
    """
    picture = np.repeat((255 - grey)[..., None], 3, axis=-1)
    truth = labels == METASTATIC
    for area, colour in (
        (truth & mask, TRUE_POSITIVE),
        (~truth & mask, FALSE_POSITIVE),
        (truth & ~mask, FALSE_NEGATIVE),
    ):
        picture[area] = colour
    return picture


def _tag(name: str) -> str:
    part = "validation" if name.startswith("val_") else "run" if name in ("learning_rate", "seconds") else "training"
    return f"{part}/{name.removeprefix('val_')}"
