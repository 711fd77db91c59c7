"""Locks of a run folder: held once, free after SIGKILL, taken over by one process only."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from doubleunet_bs import files
from doubleunet_bs.files import create_file
from doubleunet_bs.runs import locks
from doubleunet_bs.runs.locks import FOLDER, Lock, LockedError, lock_or_wait
from doubleunet_bs.stop_signals import Interrupted, StopSignals

HOLD = """
import sys, time
from doubleunet_bs.runs import locks
locks.BEAT_SECONDS = 0.2
with locks.Lock(sys.argv[1], "fold_01"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock, killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def lock_files(path):
    return sorted(file.name for file in (path / FOLDER).iterdir())


def foreign(path, age=0.0):
    """The lock file of a process on another machine, last touched `age` seconds ago."""
    file = path / FOLDER / "fold_01.lock"
    content = {"host": "node-7", "pid": 12, "machine": "other", "since": "2026-11-26 14:02 UTC"}
    create_file(file, json.dumps(content))
    os.utime(file, (time.time() - age,) * 2)
    return file


def as_seen_from_another_machine(path):
    """Change a lock so that only its age tells whether the holder lives. The holder then finds it changed."""
    file = path / FOLDER / "fold_01.lock"
    file.write_text(file.read_text().replace('"machine": "', '"machine": "another '))


def test_it_is_held_once_and_free_afterwards(tmp_path):
    lock = Lock(tmp_path, "fold_01")
    for _ in range(2):
        with lock:
            assert lock_files(tmp_path) == ["fold_01.lock"]
            with pytest.raises(LockedError, match=rf"locked by .*, process {os.getpid()}, since 2.* delete this file"):
                Lock(tmp_path, "fold_01").__enter__()
            with Lock(tmp_path, "fold_02"):
                pass
        assert lock_files(tmp_path) == []


def test_the_file_names_machine_and_process_and_no_user(tmp_path):
    with Lock(tmp_path, "pretrain") as lock:
        content = json.loads(lock.path.read_text())
    assert set(content) == {"host", "pid", "machine", "started", "since", "token"} and content["pid"] == os.getpid()


def test_another_process_holds_it_until_it_is_killed(tmp_path, holder):
    with pytest.raises(LockedError, match=f"process {holder.pid}, since"):
        Lock(tmp_path, "fold_01").__enter__()
    holder.kill()
    holder.wait()
    with Lock(tmp_path, "fold_01"):
        assert lock_files(tmp_path) == ["fold_01.lock"]
    assert lock_files(tmp_path) == []


def test_on_another_machine_only_the_age_tells(tmp_path):
    file = foreign(tmp_path, age=100)
    with pytest.raises(LockedError, match="fold_01.lock: locked by node-7, process 12, since 2026-11-26 14:02 UTC; if"):
        Lock(tmp_path, "fold_01").__enter__()
    os.utime(file, (time.time() - 130,) * 2)
    with Lock(tmp_path, "fold_01"):
        pass


def test_a_restarted_task_waits_for_a_sign_of_life(tmp_path, monkeypatch, capsys):
    """The holder was killed a moment ago on another machine; then one that lives holds the lock."""
    monkeypatch.setattr(locks, "LIFETIME_SECONDS", 0.6)
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.05)
    file = foreign(tmp_path)
    started = time.monotonic()
    with StopSignals() as signals, lock_or_wait(Lock(tmp_path, "fold_01"), signals):
        assert time.monotonic() - started > 0.5
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and said[0].startswith("waiting up to 1 s, in case the holder was killed: ")
    foreign(tmp_path)
    monkeypatch.setattr(locks, "pause", lambda signals: (os.utime(file), time.sleep(0.05)))
    with pytest.raises(LockedError, match="node-7"), lock_or_wait(Lock(tmp_path, "fold_01"), StopSignals()):
        pass


def test_a_process_of_this_machine_needs_no_waiting(tmp_path, holder, capsys):
    with pytest.raises(LockedError), lock_or_wait(Lock(tmp_path, "fold_01"), StopSignals()):
        pass
    assert capsys.readouterr().out == ""


def test_a_signal_ends_the_waiting_for_a_sign_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.05)
    foreign(tmp_path)
    timer = threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGTERM])
    with StopSignals() as signals, pytest.raises(Interrupted):
        timer.start()
        with lock_or_wait(Lock(tmp_path, "fold_01"), signals):
            pass
    timer.join()
    assert lock_files(tmp_path) == ["fold_01.lock"]


def test_a_process_that_has_the_number_of_a_killed_one_does_not_hold_its_lock(tmp_path):
    """As in a container that was started again. The lock of a version that did not note the start waits for its age."""
    with Lock(tmp_path, "fold_01") as lock:
        content = json.loads(lock.path.read_text())
    assert content["started"] > 0
    earlier = {**content, "started": content["started"] - 100}
    assert create_file(lock.path, json.dumps(earlier))
    with Lock(tmp_path, "fold_01"):
        pass
    for same in (content, {name: value for name, value in content.items() if name != "started"}):
        assert create_file(lock.path, json.dumps(same))
        with pytest.raises(LockedError, match=f"process {os.getpid()}, since"):
            Lock(tmp_path, "fold_01").__enter__()
        os.utime(lock.path, (time.time() - 130,) * 2)
        with Lock(tmp_path, "fold_01"):
            pass


def test_a_damaged_lock_file_counts_until_it_is_old(tmp_path):
    file = tmp_path / FOLDER / "fold_01.lock"
    file.parent.mkdir()
    for text in ("", "{", "[1]", '{"pid": "x"}'):
        file.write_text(text)
        with pytest.raises(LockedError, match="locked by unknown"):
            Lock(tmp_path, "fold_01").__enter__()
    os.utime(file, (0, 0))
    with Lock(tmp_path, "fold_01"):
        pass


