"""The same figures by view and by size of the lesions."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from doubleunet_bs.evaluation.areas import size_class, size_class_names
from doubleunet_bs.evaluation.lesions import Lesion, LesionCounts, count_lesions
from doubleunet_bs.evaluation.pixel_counts import PixelCounts
from doubleunet_bs.evaluation.scan_score import ScanScore
from doubleunet_bs.preparation.case import VIEWS


@dataclasses.dataclass(frozen=True)
class ViewRow:
    """One view: its pixels and its lesions."""

    view: str
    pixels: PixelCounts
    lesions: LesionCounts


@dataclasses.dataclass(frozen=True)
class SizeRow:
    """Lesions of one size class: true lesions by their true area, predicted ones by their predicted area.

    `lesions.sensitivity` is that of the true lesions of this size, `lesions.precision` that of the predicted lesions of
    this size. They are not the same lesions, so that no F1 follows from the two.
    """

    name: str
    lesions: LesionCounts


def by_view(scans: Sequence[ScanScore]) -> tuple[ViewRow, ...]:
    """One row a view, anterior first."""
    rows = []
    for view in VIEWS:
        pixels = sum((scan.views[view] for scan in scans), PixelCounts())
        true, predicted = (
            tuple(lesion for lesion in lesions if lesion.view == view)
            for lesions in (_all(scans, "true_lesions"), _all(scans, "predicted_lesions"))
        )
        rows.append(ViewRow(view, pixels, count_lesions(true, predicted)))
    return tuple(rows)


def by_size(scans: Sequence[ScanScore], unit: str) -> tuple[SizeRow, ...]:
    """One row a size class, the smallest first, empty classes as well."""
    rows = []
    for number, name in enumerate(size_class_names(unit)):
        true, predicted = (
            tuple(lesion for lesion in lesions if size_class(lesion.area, unit) == number)
            for lesions in (_all(scans, "true_lesions"), _all(scans, "predicted_lesions"))
        )
        rows.append(SizeRow(name, count_lesions(true, predicted)))
    return tuple(rows)


def views_to_json(rows: Sequence[ViewRow]) -> dict[str, Any]:
    """{view: {"pixels": ..., "lesions": ...}}."""
    return {row.view: {"pixels": row.pixels.to_json(), "lesions": row.lesions.to_json()} for row in rows}


def sizes_to_json(rows: Sequence[SizeRow]) -> list[dict[str, Any]]:
    """[{"size", "true", "found", "sensitivity", "predicted", "right", "precision"}]; see `SizeRow` for what is what."""
    return [
        {"size": row.name} | {key: value for key, value in row.lesions.to_json().items() if key != "f1"} for row in rows
    ]


def _all(scans: Sequence[ScanScore], side: str) -> list[Lesion]:
    return [lesion for scan in scans for lesion in getattr(scan, side)]
