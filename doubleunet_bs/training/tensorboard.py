"""What TensorBoard shows of a run: the figures of every epoch, and a few validation scans with the prediction laid over."""

import dataclasses
from pathlib import Path

import numpy as np
import tensorflow as tf

from doubleunet_bs.display import clinical_display, paint_errors
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
        """Write pictures of (n, rows, columns) images, labels and predicted masks, errors coloured."""
        pictures = np.stack(
            [paint_errors(clinical_display(image), *case) for image, *case in zip(grey, labels, mask, strict=True)]
        )
        with self._writer.as_default():
            tf.summary.image("validation", pictures, step=step, max_outputs=len(pictures))
        self._writer.flush()

    def close(self) -> None:
        """End the event file."""
        self._writer.close()


def _tag(name: str) -> str:
    part = "validation" if name.startswith("val_") else "run" if name in ("learning_rate", "seconds") else "training"
    return f"{part}/{name.removeprefix('val_')}"
