"""Files and folders of a command line -> scans, read and prepared, once it is known that a result can be written."""

import dataclasses
import hashlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from doubleunet_bs.bsi import choose_table
from doubleunet_bs.constants import VIEWS
from doubleunet_bs.dicom_files.layout import load_scan_header
from doubleunet_bs.dicom_files.other_files import PassedOver
from doubleunet_bs.dicom_files.sources import Source, is_archive, prefix_errors, walk_files
from doubleunet_bs.dicom_results.source_study import SourceStudy, read_source_study, same_patient
from doubleunet_bs.errors import RunError, ScanError, SettingsError, printable
from doubleunet_bs.inference.model_description import ModelDescription
from doubleunet_bs.preparation.case import PreparedCase, prepare_scan
from doubleunet_bs.results.labelme_output import annotation_paths
from doubleunet_bs.results.patient_report import ReportScan
from doubleunet_bs.results.result_files import (
    COHORT,
    FILES_SUFFIX,
    INDEX,
    RESULT,
    JobSettings,
    case_folder,
    file_names,
    is_result,
    outputs_of,
)
from doubleunet_bs.results.stored_result import load_result, read_result
from doubleunet_bs.scans.bone_scan import BoneScan
from doubleunet_bs.scans.find_pictures import find_pictures
from doubleunet_bs.scans.pairing import OneView, describe_view, pair_views
from doubleunet_bs.scans.picture_files import is_picture, view_of_path
from doubleunet_bs.scans.pseudonyms import Pseudonyms
from doubleunet_bs.scans.scan_files import Rejection, ScanFiles, ScanFolder, find_scans

COPY = "duplicate"
"""Reason of a ScanError for the same counts once more, under another UID: nothing of them is lost, it is no failure."""


def list_scans(paths: Sequence[str], allow_missing_view: bool = False) -> ScanFolder:
    """All scans of some files, folders and zip archives, from the headers alone.

    Results of this package below a folder are skipped: the copy of a scan in a result is not another scan.

    Args:
        paths: in any mixture; a folder is searched with all its subfolders. A result that is named itself is read.
            Grey pictures in a folder, not in an archive, are scans if no DICOM file of a scan is in it.
        allow_missing_view: accept a study with one view only.

    Returns:
        The scans, those of folders and archives first, and the other files with paths as the user gave them.

    Raises:
        SettingsError: a path does not exist.
    """
    for path in paths:
        if not os.path.exists(path):
            raise SettingsError(f"{path}: no such file or folder")
    scans: list[ScanFiles] = []
    rejected: list[Rejection] = []
    passed: list[PassedOver] = []
    single: list[OneView] = []
    pictures: dict[str, list[Source]] = {}
    for path in dict.fromkeys(map(os.path.normpath, paths)):
        if os.path.isdir(path) or is_archive(path):
            within = _results(path)
            found = _without(find_scans(path, allow_missing_view), path, within)
            if found.only_pictures and os.path.isdir(path):
                found = _without(find_pictures(path, allow_missing_view, others_beside=True), path, within)
            scans += found.scans
            rejected += found.rejected
            passed += found.passed_over
            if within and not found.scans and not found.rejected:
                message = "holds only results of earlier predictions: name a scan.dcm in them to segment it again"
                rejected.append(Rejection(path, "results", message))
            continue
        source = Source(path)
        try:
            if is_picture(source):
                pictures.setdefault(os.path.splitext(view_of_path(path)[1])[0], []).append(source)
                continue
            view = _one_view(source)
        except ScanError as error:
            rejected.append(Rejection(path, error.reason, str(error).removeprefix(f"{path}: ")))
            continue
        if view is None:
            scans.append(ScanFiles((source,), "."))
        else:
            single.append(view)
    # The views of a scan in pictures differ in the view only: S_ant.png and S_post.png.
    scans += [ScanFiles(tuple(sources), ".") for sources in pictures.values()]
    pairs, alone, unclear = pair_views(single)
    scans += [ScanFiles((pair.anterior.source, pair.posterior.source), ".") for pair in pairs]
    # A single view is left to `ScanFiles.read`, whose error names the option that allows it.
    scans += [ScanFiles((view.source,), ".") for view in alone]
    rejected += [
        Rejection(view.source.path, "ambiguous-pair", f"cannot be paired, since {why}") for view, why in unclear
    ]
    return ScanFolder(tuple(scans), tuple(rejected), tuple(passed))


def parse_shard(text: str) -> tuple[int, int]:
    """ "2/10" -> (2, 10).

    Raises:
        SettingsError: it is not the number of a part, from 1, and the number of parts.
    """
    part, slash, parts = text.partition("/")
    if not slash or not part.isdecimal() or not parts.isdecimal() or not 1 <= int(part) <= int(parts):
        raise SettingsError(f"--shard {text}: give PART/PARTS, for instance 1/4 to 4/4")
    return int(part), int(parts)


def choose_shard(found: ScanFolder, shard: tuple[int, int]) -> ScanFolder:
    """The part of some scans that one of several processes does. Each file is in exactly one part.

    The part follows from the names of a scan's files alone, so that the processes need not know of each other and files
    that arrive between their starts move no other scan. The two files of a pair stay together.

    Args:
        found: from `list_scans`; all processes must be given the same paths.
        shard: number of the part, from 1, and the number of parts.
    """
    part, parts = shard

    def mine(*names: str) -> bool:
        digest = hashlib.sha256("\0".join(map(printable, names)).encode()).digest()
        return int.from_bytes(digest[:8], "big") % parts == part - 1

    return ScanFolder(
        tuple(scan for scan in found.scans if mine(*scan.paths)),
        tuple(file for file in found.rejected if mine(file.path)),
        tuple(file for file in found.passed_over if mine(file.path)),
    )


