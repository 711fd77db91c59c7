"""Reads the scans of a run, and decides before any network runs whether a result can be written."""

import dataclasses
from collections.abc import Collection
from pathlib import Path

from doubleunet_bs.bsi import choose_table
from doubleunet_bs.constants import VIEWS
from doubleunet_bs.dicom_results.source_study import SourceStudy, read_source_study
from doubleunet_bs.errors import RunError, ScanError
from doubleunet_bs.inference.model_description import ModelDescription
from doubleunet_bs.preparation.case import PreparedCase, prepare_scan
from doubleunet_bs.results.input_scans import scan_name
from doubleunet_bs.results.labelme_output import annotation_paths
from doubleunet_bs.results.result_files import RESULT, JobSettings, case_folder, file_names, outputs_of
from doubleunet_bs.results.stored_result import load_result
from doubleunet_bs.scans.bone_scan import BoneScan
from doubleunet_bs.scans.pseudonyms import Pseudonyms
from doubleunet_bs.scans.scan_files import ScanFiles

COPY = "duplicate"
"""Reason of a ScanError for the same counts once more, under another UID: nothing of them is lost, it is no failure."""


@dataclasses.dataclass(frozen=True)
class ReadScan:
    """One scan, read and prepared.

    Attributes:
        scan, prepared: the scan, and the image for the network.
        study: the patient's identity when it is kept, else None.
        labelme: where its further Labelme files go, by view; None when none are wanted.
    """

    scan: BoneScan
    prepared: PreparedCase
    study: SourceStudy | None
    labelme: dict[str, Path] | None


class ScanReader:
    """Reads and prepares the scans of a run one after the other, and refuses those whose result could not be written.

    Args:
        settings: of the run.
        model: what segments the scans.
        threshold: see `Predictor`.
        pseudonyms: what names the scans; None names them after their counts.
        previous: pseudonym and hash of the counts of the scan given with --previous.
        skeleton: the model of the skeleton, if one takes part.
        weights: name of the weight table of the Bone Scan Index; None chooses it by the sex in the header.

    Attributes:
        cases: files of the scans read so far -> pseudonym, also of scans that were refused after reading.
    """

    def __init__(
        self,
        settings: JobSettings,
        model: ModelDescription,
        threshold: float | None = None,
        pseudonyms: Pseudonyms | None = None,
        previous: Collection[str] = (),
        skeleton: ModelDescription | None = None,
        weights: str | None = None,
    ):
        self.settings, self.model, self.threshold, self.pseudonyms = settings, model, threshold, pseudonyms
        self.previous, self.skeleton, self.weights = previous, skeleton, weights
        self.cases: dict[ScanFiles, str] = {}
        self._names: dict[str, str] = {}

    def __call__(self, files: ScanFiles) -> ReadScan | None:
        """Read and prepare a scan; None when --skip-existing finds its result.

        Raises:
            ScanError: it cannot be read or prepared, DICOM results cannot refer to it, or, with the reason `COPY`,
                another scan of this run has the same counts.
            RunError: its result would overwrite something, or it is the previous scan itself.
        """
        settings, name = self.settings, scan_name(files.sources)
        scan = files.read(settings.allow_missing_view, self.pseudonyms)
        self.cases[files] = scan.case
        if scan.pixel_sha256 in self._names:
            raise ScanError(f"{name}: has the same counts as {self._names[scan.pixel_sha256]}", COPY)
        if scan.case in self._names:
            # Of one identifier that stands in several scans a keyed pseudonym cannot make two names.
            other = self._names[scan.case]
            raise RunError(f"{name}: has the identifier of {other} but other counts: leave out --identities")
        if {scan.case, scan.pixel_sha256} & set(self.previous):
            raise RunError(f"{scan.case}: is also the scan given with --previous: give an earlier one")
        if self.is_done(scan):
            self._names |= dict.fromkeys((scan.case, scan.pixel_sha256), name)
            return None
        case_folder(settings.out, scan.case, settings.overwrite)
        if settings.keep_identity and files.shared_uid:
            message = f"{name}: has the SOP Instance UID of another file: leave out --keep-identity"
            raise ScanError(message, "unreferable")
        study = read_source_study(files.sources) if settings.keep_identity else None
        labelme = None
        if settings.labelme is not None:
            present = [view for view in VIEWS if view not in scan.missing_views]
            labelme = annotation_paths(settings.labelme, files.sources, present)
        prepared = prepare_scan(scan, settings=self.model.preparation)
        # Last: a scan that gets no result does not keep another from getting it.
        self._names |= dict.fromkeys((scan.case, scan.pixel_sha256), name)
        return ReadScan(scan, prepared, study, labelme)

    def is_done(self, scan: BoneScan) -> bool:
        """Whether --skip-existing finds the result of a scan: whole, of the same counts and settings.

        Raises:
            RunError: there is one that is not, and --overwrite is not given as well.
        """
        settings, folder = self.settings, self.settings.out / scan.case
        if not settings.skip_existing or not (folder / RESULT).exists():
            return False
        reason = self._difference(folder, scan)
        if reason and not settings.overwrite:
            raise RunError(f"{folder}: is there, but {reason}: give --overwrite or another --out")
        return reason is None

    def _difference(self, folder: Path, scan: BoneScan) -> str | None:
        """Why an earlier result is not the one of this run; None when it is."""
        try:
            result = load_result(folder)
        except RunError:
            return "is damaged or of another version"
        present = [view for view in VIEWS if view not in scan.missing_views]
        settings, model_weights = self.settings, result["model"]["weights_sha256"]
        if result.get("pixel_sha256", scan.pixel_sha256) != scan.pixel_sha256:
            return "is that of a scan with other counts"
        if model_weights != self.model.weights_sha256:
            return f"by another model (weights {model_weights[:12]}, now {self.model.weights_sha256[:12]})"
        if result.get("threshold") != self.threshold:
            return f"with another threshold ({result.get('threshold') or 'none'})"
        index = result.get("bone_scan_index")
        wanted = None if self.skeleton is None else self.skeleton.weights_sha256
        if (None if index is None else index["model"]["weights_sha256"]) != wanted:
            return "by another model of the skeleton, or without one"
        if index is not None and index["table"] != (table := choose_table(self.weights, scan.sex)[0].name):
            return f"with the weight table {index['table']} (now {table})"
        outputs, lesions = outputs_of(scan, settings.outputs), bool(result["lesions"])
        second = bool(result["dicom"].get("second_segmentation"))
        for name in file_names(outputs, present, settings.keep_identity, lesions, wanted is not None, second):
            if not (folder / name).is_file() or not (folder / name).stat().st_size:
                return f"without {name}"
        kept = "kept" if settings.keep_identity else "none"
        if "dicom" in outputs and result["dicom"]["patient_identity"] != kept:
            return f"{'without' if settings.keep_identity else 'with'} the patient's identity"
        return None
