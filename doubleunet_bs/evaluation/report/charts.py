"""The charts of the report, as SVG with text as text."""

import io
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from doubleunet_bs.evaluation.report.markup import MISSED, PREDICTION, WRONG, text
from doubleunet_bs.evaluation.scores import ScanScore
from doubleunet_bs.evaluation.summary import SizeRow
from doubleunet_bs.training.history import Epoch

TRAINING, VALIDATION = "#4477aa", "#cc6677"
_SIZE = (4.4, 3.0)


def loss_chart(histories: Sequence[tuple[int, Sequence[Epoch]]]) -> str:
    """Training and validation loss over the epochs, one pair of lines a fold."""
    return _curves(histories, ("loss", "val_loss"), "loss", 1.0, "Loss over the epochs")


def f1_chart(histories: Sequence[tuple[int, Sequence[Epoch]]]) -> str:
    """Training and validation F1 of the metastatic class in per cent; a star marks the epoch that is tested."""
    return _curves(histories, ("f1", "val_f1"), "metastatic F1 (%)", 100.0, "F1 over the epochs")


def dice_chart(folds: Sequence[tuple[int, Sequence[ScanScore]]]) -> str:
    """The Dice of every test scan in per cent, one row of dots a fold, its median as a bar."""
    figure, axes = _figure(height=min(5.0, 1.6 + 0.28 * len(folds)))
    names = []
    for place, (fold, scans) in enumerate(folds):
        values = [100 * scan.dice for scan in scans if scan.dice is not None]
        # Dots of one fold are spread a little, always in the same way.
        spread = [0.12 * ((number % 3) - 1) for number in range(len(values))]
        axes.plot(values, np.add(place, spread), "o", color=PREDICTION, alpha=0.6, markersize=4.5, markeredgewidth=0)
        if values:
            median = float(np.median(values))
            axes.plot([median, median], [place - 0.32, place + 0.32], color="#1c2326", linewidth=2)
        names.append(f"fold {fold}" if fold else "all folds")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("Dice per scan (%); bar: median")
    axes.grid(axis="x", alpha=0.3)
    return _svg(figure, "Dice of every test scan")


def size_chart(rows: Sequence[SizeRow]) -> str:
    """True lesions found and missed, predicted lesions right and wrong, by size."""
    figure, axes = _figure(height=3.2)
    names = [row.name.replace(" and more", "+").replace("under ", "< ").replace("mm2", "mm²") for row in rows]
    place = np.arange(len(rows))
    for offset, parts in (
        (
            -0.2,
            (
                ("found", [r.lesions.found for r in rows], PREDICTION),
                ("missed", [r.lesions.true - r.lesions.found for r in rows], MISSED),
            ),
        ),
        (
            0.2,
            (
                ("right", [r.lesions.right for r in rows], "#7fcfb9"),
                ("wrong", [r.lesions.false_positives for r in rows], WRONG),
            ),
        ),
    ):
        below = np.zeros(len(rows))
        for name, values, colour in parts:
            label = f"true, {name}" if offset < 0 else f"predicted, {name}"
            axes.bar(place + offset, values, 0.36, bottom=below, color=colour, label=label)
            below += values
    axes.set_xticks(place, [name.replace(" to ", "–") for name in names], fontsize=8)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("lesions")
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.22))
    return _svg(figure, "Lesions by size")


def _curves(
    histories: Sequence[tuple[int, Sequence[Epoch]]], names: tuple[str, str], label: str, factor: float, title: str
) -> str:
    figure, axes = _figure()
    alpha = 1.0 if len(histories) == 1 else 0.55
    for number, (_, epochs) in enumerate(histories):
        x = [epoch.epoch for epoch in epochs]
        for name, colour, what in zip(names, (TRAINING, VALIDATION), ("training", "validation"), strict=True):
            y = [np.nan if getattr(epoch, name) is None else factor * getattr(epoch, name) for epoch in epochs]
            axes.plot(
                x,
                y,
                color=colour,
                alpha=alpha,
                linewidth=1.3,
                marker="o" if len(epochs) < 2 else None,
                label=what if not number else None,
            )
        if factor != 1.0 and epochs:
            best = max(epochs, key=lambda epoch: epoch.score)
            axes.plot(
                best.epoch,
                factor * (np.nan if best.val_f1 is None else best.val_f1),
                "*",
                color="#117733",
                markersize=9,
            )
    if factor != 1.0:
        axes.set_ylim(0, 100)
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
    return _svg(figure, title)


def _figure(height: float = _SIZE[1]):
    figure = Figure(figsize=(_SIZE[0], height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure, title: str) -> str:
    """The drawing without the XML head, which does not belong inside a page; the same figure gives the same text."""
    content = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.family": ["sans-serif"]}):
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    # Identifiers are counted from 1 in every drawing; in one page they must differ.
    mark = re.sub(r"[^a-z]", "", title.lower())
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{mark}-\1"', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{mark}-", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{text(title)}"', 1)
