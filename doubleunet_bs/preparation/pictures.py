"""Pictures of prepared cases to look at. They hold pixels only, no text and no metadata."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from doubleunet_bs.constants import AIR, METASTATIC, NON_METASTATIC
from doubleunet_bs.files import replace_file

COLOURS = {AIR: (0, 0, 0), NON_METASTATIC: (70, 130, 180), METASTATIC: (220, 30, 30)}
"""Of the classes in label pictures: black, blue, red."""


def write_pictures(folder: Path, case: str, grey: np.ndarray, labels: np.ndarray) -> None:
    """Write the paper's PNGs of one case and an overlay.

    CASE.png is the prepared image, CASE_labels.png its classes as a palette image with the values 0, 1 and 2,
    CASE_overlay.png the image in the usual display of nuclear medicine (dark uptake on white) with the metastatic
    outline in red and the non-metastatic one in blue.

    Args:
        folder: made when it is not there.
        grey, labels: uint8 arrays of the same shape (rows, columns).
    """
    save_png(folder / f"{case}.png", Image.fromarray(grey))
    palette = Image.fromarray(labels)
    palette.putpalette([channel for number in sorted(COLOURS) for channel in COLOURS[number]])
    save_png(folder / f"{case}_labels.png", palette)
    save_png(folder / f"{case}_overlay.png", Image.fromarray(overlay(grey, labels)))


def display(grey: np.ndarray, white: float | None = None) -> np.ndarray:
    """Dark uptake on white, as RGB.

    Args:
        grey: array of shape (rows, columns), uint8 or counts.
        white: value shown in full black; None takes the 99.5th percentile of the pixels above zero, at least 1.

    Returns:
        uint8 array of shape (rows, columns, 3).
    """
    if white is None:
        above = grey[grey > 0]
        white = max(1.0, float(np.percentile(above, 99.5))) if above.size else 1.0
    inverse = 255 - np.rint(np.minimum(grey / white, 1) * 255).astype(np.uint8)
    return np.repeat(inverse[..., None], 3, axis=2)


def overlay(grey: np.ndarray, labels: np.ndarray, scale: int = 2) -> np.ndarray:
    """The image in `scale`-fold size with thin outlines of both classes, so that the uptake beneath stays visible.

    Returns:
        uint8 array of shape (scale * rows, scale * columns, 3).
    """
    picture = display(grey).repeat(scale, axis=0).repeat(scale, axis=1)
    for number in (NON_METASTATIC, METASTATIC):
        mask = (labels == number).astype(np.uint8).repeat(scale, axis=0).repeat(scale, axis=1)
        if number == NON_METASTATIC:
            # The metastatic pixels are holes in this class; their outline is drawn in red alone.
            mask |= (labels == METASTATIC).astype(np.uint8).repeat(scale, axis=0).repeat(scale, axis=1)
        outline = mask.astype(bool) & (cv2.erode(mask, np.ones((3, 3), np.uint8)) == 0)
        picture[outline] = COLOURS[number]
    return picture


def save_png(path: Path, image: Image.Image) -> None:
    """Write a PNG atomically, without metadata."""
    # Level 6 takes four times as long for a tenth less.
    replace_file(path, lambda temporary: image.save(temporary, "PNG", compress_level=3))
