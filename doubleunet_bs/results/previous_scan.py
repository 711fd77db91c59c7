"""The earlier scan that a report shows beside the new one: a result folder, or a scan to be segmented as well."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from doubleunet_bs.constants import RAW_SHAPE, VIEWS
from doubleunet_bs.errors import RunError
from doubleunet_bs.files import read_json
from doubleunet_bs.results.input_scans import list_scans
from doubleunet_bs.results.lesion_list import LesionArea, find_areas
from doubleunet_bs.results.overlay import view_pictures
from doubleunet_bs.results.patient_report import ReportScan
from doubleunet_bs.results.result_files import FORMAT, MASK, PICTURE, RESULT, SCAN_COPY
from doubleunet_bs.results.source_study import same_patient
from doubleunet_bs.scans import read_scan
from doubleunet_bs.scans.bone_scan import BoneScan
from doubleunet_bs.scans.scan_files import ScanFiles


def find_previous(path: str, current: ScanFiles, allow_missing_view: bool = False) -> ReportScan | BoneScan:
    """Read what the user gave, before any network is loaded.

    Args:
        path: result folder of an earlier prediction, or one scan: a DICOM file, or a folder or archive that holds it.
        current: the new scan.
        allow_missing_view: accept an earlier scan with one view.

    Returns:
        The result, or the scan.

    Raises:
        SettingsError: nothing is there.
        ScanError: the scan cannot be read.
        RunError: it is not one scan, a damaged result, or the scan of another patient than `current`: see
            `same_patient`. A result folder names no patient; there the user is believed.
    """
    if (Path(path) / RESULT).is_file():
        return read_result(Path(path))
    found = list_scans([path], allow_missing_view)
    if len(found.scans) != 1:
        reason = f" ({found.rejected[0].message})" if not found.scans and found.rejected else ""
        raise RunError(f"{path}: holds {len(found.scans)} scans{reason}: give --previous one scan or its result folder")
    if same_patient(current.sources, found.scans[0].sources) is False:
        raise RunError(
            f"{path}: Patient ID, its issuer or the birth date differs from the new scan: "
            "if it is the same person, give --previous a result folder"
        )
    return found.scans[0].read(allow_missing_view)


def read_result(folder: Path) -> ReportScan:
    """The result folder of an earlier prediction.

    Raises:
        RunError: it is none, one of another format, incomplete or damaged.
    """
    result = read_json(folder / RESULT, RunError, "result of an earlier prediction")
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise RunError(f"{folder / RESULT}: not a result of this version: segment that scan again")
    areas: dict[str, tuple[LesionArea, ...]] = {}
    greys: dict[str, np.ndarray] = {}
    try:
        for view in VIEWS:
            if result["views"][view]["missing"]:
                areas[view] = ()
                continue
            with open(folder / MASK.format(view), "rb") as file:
                mask = np.lib.format.read_array(file, allow_pickle=False)
            if mask.shape != RAW_SHAPE or mask.dtype != np.uint8:
                raise ValueError("not a mask of this package")
            areas[view] = find_areas(mask)
            with Image.open(folder / PICTURE.format(view), formats=("PNG",)) as picture:
                greys[view] = np.asarray(picture)
            if greys[view].shape != RAW_SHAPE or greys[view].dtype != np.uint8:
                raise ValueError("not a picture of this package")
        _check(result)
        # The report draws the areas of the masks with the numbers of the list.
        if [lesion["view"] for lesion in result["lesions"]] != [view for view in VIEWS for _ in areas[view]]:
            raise ValueError("not the lesions of its mask")
    except FileNotFoundError as cause:
        raise RunError(f"{cause.filename}: is missing: segment that scan again with --outputs masks,labelme") from None
    # What files changed by hand or cut short lead to: NumPy, Pillow (SyntaxError) and the checks of the JSON.
    except (OSError, ValueError, SyntaxError, LookupError, TypeError) as cause:
        raise RunError(f"{folder}: a damaged result ({type(cause).__name__}): segment that scan again") from None
    if (folder / SCAN_COPY).is_file():
        scan = read_scan([folder / SCAN_COPY], allow_missing_view=True)
        if all(np.array_equal(grey, view_pictures(scan)[view]) for view, grey in greys.items()):
            return ReportScan(result, areas, {view: getattr(scan, view) for view in greys})
    counts = {view: np.uint16(255) - grey for view, grey in greys.items()}
    return ReportScan(result, areas, counts, in_counts=False)


def _check(result: dict[str, Any]) -> None:
    """Look at everything the report takes from the file, so that one changed by hand fails here."""
    model, area, lesions = result["model"], result["lesion_area"], result["lesions"]
    texts = [result["case"], result["engine"], result["version"], model["name"], model["weights_sha256"]]
    bodies = [result["views"][view]["body"] for view in VIEWS if not result["views"][view]["missing"]]
    names = ("number", "row", "column", "pixels", "peak_probability", "mean_probability", "sum_counts", "max_counts")
    expected = (
        (str, [*texts, *result["warnings"]]),
        (int | float, [area["lesion_pixels"], *(lesion[name] for lesion in lesions for name in names)]),
        (int | float | None, [area[name] for name in ("lesion_area_mm2", "body_pixels", "fraction_of_body")]),
        (int | float | None, [lesion["area_mm2"] for lesion in lesions]),
        (int | None, [lesion.get("focus") for lesion in lesions]),
        (bool | None, [result["phantom"]]),
        (int, [result["views"][view]["window"]["top"] for view in VIEWS]),
        (int, [body[name] for body in bodies for name in ("first_row", "last_row", "first_column", "last_column")]),
        (int | float, result["pixel_spacing_mm"] or ()),
        (int | float | None, [model.get("validation_f1")]),
        (str | None, [model.get(name) for name in ("quality", "quality_warning", "training_summary")]),
    )
    for kind, values in expected:
        if not all(isinstance(value, kind) for value in values):
            raise ValueError("a value of another kind")
