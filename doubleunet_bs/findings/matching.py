"""Which areas are the same spot: in both views of a scan (one focus, not two), and in an earlier scan of the patient.

Foci: the views are taken from opposite sides at the same time, so the posterior one, mirrored, lies on the anterior
one. Two areas are one focus when their centres are then at most 15 mm apart, or the radius of the larger one if that is
more, and one is at most four times as large as the other. Areas of different bones are kept apart where a skeleton was
predicted. Bone and soft tissue absorb: many foci are seen from one side only, and an area without a partner is a focus
of its own.

Earlier scans are not registered. A place is the distance from the top of the body and from its middle column, in mm
where both pixel spacings are known, otherwise as a part of the body's height. Two areas of one view match when their
centres are at most 25 mm apart, or the radius of the larger one if that is more.
"""

import dataclasses
import math
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from doubleunet_bs.constants import MIRRORED_WARNING, RAW_SHAPE, SAME_WARNING, VIEWS
from doubleunet_bs.findings.lesion_list import PredictedLesion

FOCUS_DISTANCE_MM = 15.0
LARGEST_SIZE_RATIO = 4.0
USUAL_SPACING_MM = 2.4
"""Of a 1024 x 256 whole-body matrix; stands for a pixel spacing that is unknown."""
FOCUS_RULE = (
    f"areas of the two views whose centres, one view mirrored, are at most {FOCUS_DISTANCE_MM:g} mm apart or the "
    f"radius of the larger one, and whose sizes differ at most {LARGEST_SIZE_RATIO:g} times, are one focus"
)
EARLIER_DISTANCE_MM = 25.0
"""About the distance between two ribs."""
BODY_HEIGHT_MM = 1700.0
"""Stands for the height of the body where a pixel spacing is unknown."""
_AREAS = uuid.UUID("0f6f1f0e-6b0c-5d38-8f4d-6a4e52d1a3b7")
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
    limit = np.maximum(FOCUS_DISTANCE_MM, radius)
    allowed = same & (distance <= limit) & (np.maximum(ratio, 1 / ratio) <= LARGEST_SIZE_RATIO)
    found = _nearest_pairs(distance, allowed, limit)
    return {anterior[row].number: posterior[column].number for row, column in found}


def _nearest_pairs(distance: np.ndarray, allowed: np.ndarray, limit: np.ndarray) -> list[tuple[int, int]]:
    """(row, column) of as many allowed pairs as possible, each row and column once, and the nearest of these."""
    # A pair that is not allowed costs more than all others together.
    cost = np.where(allowed, distance, 1 + limit.max() * min(distance.shape))
    return [(row, column) for row, column in zip(*linear_sum_assignment(cost), strict=True) if allowed[row, column]]


def match_earlier(result: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[int, int]:
    """Pair the areas of two scans of one patient, each at most once, as many as possible and the nearest of these.

    Args:
        result, earlier: contents of `result.json` of both scans.

    Returns:
        Number of an area in `result` -> number of the area at its place in `earlier`. Areas that are new are not in it;
        those of `earlier` that are not among its values are gone.
    """
    in_mm = bool(result["pixel_spacing_mm"] and earlier["pixel_spacing_mm"])
    found: dict[int, int] = {}
    for view in VIEWS:
        now, before = _places(result, view, in_mm), _places(earlier, view, in_mm)
        if now and before:
            found |= _pair(now, before)
    return found


def tracking_uids(result: Mapping[str, Any], earlier: Mapping[str, Any] | None = None) -> dict[int, str]:
    """The identifiers by which structured reports follow an area from scan to scan.

    Args:
        result, earlier: contents of `result.json`; that of `result` has no identifiers yet.

    Returns:
        Number of an area in `result` -> its UID: that of the area at its place in `earlier`, otherwise one derived from
        the counts of the scan and the box of the area.
    """
    found = {area["number"]: area.get("tracking_uid") or _tracking_uid(result, area) for area in result["lesions"]}
    if earlier is not None:
        before = tracking_uids(earlier)
        found |= {number: before[other] for number, other in match_earlier(result, earlier).items()}
    return found


def _tracking_uid(result: Mapping[str, Any], area: Mapping[str, Any]) -> str:
    box = (area.get(name) for name in ("first_row", "last_row", "first_column", "last_column"))
    text = "/".join(map(str, (result.get("pixel_sha256", result["case"]), area["view"], area["number"], *box)))
    return f"2.25.{uuid.uuid5(_AREAS, text).int}"


def _places(result: Mapping[str, Any], view: str, in_mm: bool) -> dict[int, tuple[float, float, float]]:
    """Number -> row and column from the top middle of the body, and radius, of the areas of a view, in mm."""
    body = result["views"][view]["body"]
    if body is None:
        return {}
    height, width = result["pixel_spacing_mm"] if in_mm else (1.0, 1.0)
    scale = 1.0 if in_mm else BODY_HEIGHT_MM / (body["last_row"] - body["first_row"] + 1)
    top, middle = body["first_row"], (body["first_column"] + body["last_column"]) / 2
    return {
        area["number"]: (
            (area["row"] - top) * height * scale,
            (area["column"] - middle) * width * scale,
            math.sqrt(area["pixels"] * height * width / math.pi) * scale,
        )
        for area in result["lesions"]
        if area["view"] == view
    }


def _pair(now: Mapping[int, Sequence[float]], before: Mapping[int, Sequence[float]]) -> dict[int, int]:
    here, there = np.array(list(now.values())), np.array(list(before.values()))
    distance = np.hypot(*(here[:, None, axis] - there[None, :, axis] for axis in (0, 1)))
    limit = np.maximum(EARLIER_DISTANCE_MM, np.maximum(here[:, None, 2], there[None, :, 2]))
    numbers, others = list(now), list(before)
    return {numbers[row]: others[column] for row, column in _nearest_pairs(distance, distance <= limit, limit)}
