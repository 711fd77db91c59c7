"""The counts of a scan as a new NM DICOM file without the patient: what DICOM results without identity refer to.

Nothing comes from the header of the scan but pixel spacing, which view is which, and whether it is a phantom; see `dicom_header`.
"""

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, NuclearMedicineImageStorage

from doubleunet_bs import __version__
from doubleunet_bs.results.dicom_header import MANUFACTURER, ResultHeader
from doubleunet_bs.scans.bone_scan import BoneScan

# CID 26 of the standard.
_VIEW_CODES = {"anterior": ("399321004", "Anterior projection"), "posterior": ("399001007", "Posterior projection")}


def deidentified_scan(scan: BoneScan, header: ResultHeader) -> FileDataset:
    """A planar whole-body NM image, uncompressed: anterior frame first, a missing view left out.

    Args:
        scan: its counts are kept to the last one.
        header: from `header_without_identity`.
    """
    views = list(header.frames)
    source = header.frames[views[0]]
    frames = np.stack([getattr(scan, view) for view in views]).astype("<u2")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = NuclearMedicineImageStorage
    meta.MediaStorageSOPInstanceUID = source.sop_instance_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
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
    dataset.DetectorInformationSequence = Sequence([_detector(view) for view in views])
    dataset.CountsAccumulated = int(frames.sum(dtype=np.int64))
    # DICOM wants a duration, and a scan does not carry it: 0 is no time anyone has scanned in.
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
    dataset["PixelData"].VR = "OW"
    header.stamp(dataset)
    return dataset


def _detector(view: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodeMeaning = _VIEW_CODES[view]
    code.CodingSchemeDesignator = "SCT"
    detector = Dataset()
    detector.CollimatorType = None
    detector.ViewCodeSequence = Sequence([code])
    detector.StartAngle = "180" if view == "anterior" else "0"
    detector.ImageOrientationPatient = detector.ImagePositionPatient = None
    return detector
