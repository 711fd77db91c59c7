"""The charts: figures of matplotlib, as data URIs for the report and as files for a paper."""

import base64
import functools
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from doubleunet_bs.bsi.agreement import agreement
from doubleunet_bs.constants import FALSE_NEGATIVE, FALSE_POSITIVE, METASTATIC, TRUE_POSITIVE, TRUTH
from doubleunet_bs.display import Colour, clinical_display, hex_colour, place_names
from doubleunet_bs.evaluation.scores.comparable_scores import LIMIT, Froc
from doubleunet_bs.evaluation.scores.lesions import LesionCounts
from doubleunet_bs.evaluation.scores.scan_scores import ScanScore
from doubleunet_bs.files import replace_file
from doubleunet_bs.runs.curves import draw_curves
from doubleunet_bs.runs.history import Epoch

FIGURES = "figures"


def loss_chart(histories: Sequence[tuple[int, Sequence[Epoch]]]) -> Figure:
    """Training and validation loss over the epochs, one pair of lines a fold."""
    return _curves(histories, f1=False)


def f1_chart(histories: Sequence[tuple[int, Sequence[Epoch]]]) -> Figure:
    """Training and validation F1 of the metastatic class in %; a star marks the tested epoch, if it found anything."""
    return _curves(histories, f1=True)


def dice_chart(folds: Sequence[tuple[int, Sequence[ScanScore]]]) -> Figure:
    """The Dice of every test scan in %, one row of dots a fold, its median as a bar."""
    figure, axes = _figure(height=min(5.0, 1.6 + 0.28 * len(folds)))
    names, green = [], hex_colour(TRUE_POSITIVE)
    for place, (fold, scans) in enumerate(folds):
        values = [100 * scan.dice for scan in scans if scan.dice is not None]
        # Dots of one fold are spread a little, always in the same way.
        spread = [0.12 * ((number % 3) - 1) for number in range(len(values))]
        dots = axes.plot(values, np.add(place, spread), "o", color=green, alpha=0.6, markersize=4.5, markeredgewidth=0)
        dots[0].set_clip_on(False)  # A dot at 0 % is drawn whole.
        if values:
            median = float(np.median(values))
            axes.plot([median, median], [place - 0.32, place + 0.32], color="#1c2326", linewidth=2)
        names.append(f"fold {fold}" if fold else "ensemble")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("Dice per scan (%); bar: median")
    axes.grid(axis="x", alpha=0.3)
    return figure


def paired_chart(names: Sequence[str], scans: Sequence[Sequence[float | None]]) -> Figure:
    """The Dice of the same scans in several runs in %, one line a scan, the medians as bars.

    Args:
        names: of the runs.
        scans: for each scan its Dice in each run as a fraction, None where undefined.
    """
    figure, axes = _figure(height=3.4)
    # In one line, as many letters are as wide as the picture.
    if many := len(names) > 2 or sum(map(len, names)) > 45:
        figure.set_size_inches(max(4.4, 0.65 * len(names)), 4.4)
    values = 100 * np.array([[np.nan if value is None else value for value in dice] for dice in scans], float)
    places = np.arange(len(names))
    green = hex_colour(TRUE_POSITIVE)
    axes.plot(places, values.T, "-o", color=green, alpha=0.45, linewidth=1, markersize=3.5, clip_on=False)
    for place, own in zip(places, values.T, strict=True):
        if not np.isnan(own).all():
            median = float(np.nanmedian(own))
            axes.plot([place - 0.12, place + 0.12], [median, median], color="#1c2326", linewidth=2.5)
    axes.set_xticks(places, names, rotation=35 if many else 0, ha="right" if many else "center")
    axes.set_xlim(-0.4, len(names) - 0.6)
    axes.set_ylim(0, 100)
    axes.set_ylabel("Dice per scan (%); bar: median")
    axes.grid(axis="y", alpha=0.3)
    return figure


def size_chart(sizes: Mapping[str, LesionCounts]) -> Figure:
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
    return figure


