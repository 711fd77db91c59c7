"""The scans of a `predict` run, one after the other: read, segment, write.

`stream` runs the three steps at the same time: `ScanReader` reads and prepares the next scans, `PredictionJob.segment`
computes one, `PredictionJob.write` writes the last. `RunLog` records what became of each scan.
"""

import contextlib
import dataclasses
import datetime
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.errors import BoneScanError, RunError, ScanError, SettingsError
from doubleunet_bs.files import nearest_existing
from doubleunet_bs.inference.predictor import Prediction, Predictor
from doubleunet_bs.preparation.case import PreparedCase, prepare_scan
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.results.input_scans import scan_name
from doubleunet_bs.results.labelme_output import annotation_paths
from doubleunet_bs.results.patient_report import ReportScan
from doubleunet_bs.results.previous_scan import check_another
from doubleunet_bs.results.result_files import JobSettings, case_folder
from doubleunet_bs.results.result_folder import WrittenResult, write_prediction
from doubleunet_bs.results.source_study import SourceStudy, read_source_study
from doubleunet_bs.scans.bone_scan import BoneScan
from doubleunet_bs.scans.scan_files import ScanFiles

Item = TypeVar("Item")
Content = TypeVar("Content")
Answer = TypeVar("Answer")
Written = TypeVar("Written")

AHEAD = 2
"""Items read before their turn, and items that wait to be written: each step finds its next one ready."""


@dataclasses.dataclass(frozen=True)
class ReadScan:
    """One scan, read and prepared.

    Attributes:
        scan, prepared: the scan, and the image for the network.
        study: the patient's identity when it is kept, else None.
        labelme: where its further Labelme files go, by view; None when none are wanted.
        begun: when its reading began, by `time.perf_counter`.
    """

    scan: BoneScan
    prepared: PreparedCase
    study: SourceStudy | None
    labelme: dict[str, Path] | None
    begun: float


class ScanReader:
    """Reads and prepares the scans of a run one after the other, and refuses those whose result could not be written.

    Args:
        settings: of the run.
        preparation: of the model.

    Attributes:
        cases: files of the scans read so far -> pseudonym, also of scans that were refused after reading.
    """

    def __init__(self, settings: JobSettings, preparation: PreparationSettings):
        self.settings, self.preparation = settings, preparation
        self.cases: dict[ScanFiles, str] = {}
        self._names: dict[str, str] = {}
        self._annotations: dict[Path, str] = {}

    def __call__(self, files: ScanFiles) -> ReadScan:
        """Read and prepare a scan.

        Raises:
            ScanError: it cannot be read or prepared, or DICOM results cannot refer to it.
            RunError: its result would overwrite something, or another scan of this run has the same counts.
        """
        begun = time.perf_counter()
        settings, name = self.settings, scan_name(files.sources)
        scan = files.read(settings.allow_missing_view)
        self.cases[files] = scan.case
        if scan.case in self._names:
            raise RunError(f"{name}: has the same counts as {self._names[scan.case]}; one result is enough")
        case_folder(settings.out, scan.case, settings.overwrite)
        study = read_source_study(files.sources) if settings.keep_identity else None
        labelme = None
        if settings.labelme is not None:
            present = [view for view in VIEWS if view not in scan.missing_views]
            labelme = annotation_paths(settings.labelme, files.sources, present)
            for path in labelme.values():
                if path in self._annotations:
                    raise RunError(
                        f"{name}: its annotation would overwrite that of {self._annotations[path]}: rename one scan"
                    )
        prepared = prepare_scan(scan, settings=self.preparation)
        # Last: a scan that gets no result does not keep another from getting it.
        self._names[scan.case] = name
        self._annotations.update(dict.fromkeys((labelme or {}).values(), name))
        return ReadScan(scan, prepared, study, labelme, begun)


@dataclasses.dataclass(frozen=True)
class PredictionJob:
    """The steps after `ScanReader`.

    Attributes:
        settings: of the run.
        predictor: the model.
        previous: an earlier scan for the report, or None.
    """

    settings: JobSettings
    predictor: Predictor
    previous: ReportScan | None = None

    def segment(self, content: ReadScan) -> Prediction:
        """Segment a scan.

        Raises:
            RunError: the scan is the previous one itself.
        """
        if self.previous is not None:
            check_another(content.scan.case, self.previous.result["case"])
        return self.predictor.segment([content.prepared])[0]

    def write(self, content: ReadScan, prediction: Prediction) -> tuple[WrittenResult, float]:
        """Write the result of a scan. Also returns the seconds since its reading began."""
        written = write_prediction(
            self.settings, content.scan, prediction, content.study, content.labelme, self.previous
        )
        return written, time.perf_counter() - content.begun


