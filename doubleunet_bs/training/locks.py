"""Never two processes on one fold, on any machine that shares the run folder.

A lock is a file in `RUN/locks` that its holder touches every few seconds. One that has not been touched for two minutes
belongs to a process that is no more (SIGKILL, a machine that went down), and the next one may take its place; on the same
machine it sees at once that the process is gone. Locks of the kernel are not used: over NFS and its relatives they do
not reach every machine.

Lock files are numbered. A lock is free when the file with the highest number is no longer touched, or when there is none;
who makes the next number has it. Making a file that must not exist yet is atomic on every file system, and nobody
removes the file of another process that is alive, so that two can never succeed at once.

The file names machine and process, no user. It goes when the lock is released and never leaves the run folder.
"""

import contextlib
import dataclasses
import json
import os
import random
import secrets
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from doubleunet_bs.errors import RunError
from doubleunet_bs.files import create_file, json_text
from doubleunet_bs.stop_signals import StopSignals

FOLDER = "locks"
BEAT_SECONDS = 15.0
STALE_SECONDS = 120.0
"""Longer than a beat and the minute for which NFS may show an old time together (decided here)."""
POLL_SECONDS = 5.0


class LockedError(RunError):
    """Another process holds the lock; the message says which.

    Args:
        message: see `RunError`.
        beat: the last sign of life, to be compared with the next.
        alive: whether the holder runs on this machine for sure.
    """

    def __init__(self, message: str, beat: float = 0.0, alive: bool = False):
        super().__init__(message)
        self.beat, self.alive = beat, alive


