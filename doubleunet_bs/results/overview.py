"""`index.html` and `cohort.csv`: all results in a folder, made again from the result folders after every run.

`collect` makes the table alone.
"""

import contextlib
import csv
import fcntl
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from doubleunet_bs.bsi.regions import REGIONS
from doubleunet_bs.constants import VIEWS
from doubleunet_bs.errors import RunError
from doubleunet_bs.files import replace_file, write_text
from doubleunet_bs.inference.model_description import INTENDED_USE
from doubleunet_bs.results.result_files import COHORT, INDEX, REPORT, THUMBNAIL
from doubleunet_bs.results.stored_result import find_results, load_result
from doubleunet_bs.templates import render_page

_VIEW_COLUMNS = ("areas", "pixels", "area_mm2", "highest_probability", "counts", "lesion_counts")


def _region_column(view: str, region: str | None) -> str:
    return f"areas_{view}_{(region or 'no region').replace(' ', '_')}"


COLUMNS = (
    *("case", "phantom", "created", "foci", "foci_in_both_views"),
    *(f"{name}_{view}" for view in VIEWS for name in _VIEW_COLUMNS),
    *("area_mm2", "fraction_of_body", "bone_scan_index", "bsi_table", "warnings", "model", "weights"),
    *("validation_f1", "threshold", "engine", "version"),
    *(_region_column(view, region) for view in VIEWS for region in (*(one.name for one in REGIONS), None)),
)
"""Of `cohort.csv`, in order."""


def write_overview(out: Path) -> list[str]:
    """Write `index.html` and `cohort.csv` of all results in a folder. Several processes may do so at the same time.

    Args:
        out: the folder that `predict --out` was given.

    Returns:
        One line for each result that cannot be read and is in neither.
    """
    entries: list[dict[str, Any]] = []
    handle = os.open(out, os.O_RDONLY)
    try:
        # The process that reads first could write last. Some network file systems cannot lock a folder.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        problems = write_cohort_table(
            out / COHORT, find_results([out]), lambda folder, result: entries.append(_entry(folder, result))
        )
        write_text(out / INDEX, index_page(entries))
    finally:
        os.close(handle)
    return problems


def index_page(entries: list[dict[str, Any]]) -> str:
    """The page: a card for each result, the latest day first.

    Args:
        entries: from `_entry`; sorted here.
    """
    entries.sort(key=lambda entry: entry["case"])
    entries.sort(key=lambda entry: entry["day"], reverse=True)
    return render_page(
        "doubleunet_bs.results",
        "index.html",
        title="Predicted bone scans",
        days=[(day, list(group)) for day, group in itertools.groupby(entries, key=lambda entry: entry["day"])],
        number=len(entries),
        findings=sum(bool(entry["areas"]) for entry in entries),
        phantoms=sum(entry["phantom"] for entry in entries),
        models=list(dict.fromkeys(entry["model"] for entry in entries)),
        quality_warnings=list(dict.fromkeys(filter(None, (entry["quality_warning"] for entry in entries)))),
        unreliable=sum(bool(entry["quality_warning"]) for entry in entries),
        intended_use=INTENDED_USE,
    )


def _entry(folder: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of a result."""
    model, foci = result["model"], result["foci"]
    rule = "" if result["threshold"] is None else f", {result['mask_rule']}"
    return {
        "case": result["case"],
        "folder": quote(folder.name),
        "day": result["created"][:10],
        "phantom": result["phantom"],
        "areas": len(result["lesions"]),
        "foci": None if foci is None else len(foci),
        "views": [
            {
                "name": view,
                "missing": result["views"][view]["missing"],
                "areas": sum(lesion["view"] == view for lesion in result["lesions"]),
            }
            for view in VIEWS
        ],
        "area_mm2": result["lesion_area"]["lesion_area_mm2"],
        "warnings": result["warnings"],
        "report": REPORT if (folder / REPORT).is_file() else None,
        "thumbnail": THUMBNAIL if (folder / THUMBNAIL).is_file() else None,
        "model": f"{model['name']}, {model['quality']}{rule}",
        "quality_warning": model["quality_warning"],
    }


def cohort_line(result: Mapping[str, Any]) -> dict[str, Any]:
    """The line of a result in the table: name of each of `COLUMNS` -> value. None is an empty cell."""
    foci, index = result["foci"], result["bone_scan_index"] or {}
    views: dict[str, Any] = {}
    regions: dict[str, Any] = {}
    for view in VIEWS:
        found, present = result["views"][view], not result["views"][view]["missing"]
        areas = [lesion for lesion in result["lesions"] if lesion["view"] == view]
        known = present and result["pixel_spacing_mm"] is not None
        views |= {
            f"areas_{view}": len(areas) if present else None,
            f"pixels_{view}": found["metastatic_pixels"] if present else None,
            f"area_mm2_{view}": sum(area["area_mm2"] for area in areas) if known else None,
            f"highest_probability_{view}": found["highest_probability"],
            f"counts_{view}": found["counts"] if present else None,
            f"lesion_counts_{view}": sum(area["sum_counts"] for area in areas) if present else None,
        }
        named = present and index
        for region in (*(region.name for region in REGIONS), None):
            regions[_region_column(view, region)] = sum(area["region"] == region for area in areas) if named else None
    both = None if foci is None else sum(None not in (focus["anterior"], focus["posterior"]) for focus in foci)
    return {
        "case": result["case"],
        "phantom": "yes" if result["phantom"] else "no",
        "created": result["created"],
        "foci": None if foci is None else len(foci),
        "foci_in_both_views": both,
        **views,
        "area_mm2": result["lesion_area"]["lesion_area_mm2"],
        "fraction_of_body": result["lesion_area"]["fraction_of_body"],
        "bone_scan_index": index.get("value"),
        "bsi_table": index.get("table"),
        "warnings": "; ".join(filter(None, (result["model"]["quality_warning"], *result["warnings"]))),
        "model": result["model"]["name"],
        "weights": result["model"]["weights_sha256"][:12],
        "validation_f1": result["model"]["validation_f1"],
        "threshold": result["threshold"],
        "engine": result["engine"],
        "version": result["version"],
        **regions,
    }


def write_cohort_table(
    path: str | os.PathLike, folders: Iterable[Path], seen: Callable[[Path, dict[str, Any]], None] | None = None
) -> list[str]:
    """Write the table of some results, whole or not at all. One result is in memory at a time.

    Args:
        path: of the CSV file, UTF-8 with a line of column names, also where no result can be read.
        folders: result folders, in the order of the lines.
        seen: called with each folder and its result.

    Returns:
        One line for each result that cannot be read and is not in the table.
    """
    problems: list[str] = []

    def write(temporary: Path) -> None:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for folder in folders:
                try:
                    result = load_result(folder)
                except RunError as error:
                    problems.append(str(error))
                else:
                    line = cohort_line(result)
                    writer.writerow([_cell(line[name]) for name in COLUMNS])
                    if seen:
                        seen(folder, result)

    replace_file(path, write)
    return problems


def _cell(value: Any) -> Any:
    """A value as a spreadsheet may see it: a text that would be a formula gets an apostrophe in front."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        text = " ".join(value.split())
        return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
    return value
