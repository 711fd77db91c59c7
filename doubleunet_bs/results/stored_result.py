"""The result of an earlier prediction, made here or elsewhere: read and checked before anything in it is believed."""

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from doubleunet_bs.bsi.regions import REGIONS
from doubleunet_bs.constants import CASE_NAME, RAW_SHAPE, VIEWS
from doubleunet_bs.dicom_results import SCAN_COPY
from doubleunet_bs.errors import RunError
from doubleunet_bs.files import no_folder, read_json
from doubleunet_bs.findings.lesion_list import LesionArea, find_areas
from doubleunet_bs.results.overlay import view_pictures
from doubleunet_bs.results.patient_report import ReportScan
from doubleunet_bs.results.result_files import FORMAT, MASK, MOST_BYTES, PICTURE, REGION_MASK, RESULT
from doubleunet_bs.scans import read_scan

LONGEST_TEXT = 2000
UID = re.compile(r"2\.25\.[1-9][0-9]{0,38}")
"""Of a lesion, as this package makes them."""
_REGION_NAMES = {region.name for region in REGIONS}
_LESION = ("number", "row", "column", "pixels", "peak_probability", "mean_probability", "sum_counts", "max_counts")


def load_result(folder: Path) -> dict[str, Any]:
    """The content of a result folder's `result.json`, of which everything that reports and tables show was checked.

    Raises:
        RunError: there is none, or it is of another format, damaged, or changed by hand.
    """
    path = folder / RESULT
    if path.is_file() and path.stat().st_size > MOST_BYTES:
        raise RunError(f"{path}: larger than any result of this package: segment that scan again")
    result = read_json(path, RunError, "result of an earlier prediction")
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise RunError(f"{path}: not a result of this version: segment that scan again")
    try:
        _check(result)
    except (ValueError, LookupError, TypeError, AttributeError) as cause:
        raise RunError(f"{folder}: a damaged result ({type(cause).__name__}): segment that scan again") from None
    return result


def _check(result: dict[str, Any]) -> None:
    model, area, lesions, views = result["model"], result["lesion_area"], result["lesions"], result["views"]
    _all(lambda value: isinstance(value, list), result["warnings"], lesions)
    _all(_is_text, result["engine"], result["version"], model["name"], *result["warnings"])
    _all(_is_hash, model["weights_sha256"], result["source_sha256"], result["pixel_sha256"])
    _all(lambda value: value in VIEWS, *(lesion["view"] for lesion in lesions))
    _all(_is_figure, area["lesion_pixels"], *(lesion[name] for lesion in lesions for name in _LESION))
    _all(_or_none(_is_figure), *(area[name] for name in ("lesion_area_mm2", "body_pixels", "fraction_of_body")))
    spacing = result["pixel_spacing_mm"]
    _all(lambda value: value is None or (isinstance(value, list) and len(value) == 2), spacing)
    _all(_is_figure, *(spacing or ()))
    # Areas are added up where the spacing is known.
    _all(_or_none(_is_figure) if spacing is None else _is_figure, *(lesion["area_mm2"] for lesion in lesions))
    _all(_or_none(_is_figure), result["threshold"])
    _all(_or_none(lambda value: type(value) is int), *(lesion["focus"] for lesion in lesions))
    _all(_or_none(lambda value: value in _REGION_NAMES), *(lesion["region"] for lesion in lesions))
    _all(lambda value: UID.fullmatch(value) is not None, *(lesion["tracking_uid"] for lesion in lesions))
    _all(_is_text, *(result[name] for name in ("mask_rule", "created", "focus_rule")))
    _all(_is_text, model["quality"], model["training_summary"])
    _all(_or_none(_is_text), model["quality_warning"])
    _all(_or_none(_is_figure), model["validation_f1"])
    for body in (views[view]["body"] for view in VIEWS):
        _all(_is_figure, *(body[end] for end in ("first_row", "last_row", "first_column", "last_column") if body))
    _all(lambda value: isinstance(value, bool), result["phantom"])
    _all(lambda value: isinstance(value, bool), *(views[view]["missing"] for view in VIEWS))
    _all(lambda value: type(value) is int, *(views[view]["window"]["top"] for view in VIEWS))
    _all(_is_figure, *(views[view]["metastatic_pixels"] for view in VIEWS))
    _all(_or_none(_is_figure), *(views[view]["highest_probability"] for view in VIEWS))
    _all(_or_none(_is_figure), *(views[view]["counts"] for view in VIEWS))
    _all(lambda value: isinstance(value, str) and CASE_NAME.fullmatch(value) is not None, result["case"])
    _all(lambda value: value in ("kept", "none"), result["dicom"]["patient_identity"])
    _all(_or_none(_is_text), result["dicom"]["second_segmentation"])
    if result["bone_scan_index"] is not None:
        _check_index(result["bone_scan_index"])
    for view, benign in (result["benign"] or {}).items():
        _all(lambda value: value in VIEWS, view)
        _all(_is_figure, benign["areas"], benign["pixels"])
    numbers = {lesion["number"]: lesion["view"] for lesion in lesions}
    for focus in result["foci"] or ():
        _all(_is_figure, focus["number"])
        for view in VIEWS:
            if focus[view] is not None and numbers[focus[view]] != view:
                raise ValueError("an area of the other view")


