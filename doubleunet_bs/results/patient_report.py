"""The report of one scan: a self-contained HTML page, which names the patient by the pseudonym only.

`templates/patient_report.html` is the page; this module gives it its values. The script on it changes the display:
window and level from the counts in the page, larger views, the order of the table. Without it nothing is missing.
"""

import base64
import dataclasses
import datetime
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from doubleunet_bs import __version__
from doubleunet_bs.constants import KEPT_ROWS, RAW_SHAPE, VIEWS
from doubleunet_bs.display import clinical_display, edge_path, png_bytes, upper_level
from doubleunet_bs.errors import counted
from doubleunet_bs.inference.model_description import INTENDED_USE, percent
from doubleunet_bs.results.laterality import sides
from doubleunet_bs.results.lesion_changes import match_earlier
from doubleunet_bs.results.lesion_list import BODY_DEFINITION, LesionArea
from doubleunet_bs.templates import render_page

_MARGIN = 8
"""Rows and columns of air around what is shown of a view."""
_SMALLEST_UPTAKE = 0.03
"""Of the upper level: smoothed counts above it are shown, wherever they lie."""


@dataclasses.dataclass(frozen=True)
class ReportScan:
    """One scan of a report.

    Attributes:
        result: the content of its `result.json`.
        areas: view -> `find_areas` of its mask, the lesions of `result` in their order. Empty for a missing view.
        counts: view -> uint16 array of the raw view; a missing view is not in it.
        in_counts: False where only a picture of the scan was kept and `counts` are its grey levels.
    """

    result: dict[str, Any]
    areas: Mapping[str, Sequence[LesionArea]]
    counts: Mapping[str, np.ndarray]
    in_counts: bool = True


def report_page(scan: ReportScan, previous: ReportScan | None = None) -> str:
    """The page.

    Args:
        scan: the scan it is about.
        previous: an earlier scan of the patient to show beside it.

    Returns:
        HTML with pictures, counts, style and script inside, and with the date of today, that of the run.
    """
    matched = match_earlier(scan.result, previous.result) if previous else {}
    one_scale = previous is None or previous.in_counts
    upper = upper_level(*scan.counts.values(), *(previous.counts.values() if previous and one_scale else ()))
    new = {lesion["number"] for lesion in scan.result["lesions"]} - set(matched) if previous else set()
    scans = [_content(scan, "this scan", "lesion", upper, {number: "+" for number in new})]
    changes = ""
    if previous:
        numbers = {lesion["number"] for lesion in previous.result["lesions"]}
        gone = numbers - set(matched.values())
        level = upper if one_scale else upper_level(*previous.counts.values())
        scans.append(_content(previous, "previous scan", "earlier", level, {number: "−" for number in gone}))
        changes = (
            f"{counted(len(matched), 'area')} of this scan at the place of an area of the previous scan, "
            f"{len(new)} new, {len(gone)} no longer marked."
        )
    return render_page(
        "doubleunet_bs.results",
        "patient_report.html",
        script="patient_report.js",
        title=f"{scan.result['case']}: areas suspicious for metastasis",
        scans=scans,
        rows=_table(scan.result, previous.result if previous else None, matched),
        upper=upper,
        one_scale=one_scale,
        finding=_finding(scan.result),
        changes=changes,
        made=scan.result.get("created", datetime.date.today().isoformat())[:10],
        intended_use=INTENDED_USE,
        body_definition=BODY_DEFINITION,
        version=__version__,
    )


def _finding(result: Mapping[str, Any]) -> str:
    """What the model marks, in a sentence for a physician."""
    lesions = result["lesions"]
    if not lesions:
        return "The model marks no area as suspicious for metastasis. This does not rule out metastases."
    parts = [
        f"{sum(lesion['view'] == view for lesion in lesions)} in the {view} view"
        for view in VIEWS
        if not result["views"][view]["missing"]
    ]
    sentence = f"The model marks {counted(len(lesions), 'area')} as suspicious for metastasis: {', '.join(parts)}."
    places = len(_places(result))
    if places < len(lesions):
        sentence += f" An area seen in both views has one number: {counted(places, 'place')} in the body."
    return sentence


def _content(scan: ReportScan, title: str, prefix: str, upper: float, marks: Mapping[int, str]) -> dict[str, Any]:
    """What the template shows of a scan; `prefix` makes the ids of its outlines, `marks` stand before numbers."""
    model, result = scan.result["model"], scan.result
    box = _shown_box(scan, upper)
    return {
        **result,
        "title": title,
        "prefix": prefix,
        "rows": box[0].stop - box[0].start,
        "columns": box[1].stop - box[1].start,
        "upper": upper,
        "quality": model.get("quality") or f"validation F1 {percent(model.get('validation_f1'))}",
        "quality_warning": model.get("quality_warning"),
        "training_summary": model.get("training_summary"),
        "views": [_view(scan, view, box, upper, marks) for view in VIEWS],
    }


