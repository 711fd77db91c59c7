"""The earlier scan that a report shows beside the new one: a result folder, or a scan that is segmented as well."""

from pathlib import Path

from doubleunet_bs.errors import RunError
from doubleunet_bs.preparation.case import prepare_scan
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.results.input_scans import list_scans
from doubleunet_bs.results.patient_report import ReportScan, read_report_scan, report_scan
from doubleunet_bs.results.result_files import RESULT
from doubleunet_bs.results.source_study import same_patient
from doubleunet_bs.scans.folder import ScanFiles


def find_previous(path: str, current: ScanFiles, allow_missing_view: bool = False) -> ReportScan | ScanFiles:
    """Find out what the user gave, before any network is loaded.

    Args:
        path: result folder of an earlier prediction, or a scan: a DICOM file, a folder or an archive with one in it.
        current: the scan it is to stand beside.
        allow_missing_view: accept an earlier scan with one view.

    Returns:
        The result, or the files of the scan.

    Raises:
        SettingsError: nothing is there.
        RunError: it is not one scan, a damaged result, or the scan of another patient than `current`: see
            `same_patient`. A result folder names no patient; there the user is believed.
    """
    if (Path(path) / RESULT).is_file():
        return read_report_scan(Path(path))
    found = list_scans([path], allow_missing_view)
    if len(found.scans) != 1:
        reason = f" ({found.rejected[0].message})" if not found.scans and found.rejected else ""
        raise RunError(
            f"{path}: holds {len(found.scans)} scans{reason}; --previous names one scan or its result folder"
        )
    if same_patient(current.sources, found.scans[0].sources) is False:
        raise RunError(
            f"{path}: has another Patient ID, issuer of it, or birth date than the new scan; a result folder may be given "
            "instead, if they are the same person"
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
        raise RunError(f"{case}: is the scan that was given as the previous one as well")


def segment_previous(previous: ReportScan | ScanFiles, predictor, allow_missing_view: bool = False) -> ReportScan:
    """What the report needs of it; a scan is segmented for that by `predictor`, and nothing is written.

    Raises:
        ScanError: it cannot be read or prepared.
    """
    if isinstance(previous, ReportScan):
        return previous
    from doubleunet_bs.display import png_bytes
    from doubleunet_bs.results.lesion_list import find_lesions
    from doubleunet_bs.results.overlay import view_pictures
    from doubleunet_bs.results.result_folder import describe_prediction

    scan = previous.read(allow_missing_view)
    prediction = predictor.predict(scan)
    result = describe_prediction(scan, prediction, predictor.engine, find_lesions(scan, prediction), {}, ())
    return report_scan(
        result, prediction.masks, {view: png_bytes(picture) for view, picture in view_pictures(scan).items()}
    )
