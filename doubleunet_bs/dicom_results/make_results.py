"""The DICOM files of one result: segmentation, structured report, secondary capture, de-identified copy of the scan.

highdicom takes more than a second to import: import this module where DICOM results are written.
"""

import dataclasses
import datetime
import io
import textwrap
from collections.abc import Sequence

import numpy as np
from highdicom.sc import SCImage
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, NuclearMedicineImageStorage, RLELossless

from doubleunet_bs import __version__
from doubleunet_bs.bsi.regions import REGIONS, region_number
from doubleunet_bs.dicom_files.dicom_file import pydicom_silence
from doubleunet_bs.dicom_results import BSI, CAPTURE, LESIONS, SCAN_COPY, SECOND_SEGMENTATION, SEGMENTATION
from doubleunet_bs.dicom_results.result_header import (
    MANUFACTURER,
    NOT_FOR_DIAGNOSIS,
    ResultHeader,
    add_equipment,
    header_with_identity,
    header_without_identity,
    reference,
)
from doubleunet_bs.dicom_results.segmentation import segmentation
from doubleunet_bs.dicom_results.source_study import SourceStudy
from doubleunet_bs.dicom_results.structured_report import ReportedLesion, bsi_report, lesion_report
from doubleunet_bs.display import sides
from doubleunet_bs.errors import ScanError
from doubleunet_bs.findings.lesion_list import all_warnings
from doubleunet_bs.findings.skeleton_result import SkeletonResult
from doubleunet_bs.inference.predictor import Prediction
from doubleunet_bs.scans.bone_scan import BoneScan

CAPTURE_SERIES_NUMBER = 9002
LONGEST_DESCRIPTION = 1024
"""Characters of Derivation Description, a short text (ST)."""
# CID 26 of the standard.
_VIEW_CODES = {"anterior": ("399321004", "Anterior projection"), "posterior": ("399001007", "Posterior projection")}


def dicom_results(
    scan: BoneScan,
    prediction: Prediction,
    picture: np.ndarray,
    lesions: Sequence[ReportedLesion],
    study: SourceStudy | None = None,
    skeleton: SkeletonResult | None = None,
) -> dict[str, bytes]:
    """Segmentation, reports, secondary capture, and without identity the copy of the scan they refer to.

    Args:
        scan, prediction: what was segmented, and the answer.
        picture: from `overlay_picture`.
        lesions: of the prediction.
        study: patient, study and frames of the scan's files; None leaves the patient out.
        skeleton: adds its regions to the segmentation, and a report of the Bone Scan Index.

    Returns:
        File name -> content.

    Raises:
        ScanError: "unreferable": a value of the scan's header is not allowed in a DICOM result. Without `study` no
            header is used.
    """
    # highdicom and pydicom warn with the values they find, which may be a patient's name.
    with pydicom_silence:
        if study is None:
            header = header_without_identity(scan, prediction)
            files = _files(scan, prediction, picture, lesions, header, skeleton)
            return files | {SCAN_COPY: _encode(deidentified_scan(scan, header))}
        try:
            header = header_with_identity(study, scan, prediction, datetime.datetime.now())
            return _files(scan, prediction, picture, lesions, header, skeleton)
        except (ValueError, TypeError) as cause:
            # The text may hold header values: only the kind of error is named.
            message = f"DICOM results cannot hold this header ({type(cause).__name__}): leave out --keep-identity"
            raise ScanError(f"{prediction.case}: {message}", "unreferable") from None


def _files(
    scan: BoneScan,
    prediction: Prediction,
    picture: np.ndarray,
    lesions: Sequence[ReportedLesion],
    header: ResultHeader,
    skeleton: SkeletonResult | None,
) -> dict[str, bytes]:
    capture = secondary_capture(picture, prediction, header, all_warnings(scan, prediction))
    bones, model = (skeleton.regions, skeleton.model) if skeleton else (None, None)
    files = {CAPTURE: _encode(capture)}
    # A viewer (OHIF 3.13) paints a segmentation of two series on the first of them only.
    series = dict.fromkeys(frame.series_instance_uid for frame in header.frames.values())
    for number, (name, uid) in enumerate(zip((SEGMENTATION, SECOND_SEGMENTATION), series, strict=False), start=1):
        frames = {view: frame for view, frame in header.frames.items() if frame.series_instance_uid == uid}
        part = dataclasses.replace(header, frames=frames)
        place = (number, len(series))
        files[name] = _encode(segmentation(prediction, part, scan.pixel_spacing_mm, bones, model, place))
    # A viewer (OHIF 3.13) stays black on a report without a lesion. The empty segmentation says the same.
    if lesions:
        files[LESIONS] = _encode(lesion_report(prediction, header, lesions))
    if skeleton:
        index = skeleton.index
        fractions = {
            REGIONS[region_number(share.name) - 1]: share.fraction
            for share in index.regions
            if share.fraction is not None
        }
        report = bsi_report(header, index.value, fractions, index.table, [prediction.model, skeleton.model])
        files[BSI] = _encode(report)
    return files


