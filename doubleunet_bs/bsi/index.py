"""The Bone Scan Index from masks: the sum over regions of (involved fraction x weight of the region).

Defined by Imbriaco et al., Clin Cancer Res 1998;4:1765. How two projections become a fraction is our choice: see
`bone_scan_index` and `assets/docs/bsi.md`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from doubleunet_bs.bsi.regions import FEMORA, NOT_BONE, REGIONS, WeightTable, check_regions
from doubleunet_bs.constants import VIEWS
from doubleunet_bs.errors import LabelError, SettingsError

REACH_MM = 10.0
"""Metastatic pixels outside of all regions count for the nearest region up to this distance."""

ESTIMATORS = ("pooled", "mean", "maximum")
DEFAULT_ESTIMATOR = "pooled"


@dataclasses.dataclass(frozen=True)
class RegionShare:
    """What one region contributes.

    Attributes:
        name: of the region. weight: percent of the skeleton, from the weight table.
        metastatic: view -> metastatic pixels that count for the region.
        pixels: view -> pixels of the region.
        fraction: involved part of the region, 0 to 1; None where no view shows the region.
        index: weight x fraction in percent, 0 where the fraction is None.
    """

    name: str
    weight: float
    metastatic: dict[str, int]
    pixels: dict[str, int]
    fraction: float | None
    index: float


@dataclasses.dataclass(frozen=True)
class BoneScanIndex:
    """The index of one scan.

    Attributes:
        value: percent of the skeleton's weight, 0 to the sum of the table.
        views: view -> the index from this view alone; regions that it does not show count nothing.
        regions: one entry for each of the twelve regions, in their order.
        assigned: view -> metastatic pixels outside of all regions that count for the nearest one.
        outside: view -> metastatic pixels that count for none.
        table, estimator: names of the weight table and of the estimator.
        warnings: one line each.
    """

    value: float
    views: dict[str, float]
    regions: tuple[RegionShare, ...]
    assigned: dict[str, int]
    outside: dict[str, int]
    table: str
    estimator: str
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object with an entry for each attribute."""
        return dataclasses.asdict(self)


def bone_scan_index(
    lesions: Mapping[str, np.ndarray],
    regions: Mapping[str, np.ndarray],
    table: WeightTable,
    pixel_spacing_mm: tuple[float, float] | None = None,
    segmented_rows: Mapping[str, tuple[int, int]] | None = None,
    estimator: str = DEFAULT_ESTIMATOR,
) -> BoneScanIndex:
    """The Bone Scan Index of one scan.

    The fraction f of region r comes from n, its metastatic pixels, and N, its pixels, in both views. "pooled":
    (n_ant + n_post) / (N_ant + N_post). "mean", "maximum": of n / N over the views that show the region. Metastatic
    pixels outside of all regions count for the nearest one within 10 mm. f is at most 1.

    Args:
        lesions: "anterior" and/or "posterior" -> bool (rows, columns), True where metastatic.
        regions: the same names -> uint8 of the same shapes, 0 not bone, 1 to 12 (`REGIONS`).
        table: weights of the regions.
        pixel_spacing_mm: (row, column) spacing. None: pixels outside of all regions count for none.
        segmented_rows: view -> (first, last + 1) row in which lesions were looked for; None: all. Regions count only
            there. With regions that were cut off, the fraction is that of the visible part.
        estimator: one of `ESTIMATORS`.

    Raises:
        LabelError: masks of different views, shapes or types; see also `check_regions`.
        SettingsError: an unknown estimator, an impossible spacing, no weight table.

    Example:
        A tenth of the sternum in the anterior view; all of the other regions are missing.

        >>> from doubleunet_bs.bsi import WEIGHT_TABLES
        >>> sternum = np.full((1, 10), 5, np.uint8)
        >>> lesion = np.arange(10)[None] == 0
        >>> found = bone_scan_index({"anterior": lesion}, {"anterior": sternum}, WEIGHT_TABLES["icrp110-female"])
        >>> round(found.value, 3)
        0.069
    """
    _check(lesions, regions, table, pixel_spacing_mm, estimator)
    warnings = []
    views = [view for view in VIEWS if view in lesions]
    if len(views) == 1:
        missing = next(view for view in VIEWS if view not in views)
        warnings.append(f"the {missing} view is missing: the index is that of the {views[0]} view")
    if pixel_spacing_mm is None:
        warnings.append("no pixel spacing: metastatic pixels outside of all regions count for none")
    metastatic, pixels, assigned, outside = {}, {}, {}, {}
    cut = np.zeros(len(REGIONS) + 1, bool)
    for view in views:
        rows = (segmented_rows or {}).get(view, (0, len(regions[view])))
        inside = slice(max(0, rows[0]), min(rows[1], len(regions[view])))
        mask, lesion = regions[view][inside], lesions[view][inside]
        cut[np.unique(mask[-1:])] = True
        pixels[view] = np.bincount(mask.ravel(), minlength=len(cut))
        counted = np.bincount(mask[lesion], minlength=len(cut))
        nearest = _nearest_regions(mask, lesion & (mask == NOT_BONE), pixel_spacing_mm)
        metastatic[view] = counted + np.bincount(nearest, minlength=len(cut))
        outside[view] = int((nearest == NOT_BONE).sum())
        assigned[view] = len(nearest) - outside[view]
    shares = []
    for region in REGIONS:
        n = {view: int(metastatic[view][region.number]) for view in views}
        total = {view: int(pixels[view][region.number]) for view in views}
        weight, fraction = float(table.percent[region.name]), _fraction(n, total, estimator)
        shares.append(RegionShare(region.name, weight, n, total, fraction, weight * (fraction or 0.0)))
    unseen = [share.name for share in shares if share.fraction is None]
    if unseen:
        warnings.append(f"counted as free of lesions, since no view shows them: {', '.join(unseen)}")
    if cut[FEMORA]:
        warnings.append("of the femora only the part above the lower edge of the segmented rows counts")
    if any(outside.values()):
        warnings.append(f"{sum(outside.values())} metastatic pixels belong to no region and do not count")
    return BoneScanIndex(
        value=math.fsum(share.index for share in shares),
        views={
            view: math.fsum(
                share.weight * (_fraction({view: share.metastatic[view]}, {view: share.pixels[view]}, "pooled") or 0.0)
                for share in shares
            )
            for view in views
        },
        regions=tuple(shares),
        assigned=assigned,
        outside=outside,
        table=table.name,
        estimator=estimator,
        warnings=tuple(warnings),
    )


