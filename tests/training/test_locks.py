"""Locks of a run folder: held once, free after SIGKILL, taken over by one process only."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from doubleunet_bs import files
from doubleunet_bs.files import create_file
from doubleunet_bs.stop_signals import Interrupted, StopSignals
from doubleunet_bs.training.locks import FOLDER, Lock, LockedError, acquire_unless_alive, lock_or_wait

HOLD = """
import sys, time
from doubleunet_bs.training.locks import Lock
Lock(sys.argv[1], "fold_01", beat=0.2, stale=float(sys.argv[2])).acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Start a process that holds the lock; killed at the end."""
    started = []

    def start(stale=60.0):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, tmp_path, str(stale)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def lock_files(path):
    return sorted(file.name for file in (path / FOLDER).iterdir())


def test_it_is_held_once_and_free_afterwards(tmp_path):
    first = Lock(tmp_path, "fold_01")
    with first:
        assert lock_files(tmp_path) == ["fold_01.1.lock"]
        with pytest.raises(
            LockedError, match=rf"another process works on fold_01 \(process {os.getpid()} on .*0 s ago"
        ):
            Lock(tmp_path, "fold_01").acquire()
        with Lock(tmp_path, "fold_02"):
            pass
    assert lock_files(tmp_path) == []
    with Lock(tmp_path, "fold_01"):
        pass
    first.release()


def test_the_file_names_machine_and_process_and_no_user(tmp_path):
    with Lock(tmp_path, "pretrain"):
        content = json.loads((tmp_path / FOLDER / "pretrain.1.lock").read_text())
    assert set(content) == {"host", "pid", "started", "boot", "processes", "token"} and content["pid"] == os.getpid()


def test_another_process_holds_it_until_it_is_killed(tmp_path, holder):
    process = holder()
    with pytest.raises(LockedError, match=f"process {process.pid} on "):
        Lock(tmp_path, "fold_01").acquire()
    process.send_signal(signal.SIGKILL)
    # Not reaped yet, a zombie: gone all the same.
    time.sleep(0.2)
    lock = Lock(tmp_path, "fold_01")
    with lock:
        assert lock_files(tmp_path) == ["fold_01.1.lock", "fold_01.2.lock"]
    assert lock_files(tmp_path) == []


def foreign(path, number=1, age=0.0):
    """A lock file of a process on another machine, last touched `age` seconds ago."""
    file = path / FOLDER / f"fold_01.{number}.lock"
    create_file(file, json.dumps({"host": "node-7", "pid": 12, "started": 1, "boot": "other", "processes": 1}))
    os.utime(file, (time.time() - age,) * 2)
    return file


def test_on_another_machine_only_the_age_tells(tmp_path):
    file = foreign(tmp_path, age=100)
    with pytest.raises(LockedError, match=r"process 12 on node-7, last sign of life 10\d s ago"):
        Lock(tmp_path, "fold_01").acquire()
    os.utime(file, (time.time() - 130,) * 2)
    with Lock(tmp_path, "fold_01"):
        pass


def test_a_restarted_task_waits_for_a_sign_of_life(tmp_path):
    """Elsewhere, and killed a moment ago: nobody touches the lock, so that it becomes free."""
    file = foreign(tmp_path, age=0)
    lock = Lock(tmp_path, "fold_01", stale=0.6)
    started = time.monotonic()
    acquire_unless_alive(lock, poll=0.05)
    assert 0.3 < time.monotonic() - started < 5
    lock.release()
    # A living one touches it and keeps it.
    file = foreign(tmp_path, age=0)
    timer = threading.Timer(0.3, os.utime, [file])
    timer.start()
    with pytest.raises(LockedError, match="node-7"):
        acquire_unless_alive(Lock(tmp_path, "fold_01", stale=5), poll=0.05)
    timer.join()


def test_a_process_of_this_machine_needs_no_waiting(tmp_path, holder):
    holder()
    with pytest.raises(LockedError):
        acquire_unless_alive(Lock(tmp_path, "fold_01"), poll=60)


def test_a_damaged_lock_file_counts_until_it_is_old(tmp_path):
    file = tmp_path / FOLDER / "fold_01.1.lock"
    file.parent.mkdir()
    for text in ("", "{", "[1]", '{"pid": "x"}'):
        file.write_text(text)
        with pytest.raises(LockedError, match="unknown"):
            Lock(tmp_path, "fold_01").acquire()
    os.utime(file, (0, 0))
    with Lock(tmp_path, "fold_01"):
        pass


def test_a_folder_that_takes_no_file_is_told_as_it_is(tmp_path, monkeypatch):
    foreign(tmp_path)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("doubleunet_bs.training.locks.tempfile.NamedTemporaryFile", full)
    with pytest.raises(OSError, match="No space left on device"):
        Lock(tmp_path, "fold_01").acquire()


def test_a_holder_that_lives_keeps_it_alive(tmp_path, holder):
    holder(stale=1.0)
    file = tmp_path / FOLDER / "fold_01.1.lock"
    content = json.loads(file.read_text())
    # As another machine sees it: the age alone tells.
    file.write_text(json.dumps({**content, "boot": "another machine"}))
    for _ in range(6):
        time.sleep(0.3)
        with pytest.raises(LockedError):
            Lock(tmp_path, "fold_01", stale=1.0).acquire()


def test_a_holder_that_was_suspended_notices_and_ends(tmp_path, holder):
    process = holder(stale=0.8)
    file = tmp_path / FOLDER / "fold_01.1.lock"
    file.write_text(json.dumps({**json.loads(file.read_text()), "boot": "another machine"}))
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.2)
    with Lock(tmp_path, "fold_01", stale=0.8):
        process.send_signal(signal.SIGCONT)
        assert process.wait(10) == 1
    assert "fold_01.1.lock: this process did not run for 1 s and another one has taken over" in process.stderr.read()


@pytest.mark.parametrize("removed", [False, True])
def test_a_holder_whose_run_folder_is_moved_says_so(tmp_path, holder, removed):
    process = holder()
    if removed:
        shutil.rmtree(tmp_path / FOLDER)
    else:
        (tmp_path / FOLDER).rename(tmp_path / "elsewhere")
    assert process.wait(10) == 1
    said = process.stderr.read()
    assert "its lock file is gone (was the run folder moved or removed?)" in said and "taken over" not in said
    assert len(said.splitlines()) == 1


def test_the_owner_is_told_when_it_is_taken(tmp_path):
    told = threading.Event()
    lock = Lock(tmp_path, "fold_01", beat=0.05, on_lost=told.set)
    with lock:
        file = foreign(tmp_path, number=2)
        assert told.wait(5)
        assert file.exists()
    # What belongs to the other one is left alone.
    assert lock_files(tmp_path) == ["fold_01.2.lock"]


def test_a_file_of_a_process_that_is_about_to_withdraw_is_not_removed(tmp_path):
    """It came too late, with a number that had just become free. It may find itself alone before it withdraws."""
    foreign(tmp_path, age=1000)
    with Lock(tmp_path, "fold_01"):
        (tmp_path / FOLDER / "fold_01.1.lock").unlink()
        foreign(tmp_path, number=1)
    assert lock_files(tmp_path) == ["fold_01.1.lock"]


def test_a_file_that_another_has_made_anew_is_left_to_him(tmp_path):
    lock = Lock(tmp_path, "fold_01")
    with lock:
        (tmp_path / FOLDER / "fold_01.1.lock").unlink()
        foreign(tmp_path, number=1)
    assert lock_files(tmp_path) == ["fold_01.1.lock"]


def _compete(path, number, start, results):
    start.wait()
    for _ in range(4):
        lock = Lock(path, "fold_01", stale=60)
        while True:
            try:
                lock.acquire()
                break
            except LockedError:
                time.sleep(0.002)
        # Alone in here: an exclusive file proves it.
        mark = path / "inside"
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
            time.sleep(0.002)
            mark.unlink()
            results.put("alone")
        except FileExistsError:
            results.put("not alone")
        if number % 3 == 0:
            os._exit(0)  # dies with the lock in its hands
        lock.release()


def test_many_at_once_and_some_of_them_die(tmp_path):
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.SimpleQueue()
    foreign(tmp_path, age=1000)
    processes = [context.Process(target=_compete, args=(tmp_path, number, start, results)) for number in range(6)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join(60)
    found = []
    while not results.empty():
        found.append(results.get())
    # Two of six die when they have had it once.
    assert found == ["alone"] * (2 * 1 + 4 * 4)


def test_work_for_one_is_done_once_and_the_others_wait(tmp_path, capsys):
    done, order = threading.Event(), []

    def work(name):
        with lock_or_wait(Lock(tmp_path, "pretrain"), done.is_set, poll=0.02) as mine:
            order.append((name, mine))
            if mine:
                time.sleep(0.2)
                done.set()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [mine for _, mine in order] == [True, False, False]
    assert capsys.readouterr().out.count("waiting: ") == 2
    assert lock_files(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_waiting(tmp_path, number):
    """Of a task that waits for the pre-training of another one, and of one that waits for a sign of life."""
    before = signal.getsignal(number)
    foreign(tmp_path)

    def wait_for_work(lock, signals):
        with lock_or_wait(lock, lambda: False, poll=0.05, signals=signals):
            raise AssertionError("the lock is another's")

    for wait in (wait_for_work, lambda lock, signals: acquire_unless_alive(lock, poll=0.05, signals=signals)):
        timer = threading.Timer(0.2, os.kill, [os.getpid(), number])
        with StopSignals() as signals, pytest.raises(Interrupted):
            timer.start()
            wait(Lock(tmp_path, "fold_01"), signals)
        timer.join()
    assert signal.getsignal(number) == before
    assert lock_files(tmp_path) == ["fold_01.1.lock"]


def test_blocks_of_signals_within_each_other():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as signals:
        with signals:
            os.kill(os.getpid(), signal.SIGTERM)
        assert signals.requested
        # The second one acts as usual.
        assert signal.getsignal(signal.SIGTERM) == before
        with pytest.raises(Interrupted):
            signals.check()
    assert signal.getsignal(signal.SIGTERM) == before


def test_where_one_fails_the_next_tries(tmp_path):
    with pytest.raises(ValueError), lock_or_wait(Lock(tmp_path, "pretrain"), lambda: False):
        raise ValueError
    with lock_or_wait(Lock(tmp_path, "pretrain"), lambda: False) as mine:
        assert mine


@pytest.mark.parametrize("links", [True, False])
def test_a_file_is_created_once(tmp_path, monkeypatch, links):
    if not links:

        def no_links(source, target):
            raise OSError("no hard links here")

        monkeypatch.setattr(files.os, "link", no_links)
    path = tmp_path / "new" / "file.json"
    assert create_file(path, "first") and not create_file(path, "second")
    assert path.read_text() == "first" and [file.name for file in path.parent.iterdir()] == ["file.json"]
