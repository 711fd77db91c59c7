"""What DICOM results with identity take from the files of a scan: the patient, the study, which frame is which view.

This is the only place where a patient's identity leaves the reader. A `BoneScan` does not carry it: a caller asks for
it with the same files. It may be written into DICOM results only.
"""

import dataclasses
import hashlib
import re
from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset

from doubleunet_bs.dicom_files.dicom_file import DicomFile
from doubleunet_bs.dicom_files.header_values import (
    has_doubtful_text,
    read_identifier,
    read_items,
    read_numbers,
)
from doubleunet_bs.dicom_files.layout import Layout, load_scan_header
from doubleunet_bs.dicom_files.sources import Source, prefix_errors
from doubleunet_bs.dicom_files.views import ANTERIOR, POSTERIOR, clues_of_frames, distinguish
from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans.pairing import describe_view, order_pair

# Type 2 elements of the modules Patient and General Study, and the issuer of the ID: written as the header has them.
PATIENT_AND_STUDY = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+\Z")
ASSUMED_ORIENTATION = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""What viewers assume for an image that states no orientation."""
# A value that DICOM does not allow would make every result invalid; these elements may be empty instead.
_ALLOWED = {
    "PatientBirthDate": re.compile(r"[0-9]{8}\Z"),
    "StudyDate": re.compile(r"[0-9]{8}\Z"),
    "StudyTime": re.compile(r"[0-9]{2}([0-9]{2}([0-9]{2}(\.[0-9]{1,6})?)?)?\Z"),
    "PatientSex": re.compile(r"[MFO]\Z"),
    "FrameOfReferenceUID": _UID,
    "SeriesNumber": re.compile(r"[0-9]{1,6}\Z"),
}


@dataclasses.dataclass(frozen=True, repr=False)
class SourceFrame:
    """The frame that holds the pixels of one view.

    Attributes:
        sop_class_uid, sop_instance_uid, series_instance_uid: of the file.
        frame: number of the frame, from 1; None when the file has one frame only.
        shape: (rows, columns) of the frame.
        first_column: of the view in the frame; above 0 for the right one of two views side by side.
        block: width and height of a pixel of the view in pixels of the frame; 2 when a finer matrix was summed.
        orientation: row and column direction that viewers take for the frame.
        frame_of_reference: UID in the file; "" when it has none.
        series_number: in the file; "" when it has none.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    frame: int | None
    shape: tuple[int, int]
    first_column: int = 0
    block: int = 1
    orientation: tuple[float, ...] = ASSUMED_ORIENTATION
    frame_of_reference: str = ""
    series_number: str = ""


@dataclasses.dataclass(frozen=True, repr=False)
class SourceStudy:
    """Identity of patient and study, and the frames of the views. Its repr holds no values, so that no log can.

    Attributes:
        values: keyword of PATIENT_AND_STUDY -> text; absent in the header or not allowed by DICOM: "".
        frames: view -> `SourceFrame`; a missing view has none.
        source_sha256: of the files, as `BoneScan.source_sha256`.
    """

    values: dict[str, str]
    frames: dict[str, SourceFrame]
    source_sha256: str

    @property
    def two_series(self) -> bool:
        """Whether the views are files of two series: each then has a segmentation of its own."""
        return len({frame.series_instance_uid for frame in self.frames.values()}) > 1


def read_source_study(sources: Sequence[Source]) -> SourceStudy:
    """Read the headers of a scan's files again.

    Args:
        sources: one file, or two of one view each in either order, that `read_scan` could read.

    Raises:
        ScanError: as `read_scan`. Also "unreferable": a UID of a file is missing or invalid, or the file says that the
            patient's identity has been removed. A pseudonym must not become a patient.
    """
    files = []
    for source in sources:
        with prefix_errors(source):
            files.append(load_scan_header(source))
            _check(files[-1][0].dataset)
    if len({read_identifier(file.dataset, "SOPInstanceUID") for file, _ in files}) < len(files):
        message = "both views have one SOP Instance UID: leave out --keep-identity"
        raise ScanError(f"{sources[0].label}: {message}", "unreferable")
    with prefix_errors(sources[0]):
        frames = _frames(sources, files)
        dataset = files[0][0].dataset
        values = {keyword: _value(dataset, keyword) for keyword in PATIENT_AND_STUDY}
        content = [source.read()[0] for source in sources]
    if frames[min(frames)].sop_instance_uid != read_identifier(dataset, "SOPInstanceUID"):
        content.reverse()  # The anterior view comes first.
    return SourceStudy(values, frames, hashlib.sha256(b"".join(content)).hexdigest())


