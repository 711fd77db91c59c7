"""The report of one scan: a self-contained HTML page without scripts, which names the patient by the pseudonym only.

`templates/patient_report.html` is the page; this module gives it its values.
"""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from doubleunet_bs import __version__
from doubleunet_bs.constants import KEPT_ROWS, RAW_SHAPE, VIEWS
from doubleunet_bs.display import edge_path
from doubleunet_bs.inference.model_description import INTENDED_USE
from doubleunet_bs.results.laterality import sides
from doubleunet_bs.results.lesion_list import BODY_DEFINITION, LesionArea
from doubleunet_bs.templates import render_page


@dataclasses.dataclass(frozen=True)
class ReportScan:
    """One scan of a report.

    Attributes:
        result: the content of its `result.json`.
        areas: view -> `find_areas` of its mask, the lesions of `result` in their order. Empty for a missing view.
        pictures: view -> PNG bytes of the raw view in the usual display; a missing view is not in it.
    """

    result: dict[str, Any]
    areas: Mapping[str, Sequence[LesionArea]]
    pictures: Mapping[str, bytes]


def report_page(scan: ReportScan, previous: ReportScan | None = None) -> str:
    """The page.

    Args:
        scan: the scan it is about.
        previous: an earlier scan to show beside it.

    Returns:
        HTML with pictures and style inside. Checkboxes switch contours and numbers.
    """
    scans = [_content(scan, "this scan", "lesion")]
    if previous:
        scans.append(_content(previous, "previous scan", "earlier"))
    rows, columns = RAW_SHAPE
    return render_page(
        "doubleunet_bs.results",
        "patient_report.html",
        title=f"{scan.result['case']}: predicted metastatic areas",
        scans=scans,
        rows=rows,
        columns=columns,
        intended_use=INTENDED_USE,
        body_definition=BODY_DEFINITION,
        version=__version__,
    )


def _content(scan: ReportScan, title: str, prefix: str) -> dict[str, Any]:
    """What the template shows of a scan; `prefix` makes the ids of its contours."""
    return {**scan.result, "title": title, "prefix": prefix, "views": [_view(scan, view) for view in VIEWS]}


def _view(scan: ReportScan, view: str) -> dict[str, Any]:
    if view not in scan.pictures:
        return {"name": view, "present": False, "areas": []}
    numbers = [lesion["number"] for lesion in scan.result["lesions"] if lesion["view"] == view]
    letters = sides(view, scan.result["warnings"])
    last_row = scan.result["views"][view]["window"]["top"] + KEPT_ROWS
    return {
        "name": view,
        "present": True,
        "areas": [_area(number, area) for number, area in zip(numbers, scan.areas[view], strict=True)],
        "picture": base64.b64encode(scan.pictures[view]).decode("ascii"),
        "left": letters[0],
        "right": letters[1],
        "last_row": last_row if 0 <= last_row < RAW_SHAPE[0] else None,
    }


def _area(number: int, area: LesionArea) -> dict[str, Any]:
    # The number is right of the area, or left of it where the view ends.
    left = area.last_column >= RAW_SHAPE[1] - 24
    return {
        "number": number,
        "row": area.first_row,
        "column": area.first_column,
        "outline": edge_path(area.inside),
        "number_left": left,
        "number_x": max(area.first_column - 3, 8 * len(str(number))) if left else area.last_column + 4,
        "number_y": max(9, area.first_row),
    }