class Lock:
    """A lock of a run.

    Args:
        run_path: the run folder.
        name: "fold_01", "pretrain".
        beat, stale: seconds between two touches, and without one after which a lock is free.
        on_lost: called in the background when another process has taken the lock, which it can when this one did not run
            for so long (suspended, cut off from the file system). None ends this process on the spot, as SIGKILL would:
            what it has saved can be resumed, and is now in the hands of the other one.
    """

    def __init__(
        self,
        run_path: str | os.PathLike,
        name: str,
        beat: float = BEAT_SECONDS,
        stale: float = STALE_SECONDS,
        on_lost: Callable[[], None] | None = None,
    ):
        self._folder, self._name = Path(run_path) / FOLDER, name
        self._beat, self._stale = beat, stale
        self._on_lost = on_lost or self._end_process
        self._own: Path | None = None
        self._stop = threading.Event()

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            LockedError: a process that is alive holds it.
        """
        while True:
            files = self._files()
            holder = self._holder(files[-1][1]) if files else None
            if holder is not None:
                raise LockedError(
                    f"{self._folder.parent}: another process works on {self._name} ({holder})",
                    holder.beat,
                    holder.alive,
                )
            number = files[-1][0] + 1 if files else 1
            path = self._path(number)
            self._token = secrets.token_hex(8)
            if not create_file(path, json_text({**_this_process(), "token": self._token})):
                continue
            # Between looking and making, others may have come and gone: nobody else may be there now.
            if self._is_mine(path) and not any(
                other > number or (other < number and self._holder(file) is not None) for other, file in self._files()
            ):
                break
            if self._is_mine(path):
                path.unlink(missing_ok=True)
            time.sleep(random.uniform(0.01, 0.1))
        self._own, self._number = path, number
        self._stop.clear()
        self._thread = threading.Thread(target=self._beat_until_stopped, name=f"lock {self._name}", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give the lock back. Nothing happens when it is not held."""
        if self._own is None:
            return
        self._stop.set()
        self._thread.join()
        own, self._own = self._own, None
        for number, file in self._files():
            # Of processes that are no more. One that is alive and about to withdraw removes its own.
            if number < self._number and self._holder(file) is None:
                file.unlink(missing_ok=True)
        if self._is_mine(own):
            own.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Take the lock unless this has been done already."""
        if self._own is None:
            self.acquire()
        return self

    def __exit__(self, *exception) -> None:
        self.release()

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._name}.{number}.lock"

    def _files(self) -> list[tuple[int, Path]]:
        found = []
        for path in self._folder.glob(f"{self._name}.*.lock"):
            number = path.name.removeprefix(f"{self._name}.").removesuffix(".lock")
            if number.isdecimal():
                found.append((int(number), path))
        return sorted(found)

    def _is_mine(self, path: Path) -> bool:
        """Whether a lock file is that of this lock, and not of another one that has taken its name since."""
        try:
            return json.loads(path.read_text(encoding="utf-8"))["token"] == self._token
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return False

    def _holder(self, path: Path) -> "_Holder | None":
        """Who holds a lock file; None when he is gone."""
        try:
            beat = path.stat().st_mtime
        except FileNotFoundError:
            return None
        age = self._now() - beat
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            content = {}
        if not isinstance(content, dict):
            content = {}
        alive = _is_alive(content)
        if age >= self._stale or alive is False:
            return None
        who = f"process {content['pid']} on {content['host']}" if {"pid", "host"} <= set(content) else "unknown"
        return _Holder(f"{who}, last sign of life {max(0, round(age))} s ago", beat, alive is True)

    def _now(self) -> float:
        """The time of the file system, which may live on a machine with another clock."""
        with tempfile.NamedTemporaryFile(prefix=f".{self._name}-", dir=self._folder) as probe:
            return os.fstat(probe.fileno()).st_mtime

    def _beat_until_stopped(self) -> None:
        suspicious = False
        while not self._stop.wait(self._beat / 5 if suspicious else self._beat):
            try:
                files = self._files()
                taken = not files or files[-1][1] != self._own or not self._is_mine(self._own)
                if not taken:
                    os.utime(self._own)
            except FileNotFoundError:
                taken = True
            except OSError:
                # The file system does not answer: nothing can be written now, and nothing be known.
                continue
            # One look may meet a process that is about to withdraw.
            if taken and suspicious:
                self._on_lost()
                return
            suspicious = taken

    def _end_process(self) -> None:
        later = any(number > self._number for number, _ in self._files())
        if later or (self._own.exists() and not self._is_mine(self._own)):
            reason = f"this process did not run for {self._stale:.0f} s and another one has taken over"
        else:
            reason = "its lock file is gone (was the run folder moved or removed?)"
        print(f"error: {self._own}: {reason}; it ends here", file=sys.stderr, flush=True)
        os._exit(1)


@dataclasses.dataclass(frozen=True)
class _Holder:
    words: str
    beat: float
    alive: bool

    def __str__(self) -> str:
        return self.words


def acquire_unless_alive(lock: Lock, poll: float = POLL_SECONDS, signals: StopSignals | None = None) -> None:
    """Take the lock; where another machine holds it, wait until its process gives a sign of life or is known to be dead.

    A task that is put in the queue again after a SIGKILL may start elsewhere at once: the lock then still looks fresh.

    Raises:
        LockedError: the holder is alive. Interrupted: `signals` has one, at the end of a `poll` at the latest.
    """
    first: LockedError | None = None
    while True:
        try:
            lock.acquire()
            return
        except LockedError as error:
            if error.alive or (first is not None and error.beat != first.beat):
                raise
            if first is None:
                print(f"waiting for a sign of life: {error}", flush=True)
            first = first or error
        _pause(poll, signals)


@contextlib.contextmanager
def lock_or_wait(
    lock: Lock, done: Callable[[], bool], poll: float = POLL_SECONDS, signals: StopSignals | None = None
) -> Iterator[bool]:
    """Hold the lock for work that only one process needs to do, or wait until another has done it.

    Args:
        lock: not yet held.
        done: whether the work is done.
        poll: seconds between two looks.
        signals: that end the waiting.

    Yields:
        True: the work is this process's; False: it is done, and the lock is not held.

    Raises:
        Interrupted: `signals` has one, at the end of a `poll` at the latest.
    """
    said = False
    while not done():
        try:
            lock.acquire()
        except LockedError as error:
            if not said:
                print(f"waiting: {error}", flush=True)
                said = True
            _pause(poll, signals)
            continue
        try:
            # Done by another one between the look and the lock.
            yield not done()
        finally:
            lock.release()
        return
    yield False


def _pause(seconds: float, signals: StopSignals | None) -> None:
    if signals is not None:
        signals.check()
    time.sleep(seconds)
    if signals is not None:
        signals.check()


def _this_process() -> dict:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": _start_time(os.getpid()), **_machine()}


def _is_alive(content: dict) -> bool | None:
    """Whether a process of this machine runs; None when that cannot be told from here."""
    here, pid = _machine(), content.get("pid")
    if not here or type(pid) is not int or any(content.get(key) != value for key, value in here.items()):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # Of another user, whose start time may be hidden.
        return None
    return _start_time(pid) == content.get("started")


def _machine() -> dict:
    """This start of this machine, and this space of process numbers on it (containers have their own). Empty outside Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return {"boot": boot, "processes": os.stat("/proc/self/ns/pid").st_ino}
    except (OSError, ValueError):
        return {}


def _start_time(pid: int) -> int | None:
    """When a process started, in ticks since the machine did; None when it has ended or nobody says."""
    try:
        # The name, second and in parentheses, may hold anything. State and start time are the third and the 22nd field.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
