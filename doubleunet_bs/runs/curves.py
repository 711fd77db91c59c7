"""Losses and F1 over the epochs, for `progress.png` and for the report."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from doubleunet_bs.runs.history import Epoch


def draw_curves(axes: Axes, histories: Sequence[Sequence[Epoch]], f1: bool) -> None:
    """Draw training and validation loss, or F1 of the metastatic class in %, a pair of lines a fold.

    A star marks the tested epoch of F1, if it found anything. The legend names that of a single fold.
    """
    names, label, factor = (("f1", "val_f1"), "metastatic F1 (%)", 100.0) if f1 else (("loss", "val_loss"), "loss", 1.0)
    single = len(histories) == 1
    for number, epochs in enumerate(histories):
        x = [epoch.epoch for epoch in epochs]
        for name, colour, what in zip(names, ("#4477aa", "#cc6677"), ("training", "validation"), strict=True):
            y = [np.nan if getattr(epoch, name) is None else factor * getattr(epoch, name) for epoch in epochs]
            dots, text = "o" if len(epochs) < 2 else None, None if number else what
            axes.plot(x, y, color=colour, alpha=1.0 if single else 0.55, linewidth=1.3, marker=dots, label=text)
        if f1 and epochs:
            best = max(epochs, key=lambda epoch: epoch.score)
            # An epoch that found nothing is no best one: a line in the legend, without a mark.
            mark, what = ("*", "best") if best.val_f1 else (" ", "nothing found; kept")
            text = f"{what}: epoch {best.epoch}" if single else None
            axes.plot(best.epoch, factor * (best.val_f1 or 0), mark, color="#117733", markersize=9, label=text)
    if f1:
        # Room around 0 and 100, where a line on the frame would not be seen.
        axes.set_ylim(-3, 103)
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.set_xlim(0.5, 0.5 + max((epochs[-1].epoch for epochs in histories if epochs), default=1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
