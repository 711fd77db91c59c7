"""All DICOM files of one result as bytes, with the patient's identity or without it. Imports highdicom: import it late."""

import datetime
import io
from collections.abc import Collection

import numpy as np
from pydicom.dataset import Dataset

from doubleunet_bs.results.dicom_header import header_with_identity, header_without_identity
from doubleunet_bs.deployment.dicom_scan import deidentified_scan
from doubleunet_bs.results.dicom_seg import segmentation
from doubleunet_bs.results.lesion_list import all_warnings
from doubleunet_bs.inference.predictor import Prediction
from doubleunet_bs.deployment.result_files import CAPTURE, SCAN_COPY, segmentation_name
from doubleunet_bs.deployment.secondary_capture import secondary_capture
from doubleunet_bs.errors import RunError, ScanError
from doubleunet_bs.scans.bone_scan import BoneScan
from doubleunet_bs.scans.header import quiet
from doubleunet_bs.results.source_study import SourceStudy


def dicom_results(
    scan: BoneScan, prediction: Prediction, picture: np.ndarray, engine: str, study: SourceStudy | None = None
) -> dict[str, bytes]:
    """A segmentation per view, the secondary capture, and without identity the copy of the scan they refer to.

    Args:
        scan, prediction: what was segmented, and the answer.
        picture: of `overlay_picture`.
        engine: what computed it.
        study: patient, study and frames of the scan's files; None leaves the patient out.

    Returns:
        File name -> content.

    Raises:
        RunError: a value that DICOM does not allow in a result; with `study` it is one of the scan's header.
    """
    try:
        # highdicom and pydicom warn with the values they find, which may be a patient's name.
        with quiet():
            if study is None:
                header = header_without_identity(scan, prediction, engine)
            else:
                header = header_with_identity(study, datetime.datetime.now(), scan.phantom)
            files = {segmentation_name(view): segmentation(view, prediction, header, engine) for view in header.frames}
            files[CAPTURE] = secondary_capture(picture, prediction, header, engine, all_warnings(scan, prediction))
            if study is None:
                files[SCAN_COPY] = deidentified_scan(scan, header)
            return {name: _encode(dataset) for name, dataset in files.items()}
    except ScanError as error:
        if study is None:
            raise RunError(
                f"{prediction.case}: no DICOM result can be made ({error}); leave dicom out of --outputs"
            ) from None
        raise RunError(
            f"{prediction.case}: no DICOM result can be made with this header ({error}); leave out --keep-identity"
        ) from None


def dicom_names(views: Collection[str], identified: bool) -> list[str]:
    """The names of the files that `dicom_results` returns for a scan with these views."""
    return [*map(segmentation_name, views), CAPTURE, *([] if identified else [SCAN_COPY])]


def _encode(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
