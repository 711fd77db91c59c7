"""The charts of the report: SVG as matplotlib writes it, as data URIs."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from doubleunet_bs.constants import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE
from doubleunet_bs.evaluation.lesions import LesionCounts
from doubleunet_bs.evaluation.scores import ScanScore
from doubleunet_bs.training.history import Epoch

TRAINING, VALIDATION = "#4477aa", "#cc6677"


def hex_colour(colour: tuple[int, int, int]) -> str:
    """
    Example:
        >>> hex_colour((170, 51, 119))
        '#aa3377'
    """
    return "#{:02x}{:02x}{:02x}".format(*colour)


def loss_chart(histories: Sequence[tuple[int, Sequence[Epoch]]]) -> str:
    """Training and validation loss over the epochs, one pair of lines a fold."""
    return _curves(histories, ("loss", "val_loss"), "loss", 1.0, "Loss over the epochs")


def f1_chart(histories: Sequence[tuple[int, Sequence[Epoch]]]) -> str:
    """Training and validation F1 of the metastatic class in %; a star marks the epoch that is tested."""
    return _curves(histories, ("f1", "val_f1"), "metastatic F1 (%)", 100.0, "F1 over the epochs")


def dice_chart(folds: Sequence[tuple[int, Sequence[ScanScore]]]) -> str:
    """The Dice of every test scan in %, one row of dots a fold, its median as a bar."""
    figure, axes = _figure(height=min(5.0, 1.6 + 0.28 * len(folds)))
    names, green = [], hex_colour(TRUE_POSITIVE)
    for place, (fold, scans) in enumerate(folds):
        values = [100 * scan.dice for scan in scans if scan.dice is not None]
        # Dots of one fold are spread a little, always in the same way.
        spread = [0.12 * ((number % 3) - 1) for number in range(len(values))]
        axes.plot(values, np.add(place, spread), "o", color=green, alpha=0.6, markersize=4.5, markeredgewidth=0)
        if values:
            median = float(np.median(values))
            axes.plot([median, median], [place - 0.32, place + 0.32], color="#1c2326", linewidth=2)
        names.append(f"fold {fold}" if fold else "all folds")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("Dice per scan (%); bar: median")
    axes.grid(axis="x", alpha=0.3)
    return _uri(figure, "Dice of every test scan")


def size_chart(sizes: Mapping[str, LesionCounts]) -> str:
    """True positives, false negatives and false positives among lesions, by size."""
    figure, axes = _figure(height=3.2)
    names = [name.replace(" and more", "+").replace("under ", "< ").replace("mm2", "mm²") for name in sizes]
    place, rows = np.arange(len(sizes)), sizes.values()
    bars = (
        (-0.2, "true, detected", [row.found for row in rows], TRUE_POSITIVE),
        (-0.2, "true, false negative", [row.false_negatives for row in rows], FALSE_NEGATIVE),
        (0.2, "predicted, true positive", [row.right for row in rows], (127, 207, 185)),
        (0.2, "predicted, false positive", [row.false_positives for row in rows], FALSE_POSITIVE),
    )
    for number, (offset, name, values, colour) in enumerate(bars):
        # The second and the fourth stand on the one before.
        below = bars[number - 1][2] if number % 2 else 0
        axes.bar(place + offset, values, 0.36, bottom=below, color=hex_colour(colour), label=name)
    axes.set_xticks(place, [name.replace(" to ", "–") for name in names], fontsize=8)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("lesions")
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.22))
    return _uri(figure, "Lesions by size")


def _curves(
    histories: Sequence[tuple[int, Sequence[Epoch]]], names: tuple[str, str], label: str, factor: float, title: str
) -> str:
    figure, axes = _figure()
    alpha = 1.0 if len(histories) == 1 else 0.55
    for number, (_, epochs) in enumerate(histories):
        x = [epoch.epoch for epoch in epochs]
        marker = "o" if len(epochs) < 2 else None
        for name, colour, what in zip(names, (TRAINING, VALIDATION), ("training", "validation"), strict=True):
            y = [np.nan if getattr(epoch, name) is None else factor * getattr(epoch, name) for epoch in epochs]
            label_of_line = None if number else what
            axes.plot(x, y, color=colour, alpha=alpha, linewidth=1.3, marker=marker, label=label_of_line)
        if factor != 1.0 and epochs:
            best = max(epochs, key=lambda epoch: epoch.score)
            best_f1 = np.nan if best.val_f1 is None else factor * best.val_f1
            axes.plot(best.epoch, best_f1, "*", color="#117733", markersize=9)
    if factor != 1.0:
        axes.set_ylim(0, 100)
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
    return _uri(figure, title)


def _figure(height: float = 3.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _uri(figure: Figure, title: str) -> str:
    """Text stays text, in the fonts of the page; the same figure gives the same bytes."""
    content = io.BytesIO()
    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": title, "font.family": ["sans-serif"]}
    with matplotlib.rc_context(style):
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(content.getvalue()).decode("ascii")
