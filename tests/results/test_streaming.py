"""The stream of reading, computing and writing gives what a loop gives, with bounded memory and no half-written end."""

import threading
import time

import pytest

from doubleunet_bs.errors import BoneScanError, RunError, ScanError
from doubleunet_bs.results.streaming import stream


def test_in_order_and_like_a_loop():
    def read(item):
        time.sleep(0.003 * (item % 3))
        return item + 0.5

    def write(content, answer):
        time.sleep(0.004 * (int(content) % 2))
        return content, answer

    outcomes = list(stream(range(20), read, lambda content: content * 2, write))
    assert outcomes == [(item, (item + 0.5, 2 * item + 1)) for item in range(20)]
    assert list(stream([], read, read, write)) == []


def test_an_error_stops_its_item_only():
    def fail(step):
        def work(item, *_):
            if item == step:
                raise (ScanError if step == 1 else RunError)(f"no {item}")
            return item

        return work

    outcomes = list(stream(range(5), fail(1), fail(2), fail(3)))
    assert [item for item, _ in outcomes] == list(range(5))
    assert (outcomes[0][1], outcomes[4][1]) == (0, 4)
    errors = [outcome for _, outcome in outcomes[1:4]]
    assert [str(error) for error in errors] == ["no 1", "no 2", "no 3"]
    assert all(isinstance(error, BoneScanError) for error in errors)


@pytest.mark.parametrize("step", range(3))
def test_any_other_exception_stops_the_stream(step):
    def work(item, *_):
        return item

    def defect(item, *_):
        if item == 2:
            raise ZeroDivisionError
        return item

    steps = [work, work, work]
    steps[step] = defect
    seen = []
    with pytest.raises(ZeroDivisionError):
        for item, _ in stream(range(50), *steps):
            seen.append(item)
    assert seen in ([], [0], [0, 1])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("read", "write"))]


def test_the_three_steps_run_at_the_same_time():
    """Each waits until the other two are at work: a loop would wait for ever."""
    together = threading.Barrier(3, timeout=20)

    # Items 2, 1 and 0 are read, computed and written at the same moment.
    def read(item):
        if item == 2:
            together.wait()
        return item

    def compute(item):
        if item == 1:
            together.wait()
        return item

    def write(item, _):
        if item == 0:
            together.wait()
        return item

    assert [outcome for _, outcome in stream(range(3), read, compute, write)] == [0, 1, 2]


@pytest.mark.parametrize("slow", ["read", "compute", "write"])
def test_few_items_are_in_memory(slow):
    alive, most, lock = set(), [0], threading.Lock()

    def pause(step):
        if step == slow:
            time.sleep(0.002)

    def read(item):
        with lock:
            alive.add(item)
            most[0] = max(most[0], len(alive))
        pause("read")
        return item

    def compute(item):
        pause("compute")
        return item

    def write(item, _):
        pause("write")
        with lock:
            alive.discard(item)
        return item

    pulled = []
    items = (pulled.append(item) or item for item in range(200))
    for number, _ in enumerate(stream(items, read, compute, write, ahead=2)):
        assert len(pulled) <= number + 8
    assert most[0] <= 7
    assert not alive


@pytest.mark.parametrize("step", ["compute", "write"])
def test_after_stop_every_written_item_is_reported(step):
    """Slow writing, so that several items wait; what has not begun is not begun."""
    begun, stopped = [], []

    def compute(item):
        if step == "compute" and item == 4:
            stopped.append(True)
        return item

    def write(item, _):
        begun.append(item)
        time.sleep(0.05)
        if step == "write" and item == 4:
            stopped.append(True)
        if item == 1:
            raise RunError("one that fails is reported as well")
        return item

    outcomes = list(stream(range(100), lambda item: item, compute, write, stop=lambda: bool(stopped)))
    assert [item for item, _ in outcomes] == begun
    assert [item for item, outcome in outcomes if isinstance(outcome, BoneScanError)] == [1]
    assert 1 < len(begun) <= 6


@pytest.mark.parametrize("how", ["interrupt", "close"])
def test_an_early_end_finishes_the_write_that_runs(how):
    begun, finished = [], []
    writing = threading.Event()

    def compute(item):
        if item == 1:
            assert writing.wait(10)
            if how == "interrupt":
                # What Ctrl-C is in the thread that computes.
                raise KeyboardInterrupt
        return item

    def write(item, _):
        begun.append(item)
        writing.set()
        time.sleep(0.2)
        finished.append(item)
        return item

    outcomes = stream(range(100), lambda item: item, compute, write)
    if how == "interrupt":
        with pytest.raises(KeyboardInterrupt):
            list(outcomes)
    else:
        next(outcomes)
        outcomes.close()
    assert begun == finished
    assert len(finished) <= 3
