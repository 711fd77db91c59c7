"""Secrets in every element of a DICOM header, and the search for them in everything that was written."""

import base64
import io
import re

from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

SECRET = "ZQXJSECRET"
NUMBER = "73519846"
UID = f"2.25.{NUMBER}{NUMBER}"
NEEDED = {
    "SOPClassUID", "Modality", "ImageType", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames",
    "FrameIncrementPointer", "PixelSpacing", "CountsAccumulated", "PixelData", "SpecificCharacterSet",
}  # fmt: skip
# What tells the views apart, scales the counts, or is refused where it is unreadable.
TELLING = {"StartAngle", "RescaleSlope", "RescaleIntercept", "RescaleType", "Units", "ImageOrientationPatient"}
TEXT = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
# Every element of the patient, study and equipment modules that a camera or an archive is likely to fill.
PLANTED = [
    "AccessionNumber", "AcquisitionDate", "AcquisitionDateTime", "AcquisitionTime", "AdditionalPatientHistory",
    "AdmittingDiagnosesDescription", "Allergies", "BranchOfService", "CommentsOnRadiationDose", "ContentDate",
    "ContentTime", "CountryOfResidence", "DeviceSerialNumber", "EthnicGroup", "ImageComments", "InstitutionAddress",
    "InstitutionName", "InstitutionalDepartmentName", "IssuerOfPatientID", "Manufacturer", "ManufacturerModelName",
    "MedicalAlerts", "MilitaryRank", "NameOfPhysiciansReadingStudy", "Occupation", "OperatorsName",
    "OtherPatientNames", "PatientAddress", "PatientAge", "PatientBirthDate", "PatientBirthName", "PatientBirthTime",
    "PatientComments", "PatientID", "PatientInstitutionResidence", "PatientMotherBirthName", "PatientName",
    "PatientReligiousPreference", "PatientTelephoneNumbers", "PerformedProcedureStepDescription",
    "PerformedProcedureStepID", "PerformedProcedureStepStartDate", "PerformingPhysicianName", "PhysiciansOfRecord",
    "InstanceNumber", "PatientSize", "PatientWeight", "PositionReferenceIndicator", "ProtocolName", "SeriesNumber",
    "ReasonForStudy", "ReferringPhysicianName", "ReferringPhysicianTelephoneNumbers",
    "RequestedProcedureDescription", "RequestedProcedureID", "RequestingPhysician", "SeriesDate",
    "SeriesDescription", "SeriesTime", "SoftwareVersions", "StationName", "StudyComments", "StudyDate",
    "StudyDescription", "StudyID", "StudyTime", "FrameOfReferenceUID", "SeriesInstanceUID", "SOPInstanceUID",
    "StudyInstanceUID",
]  # fmt: skip


def secret_for(vr: str, keyword: str) -> str | None:
    if vr in TEXT:
        return SECRET if vr != "PN" else f"{SECRET}^{SECRET}"
    if vr == "UI":
        # Identifiers differ, or the reader would rightly take objects for one and the same.
        return f"{UID}.{sum(map(ord, keyword))}"
    dates = {"DA": "19290714", "TM": "173519.846", "DT": "19290714173519.846", "AS": "099Y"}
    return (dates | {"IS": NUMBER, "DS": NUMBER}).get(vr)


def names_a_view(element) -> bool:
    """Whether it is the private element in which GE names a view, or the label of its block."""
    return element.tag.is_private and (element.tag.is_private_creator or (element.tag.elem & 0xFF) in (0x12, 0x30))


def plant(dataset: Dataset) -> int:
    """Put a secret wherever reading does not need the value. Returns how many."""
    planted = 0
    for element in dataset:
        if element.VR == "SQ":
            planted += sum(plant(item) for item in element.value)
        elif element.keyword not in NEEDED and element.tag.group != 2:
            value = secret_for(element.VR, element.keyword)
            if value is not None and element.keyword not in TELLING and not names_a_view(element):
                element.value = value
                planted += 1
    return planted


def plant_everywhere(dataset: Dataset, number: int) -> None:
    """Fill every element that a camera or an archive may fill with a secret; the scan stays readable."""
    for keyword in PLANTED:
        vr = Dataset()
        setattr(vr, keyword, None)
        setattr(dataset, keyword, secret_for(vr[keyword].VR, keyword) or SECRET)
    plant(dataset)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{UID}.1.{number}"
    dataset.StudyInstanceUID = f"{UID}.2.{number}"
    # GE keeps the patient's name a second time in a private element; so do report and history blocks.
    block = dataset.private_block(0x0009, SECRET, create=True)
    block.add_new(0x01, "PN", f"{SECRET}^AGAIN")
    block.add_new(0x02, "UN", SECRET.encode())
    inner = Dataset()
    inner.PatientName, inner.PatientID = SECRET, SECRET
    block.add_new(0x03, "SQ", Sequence([inner]))
    item = Dataset()
    item.PatientID, item.IssuerOfPatientID = SECRET, SECRET
    dataset.OtherPatientIDsSequence = Sequence([item])
    dataset.DigitalSignaturesSequence = Sequence([item])


def haystack(root, leave_out):
    """Every byte that was written, file names too, and what compressed files hold when unpacked."""
    for path in sorted(root.rglob("*")):
        yield str(path.relative_to(root)).encode()
        if not path.is_file() or path in leave_out:
            continue
        data = path.read_bytes()
        yield data
        if path.suffix == ".png":
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                yield repr(image.info).encode()
                assert not image.getexif()
            assert b"tEXt" not in data and b"iTXt" not in data and b"zTXt" not in data and b"eXIf" not in data


def search(chunks, *also):
    needles = [SECRET.encode(), NUMBER.encode(), b"19290714", b"173519", b"099Y", *also]
    for chunk in chunks:
        # Pixels in a page: four letters of base64 are some word by chance, what they stand for is searched instead.
        chunk = re.sub(rb"[A-Za-z0-9+/]{1000,}=*", lambda run: base64.b64decode(run[0] + b"==="), chunk)
        for needle in needles:
            assert needle not in chunk and needle.lower() not in chunk.lower(), (needle, chunk[:200])
