"""What the patient report shows of one scan: taken from a prediction, or from the result folder of an earlier one."""

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from doubleunet_bs.deployment.result_files import (
    FORMAT,
    RESULT,
    mask_name,
    picture_name,
)
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
    """Look at everything the report prints as a number, so that a file changed by hand fails here."""
    numbers = ("number", "row", "column", "pixels", "peak_probability", "mean_probability", "sum_counts", "max_counts")
    for lesion in result["lesions"]:
        if lesion["view"] not in VIEWS or not all(isinstance(lesion[name], int | float) for name in numbers):
            raise ValueError("a lesion without its figures")
    if not all(isinstance(text, str) for text in (result["case"], result["model"]["name"], *result["warnings"])):
        raise ValueError("no text")
    for name in ("lesion_pixels", "lesion_area_mm2", "body_pixels", "fraction_of_body"):
        value = result["lesion_area"][name]
        if value is not None and not isinstance(value, int | float):
            raise ValueError("no number")