def stream(
    items: Iterable[Item],
    read: Callable[[Item], Content],
    compute: Callable[[Content], Answer],
    write: Callable[[Content, Answer], Written],
    ahead: int = AHEAD,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Item, Written | BoneScanError]]:
    """Send items through three steps that run at the same time.

    `read` runs in one thread, `compute` in the caller's, `write` in another. Each handles one item after the other in
    the order of `items`, so the results are those of a plain loop. At most `ahead` items are read and not computed, one
    is computed, `ahead` + 1 are computed and not written.

    Args:
        items: taken from the iterator when their turn comes.
        read, compute, write: the steps. A `BoneScanError` stops its item only; any other exception stops the stream.
        ahead: 1 or more.
        stop: whether to end early; asked between items.

    Yields:
        Each item with what `write` returned or the error that stopped it, in the order of `items`, as soon as it is
        known. After `stop`, the items that are written or being written: nothing is on disk that was not reported.

    When the stream ends early (`stop`, an exception, Ctrl-C, `close`), an item that is being written is written to its
    end and no further one is begun.
    """
    source = iter(items)
    reading: deque[tuple[Item, Future[Content]]] = deque()
    writing: deque[tuple[Item, Future[Written]]] = deque()
    with _one_thread("read") as reader, _one_thread("write") as writer:

        def read_ahead() -> None:
            for item in itertools.islice(source, ahead - len(reading)):
                reading.append((item, reader.submit(read, item)))

        read_ahead()
        while reading and not stop():
            item, future = reading.popleft()
            read_ahead()
            written: Future[Written] = Future()
            try:
                content = future.result()
                written = writer.submit(write, content, compute(content))
            except BoneScanError as error:
                written.set_exception(error)
            del future
            writing.append((item, written))
            while writing and (len(writing) > ahead or writing[0][1].done()):
                item, written = writing.popleft()
                yield item, _result_or_error(written)
        while writing:
            if stop():
                # From the last to the first: none begins meanwhile.
                for _, written in reversed(writing):
                    written.cancel()
            item, written = writing.popleft()
            if not written.cancelled():
                yield item, _result_or_error(written)


@contextlib.contextmanager
def _one_thread(name: str) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(1, thread_name_prefix=name)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _result_or_error(written: Future[Any]) -> Any:
    try:
        return written.result()
    except BoneScanError as error:
        return error


def check_log(path: Path) -> None:
    """Look whether a log can be written, without writing anything.

    Raises:
        SettingsError: it is a folder, a file is where a folder must be, or permission is missing.
    """
    there = nearest_existing(path)
    if path.is_dir():
        reason = "Is a directory"
    elif there != path and not there.is_dir():
        reason = "Not a directory"
    elif not os.access(there, os.W_OK):
        reason = "Permission denied"
    else:
        return
    raise SettingsError(f"{path}: the log cannot be written ({reason}): give --log another file")


class RunLog:
    """Appends one line per event to a file; without a file it does nothing.

    File names, folders and texts of errors are left out, since they may hold a patient's name. A scan is named by its
    pseudonym, or by its number in the run when it could not be read, and an error by its reason.

    Args:
        path: the file, or None. Lines of earlier runs are kept.

    Raises:
        SettingsError: the file cannot be written.
    """

    def __init__(self, path: Path | None):
        self._file = None
        if path is not None:
            check_log(path)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed in __exit__
            except OSError as cause:
                raise SettingsError(f"{path}: the log cannot be written ({cause.strerror})") from None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.line(f"stopped: {kind.__name__}")
        if self._file is not None:
            self._file.close()

    def line(self, text: str) -> None:
        """Append a line with the local time; it is in the file when this returns."""
        if self._file is not None:
            self._file.write(f"{datetime.datetime.now().isoformat(timespec='seconds')} {text}\n")
            self._file.flush()

    def failure(self, name: str, error: BoneScanError) -> None:
        """Append that a scan was not segmented.

        Args:
            name: its pseudonym, or "scan 3 of 16".
            error: named by its reason or kind.
        """
        self.line(f"{name}: not segmented ({error.reason if isinstance(error, ScanError) else type(error).__name__})")