def _shown_box(scan: ReportScan, upper: float) -> tuple[slice, slice]:
    """The rows and columns of both views that are shown: all uptake and every area, without the air around."""
    seen = np.zeros(RAW_SHAPE, bool)
    for view, counts in scan.counts.items():
        seen |= cv2.GaussianBlur(counts.astype(np.float32), (0, 0), 3) > _SMALLEST_UPTAKE * upper
        body = scan.result["views"][view]["body"]
        seen[body["first_row"] : body["last_row"] + 1, body["first_column"] : body["last_column"] + 1] = True
        for area in scan.areas[view]:
            seen[area.box] = True
    ends = []
    for axis, length in enumerate(RAW_SHAPE):
        there = np.flatnonzero(seen.any(axis=1 - axis))
        ends.append(slice(max(0, int(there[0]) - _MARGIN), min(length, int(there[-1]) + 1 + _MARGIN)))
    return ends[0], ends[1]


def _view(
    scan: ReportScan, view: str, box: tuple[slice, slice], upper: float, marks: Mapping[int, str]
) -> dict[str, Any]:
    lesions = [lesion for lesion in scan.result["lesions"] if lesion["view"] == view]
    if view not in scan.counts:
        return {"name": view, "present": False, "areas": [], "row": 0}
    counts = np.ascontiguousarray(scan.counts[view][box])
    letters = sides(view, scan.result["warnings"])
    top, left = box[0].start, box[1].start
    last_row = scan.result["views"][view]["window"]["top"] + KEPT_ROWS - top
    columns = counts.shape[1]
    return {
        "name": view,
        "present": True,
        "areas": [
            _area(lesion["number"], marks.get(lesion["number"], "") + _label(lesion), area, (top, left), columns)
            for lesion, area in zip(lesions, scan.areas[view], strict=True)
        ],
        "picture": base64.b64encode(png_bytes(clinical_display(counts, upper))).decode("ascii"),
        "counts": base64.b64encode(zlib.compress(counts.astype("<u2").tobytes(), 9)).decode("ascii"),
        "left": letters[0],
        "right": letters[1],
        "last_row": last_row if 0 <= last_row < counts.shape[0] else None,
    }


def _area(number: int, label: str, area: LesionArea, corner: tuple[int, int], columns: int) -> dict[str, Any]:
    row, first, last = area.first_row - corner[0], area.first_column - corner[1], area.last_column - corner[1]
    # The number is right of the area, or left of it where the view ends.
    left = last >= columns - 24
    return {
        "number": number,
        "label": label,
        "row": row,
        "column": first,
        "outline": edge_path(area.inside),
        "number_left": left,
        "number_x": max(first - 3, 8 * len(label)) if left else last + 4,
        "number_y": max(9, row),
    }


# --- the table: one row a place in the body


def _label(lesion: Mapping[str, Any]) -> str:
    """The number a reader sees: that of the focus, which areas of both views share. Without foci that of the area."""
    return str(lesion.get("focus") or lesion["number"])


def _places(result: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Number of a place in the body -> its areas, at most one a view."""
    places: dict[str, list[Mapping[str, Any]]] = {}
    for lesion in result["lesions"]:
        places.setdefault(_label(lesion), []).append(lesion)
    return places


def _table(
    result: Mapping[str, Any], earlier: Mapping[str, Any] | None, matched: Mapping[int, int]
) -> list[dict[str, Any]]:
    """A row for each place, the most probable first; with an earlier scan also for what is gone."""
    before = {lesion["number"]: lesion for lesion in earlier["lesions"]} if earlier else {}
    rows = []
    for label, lesions in _places(result).items():
        same = {lesion["number"]: before.get(matched.get(lesion["number"], 0)) for lesion in lesions}
        cells = {lesion["view"]: {"now": lesion, "before": same[lesion["number"]]} for lesion in lesions}
        rows.append(_row("lesion", label, cells, "" if earlier is None else "matched" if any(same.values()) else "new"))
    rows.sort(key=lambda row: -row["probability"])
    if earlier:
        for label, lesions in _places(earlier).items():
            if not {lesion["number"] for lesion in lesions} & set(matched.values()):
                cells = {lesion["view"]: {"now": None, "before": lesion} for lesion in lesions}
                rows.append(_row("earlier", label, cells, "gone"))
    return rows


def _row(prefix: str, label: str, cells: dict[str, dict[str, Any]], change: str) -> dict[str, Any]:
    shown = [cell["now"] or cell["before"] for cell in cells.values()]
    return {
        "label": label,
        "target": f"{prefix}-{shown[0]['number']}",
        "views": [cells.get(view, {"now": None, "before": None}) for view in VIEWS],
        "change": change,
        "probability": max(one["mean_probability"] for one in shown),
        "region": next((one["region"] for one in shown if one.get("region")), ""),
    }
