"""Files and folders of a command line -> scans. One-view files named side by side are paired by their headers."""

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.errors import RunError, ScanError, SettingsError
from doubleunet_bs.preparation.case import PreparedCase, prepare_scan
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.results.labelme_output import annotation_paths
from doubleunet_bs.results.result_files import OUTPUTS, RESULT, is_result, result_folder
from doubleunet_bs.results.source_study import SourceStudy, read_source_study
from doubleunet_bs.scans.bone_scan import BoneScan
from doubleunet_bs.scans.dicom import OneView, describe_view, naming, pair_views
from doubleunet_bs.scans.folder import Rejection, ScanFiles, ScanFolder, find_scans, walk_folders
from doubleunet_bs.scans.dicom_file import load_header
from doubleunet_bs.scans.layout import understand
from doubleunet_bs.scans.sources import MAX_HEADER_BYTES, Source, is_archive


def list_scans(paths: Sequence[str], allow_missing_view: bool = False) -> ScanFolder:
    """All scans of some files, folders and zip archives, from the headers alone.

    Results of this package that lie below a folder are passed over: the copy of a scan in one of them is no further scan,
    and must not come before the scan itself.

    Args:
        paths: in any mixture; a folder is searched to the bottom. Results are read where they are named themselves.
        allow_missing_view: accept a study with one view only.

    Returns:
        The scans, those of folders and archives first, and the refused files with paths as the user gave them.

    Raises:
        SettingsError: a path does not exist.
    """
    for path in paths:
        if not os.path.exists(path):
            raise SettingsError(f"{path}: no such file or folder")
    scans: list[ScanFiles] = []
    rejected: list[Rejection] = []
    single: list[OneView] = []
    for path in dict.fromkeys(map(os.path.normpath, paths)):
        if os.path.isdir(path) or is_archive(path):
            found = find_scans(path, allow_missing_view)
            join = "!" if is_archive(path) else os.sep
            refused = [Rejection(f"{path}{join}{file.path}", file.reason, file.message) for file in found.rejected]
            within = _results(path)
            kept = [scan for scan in found.scans if _folder(scan.sources[0].path) not in within]
            refused = [file for file in refused if _folder(file.path) not in within]
            if within and not kept and not refused:
                message = "holds results of earlier predictions only; name a scan.dcm in them to segment it again"
                refused = [Rejection(path, "results", message)]
            scans += kept
            rejected += refused
            continue
        source = Source(path)
        try:
            view = _one_view(source)
        except ScanError as error:
            rejected.append(Rejection(path, error.reason, str(error).removeprefix(f"{path}: ")))
            continue
        if view is None:
            scans.append(ScanFiles((source,), "."))
        else:
            single.append(view)
    pairs, alone, unclear = pair_views(single)
    scans += [ScanFiles((anterior.source, posterior.source), ".") for anterior, posterior in pairs]
    # One view alone is left to `ScanFiles.read`, whose error names the option that allows it.
    scans += [ScanFiles((view.source,), ".") for view in alone]
    rejected += [Rejection(view.source.path, "ambiguous-pair", f"cannot be paired: {why}") for view, why in unclear]
    return ScanFolder(tuple(scans), tuple(rejected))


def _results(path: str) -> set[str]:
    """The result folders below `path`, not itself."""
    return {
        _folder(os.path.join(where, RESULT))
        for where, names in walk_folders(path)
        if RESULT in names and where != path and is_result(Path(where))
    }


def _folder(path: str) -> str:
    return os.path.normpath(os.path.dirname(path))


def _one_view(source: Source) -> OneView | None:
    """The view of a one-view file; None for a file with both."""
    with naming(source):
        file = load_header(*source.read(MAX_HEADER_BYTES))
        layout = understand(file)
        return describe_view(source, file.dataset, layout) if layout.views == 1 else None


@dataclasses.dataclass(frozen=True)
class JobSettings:
    """What a user asked for.

    Attributes:
        out: folder of the results.
        outputs: members of OUTPUTS.
        allow_missing_view, overwrite, keep_identity: see `commands.predict`.
        labelme: folder for further Labelme files named after the scans; None for none.
    """

    out: Path
    outputs: tuple[str, ...] = OUTPUTS
    allow_missing_view: bool = False
    overwrite: bool = False
    keep_identity: bool = False
    labelme: Path | None = None


@dataclasses.dataclass(frozen=True)
class ReadScan:
    """One scan, read and prepared.

    Attributes:
        scan, prepared: the scan, and the image for the network.
        study: the patient's identity when it is to be kept, else None.
        labelme: where its further Labelme files go, by view; None when none are wanted.
        begun: moment of reading, of `time.perf_counter`.
    """

    scan: BoneScan
    prepared: PreparedCase
    study: SourceStudy | None
    labelme: dict[str, Path] | None
    begun: float


class ScanReader:
    """Reads and prepares the scans of a run one after the other, and refuses what could not be written in the end.

    Args:
        settings: of the run.
        preparation: of the model.

    Attributes:
        cases: files of the scans read so far -> pseudonym. Scans that failed afterwards are in it as well.
    """

    def __init__(self, settings: JobSettings, preparation: PreparationSettings):
        self.settings, self.preparation = settings, preparation
        self.cases: dict[ScanFiles, str] = {}
        self._first: dict[str, str] = {}
        self._taken: dict[Path, str] = {}

    def __call__(self, files: ScanFiles) -> ReadScan:
        """Read and prepare a scan.

        Raises:
            ScanError: it cannot be read or prepared, or not be referred to.
            RunError: its results would overwrite something, or another scan of this run has the same counts.
        """
        begun = time.perf_counter()
        settings, name = self.settings, scan_name(files.sources)
        scan = files.read(settings.allow_missing_view)
        self.cases[files] = scan.case
        first = self._first.get(scan.case)
        if first is not None:
            raise RunError(f"{name}: has the same counts as {first}; one result is enough")
        result_folder(settings.out, scan.case, settings.overwrite)
        study = read_source_study(files.sources) if settings.keep_identity else None
        labelme: dict[str, Path] | None = None
        if settings.labelme is not None:
            present = [view for view in VIEWS if view not in scan.missing_views]
            labelme = annotation_paths(settings.labelme, files.sources, present)
            for path in labelme.values():
                other = self._taken.get(path)
                if other is not None:
                    raise RunError(f"{name}: its annotation would have the name of that of {other}: rename one of them")
        prepared = prepare_scan(scan, settings=self.preparation)
        # Last: a scan that gets no result does not keep another from getting it.
        self._first[scan.case] = name
        self._taken.update(dict.fromkeys((labelme or {}).values(), name))
        return ReadScan(scan, prepared, study, labelme, begun)


def scan_name(sources: Sequence[Source]) -> str:
    """How messages name a scan: its file, or its two."""
    return " + ".join(source.label for source in sources)
