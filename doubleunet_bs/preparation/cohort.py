"""A folder of scans and a folder of annotations -> a shard folder (paper, sections 2.1 to 2.4).

Scans are prepared in the order of their paths, by one process or by several: the bytes of the result are the same. The
shard folder appears whole or not at all; what is interrupted starts again.
"""

import collections
import concurrent.futures
import contextlib
import copy
import dataclasses
import functools
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.dicom_files.other_files import PassedOver
from doubleunet_bs.errors import BoneScanError, ScanError, SettingsError, os_reason, printable
from doubleunet_bs.files import new_folder, write_json
from doubleunet_bs.preparation.annotations import (
    Annotation,
    decide_group,
    prepare_regions,
    read_annotation,
    read_regions,
    warn_of_mix_ups,
    warn_of_other_view,
)
from doubleunet_bs.preparation.brightness import to_grey
from doubleunet_bs.preparation.case import prepare_scan
from doubleunet_bs.preparation.find_inputs import CohortJob, Inputs, Task, find_inputs
from doubleunet_bs.preparation.patients import PatientSource, notes_on_patients, settle_patients
from doubleunet_bs.preparation.public_data import find_public
from doubleunet_bs.preparation.public_labels import boxes_remark
from doubleunet_bs.preparation.records import UNKNOWN_GROUP, CaseRecord, DataSource, make_record
from doubleunet_bs.preparation.shards import ShardWriter
from doubleunet_bs.preparation.summaries import write_pictures
from doubleunet_bs.scans.pseudonyms import Pseudonyms, save_file_table
from doubleunet_bs.scans.scan_files import Rejection, ScanFiles

AHEAD = 4
"""Scans given to each worker before their turn: enough to keep all busy, few enough to keep memory flat."""

NO_PATIENT = "no Patient ID in patients.csv or the DICOM header: treated as a separate patient"


@dataclasses.dataclass(frozen=True)
class CohortResult:
    """What `prepare_cohort` did.

    Attributes:
        records: of all cases that went in; empty when no shard folder was made.
        rejected: every file that did not go in, and why, in the order of their paths.
        passed_over: files that are no bone scans.
        notes: on the folder and the table of patients, one line each.
        files: case -> its file, or the first of two, relative to the folder.
        left_out: files of a public data set that are known to be damaged or double. They do not block the run.
        sources: the public data sets it was made from.
    """

    records: tuple[CaseRecord, ...]
    rejected: tuple[Rejection, ...]
    passed_over: tuple[PassedOver, ...] = ()
    notes: tuple[str, ...] = ()
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    left_out: tuple[Rejection, ...] = ()
    sources: tuple[DataSource, ...] = ()

    @property
    def written(self) -> bool:
        """Whether the shard folder was made."""
        return bool(self.records)

    @property
    def rejected_scans(self) -> int:
        """How many of the rejected files are scans, and no annotations or tables."""
        return sum(file.reason not in ("no-such-scan", "unread-table") for file in self.rejected)


def prepare_cohort(job: CohortJob) -> CohortResult:
    """Prepare all scans of a folder. A progress bar is shown where standard error is a terminal.

    All problems of single files are found in one go and written to `<out>.rejected.json`. With problems and without
    `skip_invalid`, no shard folder is made.

    Raises:
        BoneScanError: nothing could be begun: no such folder, no scan in it, output exists, wrong key file, damaged
            patients.csv. Or a worker process was killed.
    """
    if job.workers < 1:
        raise SettingsError(f"--workers {job.workers}: must be at least 1")
    scans, labels, out = (Path(path).absolute() for path in (job.scans, job.labels, job.out))
    regions = None if job.regions is None else Path(job.regions).absolute()
    job = dataclasses.replace(job, scans=scans, labels=labels, out=out, regions=regions)
    _check_places(job)
    try:
        with new_folder(job.out) as folder:
            if job.public is None:
                inputs = find_inputs(job)
            else:
                inputs = find_public(job.public, job.scans, job.labels, job.boxes)
            result = _prepare(job, inputs, Pseudonyms.open(job.key_file, create=job.key is not None), folder)
            if not result.written:
                shutil.rmtree(folder)
        if result.rejected:
            problems = [
                {name: printable(text) for name, text in dataclasses.asdict(one).items()} for one in result.rejected
            ]
            # For its owner only: file names of a hospital's export often are the patients' names.
            write_json(job.beside("rejected.json"), problems, mode=0o600)
        else:
            job.beside("rejected.json").unlink(missing_ok=True)
    except OSError as cause:
        raise BoneScanError(f"{cause.filename or job.out}: {os_reason(cause)}") from None
    return result


