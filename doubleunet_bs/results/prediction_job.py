"""The second and the third step of `predict`: segment a scan, write its result."""

import contextlib
import dataclasses
import datetime
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

from doubleunet_bs.errors import BoneScanError, ScanError, SettingsError
from doubleunet_bs.files import nearest_existing
from doubleunet_bs.inference.predictor import Prediction, Predictor
from doubleunet_bs.results.input_scans import JobSettings, ReadScan
from doubleunet_bs.results.patient_report import ReportScan
from doubleunet_bs.results.previous_scan import check_another
from doubleunet_bs.results.result_folder import WrittenResult, write_prediction

Item = TypeVar("Item")
Content = TypeVar("Content")
Answer = TypeVar("Answer")
Written = TypeVar("Written")

AHEAD = 2
"""Items that are read before their turn, and items that wait to be written (decided here): enough for each step to find
its next one ready, and no more than seven items in memory."""


@dataclasses.dataclass(frozen=True)
class Outcome(Generic[Item, Written]):
    """Attributes: item: what went in. written: what `write` returned, or None. error: what stopped it, or None."""

    item: Item
    written: Written | None
    error: BoneScanError | None


def stream(
    items: Iterable[Item],
    read: Callable[[Item], Content],
    compute: Callable[[Content], Answer],
    write: Callable[[Content, Answer], Written],
    ahead: int = AHEAD,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Outcome[Item, Written]]:
    """Send items through three steps.

    `read` runs in a thread of its own, `compute` in the caller's, `write` in a third; each handles one item after the
    other in the order of `items`, so that the results are those of a plain loop. At most `ahead` items are read and not
    computed, one is computed, `ahead` + 1 are computed and not written.

    Args:
        items: taken from the iterator when their turn comes.
        read, compute, write: the steps. A `BoneScanError` stops its item only; any other exception stops the stream.
        ahead: 1 or more.
        stop: whether to end early; asked between items.

    Yields:
        One outcome per item, in their order, as soon as it is written or has failed. After `stop` those of the items that
        are written or being written, so that nothing is on disk that was not told of.

    When the stream ends early (`stop`, an exception, Ctrl-C, `close`), an item that is being written is written to its end
    and no further one is begun.
    """
    source = iter(items)
    reading: deque[tuple[Item, Future]] = deque()
    writing: deque[tuple[Item, Future]] = deque()
    with _one_thread("read") as reader, _one_thread("write") as writer:

        def read_ahead() -> None:
            while len(reading) < ahead:
                try:
                    item = next(source)
                except StopIteration:
                    return
                reading.append((item, reader.submit(read, item)))

        read_ahead()
        while reading and not stop():
            item, future = reading.popleft()
            try:
                content = future.result()
                read_ahead()
                written = writer.submit(write, content, compute(content))
            except BoneScanError as error:
                read_ahead()
                written = Future()
                written.set_exception(error)
            del future
            writing.append((item, written))
            while writing and (len(writing) > ahead or writing[0][1].done()):
                yield _outcome(*writing.popleft())
        while writing:
            if stop():
                # From the last to the first: none begins meanwhile.
                for _, written in reversed(writing):
                    written.cancel()
            item, written = writing.popleft()
            if not written.cancelled():
                yield _outcome(item, written)


@contextlib.contextmanager
def _one_thread(name: str) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(1, thread_name_prefix=name)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _outcome(item: Item, future: Future) -> Outcome[Item, Written]:
    try:
        return Outcome(item, future.result(), None)
    except BoneScanError as error:
        return Outcome(item, None, error)


def check_log(path: Path) -> None:
    """Look whether a log can be written, without writing anything.

    Raises:
        SettingsError: there is a folder in its place, a file in the place of a folder, or it is not allowed.
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
    raise SettingsError(f"{path}: the log cannot be written ({reason})")


class RunLog:
    """Appends one line per event to a file; without a file it does nothing.

    File names, folders and messages of errors stay out, since they may hold a patient's name: a scan is called by its
    pseudonym, or by its number in the run when it could not be read, and an error by its reason.

    Args:
        path: the file, or None. Lines of earlier runs stay in it.

    Raises:
        SettingsError: the file cannot be written.
    """

    def __init__(self, path: Path | None):
        self._file = None
        if path is not None:
            check_log(path)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = open(path, "a", encoding="utf-8")
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


@dataclasses.dataclass(frozen=True)
class PredictionJob:
    """The steps behind `ScanReader`.

    Attributes:
        settings: of the run.
        predictor: the model.
        previous: for the report; None for none.
    """

    settings: JobSettings
    predictor: Predictor
    previous: ReportScan | None = None

    def compute(self, content: ReadScan) -> Prediction:
        """Segment a scan.

        Raises:
            RunError: the scan is the previous one itself.
        """
        if self.previous is not None:
            check_another(content.scan.case, self.previous.result["case"])
        return self.predictor.segment([content.prepared])[0]

    def write(self, content: ReadScan, prediction: Prediction) -> tuple[WrittenResult, float]:
        """Write the result of a scan; also return the seconds since its reading began."""
        written = write_prediction(
            self.settings.out,
            content.scan,
            prediction,
            self.predictor.engine,
            self.settings.overwrite,
            self.settings.outputs,
            content.study,
            content.labelme,
            self.previous,
        )
        return written, time.perf_counter() - content.begun
