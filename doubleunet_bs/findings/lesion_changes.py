"""What changed against an earlier scan of the patient: which areas are at the same place in both, new, or gone.

The scans are not registered. A place is the distance from the top of the body and from its middle column, in mm where
both pixel spacings are known, otherwise as a part of the body's height. Two areas of one view match when their centres
are at most 25 mm apart, or the radius of the larger one if that is more.
"""

import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from doubleunet_bs.constants import VIEWS

LARGEST_DISTANCE_MM = 25.0
"""About the distance between two ribs."""
BODY_HEIGHT_MM = 1700.0
"""Stands for the height of the body where a pixel spacing is unknown."""
_AREAS = uuid.UUID("0f6f1f0e-6b0c-5d38-8f4d-6a4e52d1a3b7")


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
        result, earlier: contents of `result.json`; an earlier one of an older version has no identifiers yet.

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
    limit = np.maximum(LARGEST_DISTANCE_MM, np.maximum(here[:, None, 2], there[None, :, 2]))
    # A pair that is too far apart costs more than all others together.
    cost = np.where(distance <= limit, distance, 1 + limit.max() * min(distance.shape))
    numbers, others = list(now), list(before)
    return {
        numbers[row]: others[column]
        for row, column in zip(*linear_sum_assignment(cost), strict=True)
        if distance[row, column] <= limit[row, column]
    }
