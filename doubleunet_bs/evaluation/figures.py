"""Overlay pictures: a scan, its truth and its prediction side by side (as in the paper, Figures 4 to 7)."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from doubleunet_bs.constants import FALSE_NEGATIVE, FALSE_POSITIVE, METASTATIC, TRUE_POSITIVE, TRUTH
from doubleunet_bs.display import PHANTOM_NOTE, clinical_display, png_bytes
from doubleunet_bs.evaluation.tables import percent
from doubleunet_bs.files import replace_file
from doubleunet_bs.pixel_counts import PixelCounts, count_pixels

_DPI = 100
_PANEL_ROWS = 960
"""Height of a panel in screen pixels, about: image pixels are shown as whole blocks. All else grows with it."""


def colour(background: np.ndarray, areas: Sequence[tuple[np.ndarray, tuple[int, int, int]]]) -> np.ndarray:
    """Fill areas of a grey picture with colours.

    Args:
        background: (rows, columns) uint8.
        areas: (mask, colour) pairs; a mask is a bool array of the same shape.

    Returns:
        (rows, columns, 3) uint8.
    """
    picture = np.repeat(background[..., None], 3, axis=2)
    for mask, rgb in areas:
        picture[mask] = rgb
    return picture


def draw_case(
    path: str | os.PathLike,
    case: str,
    grey: np.ndarray,
    labels: np.ndarray,
    mask: np.ndarray,
    phantom: bool | None = None,
) -> PixelCounts:
    """Draw image, truth and prediction of one case as PNG, written whole or not at all.

    Each panel shows the prepared image, anterior view on the left. The prediction panel tells found, wrong and missed
    metastatic pixels by colour; every image pixel is a block of equal screen pixels.

    Args:
        path: the PNG file.
        case: pseudonym, for the title.
        grey: (rows, columns) uint8 prepared image.
        labels: (rows, columns) uint8 classes.
        mask: (rows, columns), bool or 0 and 1: the prediction.
        phantom: True: a note in the title says that this is no patient.

    Returns:
        The counts of the case, as printed in the title.
    """
    counts = count_pixels(labels, mask)
    truth, found = labels == METASTATIC, np.asarray(mask, bool)
    background = clinical_display(grey)
    panels = {
        "Scan": colour(background, []),
        "Truth": colour(background, [(truth, TRUTH)]),
        "Prediction": colour(
            background,
            [
                (truth & found, TRUE_POSITIVE),
                (~truth & found, FALSE_POSITIVE),
                (truth & ~found, FALSE_NEGATIVE),
            ],
        ),
    }
    scale = max(1, round(_PANEL_ROWS / grey.shape[0]))
    height, width = grey.shape[0] * scale, grey.shape[1] * scale
    unit = height / _PANEL_ROWS
    margin, gap, top, bottom = (round(length * unit) for length in (24, 18, 104, 66))
    total_width, total_height = 2 * margin + 3 * width + 2 * gap, top + height + bottom
    figure = Figure(figsize=(total_width / _DPI, total_height / _DPI), dpi=_DPI, facecolor="none")
    canvas = FigureCanvasAgg(figure)
    page = np.full((total_height, total_width, 3), 255, np.uint8)
    for number, (name, picture) in enumerate(panels.items()):
        left = margin + number * (width + gap)
        # Put on the page by us, pixel by pixel: Matplotlib would resample it, which takes most of the time.
        page[top : top + height, left : left + width] = picture.repeat(scale, axis=0).repeat(scale, axis=1)
        axes = figure.add_axes((left / total_width, bottom / total_height, width / total_width, height / total_height))
        axes.patch.set_visible(False)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color("0.7")
        axes.set_title(name, fontsize=17 * unit, pad=10 * unit)
        mark_views(axes, 12 * unit)
    figure.text(
        margin / total_width,
        1 - 18 * unit / total_height,
        f"{case}   {PHANTOM_NOTE}" if phantom else case,
        fontsize=18 * unit,
        fontweight="bold",
        ha="left",
        va="top",
    )
    scores = "   ".join(
        f"{name} {percent(value)}{' %' if value is not None else ''}"
        for name, value in (("precision", counts.precision), ("sensitivity", counts.sensitivity), ("F1", counts.f1))
    )
    figure.text(
        1 - margin / total_width, 1 - 18 * unit / total_height, scores, fontsize=18 * unit, ha="right", va="top"
    )
    handles = [
        Patch(facecolor=np.array(rgb) / 255, label=f"{name} ({number} pixels)")
        for name, rgb, number in (
            ("metastatic in the truth", TRUTH, counts.tp + counts.fn),
            ("true positive", TRUE_POSITIVE, counts.tp),
            ("false positive", FALSE_POSITIVE, counts.fp),
            ("false negative", FALSE_NEGATIVE, counts.fn),
        )
    ]
    figure.legend(
        handles=handles, loc="lower center", ncols=4, frameon=False, fontsize=15 * unit, bbox_to_anchor=(0.5, 0.0)
    )
    canvas.draw()
    write_png(path, _over(page, np.asarray(canvas.buffer_rgba())))
    return counts


def write_png(path: str | os.PathLike, picture: np.ndarray) -> None:
    """Write a (rows, columns, 3) uint8 picture, red first, as PNG without metadata, whole or not at all."""
    replace_file(path, lambda temporary: temporary.write_bytes(png_bytes(picture)))


def _over(page: np.ndarray, drawing: np.ndarray) -> np.ndarray:
    """Lay a drawing, (rows, columns, 4) uint8, over a page, (rows, columns, 3) uint8, which is changed and returned."""
    drawn = np.nonzero(drawing[..., 3])
    ink = drawing[drawn]
    opacity = ink[:, 3:] / 255
    page[drawn] = np.rint(ink[:, :3] * opacity + page[drawn] * (1 - opacity)).astype(np.uint8)
    return page


def mark_views(axes, fontsize: float) -> None:
    """Name both halves of a merged image and the patient's sides, as a reader of bone scans expects them.

    The posterior view is seen from behind and not mirrored: there the patient's left is on the left.
    """
    for centre, name, sides in ((0.25, "anterior", "RL"), (0.75, "posterior", "LR")):
        for offset, text in ((-0.235, sides[0]), (0, name), (0.235, sides[1])):
            axes.text(
                centre + offset,
                0.99,
                text,
                transform=axes.transAxes,
                ha="center",
                va="top",
                fontsize=fontsize,
                color="0.35",
            )
