"""Patient, study and references of the DICOM results, with the patient's identity or without it.

Without identity (the default) nothing of the scan's header is used. The case pseudonym stands for the patient, the date
is 1900, and UIDs are hashes of the counts. All results of a case have the same study and refer to the de-identified
copy of the scan written beside them (`scan.dcm`). A viewer cannot show them on the hospital's own image.

With identity (`--keep-identity`) patient and study are those of the scan's header, and references name the hospital's
own instances and frames. UIDs are hashes of those instances, the model and the masks: a result that is made and sent
again replaces the first in an archive.
"""

import dataclasses
import datetime
import hashlib
import re

from highdicom import AlgorithmIdentificationSequence
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import NuclearMedicineImageStorage

from doubleunet_bs import __version__
from doubleunet_bs.constants import PHANTOM_MARK, VIEWS
from doubleunet_bs.dicom_results.source_study import PATIENT_AND_STUDY, SourceFrame, SourceStudy
from doubleunet_bs.findings.lesion_list import all_warnings
from doubleunet_bs.inference.model_description import ModelDescription, device_uid
from doubleunet_bs.inference.predictor import Prediction
from doubleunet_bs.preparation.records import MIXED, PHANTOMS
from doubleunet_bs.scans.bone_scan import BoneScan

MANUFACTURER = MODEL = "doubleunet_bs"
NOT_FOR_DIAGNOSIS = "Research software, not for diagnosis"
LONG_AGO = datetime.datetime(1900, 1, 1)
_FAMILY = CodedConcept("123110", "DCM", "Artificial Intelligence")
_OPTIONAL = ("IssuerOfPatientID", "StudyDescription")


@dataclasses.dataclass(frozen=True, repr=False)
class ResultHeader:
    """What the DICOM results of one scan have in common.

    Attributes:
        values: keyword -> text of the patient and study elements.
        frames: view -> the frame it is in; a missing view has none.
        identified: whether they are the patient's.
        moment: of creation; `LONG_AGO` without identity, since the date of a prediction is close to that of the scan.
        seed: the UIDs of results are derived from it.
        phantom: whether the scan is a synthetic one; then every result says so.
    """

    values: dict[str, str]
    frames: dict[str, SourceFrame]
    identified: bool
    moment: datetime.datetime
    seed: str
    phantom: bool

    @property
    def device(self) -> str:
        """Manufacturer's Model Name, with the phantom mark where the scan is a phantom."""
        return f"{MODEL} ({PHANTOM_MARK})" if self.phantom else MODEL

    @property
    def date_time(self) -> str:
        """The moment as DICOM writes it."""
        return self.moment.strftime("%Y%m%d%H%M%S")

    def uid(self, name: str) -> str:
        """A UID for a result or a series, under the 2.25 root: the same for the same seed and name."""
        return _hashed_uid(self.seed, name)

    def nameless(self, sop_class_uid: str, sop_instance_uid: str, series_instance_uid: str) -> Dataset:
        """An instance of the study as highdicom wants a source, without the patient, whom `stamp` writes in the end."""
        image = Dataset()
        for keyword in PATIENT_AND_STUDY:
            if keyword not in _OPTIONAL:
                setattr(image, keyword, "")
        image.SOPClassUID, image.SOPInstanceUID = sop_class_uid, sop_instance_uid
        image.SeriesInstanceUID, image.StudyInstanceUID = series_instance_uid, self.values["StudyInstanceUID"]
        return image

    def stamp(self, dataset: Dataset) -> None:
        """Write patient, study and dates into a result; values that are there are replaced.

        The description of the series names the series of the source: a study may have two scans, such as an early and
        a late one, or the camera's own and a filtered one.
        """
        dataset.SpecificCharacterSet = "ISO_IR 192"
        for keyword, value in self.values.items():
            if value or keyword not in _OPTIONAL:
                setattr(dataset, keyword, value)
        if not self.identified:
            dataset.PatientIdentityRemoved = "YES"
            dataset.DeidentificationMethod = "Made from pixels alone; nothing copied from a header"
        date, time = self.date_time[:8], self.date_time[8:]
        for keyword in ("InstanceCreationDate", "ContentDate", "DateOfSecondaryCapture"):
            if keyword in dataset:
                setattr(dataset, keyword, date)
        for keyword in ("InstanceCreationTime", "ContentTime", "TimeOfSecondaryCapture"):
            if keyword in dataset:
                setattr(dataset, keyword, time)
        numbers = dict.fromkeys(frame.series_number for frame in self.frames.values())
        if all(numbers):
            title = re.split(r"\. Research|, not for", str(dataset.SeriesDescription))[0]
            end = f", series {'+'.join(numbers)}, not for diagnosis"
            if len(title) + len(end) > 64:  # DICOM's limit
                title = title.replace(f"{MODEL} ", "")
            dataset.SeriesDescription = title[: 64 - len(end)] + end
        for equipment in dataset.get("ContributingEquipmentSequence", []):
            equipment.ContributionDateTime = self.date_time