def _check_places(job: CohortJob) -> None:
    """Nothing is written among what is read, and the way back to the patients not among what is handed on."""
    scans, labels, out, key = (Path(os.path.realpath(path)) for path in (job.scans, job.labels, job.out, job.key_file))
    read = [scans, labels, *([Path(os.path.realpath(job.regions))] if job.regions else [])]
    for place, folder in (*((place, folder) for place in (out, key) for folder in read), (key, out)):
        if place == folder or folder in place.parents:
            raise SettingsError(f"{place}: lies inside {folder}: choose a place outside of it")


def _prepare(job: CohortJob, inputs: Inputs, pseudonyms: Pseudonyms, folder: Path) -> CohortResult:
    """Fill the folder with shards. It is to be removed when the result has no records."""
    writer = ShardWriter(folder, job.settings, pseudonyms.key_mark)
    rejected = list(inputs.rejected)
    sources: list[PatientSource] = []
    annotations: list[tuple[ScanFiles, Annotation]] = []
    seen: dict[str, str] = {}
    files: dict[str, tuple[str, ...]] = {}
    bar = tqdm(inputs.tasks, desc="prepare", unit="scan", disable=None)
    with contextlib.closing(_outcomes(job, inputs.tasks, pseudonyms)) as outcomes:
        for task, outcome in zip(bar, outcomes, strict=True):
            if isinstance(outcome, Prepared):
                outcome = _find_twin(outcome.record, task.path, seen) or outcome
            if isinstance(outcome, Rejection):
                rejected.append(outcome)
            elif job.skip_invalid or not rejected:
                pseudonyms.merge(outcome.pseudonyms)
                pseudonyms.files[outcome.record.case] = files[outcome.record.case] = task.source.full_paths
                sources.append(outcome.source)
                annotations.append((task.source, outcome.annotation))
                writer.add(outcome.record, outcome.counts, outcome.labels, outcome.regions)
                if job.pictures:
                    grey = to_grey(outcome.counts, outcome.record.gains)
                    write_pictures(folder / "png", outcome.record, grey, outcome.labels)
    rejected.sort(key=dataclasses.astuple)
    if not sources or (rejected and not job.skip_invalid):
        return CohortResult((), tuple(rejected), inputs.passed_over, inputs.notes, left_out=inputs.left_out)
    writer.cases = warn_of_mix_ups(settle_patients(writer.cases, sources, pseudonyms), annotations)
    counted_boxes = boxes_remark([annotation.box_paths for _, annotation in annotations])
    writer.sources = tuple(
        dataclasses.replace(one, whole=one.whole and not rejected, remarks=(*one.remarks, *counted_boxes))
        for one in inputs.sources
    )
    writer.finish()
    _save_tables(job, pseudonyms, files)
    shown = {case: os.path.relpath(paths[0], job.scans) for case, paths in files.items()}
    notes = (*inputs.notes, *notes_on_patients(writer.cases, sources, pseudonyms.patients, shown))
    return CohortResult(
        tuple(writer.cases), tuple(rejected), inputs.passed_over, notes, shown, inputs.left_out, writer.sources
    )


