"""What the two folders hold: every scan with its annotation files and its row of patients.csv, and what fits nothing.

A scan is called after its file: `scan-001` for `scan-001.dcm`. Where several scans have one name, each is called by its
long name, with the folders in front: `2019/scan-001`. patients.csv then uses the long name, and the annotations lie in
the folder `2019` of the labels folder.
"""

import contextlib
import dataclasses
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.dicom_files.other_files import DICOM_SUFFIXES, PassedOver
from doubleunet_bs.dicom_files.sources import Source, walk_files
from doubleunet_bs.errors import DatasetError, LabelError, ScanError, SettingsError, counted, first_of
from doubleunet_bs.files import no_folder
from doubleunet_bs.preparation.annotations import (
    ENDINGS,
    NearNames,
    annotation_stem,
    index_labels,
    read_annotation,
    read_regions,
    stems_of,
)
from doubleunet_bs.preparation.patients import FILE, Declaration, read_patients
from doubleunet_bs.preparation.public_labels import PublicLabels
from doubleunet_bs.preparation.records import DataSource
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.scans import find_pictures, find_scans
from doubleunet_bs.scans.labels import quoted
from doubleunet_bs.scans.scan_files import Rejection, ScanFiles, ScanFolder

# Endings of what may lie beside annotations under the name of a scan. The others may be annotations of another format.
_NO_ANNOTATION = {*ENDINGS, *DICOM_SUFFIXES, ".zip", ".csv", ".tsv", ".xlsx", ".xls", ".ods", ".jpg", ".jpeg", ".gif",
                  ".bmp", ".tif", ".tiff", ".webp"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Task:
    """One scan to prepare.

    Attributes:
        source: its files.
        labels: its annotation files.
        declared: its row of patients.csv, or None.
        regions: its annotation files of the skeleton.
        public: the labels of a scan of a public data set, in place of all these files.
        part: of its published split.
        warnings: on the scan.
    """

    source: ScanFiles
    labels: tuple[Path, ...]
    declared: Declaration | None
    regions: tuple[Path, ...] = ()
    public: PublicLabels | None = None
    part: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The scan as the user knows it, for messages."""
        return " + ".join(self.source.paths)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What two folders hold.

    Attributes:
        tasks: scans in the order of the output.
        rejected: what stands in the way before any pixel is read.
        passed_over: what is no scan at all.
        notes: one line each on what else the user should know of the folder and the table.
        left_out: files of a public data set that are known to be damaged or double, which nobody can correct.
        sources: the public data sets.
    """

    tasks: tuple[Task, ...]
    rejected: tuple[Rejection, ...]
    passed_over: tuple[PassedOver, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[Rejection, ...] = ()
    sources: tuple[DataSource, ...] = ()


@dataclasses.dataclass(frozen=True)
class CohortJob:
    """What to prepare, and how.

    Attributes:
        scans, labels: folders; of pictures instead of DICOM files where the settings say so.
        out: the shard folder to make.
        settings: of the preparation.
        patients: table of patients; None takes patients.csv of the labels folder when it is there.
        classes_file: the class map, which is no annotation where it lies in the labels folder.
        regions: folder of annotations of the skeleton, if any.
        key: file of the key and the lookup table of pseudonyms; None takes `<out>.identities.json`.
        workers: number of processes.
        skip_invalid: leave out scans with a problem instead of writing nothing.
        allow_missing_view: accept scans of one view.
        pictures: also write PNGs into `out/png`.
        public: name of a public data set whose folders these are.
        boxes: "masks" or "rectangles": what the boxes of a public data set become.
    """

    scans: Path
    labels: Path
    out: Path
    settings: PreparationSettings = dataclasses.field(default_factory=PreparationSettings)
    patients: Path | None = None
    classes_file: Path | None = None
    key: Path | None = None
    workers: int = 1
    skip_invalid: bool = False
    allow_missing_view: bool = False
    pictures: bool = False
    regions: Path | None = None
    public: str | None = None
    boxes: str = "masks"

    def beside(self, ending: str) -> Path:
        """A file beside the shards: "rejected.json" (all problems) or "files.csv" (cases and their files)."""
        return self.out.parent / f"{self.out.name}.{ending}"

    @property
    def key_file(self) -> Path:
        """Where the key and the lookup table are kept."""
        return self.key or self.beside("identities.json")


def find_inputs(job: CohortJob) -> Inputs:
    """Search both folders. Headers are read, pixels are not.

    Raises:
        SettingsError: no such folder.
        DatasetError: no scan is in the folder, or the table of patients is missing or not readable.
    """
    scans, labels, regions, pictures = job.scans, job.labels, job.regions, job.settings.source == "pictures"
    for folder in (labels, regions):
        if folder is not None and not folder.is_dir():
            raise no_folder(folder)
    if pictures and scans.is_dir() and os.path.samefile(scans, labels):
        raise SettingsError(f"{labels}: pictures and annotations need two folders, masks are pictures, too")
    table = job.patients or _find_table(labels)
    declared, notes = read_patients(table) if table else ({}, [])
    found = (find_pictures if pictures else find_scans)(scans, job.allow_missing_view)
    if not found.scans and not found.rejected:
        raise DatasetError(found.nothing(scans) + ", and pass --pictures" * (not pictures and found.only_pictures))
    if not found.scans:
        # Without a scan every annotation would be listed, too.
        return Inputs((), found.rejected, found.passed_over, tuple(notes))
    names = _Names(found)
    files = index_labels(labels, names.known, [job.classes_file] if job.classes_file else [])
    skeletons = index_labels(regions, names.known) if regions else {}
    wanted = set(stems_of(list(names.known)))
    left = [path for stem, paths in files.items() if stem not in wanted for path in paths]
    strays = _find_strays(job, left, names, found)
    tasks, rejected = [], list(found.rejected)
    named: set[Path] = set()
    for source in found.scans:
        own_strays = [path for name in set(source.names) for path in strays.get(name, ())]
        try:
            own = _choose_files(source, names, files, declared, labels)
            bones = _choose_files(source, names, skeletons, declared, regions) if regions else ()
            row = _declaration((*source.names, *_long_names(source)), declared)
            _check_forgotten(source, own, row, own_strays)
        except ScanError as error:
            rejected.append(source.rejection(error))
            named.update(own_strays)
        else:
            tasks.append(Task(source, own, row, bones))
    _check_not_swapped(job, tasks)
    normal = any(row.metastases is False for row in declared.values())
    if len(found.scans) > 1 and not (files or strays or skeletons or normal):
        raise DatasetError(
            f"{labels}: no annotation is in it (.json or .png): give their folder, or declare normal scans in {FILE}"
        )
    if regions is not None and not skeletons:
        raise DatasetError(f"{regions}: no annotation is in it (.json or .png): give --regions the folder of skeletons")
    # When a table was named, there is no doubt about the others.
    rejected += [] if job.patients else _unread_tables(scans, labels, table)
    rejected += [
        Rejection(str(path.relative_to(regions)), "no-such-scan", "annotation matches no scan: check the file name")
        for stem, paths in skeletons.items()
        if regions is not None and stem not in wanted
        for path in paths
    ]
    if unmatched := [str(path.relative_to(labels)) for path in left if path not in named]:
        notes.append(f"{counted(len(unmatched), 'annotation file')} without a scan: {first_of(unmatched)}")
    everybody = all(task.declared is not None for task in tasks)
    missing = []
    for name in declared:
        if name in names.known or name in names.long:
            continue
        near = names.near.find(name)
        if near is not None or not everybody:
            advice = f"did you mean {quoted(near)}?" if near is not None else "check the name"
            rejected.append(Rejection(FILE, "no-such-scan", f"there is no scan {quoted(name)}: {advice}"))
        else:
            missing.append(quoted(name))
    if missing:
        notes.append(f"{counted(len(missing), 'line')} of {FILE} without a scan: {first_of(missing)}")
    return Inputs(tuple(tasks), tuple(rejected), found.passed_over, tuple(notes))


def _check_not_swapped(job: CohortJob, tasks: Sequence[Task]) -> None:
    """Say once, by the first scan, that the folder of regions holds lesions: it would be a problem of every scan."""
    names, files = next(((task.source.names, task.regions) for task in tasks if task.regions), ((), ()))
    try:
        read_regions(names, files)
    except LabelError as error:
        if error.reason == "region-unknown":
            with contextlib.suppress(LabelError):
                read_annotation(names, files, job.settings.classes)
                message = "holds lesions, not regions of the skeleton: are --labels and --regions swapped?"
                raise SettingsError(f"{files[0]}: {message}") from None


def _find_strays(
    job: CohortJob, left: Sequence[Path], names: "_Names", found: ScanFolder
) -> defaultdict[str, list[Path]]:
    """Name of a scan -> what may be its annotation: files without a scan (`left`), and others that are not read."""
    known = {os.path.realpath(source.path) for scan in found.scans for source in scan.sources}
    known |= {os.path.realpath(job.classes_file)} if job.classes_file else set()
    others = (
        path
        for path in map(Path, walk_files(job.labels))
        if not path.name.startswith(".") and path.suffix.lower() not in _NO_ANNOTATION
    )
    strays: defaultdict[str, list[Path]] = defaultdict(list)
    for path in (*left, *(path for path in others if os.path.realpath(path) not in known)):
        name = names.near.find(unicodedata.normalize("NFC", path.stem))
        if name is not None:
            strays[name].append(path)
    return strays


def _check_forgotten(
    source: ScanFiles, own: Sequence[Path], declared: Declaration | None, strays: Sequence[Path]
) -> None:
    """Refuse ("label-name") a scan whose view would count as free of lesions beside what may be its annotation."""
    views = set(VIEWS)
    for path in own:
        stem = annotation_stem(path, source.names)
        if stem in source.names:
            views -= {VIEWS[source.names.index(stem)]} if len(set(source.names)) == 2 else views
        else:
            views.discard(stem.rpartition("_")[2])
    for path in strays:
        text = path.name.casefold()
        for name in source.names:
            text = text.removeprefix(name.casefold())
        said = {view for view, word in zip(VIEWS, ("ant", "post"), strict=True) if word in text} or set(VIEWS)
        read = path.suffix.lower() in ENDINGS
        if said & views and (read or declared is None or declared.metastases is not False):
            cure = f"call it {source.names[0]}_VIEW{path.suffix} or move it away"
            cure = cure if read else "only .json and .png are read, rename it or export it again"
            raise ScanError(f"{path.name} may be its annotation: {cure}", "label-name")


class _Names:
    """How many scans have a name, without folders (`short`) and with (`long`).

    `known` holds the short names, and all that rejected files may have been meant to be called.
    """

    def __init__(self, found: ScanFolder):
        self.short = Counter(name for source in found.scans for name in set(source.names))
        self.long = Counter(name for source in found.scans for name in set(_long_names(source)))
        self.near = NearNames({name for source in found.scans for name in (*source.names, *_long_names(source))})
        self.known = set(self.short) | {name for file in found.rejected for name in _possible_names(file.path)}


def _choose_files(
    source: ScanFiles,
    names: _Names,
    files: Mapping[str, Sequence[Path]],
    declared: Mapping[str, Declaration],
    labels: Path,
) -> tuple[Path, ...]:
    """The annotation files of a scan; "ambiguous-name" where folders do not tell which of several scans is meant."""
    long_names = _long_names(source)
    own = [file for stem in stems_of(source.names) for file in files.get(stem, ())]
    # What lies in the folder of a rejected file of this name is the annotation of that file.
    own = [
        file
        for file in own
        if (name := _long_name(labels, file, source.names)) in long_names or name not in names.known
    ]
    shared = [name for name in source.names if names.short[name] > 1]
    if not shared:
        return tuple(own)
    unclear = [name for name in long_names if names.long[name] > 1]
    meant = {file: _long_name(labels, file, shared) for file in own}
    if any(name in declared for name in (*shared, *unclear)) or any(
        names.long[name] != 1 for name in meant.values() if name is not None
    ):
        raise ScanError(_how_to_name(source, names.short[shared[0]], unclear), "ambiguous-name")
    return tuple(file for file, name in meant.items() if name is None or name in long_names)


def _how_to_name(source: ScanFiles, times: int, unclear: Sequence[str]) -> str:
    clear = [name for name in _long_names(source) if name not in unclear]
    if not clear:
        return f"{times} scans have this name: rename it, or move it into a folder of its own"
    name = Source(clear[0]).label  # what cannot be printed is replaced
    place = f"the folder {name.rpartition('/')[0]} of the labels folder"
    return f"{times} scans have this name: call it {name} in {FILE}, and put its annotations into {place}"


def _long_names(source: ScanFiles) -> tuple[str, ...]:
    """The names of a scan with the folders in front; none for a file that lies in no folder of its own."""
    return tuple(f"{folder}/{name}" for folder, name in zip(source.folders, source.names, strict=True) if folder)


def _long_name(labels: Path, file: Path, names: Sequence[str]) -> str | None:
    """The long name that an annotation has by its folder, if it belongs to one of the names."""
    stem = annotation_stem(file, names)
    folder = unicodedata.normalize("NFC", file.relative_to(labels).parent.as_posix())
    return next((f"{folder}/{name}" for name in names if stem in stems_of([name])), None)


def _possible_names(path: str) -> set[str]:
    """What a rejected file would have been called as a scan."""
    path = unicodedata.normalize("NFC", path.replace("!", "/"))
    folder, separator, name = path.rpartition("/")
    return {name, Path(name).stem, path, f"{folder}{separator}{Path(name).stem}"}


def _declaration(names: Sequence[str], declared: Mapping[str, Declaration]) -> Declaration | None:
    """The row of a scan. Of a scan in two files either may be named."""
    rows = {name: declared[name] for name in names if name in declared}
    if len(set(rows.values())) > 1:
        first, second, *_ = rows
        raise DatasetError(f"{FILE}: {quoted(first)} and {quoted(second)} are one scan, but their rows differ")
    return next(iter(rows.values()), None)


def _find_table(labels: Path) -> Path | None:
    """`patients.csv` of the labels folder, in capitals or not."""
    names = sorted(name for name in os.listdir(labels) if name.lower() == FILE)
    if len(names) > 1:
        raise DatasetError(f"{labels}: holds {quoted(names[0])} and {quoted(names[1])}: keep one of them")
    return labels / names[0] if names else None


def _unread_tables(scans: Path, labels: Path, table: Path | None) -> list[Rejection]:
    """Tables that somebody may have meant to be read."""
    advice = f"is not read: move it to {FILE} in the labels folder, or name it with --patients"
    found = {}
    for path in map(Path, walk_files(labels)):
        if path.suffix.lower() == ".csv" and not path.name.startswith(".") and path != table:
            found[path] = Rejection(str(path.relative_to(labels)), "unread-table", f"table {advice}")
    if scans.is_dir() and not os.path.samefile(scans, labels):
        for name in sorted(os.listdir(scans)):
            if name.lower() == FILE and scans / name not in found:
                found[scans / name] = Rejection(name, "unread-table", f"table in the scans folder {advice}")
    return list(found.values())
