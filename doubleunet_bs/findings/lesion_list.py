"""A predicted mask -> its lesions with their figures, and how much of the body they cover.

A lesion is a connected area of the mask of one view. Pixels that touch at an edge or a corner belong together, as in
`connected_components`. A focus seen from both sides is one lesion in each view; `matching` joins the two.

The body is everything inside the outline of the patient, from the head down to the last segmented row: counts smoothed
with a Gaussian of 3 pixels, Otsu's threshold on log(1 + counts), the largest connected area. Lesion pixels over body
pixels is an area fraction of a projection. It is not a bone scan index: no bone is segmented, no bone mass is weighed.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from doubleunet_bs.connected_components import find_components
from doubleunet_bs.constants import KEPT_ROWS, VIEWS
from doubleunet_bs.inference.predictor import Prediction
from doubleunet_bs.preparation.case import PreparedCase, find_uptake
from doubleunet_bs.scans.bone_scan import BoneScan

BODY_SMOOTHING = 3.0
BODY_DEFINITION = (
    "pixels of the raw views inside the outline of the patient, from the head to the last segmented row; "
    "an area fraction of the projection, not a bone scan index (BSI)"
)
SPACING_WARNING = "the pixel spacing is unknown: areas in mm2 cannot be given"


def all_warnings(scan: BoneScan, prediction: Prediction) -> list[str]:
    """The warnings of a result, one line each: those of the prediction, and one when areas are unknown."""
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


@dataclasses.dataclass(frozen=True, eq=False)
class LesionArea:
    """The place of one connected area in its view.

    Attributes:
        first_row, last_row, first_column, last_column, row, column: see `PredictedLesion`.
        inside: bool array of the shape of the box, True in the area.
    """

    first_row: int
    last_row: int
    first_column: int
    last_column: int
    row: float
    column: float
    inside: np.ndarray

    @property
    def box(self) -> tuple[slice, slice]:
        """The index of the box in an array of the view."""
        return np.s_[self.first_row : self.last_row + 1, self.first_column : self.last_column + 1]


def find_areas(mask: np.ndarray) -> tuple[LesionArea, ...]:
    """The connected areas of a mask, in the order of their first rows, then their first columns.

    Args:
        mask: uint8 array of shape (rows, columns), 0 and 1.

    Returns:
        One per area; none for an empty mask.

    Example:
        >>> mask = np.zeros((4, 5), np.uint8)
        >>> mask[1:3, 2] = 1
        >>> [(area.row, area.column, area.inside.shape) for area in find_areas(mask)]
        [(1.5, 2.0, (2, 1))]
    """
    found = find_components(mask)
    areas = []
    for number, (box, (row, column)) in enumerate(zip(found.boxes.tolist(), found.centroids, strict=True), start=1):
        top, bottom, left, right = box
        inside = found.labels[top : bottom + 1, left : right + 1] == number
        areas.append(LesionArea(top, bottom, left, right, float(row), float(column), inside))
    return tuple(sorted(areas, key=lambda area: (area.first_row, area.first_column)))


def find_lesions(
    scan: BoneScan, prediction: Prediction, areas: Mapping[str, Sequence[LesionArea]]
) -> tuple[PredictedLesion, ...]:
    """The lesions of both views with their figures; empty when nothing is predicted.

    Args:
        scan, prediction: the scan and what a model predicts of it.
        areas: view -> `find_areas` of the mask of that view.
    """
    lesions: list[PredictedLesion] = []
    for view in VIEWS:
        for area in areas[view]:
            counts = getattr(scan, view)[area.box][area.inside]
            probability = prediction.probabilities[view][area.box][area.inside]
            place = {name: value for name, value in vars(area).items() if name != "inside"}
            lesions.append(
                PredictedLesion(
                    number=len(lesions) + 1,
                    view=view,
                    **place,
                    pixels=counts.size,
                    area_mm2=area_mm2(counts.size, scan.pixel_spacing_mm),
                    peak_probability=float(probability.max()),
                    mean_probability=float(probability.mean(dtype=np.float64)),
                    sum_counts=int(counts.sum(dtype=np.int64)),
                    max_counts=int(counts.max()),
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
        prepared, view: the prepared scan, and "anterior" or "posterior", for the place of the crop.

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
    """Number of body pixels of each view that is not missing. Predicted pixels count as body: no fraction exceeds 1."""
    return {
        view: int(
            np.count_nonzero(body_mask(getattr(scan, view), prediction.prepared, view) | (prediction.masks[view] == 1))
        )
        for view in VIEWS
        if view not in scan.missing_views
    }