def _save_tables(job: CohortJob, pseudonyms: Pseudonyms, files: Mapping[str, Sequence[str]]) -> None:
    """Both lookup tables, before the shard folder gets its name; none on a full disk, where there will be no shards."""
    table = job.beside("files.csv")
    new = [table] if job.key_file.exists() else [table, job.key_file]
    try:
        pseudonyms.save(job.key_file)
        table.unlink(missing_ok=True)
        save_file_table(table, files)
    except BoneScanError:
        for path in new:
            path.unlink(missing_ok=True)
        raise


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A scan that can go into a shard.

    Attributes:
        record, counts, labels, regions: as `ShardWriter.add` takes them.
        source: where its patient is known from.
        annotation: without the masks.
        pseudonyms: of this scan alone.
    """

    record: CaseRecord
    counts: np.ndarray
    labels: np.ndarray
    source: PatientSource
    annotation: Annotation
    pseudonyms: Pseudonyms
    regions: np.ndarray | None = None


def prepare_task(task: Task, job: CohortJob, pseudonyms: Pseudonyms) -> Prepared | Rejection:
    """Read, check and prepare one scan. The table of the pseudonyms is left alone."""
    pseudonyms = _without_table(pseudonyms)
    try:
        scan = task.source.read(allow_missing_view=job.allow_missing_view, pseudonyms=pseudonyms)
        if task.public is not None:
            annotation, group, regions = task.public.read(scan)
        else:
            annotation = read_annotation(task.source.names, task.labels, job.settings.classes, scan.missing_views)
            regions = read_regions(task.source.names, task.regions, scan.missing_views)
            undecided = not task.labels and (task.declared is None or task.declared.metastases is None)
            group = UNKNOWN_GROUP if regions is not None and undecided else decide_group(annotation, task.declared)
        prepared = prepare_scan(scan, annotation.lesions, job.settings)
    except ScanError as error:
        rejection = task.source.rejection(error)
        return dataclasses.replace(rejection, message=rejection.message.replace(f"{job.labels}/", ""))
    views = {view: getattr(scan, view) for view in VIEWS if view not in scan.missing_views}
    warnings = [*task.warnings, *annotation.warnings, *warn_of_other_view(annotation.shown, views)]
    if task.declared and task.declared.patient:
        patient = pseudonyms.patient(task.declared.patient)
    elif scan.patient is not None:
        patient = scan.patient
    else:
        patient = pseudonyms.patient(f"scan {scan.case}")
        warnings.append(NO_PATIENT)
    if group == "positive" and not prepared.metastatic_pixels:
        warnings.append("no metastatic pixel is left in the prepared image")
    cancer = task.declared.cancer if task.declared else None
    record = make_record(prepared, patient, group, cancer, scan.pixel_sha256, tuple(warnings))
    return Prepared(
        record=dataclasses.replace(record, part=task.part),
        counts=prepared.counts,
        labels=prepared.labels,
        regions=None if regions is None else prepare_regions(prepared, regions),
        annotation=dataclasses.replace(annotation, lesions={}, shown={}),
        source=PatientSource(scan.patient, declared=bool(task.declared and task.declared.patient)),
        pseudonyms=pseudonyms,
    )


def _without_table(pseudonyms: Pseudonyms) -> Pseudonyms:
    empty = copy.copy(pseudonyms)
    empty.cases, empty.patients, empty.files, empty.persons = {}, {}, {}, {}
    return empty


def _find_twin(record: CaseRecord, path: str, seen: dict[str, str]) -> Rejection | None:
    """Why a scan is refused that is in the folder twice; None for the first of its kind, which is put into `seen`."""
    if twin := seen.get(record.pixel_sha256):
        return Rejection(path, "duplicate", f"has the same counts as {twin}: keep one of the two")
    if twin := seen.get(record.case):
        message = f"has the same identity in its header as {twin} but other counts: correct one of the headers"
        return Rejection(path, "duplicate-identity", message)
    seen[record.pixel_sha256] = seen[record.case] = path
    return None


def _outcomes(job: CohortJob, tasks: Sequence[Task], pseudonyms: Pseudonyms) -> Generator[Prepared | Rejection]:
    """`prepare_task` of every task, in their order, whatever the number of workers."""
    work = functools.partial(prepare_task, job=job, pseudonyms=_without_table(pseudonyms))
    if job.workers == 1:
        yield from map(work, tasks)
        return
    # forkserver: forking a process that has threads (TensorFlow, OpenCV) can hang.
    context = multiprocessing.get_context("forkserver")
    pool = concurrent.futures.ProcessPoolExecutor(job.workers, context, _start_worker)
    waiting: collections.deque[concurrent.futures.Future] = collections.deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(work, task))
            if len(waiting) == AHEAD * job.workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except concurrent.futures.process.BrokenProcessPool:
        raise BoneScanError(
            "a worker process was killed, most likely out of memory: retry with fewer --workers"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    # Ctrl-C reaches the whole process group; the parent decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # One scan at a time in each process: threads inside OpenCV would only compete for the cores.
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent is killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
