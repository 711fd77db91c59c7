"""A phantom as a two-frame DICOM file with the header a GE Discovery camera writes.

As on such cameras, only private data set names and the detectors' start angles distinguish the views: there is no View
Code Sequence, and Image Orientation (Patient) is empty. Nothing is random: UIDs come from seed and index.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, NuclearMedicineImageStorage

from doubleunet_bs.constants import PHANTOM_MARK
from doubleunet_bs.phantom.scan import PhantomScan

COMMENT = f"{PHANTOM_MARK}. Not a patient. Made by doubleunet_bs; not for diagnostic use."
DATE, TIME = "19000101", "000000"
GE_PRIVATE_CREATOR = "GEMS_GENIE_1"


def phantom_uid(*parts: object) -> UID:
    """A UID under the 2.25 root (128-bit integer) derived from `parts`."""
    digest = hashlib.sha256("/".join(["doubleunet_bs phantom", *map(str, parts)]).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def patient_id(index: int, cancer: str, seed: int = 0, varied: bool = False) -> str:
    """Patient ID of a phantom: "PHANTOM-0001", "PHANTOM-P0001" for prostate cancer, "PHANTOM-S7-0001" for seed 7.

    "PHANTOM-V0001" and so on where they are varied.

    No two cohorts share an ID, so that they can be prepared with the same key.
    """
    cohort = f"S{seed}-" if seed else ""
    return f"PHANTOM-{cohort}{'V' if varied else ''}{'P' if cancer == 'prostate' else ''}{index + 1:04d}"


def write_dicom(scan: PhantomScan, path: str | os.PathLike) -> None:
    """Write `scan` to `path` as a two-frame NM DICOM file, anterior frame first. The same scan gives the same bytes."""
    to_dicom(scan).save_as(Path(path), enforce_file_format=True)


def to_dicom(scan: PhantomScan) -> FileDataset:
    """The DICOM data set of `scan`, explicit VR little endian, uncompressed uint16."""
    identity: tuple = (scan.seed, scan.index, scan.cancer, scan.metastatic)
    if scan.wanted_index is not None:
        identity = (*identity, scan.wanted_index)
    if scan.repeat:
        identity = (*identity, "repeat", scan.repeat)
    if scan.varied:
        identity = (*identity, "varied")
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = NuclearMedicineImageStorage
    meta.MediaStorageSOPInstanceUID = phantom_uid("instance", *identity)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = phantom_uid("implementation")
    meta.ImplementationVersionName = "DOUBLEUNET_BS"
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    _patient_and_study(dataset, scan, identity)
    _acquisition(dataset, scan)
    _image(dataset, scan)
    _ge_private(dataset)
    return dataset


def _patient_and_study(dataset: Dataset, scan: PhantomScan, identity: tuple) -> None:
    number = f"{scan.index + 1:04d}"
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = NuclearMedicineImageStorage
    dataset.SOPInstanceUID = phantom_uid("instance", *identity)
    dataset.StudyInstanceUID = phantom_uid("study", *identity)
    dataset.SeriesInstanceUID = phantom_uid("series", *identity)
    dataset.FrameOfReferenceUID = phantom_uid("frame of reference", *identity)
    for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(dataset, keyword, DATE)
    for keyword in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"):
        setattr(dataset, keyword, TIME)
    dataset.AccessionNumber = ""
    dataset.Modality = "NM"
    dataset.Manufacturer = "GE MEDICAL SYSTEMS"
    dataset.ManufacturerModelName = f"Discovery NM/CT 670 ({PHANTOM_MARK})"
    dataset.InstitutionName = "SYNTHETIC"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Whole Body Bone (synthetic)"
    dataset.SeriesDescription = "WHOLE BODY"
    dataset.PatientID = patient_id(scan.index, scan.cancer, scan.seed, scan.varied)
    dataset.PatientName = dataset.PatientID.replace("-", "^")
    dataset.PatientBirthDate = ""
    dataset.PatientSex = scan.patient.sex
    dataset.PatientAge = f"{int(scan.patient.age):03d}Y"
    dataset.StudyID = number
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    dataset.PositionReferenceIndicator = ""
    dataset.ImageComments = COMMENT


def _acquisition(dataset: Dataset, scan: PhantomScan) -> None:
    first, last = scan.acquisition.camera.field_rows
    length_mm = (last - first) * scan.acquisition.camera.spacing_mm
    dataset.BodyPartExamined = "WHOLEBODY"
    dataset.CountsAccumulated = scan.total_counts
    dataset.AcquisitionTerminationCondition = "MANU"
    dataset.ActualFrameDuration = int(round(length_mm / (scan.acquisition.speed * 10 / 60) * 1000))
    dataset.ScanVelocity = f"{scan.acquisition.speed * 10 / 60:.4f}"
    dataset.ScanLength = int(round(length_mm))
    dataset.WholeBodyTechnique = "1PS"
    dataset.EnergyWindowVector = [1, 1]
    dataset.NumberOfEnergyWindows = 1
    window = Dataset()
    window.EnergyWindowLowerLimit, window.EnergyWindowUpperLimit = "126.45", "154.55"
    energy = Dataset()
    energy.EnergyWindowName = "Tc99m_EM"
    energy.EnergyWindowRangeSequence = Sequence([window])
    dataset.EnergyWindowInformationSequence = Sequence([energy])
    dataset.DetectorVector = [1, 2]
    dataset.NumberOfDetectors = 2
    detectors = []
    for angle in (180, 0):
        detector = Dataset()
        detector.CollimatorGridName = "LEHR"
        detector.CollimatorType = "PARA"
        detector.FieldOfViewShape = "RECTANGLE"
        detector.FieldOfViewDimensions = [540, 400]
        detector.StartAngle = str(angle)
        detector.ImageOrientationPatient = None
        detector.ImagePositionPatient = None
        detectors.append(detector)
    dataset.DetectorInformationSequence = Sequence(detectors)
    tracer, orientation = Dataset(), _code("102538003", "recumbent")
    tracer.Radiopharmaceutical = "Tc-99m MDP"
    tracer.RadiopharmaceuticalRoute = "Intravenous"
    tracer.RadionuclideTotalDose = "740"
    tracer.RadionuclideCodeSequence = Sequence([_code("72454001", "^99m^Technetium")])
    dataset.RadiopharmaceuticalInformationSequence = Sequence([tracer])
    orientation.PatientOrientationModifierCodeSequence = Sequence([_code("40199007", "supine")])
    dataset.PatientOrientationCodeSequence = Sequence([orientation])
    dataset.PatientGantryRelationshipCodeSequence = Sequence([_code("102540008", "headfirst")])


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "SCT", meaning
    return code


def _image(dataset: Dataset, scan: PhantomScan) -> None:
    frames = np.stack([scan.anterior, scan.posterior]).astype("<u2")
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "WHOLE BODY", "EMISSION"]
    dataset.ImageID = "WHOLE BODY"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.NumberOfFrames = 2
    dataset.FrameIncrementPointer = [Tag("EnergyWindowVector"), Tag("DetectorVector")]
    dataset.Rows, dataset.Columns = frames.shape[1:]
    dataset.PixelSpacing = [f"{value:.6f}" for value in scan.pixel_spacing_mm]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.SmallestImagePixelValue, dataset.LargestImagePixelValue = int(frames.min()), int(frames.max())
    dataset.LossyImageCompression = "00"
    dataset.PixelData = frames.tobytes()
    dataset["PixelData"].VR = "OW"


def _ge_private(dataset: Dataset) -> None:
    """Data Set Name (0011,xx12) and Picture Object Name (0011,xx30): where GE keeps the names of the views."""
    block = dataset.private_block(0x0011, GE_PRIVATE_CREATOR, create=True)
    block.add_new(0x0D, "LO", "Tc99m")
    block.add_new(0x10, "LO", "WHOLE BODY")
    block.add_new(0x12, "LO", ["WHOLE BODY_ANT", "WHOLE BODY_POST"])
    block.add_new(0x13, "SL", 2)
    block.add_new(0x30, "LO", ["WHOLE BODY_ANT", "WHOLE BODY_POST"])
