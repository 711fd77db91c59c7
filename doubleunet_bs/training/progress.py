"""What is seen of a training while it runs: `progress.png`, and TensorBoard.

The package `tensorboard` is optional: without it (`pip install tensorboard`) it gets nothing.
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
from matplotlib.ticker import MaxNLocator

from doubleunet_bs.constants import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE
from doubleunet_bs.display import clinical_display, paint_errors, with_names
from doubleunet_bs.files import replace_file
from doubleunet_bs.preparation.records import CaseRecord
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
    left, right = figure.subplots(1, 2)
    x = [epoch.epoch for epoch in epochs]
    marker = "o" if len(epochs) < 2 else None
    left.plot(x, [epoch.loss for epoch in epochs], label="training", color="#4477aa", marker=marker)
    left.plot(x, [epoch.val_loss for epoch in epochs], label="validation", color="#cc6677", marker=marker)
    left.set_ylabel("loss")
    for values, label, colour in (("f1", "training", "#4477aa"), ("val_f1", "validation", "#cc6677")):
        y = [float("nan") if getattr(epoch, values) is None else 100 * getattr(epoch, values) for epoch in epochs]
        right.plot(x, y, label=label, color=colour, marker=marker)
    if epochs:
        best = max(epochs, key=lambda epoch: epoch.score)
        if best.val_f1:
            label = f"best: epoch {best.epoch}"
            right.plot(best.epoch, 100 * best.val_f1, "*", color="#117733", markersize=11, label=label)
        else:
            # An epoch that found nothing is no best one: a line in the legend, without a mark.
            right.plot([], [], " ", label=f"nothing found; kept: epoch {best.epoch}")
    right.set_ylabel("metastatic F1 (%)")
    right.set_ylim(0, 100)
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.set_xlim(0.5, 0.5 + max(len(epochs), 1))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    replace_file(path, lambda temporary: figure.savefig(temporary, dpi=110, metadata={"Software": None}))
