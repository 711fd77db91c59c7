"""`progress.png`: losses and F1 over the epochs."""

import os
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from doubleunet_bs.files import replace_file
from doubleunet_bs.runs.history import Epoch


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
