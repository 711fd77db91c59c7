"""`index.html` and `cohort.csv`: all results in a folder, made again from the result folders after every run."""

import contextlib
import fcntl
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.files import write_text
from doubleunet_bs.inference.model_description import INTENDED_USE
from doubleunet_bs.results.cohort_table import write_cohort_table
from doubleunet_bs.results.result_files import COHORT, INDEX, REPORT, THUMBNAIL
from doubleunet_bs.results.stored_result import find_results
from doubleunet_bs.templates import render_page


def write_overview(out: Path) -> list[str]:
    """Write `index.html` and `cohort.csv` of all results in a folder. Several processes may do so at the same time.

    Args:
        out: the folder that `predict --out` was given.

    Returns:
        One line for each result that cannot be read and is in neither.
    """
    entries: list[dict[str, Any]] = []
    with _one_at_a_time(out):
        problems = write_cohort_table(
            out / COHORT, find_results([out]), lambda folder, result: entries.append(_entry(folder, result))
        )
        write_text(out / INDEX, index_page(entries))
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
        phantoms=sum(entry["phantom"] is True for entry in entries),
        models=list(dict.fromkeys(entry["model"] for entry in entries)),
        quality_warnings=list(dict.fromkeys(filter(None, (entry["quality_warning"] for entry in entries)))),
        unreliable=sum(bool(entry["quality_warning"]) for entry in entries),
        intended_use=INTENDED_USE,
    )


def _entry(folder: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of a result."""
    model, foci = result["model"], result.get("foci")
    rule = "" if result.get("threshold") is None else f", {result['mask_rule']}"
    quality = f", {model['quality']}" if model.get("quality") else ""
    return {
        "case": result["case"],
        "folder": quote(folder.name),
        "day": (result.get("created") or "")[:10],
        "phantom": result["phantom"],
        "areas": len(result["lesions"]),
        "lesions": None if foci is None else len(foci),
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
        "model": f"{model['name']}{quality}{rule}",
        "quality_warning": model.get("quality_warning"),
    }


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let one process at a time collect and write: otherwise the one that read first could write last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems cannot lock a folder. Then two runs that end together may write an older overview.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
