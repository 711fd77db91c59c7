"""What TensorBoard shows of a training while it runs.

The package `tensorboard` is optional: without it (`pip install tensorboard`) nothing is written.
"""

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from doubleunet_bs.constants import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE
from doubleunet_bs.display import clinical_display, paint_errors, with_names
from doubleunet_bs.preparation.records import CaseRecord
from doubleunet_bs.runs.history import Epoch

EXAMPLES = 3
"""Validation scans shown at every epoch that is the best so far."""
_OF_THE_RUN = ("learning_rate", "seconds")


class TensorBoardLog:
    """Event files in `folder`/tensorboard, flushed after every epoch. A resumed training adds others.

    Training and validation are two series with the same names, which TensorBoard draws into one chart.
    """

    def __init__(self, folder: Path):
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        if importlib.util.find_spec("tensorboard") is not None:
            self._writers = {
                series: tf.summary.create_file_writer(str(folder / "tensorboard" / series))
                for series in ("training", "validation")
            }

    def epoch(self, row: Epoch) -> None:
        """Write the figures of an epoch, without those that are undefined."""
        for series, writer in self._writers.items():
            with writer.as_default():
                for name, value in dataclasses.asdict(row).items():
                    of = "validation" if name.startswith("val_") else "training"
                    if name != "epoch" and value is not None and of == series:
                        # TensorBoard sorts by name: the figures come before learning rate and seconds.
                        group = "run" if name in _OF_THE_RUN else "figures"
                        tf.summary.scalar(f"{group}/{name.removeprefix('val_')}", value, step=row.epoch)
            writer.flush()

    def examples(
        self, step: int, grey: np.ndarray, labels: np.ndarray, mask: np.ndarray, records: Sequence[CaseRecord]
    ) -> None:
        """Write pictures of scans with the errors of their prediction coloured, and the names of what is shown.

        Args:
            step: number of the epoch.
            grey: (n, rows, columns) uint8 prepared images.
            labels: (n, rows, columns) uint8 classes.
            mask: (n, rows, columns) bool, True where metastatic is predicted.
            records: of the n scans.
        """
        if not self._writers:
            return
        legend = [("TP", TRUE_POSITIVE), ("FP", FALSE_POSITIVE), ("FN", FALSE_NEGATIVE)]
        phantom = any(record.phantom for record in records)  # for all: pictures of one event have one size
        pictures = np.stack(
            [
                with_names(paint_errors(clinical_display(image), *case), record.warnings, phantom, legend)
                for image, *case, record in zip(grey, labels, mask, records, strict=True)
            ]
        )
        with self._writers["validation"].as_default():
            tf.summary.image("validation", pictures, step=step, max_outputs=len(pictures))
        self._writers["validation"].flush()

    def close(self) -> None:
        """End the event files."""
        for writer in self._writers.values():
            writer.close()
