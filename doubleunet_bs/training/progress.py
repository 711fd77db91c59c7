"""What is seen of a training while it runs: `progress.png`, and TensorBoard.

Without the extra `tensorboard` the latter gets nothing.
"""

import dataclasses
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from doubleunet_bs.constants import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE
from doubleunet_bs.display import clinical_display, paint_errors, with_names
from doubleunet_bs.files import replace_file
from doubleunet_bs.preparation.records import CaseRecord
from doubleunet_bs.runs.curves import draw_curves
from doubleunet_bs.runs.history import Epoch

EXAMPLES = 3
"""Validation scans shown at every epoch that is the best so far."""


class TensorBoardLog:
    """Event files in `folder`/tensorboard, flushed after every epoch. A resumed training adds others.

    Training and validation are two series with the same names, which TensorBoard draws into one chart.
    """

    def __init__(self, folder: Path):
        series = ("training", "validation") if importlib.util.find_spec("tensorboard") is not None else ()
        self._writers = {one: tf.summary.create_file_writer(str(folder / "tensorboard" / one)) for one in series}

    def epoch(self, row: Epoch) -> None:
        """Write the figures of an epoch, without those that are undefined."""
        for series, writer in self._writers.items():
            with writer.as_default(row.epoch):
                for name, value in dataclasses.asdict(row).items():
                    of = "validation" if name.startswith("val_") else "training"
                    if of == series and name != "epoch" and value is not None:
                        tf.summary.scalar(name.removeprefix("val_"), value)
            writer.flush()

    def examples(
        self, step: int, grey: np.ndarray, labels: np.ndarray, mask: np.ndarray, records: Sequence[CaseRecord]
    ) -> None:
        """Write pictures of scans with the errors of their prediction coloured, and the names of what is shown.

        Args:
            grey, labels, mask: (n, rows, columns) uint8 images, uint8 classes, and bool where metastatic is predicted.
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
        with self._writers["validation"].as_default(step):
            tf.summary.image("validation", pictures, max_outputs=len(pictures))
        self._writers["validation"].flush()

    def close(self) -> None:
        """End the event files."""
        for writer in self._writers.values():
            writer.close()


def draw_progress(path: str | os.PathLike, epochs: Sequence[Epoch], title: str) -> None:
    """Draw losses and metastatic F1 over the epochs as PNG, with the best validation epoch marked."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    for axes, f1 in zip(figure.subplots(1, 2), (False, True), strict=True):
        draw_curves(axes, [epochs], f1)
    replace_file(path, lambda temporary: figure.savefig(temporary, dpi=110, metadata={"Software": None}))
