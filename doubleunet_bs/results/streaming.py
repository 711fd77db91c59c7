"""Three steps that run at the same time, in the order of a loop and with bounded memory."""

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from doubleunet_bs.errors import BoneScanError

Item = TypeVar("Item")
Content = TypeVar("Content")
Answer = TypeVar("Answer")
Written = TypeVar("Written")

AHEAD = 2
"""Items read before their turn, and items that wait to be written: each step finds its next one ready."""


def stream(
    items: Iterable[Item],
    read: Callable[[Item], Content],
    compute: Callable[[Content], Answer],
    write: Callable[[Content, Answer], Written],
    ahead: int = AHEAD,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[tuple[Item, Written | BoneScanError], None, None]:
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