def _fraction(metastatic: Mapping[str, int], pixels: Mapping[str, int], estimator: str) -> float | None:
    """The involved fraction of one region, or None where no view shows it."""
    shown = [view for view in pixels if pixels[view]]
    if not shown:
        return None
    # Pixels that were assigned to a region from outside may outnumber its own.
    fractions = [min(1.0, metastatic[view] / pixels[view]) for view in shown]
    if estimator == "maximum":
        return max(fractions)
    if estimator == "mean":
        return math.fsum(fractions) / len(fractions)
    return min(1.0, sum(metastatic[view] for view in shown) / sum(pixels[view] for view in shown))


def _nearest_regions(
    regions: np.ndarray, outside: np.ndarray, pixel_spacing_mm: tuple[float, float] | None
) -> np.ndarray:
    """For each pixel of `outside` the number of the nearest region, 0 where none is within reach."""
    number = np.zeros(int(outside.sum()), np.int64)
    if pixel_spacing_mm is None or not len(number) or not regions.any():
        return number
    # Imported when it is needed: shards and runs need this room for the names of the regions only.
    from scipy import ndimage

    distance, (row, column) = ndimage.distance_transform_edt(
        regions == NOT_BONE, sampling=pixel_spacing_mm, return_indices=True
    )
    near = distance[outside] <= REACH_MM
    number[near] = regions[row[outside], column[outside]][near]
    return number


def _check(
    lesions: Mapping[str, np.ndarray],
    regions: Mapping[str, np.ndarray],
    table: WeightTable,
    pixel_spacing_mm: tuple[float, float] | None,
    estimator: str,
) -> None:
    if estimator not in ESTIMATORS:
        raise SettingsError(f"no estimator {estimator!r}: choose one of {', '.join(ESTIMATORS)}")
    if not isinstance(table, WeightTable):
        raise SettingsError(
            f"table is a {type(table).__name__}: give WEIGHT_TABLES[NAME] or the first value of choose_table()"
        )
    if pixel_spacing_mm is not None and not (
        np.shape(pixel_spacing_mm) == (2,) and all(0 < value < math.inf for value in pixel_spacing_mm)
    ):
        raise SettingsError(f"pixel spacing {pixel_spacing_mm}: give that of rows and of columns, above 0 mm")
    check_regions(regions)
    shapes, drawn = ({view: mask.shape for view, mask in masks.items()} for masks in (lesions, regions))
    if shapes != drawn or not shapes:
        raise LabelError(f"lesions are {shapes} but regions {drawn}: draw both in the same views", "region-frame")
    if any(lesion.dtype != np.bool_ for lesion in lesions.values()):
        raise LabelError("a lesion mask is not bool: pass labels == METASTATIC, for instance", "region-frame")
