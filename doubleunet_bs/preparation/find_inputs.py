"""What is there to prepare: scans, their annotations, what is declared of them, and what belongs to nothing."""

import dataclasses
import hashlib
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from doubleunet_bs import __version__
from doubleunet_bs.errors import DatasetError, SettingsError
from doubleunet_bs.preparation.annotations import annotation_stem, index_labels, stems_of
from doubleunet_bs.preparation.patients import FILE, Declaration, read_patients
from doubleunet_bs.preparation.shards import VERSION
from doubleunet_bs.preparation.task import Problem, Task
from doubleunet_bs.scans import find_scans
from doubleunet_bs.scans.folder import ScanFiles, walk_folders
from doubleunet_bs.scans.labels import shown
from doubleunet_bs.scans.sources import Source

if TYPE_CHECKING:
    from doubleunet_bs.preparation.cohort import CohortJob


JOURNAL_VERSION = 2
"""Of what the journal of an interrupted run says of a shard."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Attributes: tasks: scans in the order of the output. problems: what is wrong before any pixel is read."""

    tasks: tuple[Task, ...]
    problems: tuple[Problem, ...]

    def fingerprint(self, job: "CohortJob", key: str) -> dict[str, str]:
        """Hashes of everything the shards depend on: an interrupted run is continued only when all are the same.

        Only the files of `tasks` count, by name, size and time of change: what else comes and goes in the folders (the
        operating system's files, those of an editor) changes no shard, and problems are looked for in each run.

        Args:
            job: what is prepared, and how.
            key: the mark of the key.

        Returns:
            What can change, in words -> its hash.
        """
        parts = {
            "the version of this program": (__version__, VERSION, JOURNAL_VERSION),
            "the settings": (job.settings.to_json(), job.allow_missing_view, job.pictures),
            "the key": key,
            "the folders": (str(job.scans), str(job.labels)),
            "the scans": [
                [_stamp(source.path, source.member) for source in task.source.sources] for task in self.tasks
            ],
            "the annotations": [[_stamp(path) for path in task.labels] for task in self.tasks],
            "the table of patients": [task.declared and dataclasses.astuple(task.declared) for task in self.tasks],
        }
        texts = {name: json.dumps(part, sort_keys=True) for name, part in parts.items()}
        return {name: hashlib.sha256(text.encode("ascii")).hexdigest() for name, text in texts.items()}


def _stamp(path: str | os.PathLike, *more: str | None) -> list:
    try:
        status = os.stat(path)
    except OSError:
        # The scan will be refused for it, with a reason.
        return [str(path), *more]
    return [str(path), *more, status.st_size, status.st_mtime_ns]


def find_inputs(job: "CohortJob") -> Inputs:
    """Look the folders through. Headers are read, pixels are not.

    Raises:
        SettingsError: no such folder.
        DatasetError: patients.csv is missing or not readable.
    """
    if not job.labels.is_dir():
        raise SettingsError(f"{job.labels}: no such folder")
    table = job.patients or _find_table(job.labels)
    declared = read_patients(table) if table else {}
    found = find_scans(job.scans, allow_missing_view=job.allow_missing_view)
    rejected = [Problem(rejection.path, rejection.reason, rejection.message) for rejection in found.rejected]
    # A scan counts once, though both of its files may have one name.
    times = Counter(name for source in found.scans for name in set(source.names))
    known = set(times) | {stem for problem in rejected for stem in _possible_names(problem.path)}
    labels = index_labels(job.labels, known, [path for path in (job.classes_file,) if path])
    long_times = Counter(name for source in found.scans for name in set(_long_names(source)))

    tasks, problems = [], [*rejected, *_unread_tables(job, table)]
    for source in found.scans:
        path = " + ".join(source.paths)
        names = source.names
        long_names = _long_names(source)
        # Not what lies in the folder of a refused file of this name: that would be the annotation of another scan.
        files = tuple(
            file
            for stem in stems_of(names)
            for file in labels.get(stem, ())
            if (name := _long_name(job, file, names)) in long_names or name not in known
        )
        shared = [name for name in names if times[name] > 1]
        if shared:
            # Of scans with one name each has what lies in its folder, or is declared with it.
            unclear = [name for name in long_names if long_times[name] > 1]
            doubtful = [(file, _long_name(job, file, shared)) for file in files]
            if any(name in declared for name in (*shared, *unclear)) or any(
                long_times[name] != 1 for _, name in doubtful if name is not None
            ):
                problems.append(Problem(path, "ambiguous-name", _which_name(source, times[shared[0]], unclear)))
                continue
            files = tuple(file for file, name in doubtful if name is None or name in long_names)
        tasks.append(Task(source, path, files, _declaration((*names, *long_names), declared)))

    wanted = {stem for name in known for stem in stems_of([name])}
    problems += [
        Problem(
            str(path.relative_to(job.labels)),
            "no-such-scan",
            "an annotation that belongs to no scan: is the name right?",
        )
        for stem, paths in labels.items()
        if stem not in wanted
        for path in paths
    ]
    problems += [
        Problem(FILE, "no-such-scan", f"the scan {shown(name)} is not there: is the name right?")
        for name in declared
        if name not in known and name not in long_times
    ]
    return Inputs(tuple(tasks), tuple(problems))


