"""Smallest-lesion filter: predicted lesions under an area are dropped (decided here; the paper has no post-processing).

The area is learnt on the validation scans of a fold and nowhere else: it is the one with the best pooled pixel-wise F1
there. It is kept only when that F1 is better than without a filter. What it does on the test scans is reported beside
the raw figures and never in their place.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from doubleunet_bs.connected_components import find_components
from doubleunet_bs.evaluation.scan_score import ScanScore
from doubleunet_bs.pixel_counts import PixelCounts


@dataclasses.dataclass(frozen=True)
class SizeFilter:
    """What was learnt.

    Attributes:
        smallest: predicted lesions of a smaller area are dropped; None when no filter helps on the validation scans.
        unit: "mm2" or "pixels" (of the camera).
        validation_f1, validation_f1_raw: pooled F1 on the validation scans with the filter (or, when none helps,
            without it) and without it; None when undefined.
    """

    smallest: float | None
    unit: str
    validation_f1: float | None
    validation_f1_raw: float | None

    def to_json(self) -> dict[str, Any]:
        """A JSON object with an entry for each attribute."""
        return dataclasses.asdict(self)


def learn_filter(validation: Sequence[ScanScore], unit: str) -> SizeFilter:
    """Find the smallest area whose lesions are worth keeping.

    Args:
        validation: scores of the validation scans, of positive and negative ones alike.
        unit: of the areas in them.

    Returns:
        A filter that drops the fewest lesions of those that are equally good. Without validation scans, without a
        predicted or without a true lesion no filter helps.
    """
    raw = sum((scan.counts for scan in validation), PixelCounts())
    lesions = [lesion for scan in validation for lesion in scan.predicted_lesions]
    nothing = SizeFilter(None, unit, raw.f1, raw.f1)
    if not lesions or raw.f1 is None:
        return nothing
    table = np.array([(lesion.area, lesion.common, lesion.pixels - lesion.common) for lesion in lesions])
    areas, place = np.unique(table[:, 0], return_inverse=True)
    # Pixels of the lesions below each area: what a filter that begins there drops.
    right = np.concatenate([[0], np.cumsum(np.bincount(place, table[:, 1]))[:-1]])
    wrong = np.concatenate([[0], np.cumsum(np.bincount(place, table[:, 2]))[:-1]])
    tp, fp = raw.tp - right, raw.fp - wrong
    f1 = 2 * tp / (tp + fp + raw.tp + raw.fn)
    best = int(np.argmax(f1))
    if f1[best] <= raw.f1:
        return nothing
    return SizeFilter(float(areas[best]), unit, float(f1[best]), raw.f1)


def drop_small(mask: np.ndarray, pixel_area: float, smallest: float) -> np.ndarray:
    """A predicted mask without its lesions under an area.

    Args:
        mask: (rows, columns) bool, or 0 and 1; the anterior view is the left half, and the views are taken apart.
        pixel_area: of one pixel. smallest: area that is kept, in the same unit.

    Returns:
        (rows, columns) bool, a new array.
    """
    half = mask.shape[1] // 2
    kept = np.zeros(mask.shape, bool)
    for left in (0, half):
        part = np.s_[:, left : left + half]
        found = find_components(mask[part])
        # The same product as where the area was learnt, so that a lesion of just that area stays.
        large = np.concatenate([[False], found.pixels * pixel_area >= smallest])
        kept[part] = large[found.labels]
    return kept
