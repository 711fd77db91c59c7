"""Read, compute and write at the same time, in order, with few items in memory at once."""

import contextlib
import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from doubleunet_bs.errors import BoneScanError

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