def _find_table(labels: Path) -> Path | None:
    """`patients.csv` of the labels folder, in capitals or not."""
    names = sorted(name for name in os.listdir(labels) if name.lower() == FILE)
    if len(names) > 1:
        raise DatasetError(f"{labels}: holds {shown(names[0])} and {shown(names[1])}; keep one of the two")
    return labels / names[0] if names else None


def _unread_tables(job: "CohortJob", table: Path | None) -> list[Problem]:
    """Tables that somebody may have meant to be read. When one was named there is no doubt about the others."""
    if job.patients:
        return []
    found = []
    for place, names in walk_folders(job.labels):
        found += [
            (path, str(path.relative_to(job.labels)), f"a table that is not read: only {FILE} in the labels folder is")
            for path in (Path(place, name) for name in names)
            if path.suffix.lower() == ".csv" and not path.name.startswith(".") and path != table
        ]
    if job.scans.is_dir() and not os.path.samefile(job.scans, job.labels):
        known = {path for path, _, _ in found}
        found += [
            (job.scans / name, name, f"lies in the scans folder: {FILE} is read in the labels folder only")
            for name in sorted(os.listdir(job.scans))
            if name.lower() == FILE and job.scans / name not in known
        ]
    advice = "name it with --patients, or move it"
    return [Problem(shown_path, "unread-table", f"{message}; {advice}") for _, shown_path, message in found]


def _long_names(source: ScanFiles) -> tuple[str, ...]:
    """The names of a scan with the folders in front; none for a file that lies in no folder of its own."""
    return tuple(f"{folder}/{name}" for folder, name in zip(source.folders, source.names, strict=True) if folder)


def _long_name(job: "CohortJob", file: Path, names: Sequence[str]) -> str | None:
    """The long name of the scan that an annotation is for by its folder; None when it is for a scan of another name."""
    stem = annotation_stem(file, names)
    folder = unicodedata.normalize("NFC", file.relative_to(job.labels).parent.as_posix())
    return next((f"{folder}/{name}" for name in names if stem in stems_of([name])), None)


def _which_name(source: ScanFiles, times: int, unclear: list[str]) -> str:
    clear = [name for name in _long_names(source) if name not in unclear]
    if not clear:
        return f"{times} scans have this name: rename it, or move it into a folder of its own"
    # In full, for it is to be copied; what cannot be printed is replaced.
    name = Source(clear[0]).label
    return (
        f"{times} scans have this name: call it {name} in patients.csv, and put its annotations into the folder "
        f"{name.rpartition('/')[0]} of the labels folder"
    )


def _declaration(names: tuple[str, ...], declared: dict[str, Declaration]) -> Declaration | None:
    """Of a scan in two files either may be named; both must say the same."""
    rows = {name: declared[name] for name in names if name in declared}
    if len(set(rows.values())) > 1:
        first, second, *_ = rows
        raise DatasetError(f"{FILE}: {shown(first)} and {shown(second)} are one scan, but their lines differ")
    return next(iter(rows.values()), None)


def _possible_names(path: str) -> set[str]:
    """What a rejected file would have been called as a scan; of an archive member, the name inside the archive."""
    path = unicodedata.normalize("NFC", path.replace("!", "/"))
    folder, separator, name = path.rpartition("/")
    return {name, Path(name).stem, path, f"{folder}{separator}{Path(name).stem}"}
