"""The earlier scan that a report shows beside the new one: a result folder, or a scan that is segmented as well."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from doubleunet_bs.constants import RAW_SHAPE, VIEWS
from doubleunet_bs.display import png_bytes
from doubleunet_bs.errors import RunError
from doubleunet_bs.files import read_json
from doubleunet_bs.inference.predictor import Predictor
from doubleunet_bs.preparation.case import prepare_scan
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.results.input_scans import list_scans
from doubleunet_bs.results.lesion_list import LesionArea, find_areas, find_lesions
from doubleunet_bs.results.overlay import view_pictures
from doubleunet_bs.results.patient_report import ReportScan
from doubleunet_bs.results.result_files import FORMAT, RESULT, mask_name, picture_name
from doubleunet_bs.results.result_folder import describe_prediction
from doubleunet_bs.results.source_study import same_patient
from doubleunet_bs.scans.scan_files import ScanFiles


def find_previous(path: str, current: ScanFiles, allow_missing_view: bool = False) -> ReportScan | ScanFiles:
    """Find out what the user gave, before any network is loaded.

    Args:
        path: result folder of an earlier prediction, or one scan: a DICOM file, or a folder or archive that holds it.
        current: the new scan.
        allow_missing_view: accept an earlier scan with one view.

    Returns:
        The result, or the files of the scan.

    Raises:
        SettingsError: nothing is there.
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
    return found.scans[0]


def previous_case(
    previous: ReportScan | ScanFiles, preparation: PreparationSettings, allow_missing_view: bool = False
) -> str:
    """The pseudonym of the earlier scan, which is read and prepared for that but not segmented.

    Raises:
        ScanError: it cannot be read or prepared.
    """
    if isinstance(previous, ReportScan):
        return previous.result["case"]
    scan = previous.read(allow_missing_view)
    prepare_scan(scan, settings=preparation)
    return scan.case


def check_another(case: str, previous: str) -> None:
    """Raises `RunError` when the new scan is the previous one itself."""
    if case == previous:
        raise RunError(f"{case}: is also the scan given with --previous: give an earlier one")


def segment_previous(
    previous: ReportScan | ScanFiles, predictor: Predictor, allow_missing_view: bool = False
) -> ReportScan:
    """What the report needs of the earlier scan. A scan is segmented by `predictor`; nothing is written.

    Raises:
        ScanError: it cannot be read or prepared.
    """
    if isinstance(previous, ReportScan):
        return previous
    scan = previous.read(allow_missing_view)
    prediction = predictor.predict(scan)
    areas = {view: find_areas(prediction.masks[view]) for view in VIEWS}
    lesions = find_lesions(scan, prediction, areas)
    result = describe_prediction(scan, prediction, lesions, {}, ())
    shown = view_pictures(scan)
    pictures = {view: png_bytes(shown[view]) for view in VIEWS if view not in scan.missing_views}
    return ReportScan(result, areas, pictures)


def read_result(folder: Path) -> ReportScan:
    """The result folder of an earlier prediction.

    Raises:
        RunError: it is none, one of another format, incomplete or damaged.
    """
    result = read_json(folder / RESULT, RunError, "result of an earlier prediction")
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise RunError(f"{folder / RESULT}: not a result of this version: segment that scan again")
    areas: dict[str, tuple[LesionArea, ...]] = {}
    pictures: dict[str, bytes] = {}
    try:
        for view in VIEWS:
            if result["views"][view]["missing"]:
                areas[view] = ()
                continue
            with open(folder / mask_name(view, ".npy"), "rb") as file:
                mask = np.lib.format.read_array(file, allow_pickle=False)
            if mask.shape != RAW_SHAPE or mask.dtype != np.uint8:
                raise ValueError("not a mask of this package")
            areas[view] = find_areas(mask)
            pictures[view] = (folder / picture_name(view)).read_bytes()
            with Image.open(io.BytesIO(pictures[view]), formats=("PNG",)) as picture:
                picture.load()
                if picture.size != RAW_SHAPE[::-1]:
                    raise ValueError("a picture of another size")
        _check(result)
        for view in VIEWS:
            # The report draws the areas of the masks with the numbers of the list.
            if sum(lesion["view"] == view for lesion in result["lesions"]) != len(areas[view]):
                raise ValueError("not the lesions of its mask")
    except FileNotFoundError as cause:
        raise RunError(f"{cause.filename}: is missing: segment that scan again with --outputs masks,labelme") from None
    # What files changed by hand or cut short lead to: NumPy, Pillow (SyntaxError) and the checks of the JSON.
    except (OSError, ValueError, SyntaxError, LookupError, TypeError) as cause:
        raise RunError(f"{folder}: a damaged result ({type(cause).__name__}): segment that scan again") from None
    return ReportScan(result, areas, pictures)


def _check(result: dict[str, Any]) -> None:
    """Look at everything the report takes from the file, so that one changed by hand fails here."""
    model, area = result["model"], result["lesion_area"]
    texts = [result["case"], result["engine"], result["version"], model["name"], model["weights_sha256"]]
    numbers = [area["lesion_pixels"]]
    optional = [area[name] for name in ("lesion_area_mm2", "body_pixels", "fraction_of_body")]
    names = ("number", "row", "column", "pixels", "peak_probability", "mean_probability", "sum_counts", "max_counts")
    for lesion in result["lesions"]:
        if lesion["view"] not in VIEWS:
            raise ValueError("a lesion of no view")
        numbers += [lesion[name] for name in names]
        optional.append(lesion["area_mm2"])
    if not all(isinstance(text, str) for text in (*texts, *result["warnings"])):
        raise ValueError("no text")
    if not all(_is_number(value) for value in numbers) or not all(
        value is None or _is_number(value) for value in optional
    ):
        raise ValueError("no number")
    if result["phantom"] not in (True, False, None):
        raise ValueError("neither a phantom nor none")
    if any(type(result["views"][view]["window"]["top"]) is not int for view in VIEWS):
        raise ValueError("no crop")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
