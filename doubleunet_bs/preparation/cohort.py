"""A folder of scans and a folder of annotations -> a shard folder (paper, sections 2.1 to 2.4).

Scans are prepared in the order in which `find_scans` lists them, by one process or by several; order and bytes of the
result do not depend on how many. The memory needed does not grow with the number of scans but for their records, some
kilobytes each.
"""

import collections
import concurrent.futures
import contextlib
import copy
import dataclasses
import fcntl
import itertools
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from doubleunet_bs.errors import BoneScanError, DatasetError, SettingsError
from doubleunet_bs.files import umask
from doubleunet_bs.preparation.brightness import to_grey
from doubleunet_bs.preparation.find_inputs import Inputs, find_inputs
from doubleunet_bs.preparation.inspection import write_pictures
from doubleunet_bs.preparation.patients import same_patients, warn_of_issuers
from doubleunet_bs.preparation.records import CaseRecord, parse_record
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.preparation.shards import KINDS, ShardWriter, file_sha256, shard_name
from doubleunet_bs.preparation.task import Outcome, Problem, Task, prepare_task, write_problems
from doubleunet_bs.scans.pseudonyms import Pseudonyms

AHEAD = 4
"""Items given out per worker before their turn: enough to keep all busy, few enough to keep memory flat."""

_state: Any = None