def froc_chart(folds: Sequence[tuple[int, Froc | None]]) -> Figure:
    """Sensitivity for lesions in % against false positives per scan, a line a fold."""
    figure, axes = _figure(height=3.2)
    for fold, curve in folds:
        if curve is not None:
            end = max(LIMIT, *curve.false_positives) if curve.false_positives else LIMIT
            x = [0.0, *curve.false_positives, end]
            y = [0.0, *curve.sensitivity, curve.sensitivity_at(end)]
            axes.plot(x, 100 * np.array(y), alpha=0.8, linewidth=1.4, label=f"fold {fold}")
    axes.set_xlim(0, LIMIT)
    axes.set_ylim(0, 101)
    axes.set_xlabel("false positives per scan")
    axes.set_ylabel("lesion sensitivity (%)")
    axes.grid(alpha=0.3)
    if 1 < len(folds) < 11:
        axes.legend(frameon=False, fontsize=8, loc="lower right", ncols=1 + len(folds) // 6)
    return figure


def agreement_chart(pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Scatter and Bland-Altman plot of the Bone Scan Index of predicted masks, a row for each reference.

    Args:
        pairs: name of the reference -> its values and the measured ones, in percent.
    """
    figure = Figure(figsize=(8.8, 3.6 * len(pairs)), layout="constrained")
    green, grey = hex_colour(TRUE_POSITIVE), "#4d575b"
    for row, (name, (reference, measured)) in enumerate(pairs.items()):
        scatter, bland = (figure.add_subplot(len(pairs), 2, 2 * row + place) for place in (1, 2))
        top = 1.05 * max(*reference, *measured, 0.1)
        scatter.plot([0, top], [0, top], color=grey, linewidth=0.9, linestyle="--", label="equal")
        scatter.plot(reference, measured, "o", color=green, alpha=0.7, markersize=4.5, markeredgewidth=0)
        scatter.set(xlim=(0, top), ylim=(0, top), xlabel=f"{name} BSI (%)", ylabel="predicted BSI (%)")
        scatter.set_aspect("equal")
        scatter.legend(frameon=False, fontsize=8, loc="upper left")
        mean, difference = np.mean([reference, measured], axis=0), np.subtract(measured, reference)
        bland.plot(mean, difference, "o", color=green, alpha=0.7, markersize=4.5, markeredgewidth=0)
        bland.axhline(0, color=grey, linewidth=0.6)
        found = agreement(reference, measured)
        if found.bias is not None and found.limits:
            for value, style in ((found.bias, "-"), *((limit, "--") for limit in found.limits)):
                bland.axhline(value, color="#1c2326", linewidth=1.1, linestyle=style)
                bland.annotate(
                    f"{value:+.2f}", (1, value), xycoords=("axes fraction", "data"), fontsize=8, va="bottom", ha="right"
                )
        bland.set_xlabel("mean of both (%)")
        bland.set_ylabel(f"predicted - {name} (points)")
        for axes in (scatter, bland):
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.3)
    return figure


def _curves(histories: Sequence[tuple[int, Sequence[Epoch]]], f1: bool) -> Figure:
    figure, axes = _figure()
    draw_curves(axes, [epochs for _, epochs in histories], f1)
    return figure


def _figure(height: float = 3.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def scan_chart(grey: np.ndarray, labels: np.ndarray, mask: np.ndarray, warnings: Collection[str]) -> Figure:
    """A scan with the outlines of true and predicted lesions.

    Args:
        grey, labels, mask: (rows, columns): uint8 image and classes, bool prediction.
        warnings: of the scan: they may put the sides in doubt.
    """
    figure, axes = _image_figure(clinical_display(grey), warnings)
    truth, predicted = np.asarray(labels) == METASTATIC, np.asarray(mask, bool)
    # A white halo first: it keeps both visible on black bone, and hides neither where they coincide.
    for area, colour, width, style, name in (
        (truth, "white", 2.2, "-", None),
        (predicted, "white", 2.2, "-", None),
        (truth, hex_colour(TRUTH), 1.3, "-", "true lesions"),
        (predicted, hex_colour(TRUE_POSITIVE), 0.8, (0, (3, 1.5)), "predicted lesions"),
    ):
        if area.any():
            axes.contour(area, [0.5], colors=[colour], linewidths=width, linestyles=[style])
        if name:
            axes.plot([], [], color=colour, linewidth=width, linestyle=style, label=name)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 0.0))
    return figure


def map_chart(name: str, mean: np.ndarray, share: np.ndarray, colour: Colour, warnings: Collection[str]) -> Figure:
    """A map of errors with its colour bar: `share` is the share of the scans in which a pixel is one, 0 to 1."""
    figure, axes = _image_figure(mean, warnings)
    red, green, blue = (channel / 255 for channel in colour)
    colours = LinearSegmentedColormap.from_list(name, [(red, green, blue, 0.0), (red, green, blue, 1.0)])
    peak = max(100 * float(share.max()), 1e-9)
    shown = axes.imshow(100 * share, cmap=colours, norm=PowerNorm(0.5, 0, peak), interpolation="nearest")
    bar = figure.colorbar(shown, ax=axes, location="bottom", shrink=0.7, aspect=40, pad=0.02)
    bar.set_ticks([0, peak / 4, peak], labels=[f"{value:.1f}" for value in (0, peak / 4, peak)])
    bar.set_label(f"{name.lower()}, % of the scans (square-root scale)", fontsize=8)
    return figure


def _image_figure(picture: np.ndarray, warnings: Collection[str]) -> tuple[Figure, Axes]:
    """A grey picture with the names of its views and sides above it."""
    rows, columns = picture.shape
    width = 4.8
    figure = Figure(figsize=(width, width * rows / columns + 0.5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_axis_off()
    for x, text in place_names(columns, warnings):
        axes.text(x, 0, text, ha="center", va="bottom", fontsize=8, color="#4d575b")
    return figure, axes


def mark_figure(figure: Figure, mark: str) -> Figure:
    """Write a mark below, "" for none: figures of phantoms say so wherever they are shown."""
    if mark:
        figure.supxlabel(mark, x=0.99, ha="right", fontsize=7, color="#4d575b")
    return figure


_STYLE: Any = {"svg.fonttype": "none", "pdf.fonttype": 42, "font.family": ["sans-serif"]}
"""Text stays text: in the fonts of the page, and to be edited in a paper's figure."""


def write_figures(folder: Path, figures: Mapping[str, Figure], kind: str) -> None:
    """Write each figure as NAME.`kind`: "pdf", "svg" or "png". The same figure gives the same bytes."""
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}[kind]
    for name, figure in figures.items():
        save = functools.partial(figure.savefig, format=kind, dpi=300, metadata=metadata)
        with matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}):
            replace_file(folder / f"{name}.{kind}", save)


def svg_uri(figure: Figure, name: str) -> str:
    """A figure as SVG in a data URI; the same figure gives the same text."""
    content = io.BytesIO()
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(content.getvalue()).decode("ascii")
