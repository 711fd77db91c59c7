"""A folder of scans and a folder of annotations -> a shard folder (paper, sections 2.1 to 2.4).

Scans are prepared in the order in which `find_scans` lists them, by one process or by several; order and bytes of the
result do not depend on how many. The memory needed does not grow with the number of scans but for their records, some
kilobytes each.
"""

import contextlib
import copy
import dataclasses
import os
import sys
from pathlib import Path

import cv2
from tqdm import tqdm

from doubleunet_bs.errors import BoneScanError, DatasetError, SettingsError
from doubleunet_bs.preparation.brightness import to_grey
from doubleunet_bs.preparation.header_patients import same_patients, warn_of_issuers
from doubleunet_bs.preparation.find_inputs import Inputs, find_inputs
from doubleunet_bs.preparation.outcome import Outcome, Task, prepare_task
from doubleunet_bs.preparation.pictures import write_pictures
from doubleunet_bs.preparation.problems import Problem, write_problems
from doubleunet_bs.preparation.records import CaseRecord, parse_record
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.preparation.shard_writer import ShardWriter
from doubleunet_bs.preparation.unfinished import Unfinished, check_free, open_unfinished
from doubleunet_bs.preparation.workers import in_order
from doubleunet_bs.scans.pseudonyms import Pseudonyms


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