def test_while_another_process_takes_it_over_nobody_else_does(tmp_path):
    foreign(tmp_path, age=1000)
    create_file(tmp_path / FOLDER / "fold_01.removing", "")
    with pytest.raises(LockedError, match=r"fold_01.removing: .*; if that process is gone, delete this file"):
        Lock(tmp_path, "fold_01").__enter__()
    assert lock_files(tmp_path) == ["fold_01.lock", "fold_01.removing"]


def test_a_holder_that_lives_keeps_touching_it(tmp_path, holder):
    file = tmp_path / FOLDER / "fold_01.lock"
    os.utime(file, (0, 0))
    time.sleep(1)
    assert time.time() - file.stat().st_mtime < 10 and holder.poll() is None


def test_a_holder_that_was_suspended_notices_and_ends(tmp_path, holder):
    holder.send_signal(signal.SIGSTOP)
    as_seen_from_another_machine(tmp_path)
    os.utime(tmp_path / FOLDER / "fold_01.lock", (time.time() - 130,) * 2)
    with Lock(tmp_path, "fold_01"):
        holder.send_signal(signal.SIGCONT)
        assert holder.wait(10) == 1
        assert lock_files(tmp_path) == ["fold_01.lock"]
    assert "fold_01.lock: this process has lost its lock and ends here" in holder.stderr.read()


@pytest.mark.parametrize("removed", [False, True])
def test_a_holder_whose_run_folder_is_moved_ends(tmp_path, holder, removed):
    if removed:
        shutil.rmtree(tmp_path / FOLDER)
    else:
        (tmp_path / FOLDER).rename(tmp_path / "elsewhere")
    assert holder.wait(10) == 1
    assert len(holder.stderr.read().splitlines()) == 1


def test_a_file_that_another_process_has_made_since_is_left_alone(tmp_path):
    with Lock(tmp_path, "fold_01") as lock:
        lock.path.unlink()
        foreign(tmp_path)
    assert lock_files(tmp_path) == ["fold_01.lock"]


@pytest.mark.parametrize("next_comes", [False, True])
def test_where_the_holder_has_just_released_it_nothing_is_removed(tmp_path, monkeypatch, next_comes):
    """Otherwise that would be the file of the next holder, who can come at any moment."""
    holder, following, late = (Lock(tmp_path, "fold_01") for _ in range(3))
    holder.__enter__()
    calls = []

    def create(path, text):
        calls.append(path)
        if len(calls) == 2 and next_comes:
            assert create_file(following.path, "{}")
        made = create_file(path, text)
        if len(calls) == 1:
            holder.__exit__()
        return made

    def unlink(path, missing_ok=False):
        if path == late.path and calls and not path.exists():
            pytest.fail("removes a file that is not there: another process may make it now")
        os.unlink(path)

    monkeypatch.setattr(locks, "create_file", create)
    monkeypatch.setattr(Path, "unlink", unlink)
    if next_comes:
        with pytest.raises(LockedError):
            late.__enter__()
        assert following.path.read_text() == "{}"
    else:
        with late:
            assert lock_files(tmp_path) == ["fold_01.lock"]
    assert calls == [late.path, late.path]


def test_a_lock_that_was_taken_over_meanwhile_is_not_removed(tmp_path, monkeypatch):
    """Between the look at an abandoned file and its removal, another process has removed it and holds the lock."""
    file = foreign(tmp_path, age=1000)

    def create(path, text):
        if path.suffix == ".removing":
            file.write_text('{"host": "node-8"}')
            os.utime(file, (time.time() - 1000,) * 2)
        return create_file(path, text)

    monkeypatch.setattr(locks, "create_file", create)
    with pytest.raises(LockedError, match="locked by node-8"):
        Lock(tmp_path, "fold_01").__enter__()
    assert lock_files(tmp_path) == ["fold_01.lock"] and file.read_text() == '{"host": "node-8"}'


def _compete(path, number, start, results):
    start.wait()
    for _ in range(4):
        while True:
            lock = Lock(path, "fold_01")
            try:
                lock.__enter__()
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
            os._exit(0)  # Dies with the lock in its hands.
        lock.__exit__()


@pytest.mark.slow
def test_many_at_once_and_some_of_them_die(tmp_path):
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.SimpleQueue()
    foreign(tmp_path, age=1000)
    processes = [context.Process(target=_compete, args=(tmp_path, number, start, results)) for number in range(6)]
    for process in processes:
        process.start()
    start.set()
    # Asked again and again: a process that has ended has its number until somebody asks.
    while any([process.is_alive() for process in processes]):
        time.sleep(0.05)
    found = []
    while not results.empty():
        found.append(results.get())
    # Two of six die when they have had it once.
    assert found == ["alone"] * (2 * 1 + 4 * 4)
    assert lock_files(tmp_path) == [] or lock_files(tmp_path) == ["fold_01.lock"]


def test_blocks_of_signals_within_each_other():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as outer:
        with StopSignals() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
        assert inner.requested and outer.requested
        # The second one acts as usual.
        assert signal.getsignal(signal.SIGTERM) == before
        with StopSignals() as late, pytest.raises(Interrupted):
            late.check()
    assert signal.getsignal(signal.SIGTERM) == before
    assert not StopSignals().requested


@pytest.mark.parametrize("links", [True, False])
def test_a_file_is_created_once(tmp_path, monkeypatch, links):
    if not links:

        def no_links(source, target):
            raise OSError("no hard links here")

        monkeypatch.setattr(files.os, "link", no_links)
    path = tmp_path / "new" / "file.json"
    assert create_file(path, "first") and not create_file(path, "second")
    assert path.read_text() == "first" and [file.name for file in path.parent.iterdir()] == ["file.json"]
