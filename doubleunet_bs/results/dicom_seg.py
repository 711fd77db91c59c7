"""The mask of a view -> a DICOM segmentation that refers to the frame it was made from (DICOM PS3.3, A.51)."""

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from doubleunet_bs import __version__
from doubleunet_bs.constants import VIEWS
from doubleunet_bs.inference.predictor import Prediction
from doubleunet_bs.results.dicom_header import MANUFACTURER, NOT_FOR_DIAGNOSIS, SERIAL_NUMBER, ResultHeader
from doubleunet_bs.results.laterality import orientation
from doubleunet_bs.results.source_study import SourceFrame

SERIES_NUMBER = 9001
# SNOMED CT, as DICOM writes it.
CATEGORY = CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure")
TYPE = CodedConcept("14799000", "SCT", "Neoplasm, metastatic")
REGION = CodedConcept("272673000", "SCT", "Bone")
FAMILY = CodedConcept("123110", "DCM", "Artificial Intelligence")


def segmentation(view: str, prediction: Prediction, header: ResultHeader) -> Segmentation:
    """A binary segmentation of one view, with one segment, "metastasis".

    A view without a prediction gives a segmentation with one empty frame: the view was segmented and nothing was found.
    A missing file could not say so.

    Args:
        view: "anterior" or "posterior", one that the scan has.
        prediction: its mask is mapped to the rows and columns of the source frame, never mirrored.
        header: of the results of this scan.

    Returns:
        A data set ready to be saved.
    """
    frame = header.frames[view]
    name = f"{prediction.model.name}; engine {prediction.engine}; weights {prediction.model.weights_sha256[:12]}"
    description = SegmentDescription(
        segment_number=1,
        segment_label="metastasis",
        segmented_property_category=CATEGORY,
        segmented_property_type=TYPE,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            "doubleunet_bs", FAMILY, __version__, parameters={"model": name}
        ),
        anatomic_regions=[REGION],
    )
    dataset = Segmentation(
        source_images=[_stand_in(frame, header)],
        pixel_array=map_to_frame(prediction.masks[view], frame),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[description],
        series_instance_uid=header.uid("segmentation series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=header.uid(f"segmentation {view}"),
        instance_number=1 + VIEWS.index(view),
        manufacturer=MANUFACTURER,
        manufacturer_model_name=header.device,
        software_versions=__version__,
        device_serial_number=SERIAL_NUMBER,
        content_label="METASTASIS",
        # At most 64 characters.
        content_description=f"Predicted pixels, {view} view{'; phantom' if header.phantom else ''}; not for diagnosis",
        series_description=f"doubleunet_bs segmentation. {NOT_FOR_DIAGNOSIS}",
        omit_empty_frames=False,
    )
    dataset.PatientOrientation = orientation(view, prediction.warnings)
    _refer(dataset, frame)
    organization = header.uid(f"dimension organization {view}")
    dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in dataset.DimensionIndexSequence:
        index.DimensionOrganizationUID = organization
    header.stamp(dataset)
    return dataset


def map_to_frame(mask: np.ndarray, frame: SourceFrame) -> np.ndarray:
    """Map the mask of a view to the pixels of the frame it came from.

    Args:
        mask: uint8 array of shape (1024, 256).
        frame: of the same size, of two views side by side, or of a finer matrix.

    Returns:
        uint8 array of `frame.shape`.
    """
    fine = mask.repeat(frame.block, axis=0).repeat(frame.block, axis=1)
    mapped = np.zeros(frame.shape, np.uint8)
    mapped[:, frame.first_column : frame.first_column + fine.shape[1]] = fine
    return mapped


def _stand_in(frame: SourceFrame, header: ResultHeader) -> Dataset:
    """A single-frame image with the source's UIDs: highdicom takes no planar image of several frames.

    Planar frames have no position in the patient's coordinates, hence no frame of reference. Pixel Spacing is left out:
    with it, highdicom would want a position.
    """
    image = Dataset()
    image.SOPClassUID = SecondaryCaptureImageStorage
    image.SOPInstanceUID, image.SeriesInstanceUID = frame.sop_instance_uid, frame.series_instance_uid
    image.StudyInstanceUID = header.values["StudyInstanceUID"]
    image.Rows, image.Columns = frame.shape
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(image, keyword, "")
    image.StudyDate = image.StudyTime = image.ReferringPhysicianName = ""
    return image


def _refer(dataset: Segmentation, frame: SourceFrame) -> None:
    """Put SOP class and frame number of the true source into every reference to the stand-in."""
    derived = [
        item.SourceImageSequence[0]
        for group in dataset.PerFrameFunctionalGroupsSequence
        for item in group.DerivationImageSequence
    ]
    series = dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]
    for item in (*derived, *dataset.get("SourceImageSequence", []), series):
        item.ReferencedSOPClassUID = frame.sop_class_uid
        if frame.frame is not None and item is not series:
            item.ReferencedFrameNumber = frame.frame