def same_patient(first: Sequence[Source], second: Sequence[Source]) -> bool | None:
    """Whether the headers of two scans name one patient.

    Returns:
        False when Patient ID, its issuer or the birth date differ and both scans have it. An ID is unique only at the
        institution that issued it. None when a Patient ID is missing and the birth dates do not differ.
    """
    found = []
    for sources in (first, second):
        with prefix_errors(sources[0]):
            file, _ = load_scan_header(sources[0])
            identity = read_identifier(file.dataset, "PatientID")
        found.append((identity, _value(file.dataset, "IssuerOfPatientID"), _value(file.dataset, "PatientBirthDate")))
    identities, issuers, birth_dates = zip(*found, strict=True)
    if all(birth_dates) and birth_dates[0] != birth_dates[1]:
        return False
    if not all(identities):
        return None
    return identities[0] == identities[1] and (not all(issuers) or issuers[0] == issuers[1])


def _check(dataset: Dataset) -> None:
    """Refuse what results cannot refer to, or would carry to another patient."""
    reason = None
    if read_identifier(dataset, "PatientIdentityRemoved").upper() == "YES":
        reason = "the patient's identity has been removed from this file"
    for keyword in ("PatientName", "PatientID", "IssuerOfPatientID"):
        if has_doubtful_text(dataset, keyword):
            reason = reason or f"has a {keyword} that is not in its Specific Character Set"
    for keyword in _UIDS:
        uid = read_identifier(dataset, keyword)
        if not _UID.match(uid) or len(uid) > 64:
            reason = reason or f"has no valid {keyword} for DICOM results to refer to"
    if reason:
        raise ScanError(f"{reason}: leave out --keep-identity", "unreferable")


def _frames(sources: Sequence[Source], files: Sequence[tuple[DicomFile, Layout]]) -> dict[str, SourceFrame]:
    if len(files) == 2:
        described = [
            describe_view(source, file.dataset, layout) for source, (file, layout) in zip(sources, files, strict=True)
        ]
        order = files if order_pair(*described).anterior is described[0] else files[::-1]
        return {
            view: _frame(file, layout, None) for view, (file, layout) in zip((ANTERIOR, POSTERIOR), order, strict=True)
        }
    file, layout = files[0]
    if layout.side_by_side:
        half = layout.columns // 2
        return {ANTERIOR: _frame(file, layout, None), POSTERIOR: _frame(file, layout, None, half)}
    if layout.views == 2:
        views = distinguish(*clues_of_frames(file.dataset, 2)).views
        return {view: _frame(file, layout, number) for number, view in enumerate(views, start=1)}
    return {describe_view(sources[0], file.dataset, layout).likely_view: _frame(file, layout, None)}


def _frame(file: DicomFile, layout: Layout, number: int | None, first_column: int = 0) -> SourceFrame:
    dataset = file.dataset
    return SourceFrame(
        sop_class_uid=read_identifier(dataset, "SOPClassUID"),
        sop_instance_uid=read_identifier(dataset, "SOPInstanceUID"),
        series_instance_uid=read_identifier(dataset, "SeriesInstanceUID"),
        frame=number,
        shape=(layout.rows, layout.columns),
        first_column=first_column,
        block=layout.bin,
        orientation=_orientation(dataset, layout),
        frame_of_reference=_value(dataset, "FrameOfReferenceUID"),
        series_number=_value(dataset, "SeriesNumber"),
    )


def _orientation(dataset: Dataset, layout: Layout) -> tuple[float, ...]:
    """The orientation that viewers take for all frames of a file, which is not always that of each detector.

    OHIF lays a segmentation only over a frame of the same orientation. For a file of several frames without one it
    takes that of the first detector.
    """
    where = [dataset]
    if layout.frames > 1:
        where += read_items(dataset, "DetectorInformationSequence")[:1]
    for item in where:
        found = read_numbers(item, "ImageOrientationPatient")
        if len(found) == 6:
            axes = np.reshape(found, (2, 3))
            if np.allclose(axes @ axes.T, np.eye(2), atol=1e-3):
                return found
    return ASSUMED_ORIENTATION


def _value(dataset: Dataset, keyword: str) -> str:
    try:
        value = read_identifier(dataset, keyword)
    except ScanError:
        # A damaged element counts as absent. UIDs and names are checked elsewhere.
        return ""
    if has_doubtful_text(dataset, keyword):
        return ""
    allowed = _ALLOWED.get(keyword)
    return value if allowed is None or allowed.match(value) else ""
