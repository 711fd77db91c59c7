"""One focus, not two: areas of the two views that are the same spot are one lesion of the patient.

The views are taken from opposite sides at the same time: the posterior one, mirrored, lies on the anterior one. Two
areas are one focus when their centres are then at most 15 mm apart, or the radius of the larger one if that is more,
and one is at most four times as large as the other. Areas of different bones are kept apart where a skeleton was
predicted. Bone and soft tissue absorb: many foci are seen from one side only, and an area without a partner is a focus
of its own.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from doubleunet_bs.constants import MIRRORED_WARNING, RAW_SHAPE, SAME_WARNING, VIEWS
from doubleunet_bs.findings.lesion_list import PredictedLesion

LARGEST_DISTANCE_MM = 15.0
LARGEST_SIZE_RATIO = 4.0
USUAL_SPACING_MM = 2.4
"""Of a 1024 x 256 whole-body matrix; stands for a pixel spacing that is unknown."""
FOCUS_RULE = (
    f"areas of the two views whose centres, one view mirrored, are at most {LARGEST_DISTANCE_MM:g} mm apart or the "
    f"radius of the larger one, and whose sizes differ at most {LARGEST_SIZE_RATIO:g} times, are one focus"
)
_DOUBTS = {MIRRORED_WARNING, SAME_WARNING}


@dataclasses.dataclass(frozen=True)
class Focus:
    """One lesion of the patient.

    Attributes:
        number: from 1, from the head down.
        anterior, posterior: number of its area in that view, None where no area was matched. Never both None.
    """

    number: int
    anterior: int | None
    posterior: int | None


def find_foci(
    lesions: Sequence[PredictedLesion],
    pixel_spacing_mm: Sequence[float] | None = None,
    warnings: Collection[str] = (),
    regions: Mapping[int, str] | None = None,
) -> tuple[Focus, ...] | None:
    """Match the areas of both views, each at most once: as many pairs as possible, and the nearest of these.

    Args:
        lesions: the areas of both views.
        pixel_spacing_mm: (row, column) spacing; None for unknown, then that of the usual matrix is taken.
        warnings: of the scan.
        regions: number of an area -> region of the skeleton it lies in, where one was predicted.

    Returns:
        The foci; none for no areas. None where a warning says that a view may be mirrored or may be the other one
        again: then it is not known which areas are the same spot.
    """
    if _DOUBTS & set(warnings):
        return None
    anterior, posterior = ([area for area in lesions if area.view == view] for view in VIEWS)
    partner = _pairs(anterior, posterior, pixel_spacing_mm or (USUAL_SPACING_MM, USUAL_SPACING_MM), regions or {})
    taken = set(partner.values())
    found: list[tuple[float, int | None, int | None]]
    found = [(area.row, area.number, partner.get(area.number)) for area in anterior]
    found += [(area.row, None, area.number) for area in posterior if area.number not in taken]
    found.sort(key=lambda focus: (focus[0], focus[1] or focus[2] or 0))
    return tuple(Focus(number, front, back) for number, (_, front, back) in enumerate(found, start=1))


def focus_numbers(foci: Sequence[Focus] | None) -> Mapping[int, int]:
    """Number of an area -> number of its focus; empty where nothing could be matched."""
    return {area: focus.number for focus in foci or () for area in (focus.anterior, focus.posterior) if area}


def _pairs(
    anterior: Sequence[PredictedLesion],
    posterior: Sequence[PredictedLesion],
    spacing: Sequence[float],
    regions: Mapping[int, str],
) -> dict[int, int]:
    """Number of an anterior area -> number of the posterior one at the same spot."""
    if not anterior or not posterior:
        return {}
    height, width = spacing
    here, there = (np.array([(area.row, area.column, area.pixels) for area in view]) for view in (anterior, posterior))
    rows = (here[:, None, 0] - there[None, :, 0]) * height
    across = (here[:, None, 1] - (RAW_SHAPE[1] - 1 - there[None, :, 1])) * width
    distance = np.hypot(rows, across)
    radius = np.sqrt(np.maximum(here[:, None, 2], there[None, :, 2]) * height * width / math.pi)
    ratio = here[:, None, 2] / there[None, :, 2]
    bones = [[regions.get(area.number) for area in view] for view in (anterior, posterior)]
    same = np.array([[one == other or None in (one, other) for other in bones[1]] for one in bones[0]])
    limit = np.maximum(LARGEST_DISTANCE_MM, radius)
    allowed = same & (distance <= limit) & (np.maximum(ratio, 1 / ratio) <= LARGEST_SIZE_RATIO)
    # A pair that is not allowed costs more than all others together.
    cost = np.where(allowed, distance, 1 + limit.max() * min(distance.shape))
    return {
        anterior[row].number: posterior[column].number
        for row, column in zip(*linear_sum_assignment(cost), strict=True)
        if allowed[row, column]
    }
