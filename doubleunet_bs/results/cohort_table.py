"""`cohort.csv`: one line a scan, from the result folders alone. `predict` writes it, `collect` makes it again."""

import csv
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from doubleunet_bs.bsi.regions import REGIONS
from doubleunet_bs.constants import VIEWS
from doubleunet_bs.errors import RunError
from doubleunet_bs.files import replace_file
from doubleunet_bs.results.stored_result import load_result


def _areas(result: Mapping[str, Any], view: str) -> list[Mapping[str, Any]]:
    return [lesion for lesion in result["lesions"] if lesion["view"] == view]


def _area_mm2(result: Mapping[str, Any], view: str) -> float | None:
    if result["pixel_spacing_mm"] is None or result["views"][view]["missing"]:
        return None
    return sum(lesion["area_mm2"] for lesion in _areas(result, view))


def _of_view(view: str) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
    """The columns of one view; empty cells where it is missing."""

    def present(figure: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], Any]:
        return lambda result: None if result["views"][view]["missing"] else figure(result)

    return {
        f"areas_{view}": present(lambda result: len(_areas(result, view))),
        f"pixels_{view}": present(lambda result: result["views"][view]["metastatic_pixels"]),
        f"area_mm2_{view}": lambda result: _area_mm2(result, view),
        f"highest_probability_{view}": lambda result: result["views"][view]["highest_probability"],
        f"counts_{view}": present(lambda result: result["views"][view].get("counts")),
        f"lesion_counts_{view}": present(lambda result: sum(area["sum_counts"] for area in _areas(result, view))),
    }


def _of_regions(view: str) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
    """Areas of one view by the region of the skeleton they lie in; empty cells where no skeleton was predicted."""

    def areas_in(region: str | None) -> Callable[[Mapping[str, Any]], Any]:
        def count(result: Mapping[str, Any]) -> int | None:
            areas = _areas(result, view)
            # Results of earlier versions with an index, but without the bones of their areas.
            if not result.get("bone_scan_index") or not all("region" in area for area in areas):
                return None
            return None if result["views"][view]["missing"] else sum(area["region"] == region for area in areas)

        return count

    named = {f"areas_{view}_{region.name.replace(' ', '_')}": areas_in(region.name) for region in REGIONS}
    return named | {f"areas_{view}_no_region": areas_in(None)}


COLUMNS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "case": lambda result: result["case"],
    "phantom": lambda result: {True: "yes", False: "no", None: None}[result["phantom"]],
    "created": lambda result: result.get("created"),
    "lesions": lambda result: None if result.get("foci") is None else len(result["foci"]),
    "lesions_in_both_views": lambda result: (
        None
        if result.get("foci") is None
        else sum(None not in (focus["anterior"], focus["posterior"]) for focus in result["foci"])
    ),
    **_of_view(VIEWS[0]),
    **_of_view(VIEWS[1]),
    "area_mm2": lambda result: result["lesion_area"]["lesion_area_mm2"],
    "fraction_of_body": lambda result: result["lesion_area"]["fraction_of_body"],
    "bone_scan_index": lambda result: (result.get("bone_scan_index") or {}).get("value"),
    "bsi_table": lambda result: (result.get("bone_scan_index") or {}).get("table"),
    "warnings": lambda result: "; ".join(result["warnings"]),
    "model": lambda result: result["model"]["name"],
    "weights": lambda result: result["model"]["weights_sha256"][:12],
    "validation_f1": lambda result: result["model"].get("validation_f1"),
    "threshold": lambda result: result.get("threshold"),
    "engine": lambda result: result["engine"],
    "version": lambda result: result["version"],
    **_of_regions(VIEWS[0]),
    **_of_regions(VIEWS[1]),
}
"""Name of a column -> its value in a `result.json`. None is an empty cell."""


def write_cohort_table(
    path: str | os.PathLike, folders: Iterable[Path], seen: Callable[[Path, dict[str, Any]], None] | None = None
) -> list[str]:
    """Write the table of some results, whole or not at all. One result is in memory at a time.

    Args:
        path: of the CSV file, UTF-8 with a line of column names.
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
                    writer.writerow([_cell(value(result)) for value in COLUMNS.values()])
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