def _encode(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def secondary_capture(
    picture: np.ndarray, prediction: Prediction, header: ResultHeader, warnings: Sequence[str] = ()
) -> SCImage:
    """The overlay as an RGB image of one frame, without loss in RLE, which every DICOM implementation can read.

    Burned In Annotation is NO: the attribute is about text that identifies the patient. The picture names the case by
    its pseudonym only.

    Args:
        picture: uint8 array of shape (rows, columns, 3), from `overlay_picture`. GDCM ends the process at an odd number
            of rows and of columns.
        prediction: shown in the picture.
        header: of the results of this scan.
        warnings: of the scan; in an archive no other file carries them.
    """
    dataset = SCImage(
        pixel_array=picture,
        transfer_syntax_uid=RLELossless,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=header.values["StudyInstanceUID"],
        series_instance_uid=header.uid("capture series"),
        series_number=CAPTURE_SERIES_NUMBER,
        sop_instance_uid=header.uid("capture"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=header.device,
        software_versions=__version__,
        series_description=f"doubleunet_bs overlay. {NOT_FOR_DIAGNOSIS}",
        patient_orientation=("L", "F"),
    )
    # The two views run in opposite directions: no single orientation is right.
    dataset.PatientOrientation = None  # type: ignore[assignment]  # An empty element.
    dataset.BodyPartExamined = "WHOLEBODY"
    dataset.ConversionType = "WSD"
    dataset.BurnedInAnnotation = "NO"
    dataset.RecognizableVisualFeatures = "NO"
    description = (
        f"Both views with predicted metastatic areas outlined, by doubleunet_bs {__version__}, "
        f"{prediction.model.name}, engine {prediction.engine}; {prediction.mask_rule}. {NOT_FOR_DIAGNOSIS}."
    )
    if warnings:
        description += f" {'Warning' if len(warnings) == 1 else 'Warnings'}: {'; '.join(warnings)}."
    dataset.DerivationDescription = textwrap.shorten(description, LONGEST_DESCRIPTION, placeholder=" ...")
    dataset.SourceImageSequence = DicomSequence([reference(frame) for frame in header.frames.values()])
    add_equipment(dataset, header, prediction.model)
    header.stamp(dataset)
    return dataset


def deidentified_scan(scan: BoneScan, header: ResultHeader) -> FileDataset:
    """The copy of the scan to which results without identity refer: a planar whole-body NM image, uncompressed.

    Args:
        scan: all its counts are kept; anterior frame first, a missing view is left out.
        header: from `header_without_identity`.
    """
    views = list(header.frames)
    source = header.frames[views[0]]
    frames = np.stack([getattr(scan, view) for view in views]).astype("<u2")
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta)
    dataset.SOPClassUID, dataset.SOPInstanceUID = NuclearMedicineImageStorage, source.sop_instance_uid
    dataset.SeriesInstanceUID = source.series_instance_uid
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.Modality = "NM"
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = header.device
    dataset.SoftwareVersions = __version__
    dataset.SeriesDescription = "Whole-body bone scan, de-identified copy"
    dataset.ImageType = ["DERIVED", "PRIMARY", "WHOLE BODY", "EMISSION"]
    dataset.ImageID = "WHOLE BODY"
    dataset.BodyPartExamined = "WHOLEBODY"
    dataset.PatientOrientation = None
    dataset.ContentDate = dataset.ContentTime = dataset.AcquisitionDate = dataset.AcquisitionTime = None
    dataset.PatientOrientationCodeSequence = dataset.PatientGantryRelationshipCodeSequence = None
    dataset.EnergyWindowInformationSequence = dataset.RadiopharmaceuticalInformationSequence = None
    dataset.EnergyWindowVector = [1] * len(views)
    dataset.NumberOfEnergyWindows = 1
    dataset.DetectorVector = list(range(1, len(views) + 1))
    dataset.NumberOfDetectors = len(views)
    dataset.DetectorInformationSequence = DicomSequence([
        _detector(view, sides(view, scan.warnings) == "??") for view in views
    ])  # fmt: skip
    dataset.CountsAccumulated = int(frames.sum(dtype=np.int64))
    # DICOM requires a duration and a `BoneScan` has none: 0 cannot be mistaken for a real one.
    dataset.ActualFrameDuration = 0
    dataset.ScanVelocity = dataset.WholeBodyTechnique = None
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.NumberOfFrames = len(views)
    dataset.FrameIncrementPointer = [Tag("EnergyWindowVector"), Tag("DetectorVector")]
    dataset.Rows, dataset.Columns = frames.shape[1:]
    spacing = scan.pixel_spacing_mm
    dataset.ScanLength = round(frames.shape[1] * spacing[0]) if spacing else None
    dataset.PixelSpacing = [f"{value:.6g}" for value in spacing] if spacing else None
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.LossyImageCompression = "00"
    dataset.BurnedInAnnotation = "NO"
    dataset.PixelData = frames.tobytes()
    header.stamp(dataset)
    return dataset


def _detector(view: str, doubtful: bool) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodeMeaning = _VIEW_CODES[view]
    code.CodingSchemeDesignator = "SCT"
    detector = Dataset()
    detector.CollimatorType = None
    if not doubtful:
        # Who reads the copy must not take for sure what was not: without these it gets the same warning.
        detector.ViewCodeSequence = DicomSequence([code])
        detector.StartAngle = "180" if view == "anterior" else "0"
    detector.ImageOrientationPatient = detector.ImagePositionPatient = None
    return detector