def _results(path: str) -> set[str]:
    """The result folders below `path`, without `path` itself."""
    return {
        _folder(file)
        for file in walk_files(path)
        if os.path.basename(file) == RESULT and _folder(file) != path and is_result(Path(file).parent)
    }


def _without(found: ScanFolder, path: str, within: set[str]) -> ScanFolder:
    """What lies outside of the result folders `within`, with paths as the user gave them."""
    join = "!" if is_archive(path) else os.sep

    def full(inner: str) -> str:
        # An archive, or a folder that cannot be listed, is rejected as a whole.
        whole = inner == os.path.basename(path) and not os.path.exists(os.path.join(path, inner))
        return path if whole else f"{path}{join}{inner}"

    rejected = [Rejection(full(file.path), file.reason, file.message) for file in found.rejected]
    other = [PassedOver(full(file.path), file.kind) for file in found.passed_over]
    outs = {os.path.dirname(folder) for folder in within}
    beside = {os.path.join(out, name) for out in outs for name in (INDEX, COHORT)}
    beside |= {f"{out}{FILES_SUFFIX}" for out in outs}
    return ScanFolder(
        tuple(scan for scan in found.scans if _folder(scan.sources[0].path) not in within),
        tuple(file for file in rejected if _folder(file.path) not in within),
        tuple(file for file in other if _folder(file.path) not in within and file.path not in beside),
    )


def _folder(path: str) -> str:
    return os.path.normpath(os.path.dirname(path))


def _one_view(source: Source) -> OneView | None:
    """The view of a one-view file; None for a file with both."""
    with prefix_errors(source):
        file, layout = load_scan_header(source)
        return describe_view(source, file.dataset, layout) if layout.views == 1 else None


def scan_name(sources: Sequence[Source]) -> str:
    """How messages name a scan: its file, or its two."""
    return " + ".join(source.label for source in sources)


def find_previous(path: str, current: ScanFiles, allow_missing_view: bool = False) -> ReportScan | BoneScan:
    """Read what the user gave, before any network is loaded.

    Args:
        path: result folder of an earlier prediction, or one scan: a DICOM file, or a folder or archive that holds it.
        current: the new scan.
        allow_missing_view: accept an earlier scan with one view.

    Returns:
        The result, or the scan.

    Raises:
        SettingsError: nothing is there.
        ScanError: the scan cannot be read.
        RunError: it is not one scan, a damaged result, or the scan of another patient than `current`: see
            `same_patient`. A result folder names no patient; there the user is believed.
    """
    if (Path(path) / RESULT).is_file():
        return read_result(Path(path))
    found = list_scans([path], allow_missing_view)
    if len(found.scans) != 1:
        reason = f" ({found.rejected[0].message})" if not found.scans and found.rejected else ""
        raise RunError(f"{path}: holds {len(found.scans)} scans{reason}: give --previous one scan or its result folder")
    if same_patient(current.sources, found.scans[0].sources) is False:
        raise RunError(
            f"{path}: another Patient ID, issuer or birth date: for the same person give --previous a result folder"
        )
    return found.scans[0].read(allow_missing_view)


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
        self._annotations: dict[Path, str] = {}

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
            raise RunError(f"{name}: is also the scan given with --previous: give an earlier one")
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
            # A dry run writes none that the next scan could find.
            for path in labelme.values():
                if path in self._annotations:
                    raise RunError(f"{path}: would also be that of {self._annotations[path]}: rename one scan")
        prepared = prepare_scan(scan, settings=self.model.preparation)
        # Last: a scan that gets no result does not keep another from getting it.
        self._names |= dict.fromkeys((scan.case, scan.pixel_sha256), name)
        self._annotations |= dict.fromkeys((labelme or {}).values(), name)
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
        settings, index = self.settings, result["bone_scan_index"]
        outputs, bones = outputs_of(scan, settings.outputs), self.skeleton
        present = [view for view in VIEWS if view not in scan.missing_views]
        if result["pixel_sha256"] != scan.pixel_sha256:
            return "of a scan with other counts"
        there_and_now = {
            "model": (result["model"]["weights_sha256"], self.model.weights_sha256),
            "threshold": (result["threshold"], self.threshold),
            "model of the skeleton": (index and index["model"]["weights_sha256"], bones and bones.weights_sha256),
            "weight table": (index and index["table"], bones and choose_table(self.weights, scan.sex)[0].name),
        }
        if "dicom" in outputs:
            kept = "kept" if settings.keep_identity else "none"
            there_and_now["identity in its DICOM files"] = result["dicom"]["patient_identity"], kept
        for what, (there, now) in there_and_now.items():
            if there != now:
                before, wanted = ("none" if one is None else str(one)[:12] for one in (there, now))
                return f"with another {what} ({before}, now {wanted})"
        second = bool(result["dicom"]["second_segmentation"])
        lesions = bool(result["lesions"])
        for name in file_names(outputs, present, settings.keep_identity, lesions, bones is not None, second):
            if not (folder / name).is_file() or not (folder / name).stat().st_size:
                return f"without {name}"
        return None
