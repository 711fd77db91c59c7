"""The overlay as a DICOM secondary capture, for viewers that do not show segmentations (DICOM PS3.3, A.8.1)."""

import textwrap
from collections.abc import Sequence

import numpy as np
from highdicom.sc import SCImage
from pydicom.sequence import Sequence as DicomSequence

from doubleunet_bs import __version__
from doubleunet_bs.results.dicom_header import MANUFACTURER, NOT_FOR_DIAGNOSIS, ResultHeader, reference
from doubleunet_bs.inference.predictor import Prediction

SERIES_NUMBER = 9002
LONGEST_DESCRIPTION = 1024
"""Characters of Derivation Description, a short text (ST)."""


def secondary_capture(
    picture: np.ndarray, prediction: Prediction, header: ResultHeader, engine: str, warnings: Sequence[str] = ()
) -> SCImage:
    """An RGB image of one frame, uncompressed: any viewer can show it.

    Burned In Annotation is NO: by its definition it tells of text that identifies the patient, and the picture names the
    case by its pseudonym only. What is burnt in are outlines, figures and the statement of intended use.

    Args:
        picture: uint8 array of shape (rows, columns, 3), from `overlay_picture`.
        prediction: what it shows.
        header: of the results of this scan.
        engine: what computed the prediction.
        warnings: of the scan; in an archive no other file tells of them.
    """
    dataset = SCImage(
        pixel_array=picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=header.values["StudyInstanceUID"],
        series_instance_uid=header.uid("capture series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=header.uid("capture"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=header.device,
        software_versions=__version__,
        series_description=f"doubleunet_bs overlay. {NOT_FOR_DIAGNOSIS}",
        patient_orientation=("L", "F"),
    )
    # Two views that run in opposite directions: no one orientation is right.
    dataset.PatientOrientation = None
    dataset.BodyPartExamined = "WHOLEBODY"
    dataset.ConversionType = "WSD"
    dataset.BurnedInAnnotation = "NO"
    dataset.RecognizableVisualFeatures = "NO"
    description = (
        f"Both views with predicted metastatic areas outlined, by doubleunet_bs {__version__}, "
        f"{prediction.model.name}, engine {engine}. {NOT_FOR_DIAGNOSIS}."
    )
    if warnings:
        description += f" {'Warning' if len(warnings) == 1 else 'Warnings'}: {'; '.join(warnings)}."
    dataset.DerivationDescription = textwrap.shorten(description, LONGEST_DESCRIPTION, placeholder=" ...")
    dataset.SourceImageSequence = DicomSequence([reference(frame) for frame in header.frames.values()])
    header.stamp(dataset)
    return dataset
