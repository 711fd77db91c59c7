"""Paths -> scans: `read_scan` for one, `find_scans` for all of a folder, with a reason for every file refused."""

import dataclasses
import os
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from doubleunet_bs.dicom_files.dicom_file import pydicom_silence
from doubleunet_bs.dicom_files.header_values import read_identifier
from doubleunet_bs.dicom_files.layout import load_scan_header
from doubleunet_bs.dicom_files.other_files import (
    OtherFileError,
    PassedOver,
    count_kinds,
    kind_by_name,
    kind_of_other,
    kind_of_package,
)
from doubleunet_bs.dicom_files.sources import (
    FIRST_LOOK_BYTES,
    Source,
    is_archive,
    list_members,
    open_archive,
    walk_files,
)
from doubleunet_bs.errors import ScanError, counted, os_reason
from doubleunet_bs.files import no_folder
from doubleunet_bs.scans.bone_scan import BoneScan, hash_counts, read_sources
from doubleunet_bs.scans.pairing import OneView, describe_view, pair_views
from doubleunet_bs.scans.pseudonyms import Pseudonyms


@dataclasses.dataclass(frozen=True)
class Rejection:
    """A file that is not used, and why.

    Attributes:
        path: as the user knows it, relative to the folder; behind a "!" the member of an archive.
        reason: machine-readable slug, as in `ScanError.reason`.
        message: one line that follows the path: "is a tomographic (SPECT) acquisition, ...".
    """

    path: str
    reason: str
    message: str


