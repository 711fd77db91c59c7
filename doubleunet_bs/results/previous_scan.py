"""The earlier scan that a report shows beside the new one: a result folder, or a scan to be segmented as well."""

from pathlib import Path

import numpy as np
from PIL import Image

from doubleunet_bs.bsi import REGIONS
from doubleunet_bs.constants import RAW_SHAPE, VIEWS
from doubleunet_bs.dicom_results import SCAN_COPY
from doubleunet_bs.dicom_results.source_study import same_patient
from doubleunet_bs.errors import RunError
from doubleunet_bs.findings.lesion_list import LesionArea, find_areas
from doubleunet_bs.results.input_scans import list_scans
from doubleunet_bs.results.overlay import view_pictures
from doubleunet_bs.results.patient_report import ReportScan
from doubleunet_bs.results.result_files import MASK, PICTURE, REGION_MASK, RESULT
from doubleunet_bs.results.stored_result import load_result
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
            f"{path}: another Patient ID, issuer or birth date: for the same person give --previous a result folder"
        )
    return found.scans[0].read(allow_missing_view)


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
            if result.get("bone_scan_index") and (folder / REGION_MASK.format(view)).is_file():
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