def in_order(
    function: Callable[[Any, Any], Any],
    items: Iterable[Any],
    make_state: Callable[..., Any],
    arguments: tuple,
    workers: int = 1,
) -> Iterator[Any]:
    """Yield `function(state, item)` for each item, in the order of the items whatever the number of workers.

    Args:
        function, make_state: defined at the top of a module, so that another process can import them.
        make_state: called as `make_state(*arguments)` once in each process.
        workers: 1 works in this process and starts none.

    Raises:
        BoneScanError: a worker was killed, most often for want of memory.
    """
    if workers == 1:
        state = make_state(*arguments)
        yield from (function(state, item) for item in items)
        return
    # forkserver: forking a process that has threads (TensorFlow, OpenCV) can hang.
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    pool = concurrent.futures.ProcessPoolExecutor(workers, context, _start, (make_state, arguments))
    try:
        items = iter(items)
        waiting = collections.deque(
            pool.submit(_call, function, item) for item in itertools.islice(items, AHEAD * workers)
        )
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(_call, function, item) for item in itertools.islice(items, 1))
            yield result
    except concurrent.futures.process.BrokenProcessPool:
        raise BoneScanError(
            "a worker process was ended from outside, most often for want of memory: start again, with fewer --workers"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(make_state: Callable[..., Any], arguments: tuple) -> None:
    global _state
    # Ctrl-C reaches the whole process group; the parent decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    _state = make_state(*arguments)


def _follow_parent() -> None:
    """End with the parent, also when it is killed: workers would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _call(function: Callable[[Any, Any], Any], item: Any) -> Any:
    return function(_state, item)


JOURNAL = "journal.jsonl"


class Unfinished:
    """The folder of one preparation. Made by `open_unfinished`.

    Attributes:
        shards: folder for the shard files. entries: what `note` was given so far, by earlier runs as well.
        lost: why finished work of an earlier run is done again, or "".
    """

    def __init__(self, folder: Path, entries: list[dict[str, Any]], lost: str = ""):
        self.folder = folder
        self.shards = folder / "shards"
        self.entries = entries
        self.lost = lost

    def note(self, entry: dict[str, Any]) -> None:
        """Append a line to the journal. It is on the disk when this returns."""
        with open(self.folder / JOURNAL, "a", encoding="utf-8") as journal:
            journal.write(json.dumps(entry, allow_nan=False) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
        self.entries.append(entry)

    def finish(self, out: Path) -> None:
        """Let the shards appear as `out` and remove the rest."""
        os.chmod(self.shards, 0o777 & ~umask())
        os.rename(self.shards, out)
        self.discard()

    def discard(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def check_free(out: Path) -> None:
    """Raise `BoneScanError` when `out` exists and is not an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BoneScanError(f"{out}: exists already; choose another folder or remove it first")


@contextlib.contextmanager
def open_unfinished(out: Path, fingerprint: Mapping[str, str]) -> Iterator[Unfinished]:
    """Make the hidden folder of `out`, or go on in the one that an interrupted run with the same fingerprint left.

    The folder stays when the block is left by an exception; `finish` or `discard` remove it. Each entry after the first
    is expected to have "shard", the shard's entry in `dataset.json`.

    Args:
        out: the folder to make. fingerprint: what the result depends on, in words -> its hash.

    Raises:
        BoneScanError: `out` exists, or another process is preparing it.
    """
    check_free(out)
    folder = out.parent / f".{out.name}.unfinished"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BoneScanError(f"{out}: another process is preparing it at this moment") from None
        lines = _read_journal(folder / JOURNAL)
        unfinished = Unfinished(folder, [entry for _, entry in lines[1:]])
        changed = _changes(lines[0][1] if lines else None, fingerprint)
        if changed:
            if unfinished.entries or (not lines and any(unfinished.shards.glob("*.npy"))):
                unfinished.lost = f"starts over, since {changed}"
            for old in folder.iterdir():
                if old.name != "lock":
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
            unfinished.entries.clear()
        else:
            for number, entry in enumerate(unfinished.entries):
                damaged = _damaged(unfinished.shards, number, entry["shard"])
                if damaged:
                    unfinished.lost = f"makes shards again from {damaged} on, which is not as it was written"
                    os.truncate(folder / JOURNAL, lines[number][0])
                    del unfinished.entries[number:]
                    break
        unfinished.shards.mkdir(exist_ok=True)
        # Half-written files have hidden names (`files.replace_file`); a killed run could not remove its own.
        for half in unfinished.shards.rglob(".*"):
            half.unlink()
        if changed:
            unfinished.note({"fingerprint": dict(fingerprint)})
            unfinished.entries.clear()
        yield unfinished


def _changes(first: dict[str, Any] | None, fingerprint: Mapping[str, str]) -> str:
    """What is not as it was when the journal with this first line was begun, in words; "" when all is the same."""
    found = first.get("fingerprint") if first else None
    if not isinstance(found, dict):
        return "the journal of an interrupted run is damaged"
    changed = [name for name in fingerprint if found.get(name) != fingerprint[name]]
    return f"this has changed since it was interrupted: {', '.join(changed)}" if changed else ""


def _damaged(folder: Path, number: int, shard: dict[str, Any]) -> str:
    """Name of a file of a shard that is not as it was written, or ""."""
    for kind in KINDS:
        path = folder / shard_name(kind, number)
        if not path.is_file() or file_sha256(path) != shard[f"{kind}_sha256"]:
            return path.name
    return ""


def _read_journal(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The complete lines, each with the byte at which it ends. What follows an incomplete one, the mark of an
    interruption, is cut off the file."""
    if not path.exists():
        return []
    lines, good = [], 0
    data = path.read_bytes()
    for line in data.splitlines(keepends=True):
        try:
            entry = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n") or not isinstance(entry, dict):
            break
        good += len(line)
        lines.append((good, entry))
    if good < len(data):
        os.truncate(path, good)
    return lines


# With thousands separators, as warnings about counts have them.
NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?")


def summarise(records: Sequence[CaseRecord]) -> dict[str, Any]:
    """Figures of a set of cases.

    Returns:
        "cases", "patients", "groups" and "cancers" (name -> cases; None as "unknown"), "gain", "brightness" and
        "uptake_fraction" (minimum, median and maximum; None without cases), "warnings" (text -> cases; texts that differ
        in their numbers alone are one, with the range of each number).
    """
    alike: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
    cases: Counter[str] = Counter()
    for record in records:
        for line in record.warnings:
            alike[NUMBER.sub("\0", line)].append(tuple(NUMBER.findall(line)))
        cases.update({NUMBER.sub("\0", line) for line in record.warnings})
    warnings = Counter({_with_ranges(form, numbers): cases[form] for form, numbers in alike.items()})
    gains = [gain for record in records for gain in record.gains]
    return {
        "cases": len(records),
        "patients": len({record.patient for record in records}),
        "groups": dict(sorted(Counter(record.group for record in records).items())),
        "cancers": dict(sorted(Counter(record.cancer or "unknown" for record in records).items())),
        "gain": _spread(gains),
        "brightness": _spread([record.brightness for record in records]),
        "uptake_fraction": _spread([record.uptake_fraction for record in records]),
        "warnings": dict(warnings.most_common()),
    }


def summary_text(records: Sequence[CaseRecord], rejected: int, settings: PreparationSettings) -> str:
    """The same for a person, one figure a line."""
    figures = summarise(records)
    groups = ", ".join(f"{number} {name}" for name, number in figures["groups"].items())
    cancers = ", ".join(f"{number} {name}" for name, number in figures["cancers"].items())
    rows, columns = settings.image_shape
    lines = [
        f"cases            {figures['cases']} of {figures['patients']} patients ({groups}; {cancers})",
        f"rejected         {rejected}",
        f"image            {rows} x {columns}"
        + (f", counts of {settings.bin} x {settings.bin} pixels added before the gain" * (settings.bin > 1)),
        f"gain             {_shown(figures['gain'], '{:.2f}')}",
        f"mean brightness  {_shown(figures['brightness'], '{:.2f}')}",
    ]
    if settings.background != "none":
        lines.append(f"uptake kept      {_shown(figures['uptake_fraction'], '{:.1%}')} by {settings.background}")
    lines += [f"warning          {number} x {text}" for text, number in figures["warnings"].items()]
    return "\n".join(lines)


def _with_ranges(form: str, numbers: Sequence[tuple[str, ...]]) -> str:
    """A text whose numbers were taken out, with what stood in each place: one number, or the smallest to the largest."""
    parts = form.split("\0")
    text = parts[0]
    for part, values in zip(parts[1:], zip(*numbers, strict=True), strict=True):
        low, high = min(values, key=_value), max(values, key=_value)
        text += (low if low == high else f"{low} to {high}") + part
    return text


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"minimum": float(min(values)), "median": float(np.median(values)), "maximum": float(max(values))}


def _shown(spread: dict[str, float] | None, form: str) -> str:
    if spread is None:
        return "-"
    return ", ".join(f"{name} {form.format(value)}" for name, value in spread.items())


@dataclasses.dataclass(frozen=True)
class CohortJob:
    """What to prepare, and how.

    Attributes:
        scans, labels: folders. out: the shard folder to make.
        settings: of the preparation.
        classes_file: the class map's file, when it lies in the labels folder and is no annotation.
        patients: table of patients; None takes `patients.csv` in the labels folder when it is there.
        key: file of the key and the lookup table; None takes `<out>.identities.json`.
        workers: processes. skip_invalid: leave out what has a problem instead of writing nothing.
        allow_missing_view: take scans of one view. pictures: write PNGs into `out/png`.
        progress: show a progress bar on standard error.
    """

    scans: Path
    labels: Path
    out: Path
    settings: PreparationSettings = dataclasses.field(default_factory=PreparationSettings)
    classes_file: Path | None = None
    patients: Path | None = None
    key: Path | None = None
    workers: int = 1
    skip_invalid: bool = False
    allow_missing_view: bool = False
    pictures: bool = False
    progress: bool = True

    @property
    def rejected_file(self) -> Path:
        """Where all problems are written: `<out>.rejected.json`."""
        return self.out.parent / f"{self.out.name}.rejected.json"

    @property
    def key_file(self) -> Path:
        """Where the key and the lookup table are kept."""
        return self.key or self.out.parent / f"{self.out.name}.identities.json"


@dataclasses.dataclass(frozen=True)
class CohortResult:
    """What `prepare_cohort` did.

    Attributes:
        records: of all cases that went in; empty when nothing was written. problems: everything that did not.
        written: whether the shard folder was made. resumed: cases taken over from an interrupted run.
    """

    records: tuple[CaseRecord, ...]
    problems: tuple[Problem, ...]
    written: bool
    resumed: int


def prepare_cohort(job: CohortJob) -> CohortResult:
    """Prepare all scans of a folder.

    Problems of single files do not stop it: all are found in one go and written to `job.rejected_file` (an old one is
        removed when there
    are none). With problems and without `skip_invalid`, no shard folder is made.

    Raises:
        BoneScanError: nothing could be begun (no such folder, no scan in it, output exists, wrong key file, damaged
            patients.csv).
    """
    if job.workers < 1:
        raise SettingsError(f"{job.workers} workers: at least 1 is needed")
    job = dataclasses.replace(job, **{name: Path(getattr(job, name)).absolute() for name in ("scans", "labels", "out")})
    _check_places(job)
    check_free(job.out)
    try:
        inputs = find_inputs(job)
        if not inputs.tasks and not inputs.problems:
            raise DatasetError(f"{job.scans}: no scan is in it")
        pseudonyms, new_key = Pseudonyms.open(job.key_file)
        with open_unfinished(job.out, inputs.fingerprint(job, pseudonyms.key_mark)) as unfinished:
            result = _prepare(job, inputs, pseudonyms, unfinished)
        if new_key and not result.written:
            # Nothing was prepared, so nothing needs the way back, unless another run shares the key by now. (An
            # interrupted run keeps the key to go on with.)
            pseudonyms.remove_unused(job.key_file)
        return result
    except OSError as cause:
        raise BoneScanError(
            f"{cause.filename or job.out}: {cause.strerror}; finished shards are kept, start again to go on"
        ) from None


def _check_places(job: CohortJob) -> None:
    """Nothing is written among what is read, and the way back to the patients not among what is handed on."""
    scans, labels, out, key = (Path(os.path.realpath(path)) for path in (job.scans, job.labels, job.out, job.key_file))
    for place, folder in ((out, scans), (out, labels), (key, scans), (key, labels), (key, out)):
        if place == folder or folder in place.parents:
            raise SettingsError(f"{place}: lies inside {folder}; choose a place outside of it")


def _prepare(job: CohortJob, inputs: Inputs, pseudonyms: Pseudonyms, unfinished: Unfinished) -> CohortResult:
    if unfinished.lost:
        # At once: work of hours may be done again.
        print(f"{job.out}: {unfinished.lost}", file=sys.stderr, flush=True)
    state = _Progress(job, inputs, unfinished, pseudonyms.key_mark)
    arguments = (job.settings, job.allow_missing_view, _emptied(pseudonyms), str(job.labels))
    bar = tqdm(desc="prepare", unit="scan", total=len(inputs.tasks), initial=state.next, disable=not job.progress)
    outcomes = in_order(_prepare_task, inputs.tasks[state.next :], _make_state, arguments, job.workers)
    with contextlib.closing(outcomes), bar:
        for outcome in outcomes:
            pseudonyms.merge(outcome.identities)
            if state.take(outcome):
                # The lookup table first: a case without its entry could never be traced back to its patient.
                pseudonyms.save(job.key_file)
                state.checkpoint()
            bar.update()
    problems = (*inputs.problems, *state.problems)
    problems = tuple(sorted(problems, key=lambda problem: (problem.path, problem.reason, problem.message)))
    if problems:
        write_problems(job.rejected_file, problems)
    else:
        job.rejected_file.unlink(missing_ok=True)
    if problems and not job.skip_invalid or not state.count:
        unfinished.discard()
        return CohortResult((), problems, False, state.resumed)
    pseudonyms.save(job.key_file)
    state.finish(pseudonyms)
    unfinished.finish(job.out)
    return CohortResult(tuple(state.writer.cases), problems, True, state.resumed)


class _Progress:
    """What has been done, as it is in the journal and in memory."""

    def __init__(self, job: CohortJob, inputs: Inputs, unfinished: Unfinished, key_mark: str):
        self.job = job
        self.unfinished = unfinished
        done = unfinished.entries
        cases = [parse_record(case) for entry in done for case in entry["cases"]]
        shards = [entry["shard"] for entry in done]
        self.writer = ShardWriter(unfinished.shards, job.settings, shards, cases, key_mark)
        self.problems = [Problem(**problem) for entry in done for problem in entry["problems"]]
        self.header_patients = [patient for entry in done for patient in entry["header_patients"]]
        self.declared = [declared for entry in done for declared in entry["declared"]]
        self.paths = [path for entry in done for path in entry["paths"]]
        self.next = done[-1]["next"] if done else 0
        self.inputs = inputs
        self.resumed = len(cases)
        self._noted_problems = len(self.problems)
        self._pixels = {case.pixel_sha256: path for case, path in zip(cases, self.paths, strict=True)}
        self._cases = {case.case: path for case, path in zip(cases, self.paths, strict=True)}

    @property
    def count(self) -> int:
        """Cases that went in."""
        return len(self.paths)

    @property
    def doomed(self) -> bool:
        """Nothing will be written any more; what is left is to find the other problems."""
        return not self.job.skip_invalid and bool(self.problems or self.inputs.problems)

    def take(self, outcome: Outcome) -> bool:
        """Add the outcome of the next task. Returns True when that completed a shard."""
        path = self.inputs.tasks[self.next].path
        self.next += 1
        outcome = self._refuse_duplicate(outcome, path)
        if outcome.problem:
            self.problems.append(outcome.problem)
            return False
        record = outcome.record
        self._pixels[record.pixel_sha256] = self._cases[record.case] = path
        if self.doomed:
            return False
        self.paths.append(path)
        self.header_patients.append(outcome.header_patient)
        self.declared.append(outcome.declared)
        if self.job.pictures:
            grey = to_grey(outcome.counts, record.gains)
            write_pictures(self.unfinished.shards / "png", record.case, grey, outcome.labels)
        return self.writer.add(record, outcome.counts, outcome.labels)

    def checkpoint(self) -> None:
        """Write down that a shard is complete."""
        begin = len(self.writer.cases) - self.writer.shards[-1]["cases"]
        self.unfinished.note(
            {
                "next": self.next,
                "shard": self.writer.shards[-1],
                "cases": [case.to_json() for case in self.writer.cases[begin:]],
                "paths": self.paths[begin:],
                "header_patients": self.header_patients[begin:],
                "declared": self.declared[begin:],
                "problems": [dataclasses.asdict(problem) for problem in self.problems[self._noted_problems :]],
            }
        )
        self._noted_problems = len(self.problems)

    def finish(self, pseudonyms: Pseudonyms) -> None:
        """Complete the shard folder."""
        self.writer.flush()
        known = self.header_patients, self.declared
        self.writer.cases = warn_of_issuers(same_patients(self.writer.cases, *known), *known, pseudonyms.patients)
        self.writer.finish()

    def _refuse_duplicate(self, outcome: Outcome, path: str) -> Outcome:
        if outcome.problem:
            return outcome
        twin = self._pixels.get(outcome.record.pixel_sha256)
        if twin is not None:
            message = f"the same counts as {twin}, pixel for pixel: keep one of the two, or it stands in two folds"
            return Outcome(problem=Problem(path, "duplicate", message))
        twin = self._cases.get(outcome.record.case)
        if twin is not None:
            message = f"the same identity in the header as {twin}, but other counts: one of the two headers is wrong"
            return Outcome(problem=Problem(path, "duplicate-identity", message))
        return outcome


def _emptied(pseudonyms: Pseudonyms) -> Pseudonyms:
    """The same key with an empty table."""
    empty = copy.copy(pseudonyms)
    empty.cases, empty.patients = {}, {}
    return empty


def _make_state(settings: PreparationSettings, allow_missing_view: bool, pseudonyms: Pseudonyms, labels: str) -> tuple:
    # One scan at a time in each process: threads inside OpenCV would only fight over the cores.
    cv2.setNumThreads(1)
    return settings, allow_missing_view, pseudonyms, labels


def _prepare_task(state: tuple, task: Task) -> Outcome:
    settings, allow_missing_view, pseudonyms, labels = state
    # A table of its own for each task, so that it can be handed over and does not grow.
    return prepare_task(task, settings, allow_missing_view, _emptied(pseudonyms), labels)
