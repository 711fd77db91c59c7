"""What the patient report shows of one scan: taken from a prediction, or from the result folder of an earlier one."""

import dataclasses
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from doubleunet_bs.results.lesion_list import number_lesions
from doubleunet_bs.deployment.result_files import FORMAT, RESULT, mask_name, picture_name
from doubleunet_bs.errors import RunError
from doubleunet_bs.files import read_json
from doubleunet_bs.preparation.case import VIEWS
from doubleunet_bs.preparation.settings import RAW_SHAPE


@dataclasses.dataclass(frozen=True)
class ReportScan:
    """One scan of a report.

    Attributes:
        result: the content of its `result.json`.
        masks: view -> uint8 array of the raw view, 0 and 1; a missing view is not in it.
        pictures: view -> PNG bytes of the raw view in the usual display; a missing view is not in it.
    """

    result: dict[str, Any]
    masks: dict[str, np.ndarray]
    pictures: dict[str, bytes]


def report_scan(result: dict[str, Any], masks: Mapping[str, np.ndarray], pictures: Mapping[str, bytes]) -> ReportScan:
    """Of a prediction that is being written.

    Args:
        result: see `results.describe_prediction`.
        masks: uint8 arrays of the shape of the raw view; those of missing views are passed over.
        pictures: PNG bytes of the views that are there.
    """
    present = [view for view in VIEWS if not result["views"][view]["missing"]]
    return ReportScan(result, {view: masks[view] for view in present}, {view: pictures[view] for view in present})


def read_report_scan(folder: Path) -> ReportScan:
    """Of the result folder of an earlier prediction.

    Raises:
        RunError: it is none, one of another format, incomplete or damaged.
    """
    result = read_json(folder / RESULT, RunError, "result of an earlier prediction")
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise RunError(f"{folder / RESULT}: not a result of this version of the package; segment that scan again")
    masks, pictures = {}, {}
    try:
        for view in VIEWS:
            if result["views"][view]["missing"]:
                continue
            path = folder / mask_name(view, ".npy")
            masks[view] = np.load(path, allow_pickle=False)
            if masks[view].shape != RAW_SHAPE or masks[view].dtype != np.uint8:
                raise RunError(f"{path}: not a mask of this package; segment that scan again")
            path = folder / picture_name(view)
            pictures[view] = path.read_bytes()
            with Image.open(io.BytesIO(pictures[view]), formats=("PNG",)) as picture:
                picture.load()
                if picture.size != RAW_SHAPE[::-1]:
                    raise ValueError("another size")
        _check(result)
        _check_lesions(result, masks)
    except FileNotFoundError:
        raise RunError(
            f"{path}: is missing; segment that scan again with the outputs masks and labelme, or all of them"
        ) from None
    except RunError:
        raise
    except (OSError, ValueError, SyntaxError, LookupError, TypeError, AttributeError) as cause:
        raise RunError(f"{folder}: a damaged result ({type(cause).__name__}); segment that scan again") from None
    return ReportScan(result, masks, pictures)


def _check(result: dict[str, Any]) -> None:
    """Look at everything the report takes from the file, so that one changed by hand fails here."""
    numbers = ("number", "row", "column", "pixels", "peak_probability", "mean_probability", "sum_counts", "max_counts")
    for lesion in result["lesions"]:
        if lesion["view"] not in VIEWS or not all(_is_number(lesion[name]) for name in numbers):
            raise ValueError("a lesion without its figures")
        if lesion["area_mm2"] is not None and not _is_number(lesion["area_mm2"]):
            raise ValueError("no area")
    if result["phantom"] not in (True, False, None):
        raise ValueError("neither a phantom nor none")
    model = result["model"]
    texts = (result["case"], result["engine"], result["version"], model["name"], model["weights_sha256"])
    if not all(isinstance(text, str) for text in (*texts, *result["warnings"])):
        raise ValueError("no text")
    area = result["lesion_area"]
    if not _is_number(area["lesion_pixels"]):
        raise ValueError("no number")
    for name in ("lesion_area_mm2", "body_pixels", "fraction_of_body"):
        if area[name] is not None and not _is_number(area[name]):
            raise ValueError("no number")
    for view in VIEWS:
        if type(result["views"][view]["window"]["top"]) is not int:
            raise ValueError("no window")


def _check_lesions(result: dict[str, Any], masks: Mapping[str, np.ndarray]) -> None:
    """The list must be that of the masks: the report draws the areas of the masks with the numbers of the list."""
    if any(lesion["view"] not in masks for lesion in result["lesions"]):
        raise ValueError("lesions of a missing view")
    for view, mask in masks.items():
        if sum(lesion["view"] == view for lesion in result["lesions"]) != number_lesions(mask)[0]:
            raise ValueError("not the lesions of its mask")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
