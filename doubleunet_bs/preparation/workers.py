"""A function over many items in several processes, in order and with a bounded number of results waiting."""

import collections
import concurrent.futures
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from doubleunet_bs.errors import BoneScanError

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
