"""The report of one scan: a self-contained HTML page, which names the patient by the pseudonym only.

`templates/patient_report.html` is the page; this module gives it its values. The script on it changes the display:
window and level from the counts in the page, larger views, the order of the table. Without it nothing is missing.
"""

import base64
import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from doubleunet_bs import __version__
from doubleunet_bs.bsi.regions import REGIONS
from doubleunet_bs.constants import KEPT_ROWS, VIEWS
from doubleunet_bs.display import (
    clinical_display,
    edge_path,
    hex_colour,
    png_bytes,
    region_names,
    shown_box,
    sides,
    upper_level,
)
from doubleunet_bs.errors import counted
from doubleunet_bs.findings.lesion_list import BODY_DEFINITION, LesionArea
from doubleunet_bs.findings.matching import match_earlier
from doubleunet_bs.inference.model_description import INTENDED_USE
from doubleunet_bs.templates import render_page

MATCHED, NEW, GONE = "matched", "new", "gone"
ZLIB_LEVEL = 4
"""Of the counts in the page: 8 ms a view and 5 % more bytes than level 9, which takes 230 ms."""
NUMBER_WIDTH, NUMBER_HEIGHT = 9, 12
"""Of a digit beside an outline on a phone, where it is largest, in pixels of the scan."""