def _check_index(index: dict[str, Any]) -> None:
    model, regions = index["model"], index["regions"]
    _all(_is_text, index["table"], index["estimator"], index["table_reason"], index["note"], *index["warnings"])
    _all(_is_text, model["name"], model["quality"], *(region["name"] for region in regions))
    _all(_is_hash, model["weights_sha256"])
    _all(_is_figure, index["value"], *(region[name] for region in regions for name in ("weight", "index")))
    _all(_or_none(_is_figure), *(region["fraction"] for region in regions))
    _all(lambda view: view in VIEWS, *index["views"])
    _all(_is_figure, *index["views"].values())


def _all(is_possible: Callable[[Any], bool], *values: Any) -> None:
    if not all(map(is_possible, values)):
        raise ValueError("a value of another kind")


def _or_none(is_possible: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_possible(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TEXT


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")


def _is_figure(value: Any) -> bool:
    """A number that counts or measures something: finite, not negative."""
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def find_results(folders: Sequence[str | os.PathLike]) -> list[Path]:
    """The result folders in some folders, sorted by their names. Links are not followed.

    Args:
        folders: each a result folder itself, or the folder that `predict --out` was given.

    Raises:
        SettingsError: no such folder.
    """
    found: dict[Path, None] = {}
    for path in map(Path, folders):
        if not path.is_dir():
            raise no_folder(path)
        found |= dict.fromkeys(_within(path))
    return sorted(found, key=lambda folder: (folder.name, folder))


def _within(path: Path) -> Iterator[Path]:
    if (path / RESULT).is_file():
        yield path
        return
    with os.scandir(path) as entries:
        for entry in entries:
            if CASE_NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                result = os.path.join(entry.path, RESULT)
                if os.path.isfile(result) and not os.path.islink(result):
                    yield Path(entry.path)


def read_result(folder: Path) -> ReportScan:
    """The result folder of an earlier prediction.

    Raises:
        RunError: it is none, one of another format, incomplete or damaged.
    """
    result = load_result(folder)
    areas: dict[str, tuple[LesionArea, ...]] = {}
    greys: dict[str, np.ndarray] = {}
    regions: dict[str, np.ndarray] = {}
    try:
        for view in VIEWS:
            if result["views"][view]["missing"]:
                areas[view] = ()
                continue
            mask = _read_mask(folder / MASK.format(view))
            areas[view] = find_areas((mask == 1).astype(np.uint8))
            if result["bone_scan_index"] and (folder / REGION_MASK.format(view)).is_file():
                regions[view] = _read_mask(folder / REGION_MASK.format(view))
                if regions[view].max() > len(REGIONS):
                    raise ValueError("not a mask of the skeleton")
            with Image.open(folder / PICTURE.format(view), formats=("PNG",)) as picture:
                if (picture.size, picture.mode) != (RAW_SHAPE[::-1], "L"):
                    raise ValueError("not a picture of this package")
                greys[view] = np.asarray(picture)
        # The report draws the areas of the masks with the numbers of the list.
        if [lesion["view"] for lesion in result["lesions"]] != [view for view in VIEWS for _ in areas[view]]:
            raise ValueError("not the lesions of its mask")
    except FileNotFoundError as cause:
        raise RunError(f"{cause.filename}: is missing: segment that scan again with --outputs masks,labelme") from None
    # What files changed by hand or cut short lead to: NumPy, Pillow (SyntaxError) and the checks of the JSON.
    except (OSError, EOFError, ValueError, SyntaxError, LookupError, TypeError, AttributeError) as cause:
        raise RunError(f"{folder}: a damaged result ({type(cause).__name__}): segment that scan again") from None
    if (folder / SCAN_COPY).is_file():
        scan = read_scan([folder / SCAN_COPY], allow_missing_view=True)
        if all(np.array_equal(grey, view_pictures(scan)[view]) for view, grey in greys.items()):
            return ReportScan(result, areas, {view: getattr(scan, view) for view in greys}, regions=regions)
    counts = {view: np.uint16(255) - grey for view, grey in greys.items()}
    return ReportScan(result, areas, counts, in_counts=False, regions=regions)


def _read_mask(path: Path) -> np.ndarray:
    """A mask of `predict`. As a map of the file, so that no header makes it take memory that the file has not."""
    mask = np.load(path, mmap_mode="r", allow_pickle=False)
    if (mask.shape, mask.dtype) != (RAW_SHAPE, np.uint8):
        raise ValueError("not a mask of this package")
    return np.array(mask)
