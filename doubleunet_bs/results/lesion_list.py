"""A predicted mask -> lesions with figures, and how much of the body they cover (decided here).

A lesion is a connected area of the mask in one view; pixels that touch at an edge or a corner belong together (8
neighbours), as in `evaluation.lesions`. The two views are not matched: a focus that is seen from both sides is a lesion in each.

The body is what lies inside the outline of the patient, from the head down to the last segmented row: counts smoothed
with a Gaussian of 3 pixels, Otsu's threshold on log(1 + counts), the largest connected area. Lesion pixels over body
pixels is an area fraction of a projection. It is not a bone scan index: no bone is segmented, no bone mass is weighed.
"""

import dataclasses

import cv2
import numpy as np

from doubleunet_bs.connected_components import find_components
from doubleunet_bs.constants import KEPT_ROWS, VIEWS
from doubleunet_bs.inference.predictor import Prediction
from doubleunet_bs.preparation.background import find_uptake
from doubleunet_bs.preparation.case import PreparedCase
from doubleunet_bs.scans.bone_scan import BoneScan

BODY_SMOOTHING = 3.0
BODY_DEFINITION = (
    "pixels of the raw views inside the outline of the patient, from the head to the last segmented row; "
    "an area fraction of the projection, not a bone scan index (BSI)"
)
SPACING_WARNING = "the pixel spacing is unknown: areas in mm2 cannot be given"


def all_warnings(scan: BoneScan, prediction: Prediction) -> list[str]:
    """The warnings of a result, one line each: those of the prediction, and that areas are unknown."""
    return [*prediction.warnings, *([SPACING_WARNING] if scan.pixel_spacing_mm is None else [])]


@dataclasses.dataclass(frozen=True)
class PredictedLesion:
    """One connected area of a predicted mask.

    Attributes:
        number: from 1, anterior view first, in each view from the top down.
        view: "anterior" or "posterior".
        row, column: centroid in raw pixels; 0 is the middle of the first row or column.
        first_row, last_row, first_column, last_column: its box in raw pixels, inclusive.
        pixels: number of raw pixels, at least 1.
        area_mm2: pixels times the area of one; None when the pixel spacing is unknown.
        peak_probability, mean_probability: of the metastatic class, between 0 and 1.
        sum_counts, max_counts: raw counts inside.
    """

    number: int
    view: str
    row: float
    column: float
    first_row: int
    last_row: int
    first_column: int
    last_column: int
    pixels: int
    area_mm2: float | None
    peak_probability: float
    mean_probability: float
    sum_counts: int
    max_counts: int


def number_lesions(mask: np.ndarray) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Number the connected areas of a mask.

    Args:
        mask: uint8 array of shape (rows, columns), 0 and 1.

    Returns:
        How many there are; an int32 array of the shape of the mask with 1, 2, ... in them, 0 elsewhere; their boxes,
        (n, 4) of first row, last row, first column, last column; their centroids, (n, 2) of row and column. They are
        in the order of their first rows, then their first columns. An empty mask gives none.
    """
    found = find_components(mask).from_the_top()
    return len(found), found.labels, found.boxes, found.centroids


def find_lesions(scan: BoneScan, prediction: Prediction) -> tuple[PredictedLesion, ...]:
    """The lesions of both views with their figures; empty when nothing is predicted."""
    lesions: list[PredictedLesion] = []
    for view in VIEWS:
        counts, probability = getattr(scan, view), prediction.probabilities[view]
        total, labels, boxes, centres = number_lesions(prediction.masks[view])
        for index in range(total):
            first_row, last_row, first_column, last_column = map(int, boxes[index])
            box = np.s_[first_row : last_row + 1, first_column : last_column + 1]
            inside = labels[box] == index + 1
            pixels = int(np.count_nonzero(inside))
            lesions.append(
                PredictedLesion(
                    number=len(lesions) + 1,
                    view=view,
                    row=float(centres[index, 0]),
                    column=float(centres[index, 1]),
                    first_row=first_row,
                    last_row=last_row,
                    first_column=first_column,
                    last_column=last_column,
                    pixels=pixels,
                    area_mm2=area_mm2(pixels, scan.pixel_spacing_mm),
                    peak_probability=float(probability[box][inside].max()),
                    mean_probability=float(probability[box][inside].mean(dtype=np.float64)),
                    sum_counts=int(counts[box][inside].sum(dtype=np.int64)),
                    max_counts=int(counts[box][inside].max()),
                )
            )
    return tuple(lesions)


def area_mm2(pixels: int, pixel_spacing_mm: tuple[float, float] | None) -> float | None:
    """The area of some pixels; None when their size is unknown."""
    return None if pixel_spacing_mm is None else pixels * pixel_spacing_mm[0] * pixel_spacing_mm[1]


def body_mask(counts: np.ndarray, prepared: PreparedCase, view: str) -> np.ndarray:
    """The patient in one raw view, as far down as the network looked.

    Args:
        counts: (rows, columns) of the raw view.
        prepared: the prepared scan, for the place of its window.
        view: "anterior" or "posterior".

    Returns:
        Bool array of the shape of `counts`; all False in a blank view. Air between the arms and the trunk is not body.
    """
    smooth = cv2.GaussianBlur(counts.astype(np.float32), (0, 0), BODY_SMOOTHING)
    patient = find_uptake(smooth, smooth, "log").astype(np.uint8)
    found = find_components(patient)
    if not len(found):
        return np.zeros(counts.shape, bool)
    body = found.labels == 1 + int(np.argmax(found.pixels))
    top = prepared.placements[view].top
    body[: max(0, top)] = False
    body[max(0, top + KEPT_ROWS) :] = False
    return body


def body_pixels(scan: BoneScan, prediction: Prediction) -> dict[str, int]:
    """Number of body pixels of each view that is there. Predicted pixels count as body, so that no fraction exceeds 1."""
    return {
        view: int(
            np.count_nonzero(body_mask(getattr(scan, view), prediction.prepared, view) | (prediction.masks[view] == 1))
        )
        for view in VIEWS
        if view not in scan.missing_views
    }
