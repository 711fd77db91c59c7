"""A picture of a prediction on the raw views, as a physician looks at a bone scan."""

import os

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from doubleunet_bs.deployment.model_description import INTENDED_USE
from doubleunet_bs.deployment.predictor import Prediction
from doubleunet_bs.evaluation.figures import clinical_display, upper_level
from doubleunet_bs.files import replace_file
from doubleunet_bs.preparation.case import VIEWS
from doubleunet_bs.preparation.settings import KEPT_ROWS
from doubleunet_bs.scans.bone_scan import BoneScan

CONTOUR = (225, 87, 0)
"""Orange red: stands out from grey for any colour vision."""

SCALE = 2
_DPI = 100
_MARGIN, _GAP, _TOP, _BOTTOM = 30, 24, 150, 92
_SIDES = {"anterior": "RL", "posterior": "LR"}


def outline(mask: np.ndarray, scale: int = SCALE) -> np.ndarray:
    """The line around the areas of a mask, just outside of them, so that the uptake itself stays visible.

    Args:
        mask: (rows, columns), bool or 0 and 1.
        scale: size of the picture over that of the mask.

    Returns:
        Bool array of shape (scale * rows, scale * columns); the line is `scale` pixels thick.
    """
    blocks = np.asarray(mask, np.uint8).repeat(scale, axis=0).repeat(scale, axis=1)
    grown = cv2.dilate(blocks, np.ones((2 * scale + 1, 2 * scale + 1), np.uint8))
    return (grown > 0) & (blocks == 0)


def draw_overlay(path: str | os.PathLike, scan: BoneScan, prediction: Prediction) -> None:
    """Draw both raw views, uptake dark on white, with the predicted metastatic areas outlined, as a PNG.

    Every raw pixel is a block of 2 x 2 screen pixels. Both views have the same window. The picture names the case by
    its pseudonym and carries the statement of intended use. The file is written whole or not at all.
    """
    counts = {view: getattr(scan, view) for view in VIEWS}
    window = upper_level(np.concatenate([counts[view].ravel() for view in VIEWS]))
    height, width = (length * SCALE for length in scan.anterior.shape)
    total_width, total_height = 2 * _MARGIN + 2 * width + _GAP, _TOP + height + _BOTTOM
    figure = Figure(figsize=(total_width / _DPI, total_height / _DPI), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    for number, view in enumerate(VIEWS):
        left = _MARGIN + number * (width + _GAP)
        axes = figure.add_axes((left / total_width, _BOTTOM / total_height, width / total_width, height / total_height))
        grey = clinical_display(counts[view], window).repeat(SCALE, axis=0).repeat(SCALE, axis=1)
        picture = np.repeat(grey[..., None], 3, axis=2)
        picture[outline(prediction.masks[view])] = CONTOUR
        axes.imshow(picture, interpolation="none", aspect="auto")
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color("0.7")
        if view in scan.missing_views:
            axes.set_title(view, fontsize=15, pad=8)
            axes.text(0.5, 0.5, "view missing", transform=axes.transAxes, ha="center", fontsize=20, color="0.5")
            continue
        axes.set_title(f"{view}: {prediction.lesion_pixels[view]} pixels outlined", fontsize=15, pad=8)
        for place, side in zip((0.03, 0.97), _SIDES[view], strict=True):
            axes.text(place, 0.99, side, transform=axes.transAxes, ha="center", va="top", fontsize=14, color="0.35")
        last = (prediction.prepared.placements[view].top + KEPT_ROWS) * SCALE
        if last < height:
            axes.axhline(last - 0.5, color="0.6", linewidth=1, linestyle=(0, (6, 6)))
            back = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 2}
            axes.text(
                width - 6, last + 8, "not segmented\nbelow", ha="right", va="top", fontsize=11, color="0.35", bbox=back
            )

    def line(y: float, text: str, **style) -> None:
        figure.text(_MARGIN / total_width, y / total_height, text, ha="left", va="top", **style)

    line(total_height - 18, prediction.case, fontsize=19, fontweight="bold")
    line(
        total_height - 62,
        f"Outlined: predicted metastatic by {prediction.model.name}",
        fontsize=14,
        color=np.array(CONTOUR) / 255,
    )
    if prediction.warnings:
        number = len(prediction.warnings)
        line(total_height - 88, f"{number} warning{'s' if number > 1 else ''}: see result.json", fontsize=12)
    first, rest = INTENDED_USE.split(". ", 1)
    line(_BOTTOM - 14, f"{first}.", fontsize=13, fontweight="bold")
    line(_BOTTOM - 46, rest, fontsize=11)
    replace_file(path, lambda temporary: figure.savefig(temporary, dpi=_DPI, metadata={"Software": None}))