def header_without_identity(scan: BoneScan, prediction: Prediction) -> ResultHeader:
    """A header made from counts, masks and warnings alone: the same scan, model and engine give the same bytes."""
    values = dict.fromkeys(PATIENT_AND_STUDY, "")
    # A name of one component ends with a caret, so that no reader takes it for a damaged one.
    values |= {"PatientName": f"{scan.case}^", "PatientID": scan.case}
    fingerprint = scan.pixel_sha256
    values["StudyInstanceUID"] = _hashed_uid(fingerprint, "study")
    present = [view for view in VIEWS if view not in scan.missing_views]
    frames = {
        view: SourceFrame(
            sop_class_uid=NuclearMedicineImageStorage,
            sop_instance_uid=_hashed_uid(fingerprint, "scan"),
            series_instance_uid=_hashed_uid(fingerprint, "scan series"),
            frame=number if len(present) > 1 else None,
            shape=getattr(scan, view).shape,
        )
        for number, view in enumerate(present, start=1)
    }
    return ResultHeader(values, frames, False, LONG_AGO, _seed(scan, prediction, fingerprint), scan.phantom)


def header_with_identity(
    study: SourceStudy, scan: BoneScan, prediction: Prediction, moment: datetime.datetime
) -> ResultHeader:
    """A header with the patient's identity, for the hospital's own archive.

    Raises:
        UnicodeEncodeError: a text of the scan's header could not be decoded. pydicom would write question marks.
    """
    for value in study.values.values():
        value.encode("utf-8")
    # The patient and the study count too: results of a scan that was corrected are other results.
    sources = "/".join(f"{view} {frame.sop_instance_uid} {frame.frame}" for view, frame in study.frames.items())
    sources += "/".join(f"{name} {value}" for name, value in sorted(study.values.items()))
    return ResultHeader(study.values, study.frames, True, moment, _seed(scan, prediction, sources), scan.phantom)


def _seed(scan: BoneScan, prediction: Prediction, sources: str) -> str:
    """What the UIDs of a result depend on: the scan, the model, the engine, and what is written into the files."""
    digest = hashlib.sha256()
    for view in VIEWS:
        digest.update(prediction.masks[view].tobytes())
    # Warnings are written into the capture and decide on the orientation.
    digest.update("\n".join(all_warnings(scan, prediction)).encode())
    return f"{sources}/{prediction.model.weights_sha256}/{prediction.engine}/{__version__}/{digest.hexdigest()}"


def algorithm(model: ModelDescription, how: str = "") -> AlgorithmIdentificationSequence:
    """The item of a segment that says which algorithm made it, and `how` where there is a choice."""
    name = "; ".join(filter(None, (model.name, f"weights {model.weights_sha256[:12]}", how)))
    return AlgorithmIdentificationSequence(MODEL, _FAMILY, __version__, parameters={"model": name})


def add_equipment(dataset: Dataset, header: ResultHeader, *models: ModelDescription) -> None:
    """Name the models that made a result, in its Contributing Equipment Sequence as IHE AI Results (AIR) asks.

    The Device UID is that of the weights: it changes whenever a model is trained again. A model that found nothing on
    its own validation scans is called unreliable in the description of the series, too.
    """
    items = list(dataset.get("ContributingEquipmentSequence", []))
    for model in models:
        purpose = Dataset()
        purpose.CodeValue, purpose.CodingSchemeDesignator = "Newcode1", "99IHE"
        purpose.CodingSchemeVersion, purpose.CodeMeaning = "1630", "Processing Algorithm"
        item = Dataset()
        item.PurposeOfReferenceCodeSequence = DicomSequence([purpose])
        item.Manufacturer, item.ManufacturerModelName = MANUFACTURER, short_name(model)
        item.SoftwareVersions = [__version__, f"weights {model.weights_sha256[:12]}"]
        item.DeviceUID = device_uid(model.weights_sha256)
        item.ContributionDescription = " ".join(
            filter(None, (f"{model.name}. {NOT_FOR_DIAGNOSIS}.", model.quality_warning))
        )
        items.append(item)
        if model.quality_warning:
            said = str(dataset.SeriesDescription).replace(f". {NOT_FOR_DIAGNOSIS}", ", not for diagnosis")
            dataset.SeriesDescription = f"UNRELIABLE MODEL: {said}"[:64]
    dataset.ContributingEquipmentSequence = DicomSequence(items)


def short_name(model: ModelDescription) -> str:
    """A name of at most 64 characters, which say so when phantoms are in its training."""
    mark = "phantoms: " if model.trained_on in (PHANTOMS, MIXED) else ""
    return f"{mark}{model.served_name}"[:64]


def reference(frame: SourceFrame) -> Dataset:
    """A reference to a source frame: SOP class, instance, and the number of the frame where there are several."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = frame.sop_class_uid, frame.sop_instance_uid
    if frame.frame is not None:
        item.ReferencedFrameNumber = frame.frame
    return item


def _hashed_uid(seed: str, name: str) -> str:
    digest = hashlib.sha256(f"doubleunet_bs result/{seed}/{name}".encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"
