"""Locks of a run folder: held once, free after SIGKILL, taken over by one process only."""

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
from doubleunet_bs.runs import locks
from doubleunet_bs.runs.locks import FOLDER, LockedError, locked
from doubleunet_bs.stop_signals import Interrupted, StopSignals

HOLD = """
import sys, time
from pathlib import Path
from doubleunet_bs.runs import locks
locks.BEAT_SECONDS = 0.2
with locks.locked(Path(sys.argv[1]), "fold_01"):
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


def foreign(path, age=0.0, host="node-7"):
    """The lock file of a process on another machine, last touched `age` seconds ago."""
    file = path / FOLDER / "fold_01.lock"
    create_file(file, f"{host}, process 12, since 2026-11-26 14:02 UTC\nanother 12\ntoken\n")
    os.utime(file, (time.time() - age,) * 2)
    return file


def refused(path, match="locked by"):
    with pytest.raises(LockedError, match=match), locked(path, "fold_01"):
        pytest.fail("it is held twice")


def test_it_is_held_once_and_free_afterwards(tmp_path):
    for _ in range(2):
        with locked(tmp_path, "fold_01"):
            assert lock_files(tmp_path) == ["fold_01.lock"]
            refused(tmp_path, rf"locked by .*, process {os.getpid()}, since 2.*: .*delete .*fold_01.lock")
            with locked(tmp_path, "fold_02"):
                pass
        assert lock_files(tmp_path) == []


def test_another_process_holds_it_until_it_is_killed(tmp_path, holder):
    refused(tmp_path, f"process {holder.pid}, since")
    holder.kill()
    holder.wait()
    with locked(tmp_path, "fold_01"):
        assert lock_files(tmp_path) == ["fold_01.lock"]
    assert lock_files(tmp_path) == []


def test_on_another_machine_only_the_age_tells(tmp_path):
    file = foreign(tmp_path, age=100)
    refused(tmp_path, "locked by node-7, process 12, since 2026-11-26 14:02 UTC: if")
    os.utime(file, (time.time() - 130,) * 2)
    with locked(tmp_path, "fold_01"):
        pass


@pytest.mark.parametrize("lives", [False, True])
def test_a_restarted_task_waits_for_a_sign_of_life(tmp_path, monkeypatch, capsys, lives):
    """The holder was killed a moment ago on another machine, or lives."""
    monkeypatch.setattr(locks, "LIFETIME_SECONDS", 0.4)
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.05)
    file = foreign(tmp_path)
    ended = threading.Event()

    def touch():
        while lives and not ended.wait(0.05):
            os.utime(file)

    holder = threading.Thread(target=touch)
    holder.start()
    started = time.monotonic()
    try:
        with StopSignals() as signals, locked(tmp_path, "fold_01", signals, 0.7):
            taken = True
    except LockedError:
        taken = False
    ended.set()
    holder.join()
    assert taken != lives and time.monotonic() - started > 0.4 and file.exists() == lives
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and said[0].startswith("waiting: locked by node-7, process 12, ")


def test_a_signal_ends_the_waiting_for_a_sign_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.05)
    foreign(tmp_path)
    timer = threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGTERM])
    with StopSignals() as signals, pytest.raises(Interrupted):
        timer.start()
        with locked(tmp_path, "fold_01", signals, 60):
            pass
    timer.join()
    assert lock_files(tmp_path) == ["fold_01.lock"]


def test_a_damaged_lock_file_counts_until_it_is_old(tmp_path):
    file = tmp_path / FOLDER / "fold_01.lock"
    file.parent.mkdir()
    for text in ("", "\n\n\n\n", '{"pid": "x"}'):
        file.write_text(text)
        refused(tmp_path, "locked by unknown")
    os.utime(file, (0, 0))
    with locked(tmp_path, "fold_01"):
        pass


def test_a_holder_that_lives_keeps_touching_it(tmp_path, holder):
    file = tmp_path / FOLDER / "fold_01.lock"
    os.utime(file, (0, 0))
    time.sleep(1)
    assert time.time() - file.stat().st_mtime < 10 and holder.poll() is None


def test_a_holder_that_was_suspended_notices_and_ends(tmp_path, holder):
    holder.send_signal(signal.SIGSTOP)
    # On this machine the process is seen. From another one, or in another container, its age alone tells.
    (tmp_path / FOLDER / "fold_01.lock").unlink()
    foreign(tmp_path, age=130)
    with locked(tmp_path, "fold_01"):
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
    with locked(tmp_path, "fold_01"):
        (tmp_path / FOLDER / "fold_01.lock").unlink()
        foreign(tmp_path)
    assert lock_files(tmp_path) == ["fold_01.lock"]


def test_a_lock_that_was_taken_over_meanwhile_is_put_back(tmp_path, monkeypatch):
    """Between the look at an abandoned file and its removal, another process has removed it and holds the lock."""
    file = foreign(tmp_path, age=1000)

    def abandoned(path, process):
        file.unlink()
        foreign(tmp_path, host="node-8")
        return True

    monkeypatch.setattr(locks, "_is_abandoned", abandoned)
    refused(tmp_path, "locked by node-8")
    assert lock_files(tmp_path) == ["fold_01.lock"] and file.read_text().startswith("node-8")


def test_where_the_holder_releases_it_meanwhile_it_is_taken(tmp_path, monkeypatch):
    file = foreign(tmp_path)
    monkeypatch.setattr(locks, "_is_abandoned", lambda path, process: file.unlink() or True)
    with locked(tmp_path, "fold_01"):
        assert lock_files(tmp_path) == ["fold_01.lock"]


def _compete(path, number, start, results):
    start.wait()
    for _ in range(4):
        while True:
            held = locked(path, "fold_01")
            try:
                held.__enter__()
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
        held.__exit__(None, None, None)


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