@dataclasses.dataclass(frozen=True)
class ReportScan:
    """One scan of a report.

    Attributes:
        result: the content of its `result.json`.
        areas: view -> `find_areas` of its mask, the lesions of `result` in their order. Empty for a missing view.
        counts: view -> uint16 array of the raw view; a missing view is not in it.
        in_counts: False where only a picture of the scan was kept and `counts` are its grey levels.
        regions: view -> uint8 mask of the skeleton in the pixels of the raw view; empty without one.
    """

    result: dict[str, Any]
    areas: Mapping[str, Sequence[LesionArea]]
    counts: Mapping[str, np.ndarray]
    in_counts: bool = True
    regions: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def report_page(scan: ReportScan, previous: ReportScan | None = None) -> str:
    """The page.

    Args:
        scan: the scan it is about.
        previous: an earlier scan of the patient to show beside it.

    Returns:
        HTML with pictures, counts, style and script inside, and with the date of today, that of the run.
    """
    earlier = previous.result if previous else None
    rows = _table(scan.result, earlier, match_earlier(scan.result, earlier) if earlier else {})
    one_scale = previous is None or previous.in_counts
    upper = upper_level(*scan.counts.values(), *(previous.counts.values() if previous and one_scale else ()))
    scans = [_content(scan, "this scan", "lesion", upper, _marks(rows, NEW))]
    if previous:
        level = upper if one_scale else upper_level(*previous.counts.values())
        scans.append(_content(previous, "previous scan", "earlier", level, _marks(rows, GONE)))
    masks = [mask for one in (scan, previous) if one for mask in one.regions.values()]
    return render_page(
        "doubleunet_bs.results",
        "patient_report.html",
        script="patient_report.js",
        title=f"{scan.result['case']}: areas suspicious for metastasis",
        scans=scans,
        rows=rows,
        upper=upper,
        one_scale=one_scale,
        bones=any(one["bone_scan_index"] for one in scans),
        region_names=[(name, hex_colour(colour)) for name, colour in region_names(masks)],
        finding=_finding(scan.result),
        changes={name: sum(row["change"] == name for row in rows) for name in (MATCHED, NEW, GONE)},
        made=scan.result["created"][:10],
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
    foci = len(_foci(result))
    if foci < len(lesions):
        sentence += f" Counted once where both views show it: {foci} {'focus' if foci == 1 else 'foci'}."
    return sentence


def _content(scan: ReportScan, title: str, prefix: str, upper: float, marks: Mapping[str, str]) -> dict[str, Any]:
    """What the template shows of a scan; `prefix` makes the ids of its outlines, `marks` stand before labels."""
    model, result = scan.result["model"], scan.result
    bodies = [result["views"][view]["body"] for view in scan.counts]
    boxes = [
        np.s_[one["first_row"] : one["last_row"] + 1, one["first_column"] : one["last_column"] + 1] for one in bodies
    ]
    boxes += [area.box for view in scan.counts for area in scan.areas[view]]
    box = shown_box([clinical_display(counts, upper) for counts in scan.counts.values()], boxes)
    return {
        **result,
        "title": title,
        "prefix": prefix,
        "rows": box[0].stop - box[0].start,
        "columns": box[1].stop - box[1].start,
        "upper": upper,
        "quality": model["quality"],
        "quality_warning": model["quality_warning"],
        "training_summary": model["training_summary"],
        "views": [_view(scan, view, box, upper, marks) for view in VIEWS],
    }


def _view(
    scan: ReportScan, view: str, box: tuple[slice, slice], upper: float, marks: Mapping[str, str]
) -> dict[str, Any]:
    lesions = [lesion for lesion in scan.result["lesions"] if lesion["view"] == view]
    if view not in scan.counts:
        return {"name": view, "present": False, "areas": [], "row": 0}
    counts = np.ascontiguousarray(scan.counts[view][box])
    letters = sides(view, scan.result["warnings"])
    top, left = box[0].start, box[1].start
    last_row = scan.result["views"][view]["window"]["top"] + KEPT_ROWS - top
    columns = counts.shape[1]
    areas = [
        _area(lesion["number"], marks.get(_label(lesion), "") + _label(lesion), area, (top, left), columns)
        for lesion, area in zip(lesions, scan.areas[view], strict=True)
    ]
    _part_numbers(areas)
    return {
        "name": view,
        "present": True,
        "areas": areas,
        "regions": _borders(scan.regions[view][box]) if view in scan.regions else [],
        "picture": base64.b64encode(png_bytes(clinical_display(counts, upper))).decode("ascii"),
        "counts": base64.b64encode(zlib.compress(counts.astype("<u2").tobytes(), ZLIB_LEVEL)).decode("ascii"),
        "left": letters[0],
        "right": letters[1],
        "last_row": last_row if 0 <= last_row < counts.shape[0] else None,
    }


def _borders(regions: np.ndarray) -> list[tuple[str, str, str]]:
    """(name, colour, outline) of every region that a view shows."""
    shown = set(np.unique(regions).tolist())
    return [
        (region.name, hex_colour(region.colour), edge_path(regions == region.number))
        for region in REGIONS
        if region.number in shown
    ]


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


def _part_numbers(areas: Sequence[dict[str, Any]]) -> None:
    """Move the numbers of areas that are close to each other down, until none lies on another."""
    placed: list[tuple[float, float, float]] = []
    for area in sorted(areas, key=lambda area: (area["number_y"], area["number_x"])):
        width = NUMBER_WIDTH * len(area["label"])
        first = area["number_x"] - (width if area["number_left"] else 0)
        last, row = first + width, area["number_y"]
        for begin, end, taken in sorted(placed, key=lambda one: one[2]):
            if first < end and begin < last and abs(row - taken) < NUMBER_HEIGHT:
                row = taken + NUMBER_HEIGHT
        area["number_y"] = row
        placed.append((first, last, row))


# --- the table: one row a focus


def _label(lesion: Mapping[str, Any]) -> str:
    """The number a reader sees: that of the focus, which areas of both views share. Without foci that of the area."""
    return str(lesion["focus"] or lesion["number"])


def _foci(result: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Label of a focus -> view -> its area there."""
    foci: dict[str, dict[str, Mapping[str, Any]]] = {}
    for lesion in result["lesions"]:
        foci.setdefault(_label(lesion), {})[lesion["view"]] = lesion
    return foci


def _table(
    result: Mapping[str, Any], earlier: Mapping[str, Any] | None, matched: Mapping[int, int]
) -> list[dict[str, Any]]:
    """A row for each focus, the most probable first; with an earlier scan then those that are gone."""
    before = {lesion["number"]: lesion for lesion in earlier["lesions"]} if earlier else {}
    rows = []
    for label, focus in _foci(result).items():
        same = {view: before.get(matched.get(area["number"], 0)) for view, area in focus.items()}
        change = "" if earlier is None else MATCHED if any(same.values()) else NEW
        rows.append(_row("lesion", label, focus, same, change))
    rows.sort(key=lambda row: -row["probability"])
    for label, focus in _foci(earlier).items() if earlier else ():
        if not {area["number"] for area in focus.values()} & set(matched.values()):
            rows.append(_row("earlier", label, {}, focus, GONE))
    return rows


def _row(prefix: str, label: str, now: Mapping[str, Any], before: Mapping[str, Any], change: str) -> dict[str, Any]:
    first, *others = (now or before).values()
    return {
        "label": label,
        "target": f"{prefix}-{first['number']}",
        # Areas of one focus lie in one region, or one of them in none.
        "bone": next((area["region"] for area in (first, *others) if area["region"]), None),
        "views": [{"now": now.get(view), "before": before.get(view)} for view in VIEWS],
        "change": change,
        "probability": max(area["mean_probability"] for area in (first, *others)),
    }


def _marks(rows: Sequence[Mapping[str, Any]], change: str) -> dict[str, str]:
    """Label -> the sign before it in the views."""
    return {row["label"]: {NEW: "+", GONE: "−"}[change] for row in rows if row["change"] == change}