@dataclasses.dataclass(frozen=True)
class ScanFiles:
    """The file or the two files of one scan, not read yet. Small, and can be sent to another process.

    Attributes:
        sources: one file, or two of one view each, anterior first.
        folder: the folder that was searched.
        shared_uid: other files with other counts have the same SOP Instance UID.
    """

    sources: tuple[Source, ...]
    folder: str
    shared_uid: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """File names without folder and DICOM suffix: what label files are named after. One or two."""
        return tuple(source.stem for source in self.sources)

    @property
    def folders(self) -> tuple[str, ...]:
        """For each file its folder below the one that was searched, as "2019/export.zip/DICOM", "" for that one."""
        found = []
        for source in self.sources:
            steps = [] if source.path == self.folder else list(Path(os.path.relpath(source.path, self.folder)).parts)
            steps += [step for step in source.steps if step not in ("", ".")] if source.member else []
            found.append(unicodedata.normalize("NFC", "/".join(steps[:-1])))
        return tuple(found)

    @property
    def full_paths(self) -> tuple[str, ...]:
        """The absolute paths of the files; behind a "!" the member of an archive."""
        return tuple(
            os.path.abspath(source.path) + (f"!{source.member}" if source.member else "") for source in self.sources
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """The files as the user knows them, relative to the folder."""
        return tuple(_relative(source, self.folder) for source in self.sources)

    def read(self, allow_missing_view: bool = False, pseudonyms: Pseudonyms | None = None) -> BoneScan:
        """As `read_scan`."""
        return read_sources(self.sources, allow_missing_view, pseudonyms, self.shared_uid)

    def rejection(self, error: ScanError) -> Rejection:
        """The error of `read` in the form of the files that `find_scans` refused."""
        message = str(error)
        for source in self.sources:
            message = message.removeprefix(f"{source.label}: ")
        return Rejection(" + ".join(self.paths), error.reason, message)


@dataclasses.dataclass(frozen=True)
class ScanFolder:
    """What a folder holds.

    Attributes:
        scans: in the order of their paths.
        rejected: files that may be bone scans or parts of one, in the order of their paths.
        passed_over: every other file, in the order of their paths.
    """

    scans: tuple[ScanFiles, ...]
    rejected: tuple[Rejection, ...]
    passed_over: tuple[PassedOver, ...] = ()

    @property
    def only_pictures(self) -> bool:
        """Whether the files of DICOM scans are missing, and pictures are there that may be scans: `find_pictures`."""
        return not self.scans and not self.rejected and any(file.kind == "picture" for file in self.passed_over)

    def nothing(self, place: object) -> str:
        """The message for a `place` that holds no scan, and no file that may be one."""
        other = count_kinds(self.passed_over)
        cure = "name the views S_ant.png and S_post.png" if self.only_pictures else "give the folder of the scans"
        return f"{place}: no scan is in it{f', only {other}' if other else ''}: {cure}"


def read_scan(
    paths: str | os.PathLike | Sequence[str | os.PathLike],
    allow_missing_view: bool = False,
    pseudonyms: Pseudonyms | None = None,
) -> BoneScan:
    """Read one whole-body bone scan with its exact counts.

    Args:
        paths: a file with two frames; or two files of one study with one view each, in either order; or a zip archive
            with one scan in it.
        allow_missing_view: accept one view alone; the other is then all zero, and the scan carries a warning.
        pseudonyms: names the scan and the patient by keyed hashes of their identifiers. Without it the scan is named
            after the SHA-256 of its counts, and the patient is None.

    Returns:
        The scan: uint16 counts of shape (1024, 256) per view, and nothing that identifies the patient.

    Raises:
        ScanError: when the files are not a whole-body bone scan. Its text names the file and says why in one line, its
            `reason` is a slug such as `"tomographic"`, `"truncated"` or `"missing-view"`.

    Example:
        >>> import tempfile
        >>> from doubleunet_bs.phantom import make_cohort
        >>> folder = make_cohort(tempfile.mkdtemp(), patients=1)
        >>> scan = read_scan(folder / "scans" / "phantom_0001.dcm")
        >>> scan.anterior.shape, scan.anterior.dtype.name, scan.pixel_spacing_mm is not None
        ((1024, 256), 'uint16', True)
    """
    if isinstance(paths, str | bytes | os.PathLike):
        paths = [paths]
    sources = [Source(os.fsdecode(path)) for path in paths]
    if len(sources) == 1 and is_archive(sources[0].path):
        found = find_scans(sources[0].path, allow_missing_view)
        if len(found.scans) != 1:
            raise _not_one_scan(sources[0], found)
        return found.scans[0].read(allow_missing_view, pseudonyms)
    return read_sources(sources, allow_missing_view, pseudonyms)


def _not_one_scan(source: Source, found: ScanFolder) -> ScanError:
    if not found.scans and len(found.rejected) == 1:
        only = found.rejected[0]
        # The archive itself may be what was refused.
        inside = "" if only.path == os.path.basename(source.path) else f"!{only.path}"
        return ScanError(f"{source.label}{inside}: {only.message}", only.reason)
    other = count_kinds(found.passed_over)
    beside = f" and {other}" if other and not found.scans else ""
    message = f"holds {counted(len(found.scans), 'scan')}{beside}: give an archive with one scan"
    return ScanError(f"{source.label}: {message}", "archive")


def find_scans(folder: str | os.PathLike, allow_missing_view: bool = False) -> ScanFolder:
    """Find the scans in a folder, its subfolders (linked ones, too) and the zip archives in them, by content.

    Only headers are read. What is plainly no bone scan is passed over: other images, annotations, the viewer of a CD,
    hidden files. Every other file is a scan, part of one, or rejected.

    Args:
        folder: the folder, or one zip archive.
        allow_missing_view: accept a study with one view only.

    Raises:
        SettingsError: when there is no such folder.

    Example:
        >>> import tempfile
        >>> from doubleunet_bs.phantom import make_cohort
        >>> found = find_scans(make_cohort(tempfile.mkdtemp(), patients=2) / "scans")
        >>> [scan.names for scan in found.scans], found.rejected
        ([('phantom_0001',), ('phantom_0002',)], ())
    """
    folder = str(folder)
    if not os.path.isdir(folder) and not is_archive(folder):
        raise no_folder(folder)
    search = Search(folder)
    whole: list[tuple[Source, ...]] = []
    single: list[OneView] = []
    found: dict[str, list[tuple[Source, OneView | None]]] = {}
    for source, archive in _walk(search):
        try:
            instance, view = _look(source, archive)
        except OtherFileError as error:
            search.pass_over(source, error.kind)
        except ScanError as error:
            search.reject(source, error)
        else:
            found.setdefault(instance or source.label, []).append((source, view))
    shared: set[Source] = set()
    for files in found.values():
        own = _without_copies(files, search) if len(files) > 1 else files
        whole += [(source,) for source, view in own if view is None]
        single += [view for _, view in own if view is not None]
        shared.update(source for source, _ in own if len(own) > 1)
    pairs, alone, unclear = pair_views(single)
    for view, why in unclear:
        search.reject(view.source, ScanError(f"cannot be paired, since {why}", "ambiguous-pair"))
    whole += [(pair.anterior.source, pair.posterior.source) for pair in pairs]
    for view in alone:
        if allow_missing_view:
            whole.append((view.source,))
        else:
            kind = f"the {view.view} view" if view.view else "one view"
            message = (
                f"holds {kind} only, and no other view has the same study and Patient ID: check the IDs, "
                "or pass --allow-missing-view"
            )
            search.reject(view.source, ScanError(message, "missing-view"))
    search.scans = [ScanFiles(sources, folder, not shared.isdisjoint(sources)) for sources in whole]
    return search.result()


class Search:
    """What has been found in a folder so far."""

    def __init__(self, folder: str):
        self.folder = folder
        self.scans: list[ScanFiles] = []
        self.rejected: list[Rejection] = []
        self.passed: list[PassedOver] = []

    def relative(self, source: Source) -> str:
        return _relative(source, self.folder)

    def reject(self, source: Source, error: ScanError) -> None:
        self.rejected.append(Rejection(self.relative(source), error.reason, str(error)))

    def pass_over(self, source: Source, kind: str) -> None:
        self.passed.append(PassedOver(self.relative(source), kind))

    def result(self) -> ScanFolder:
        return ScanFolder(
            tuple(sorted(self.scans, key=lambda scan: scan.paths)),
            tuple(sorted(self.rejected, key=lambda file: file.path)),
            tuple(sorted(self.passed, key=lambda file: file.path)),
        )


def _walk(search: Search) -> Iterator[tuple[Source, zipfile.ZipFile | None]]:
    """Every file once, in the order of paths; members of an archive with the open archive."""
    for path in _paths(search):
        if not is_archive(path):
            yield Source(path), None
            continue
        try:
            archive = open_archive(path)
        except ScanError as error:
            search.reject(Source(path), error)
            continue
        with archive:
            members = list_members(archive)
            if kind := kind_of_package(members):
                search.pass_over(Source(path), kind)
                continue
            for member in members:
                source = Source(path, member)
                if kind := kind_by_name(source.steps):
                    search.pass_over(source, kind)
                else:
                    yield source, archive


def _paths(search: Search) -> Iterator[str]:
    if not os.path.isdir(search.folder):
        yield search.folder
        return

    def unreadable(error: OSError) -> None:
        message = f"cannot be read ({os_reason(error)})"
        search.reject(Source(str(error.filename)), ScanError(message, "unreadable"))

    def left_out(path: str) -> None:
        search.pass_over(Source(path), kind_by_name([os.path.basename(path)]) or "hidden file")

    for path in walk_files(search.folder, unreadable, left_out):
        if kind := kind_by_name([os.path.basename(path)]):
            search.pass_over(Source(path), kind)
        else:
            yield path


def _look(source: Source, archive: zipfile.ZipFile | None) -> tuple[str, OneView | None]:
    """The SOP Instance UID of a file, and the one view in it or None for both. Errors lack the file's name."""
    with pydicom_silence:
        try:
            file, layout = load_scan_header(source, archive)
        except ScanError as error:
            if error.reason in ("not-dicom", "archive"):
                data, _ = source.read(FIRST_LOOK_BYTES, archive)
                if kind := kind_of_other(source.steps[-1], data):
                    raise OtherFileError(str(error), error.reason, kind) from None
            raise
        instance = read_identifier(file.dataset, "SOPInstanceUID")
        view = describe_view(source, file.dataset, layout) if layout.views == 1 else None
    return instance, view


def _without_copies(
    files: Sequence[tuple[Source, OneView | None]], search: Search
) -> list[tuple[Source, OneView | None]]:
    """Of files with one SOP Instance UID the first of each kind: anonymisers give one UID to many scans.

    The shortest path comes first: "S.dcm" before "S (1).dcm" and "backup/S.dcm", whose names no annotation has.
    """
    kept: dict[str, tuple[Source, OneView | None]] = {}
    for source, view in sorted(files, key=lambda each: (len(each[0].label), each[0].label)):
        try:
            first, _ = kept.setdefault(hash_counts(source), (source, view))
            if first is not source:
                raise ScanError(f"is a copy of {search.relative(first)} (same SOP Instance UID)", "duplicate")
        except ScanError as error:
            # A copy that is cut off must not stand in the way of the whole one.
            search.reject(source, error)
    return list(kept.values())


def _relative(source: Source, folder: str) -> str:
    if source.path == folder:
        # The folder is itself an archive.
        return source.label.removeprefix(f"{folder}!") if source.member else os.path.basename(folder)
    # Without the member, whose name is no path of this file system.
    return Source(Path(os.path.relpath(source.path, folder)).as_posix(), source.member).label
