"""One process a fold: lock files in `RUN/locks`, for processes on any machines that share the run folder.

A lock is a file that only one process can create. Its holder touches it every 15 seconds and removes it at the end. The
next process removes the file of a killed one: at once when this machine has no process of that number and start,
otherwise when the file was not touched for two minutes. Locks of the kernel are not used: over NFS they do not reach
every machine.

The file names machine and process, no user. It never leaves the run folder.
"""

import contextlib
import json
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from doubleunet_bs.errors import RunError
from doubleunet_bs.files import create_file, json_text
from doubleunet_bs.stop_signals import StopSignals

FOLDER = "locks"
BEAT_SECONDS = 15.0
LIFETIME_SECONDS = 120.0
"""Longer than a beat and the minute for which NFS may show an old time together."""
POLL_SECONDS = 5.0
"""Between two looks at a lock that another process holds."""


class LockedError(RunError):
    """Another process holds the lock.

    Args:
        path: the lock file.
        holder: who holds it: "locked by HOST, process N, since ...".
        elsewhere: the holder may run on another machine, and may have been killed since it touched the file.
    """

    def __init__(self, path: Path, holder: str, elsewhere: bool = False):
        super().__init__(f"{path}: {holder}; if that process is gone, delete this file")
        self.holder, self.elsewhere = holder, elsewhere


class Lock:
    """A lock of a run ("fold_01", "pretrain"), held within its `with` block.

    Raises `LockedError` on entry, when another process holds the lock.
    """

    def __init__(self, run_path: str | os.PathLike, name: str):
        self.path = Path(run_path) / FOLDER / f"{name}.lock"
        self._text = ""
        self._released = threading.Event()

    def __enter__(self) -> Self:
        since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        holder: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid(), "machine": _machine()}
        holder |= {"started": _started(os.getpid()), "since": since}
        self._text = json_text({**holder, "token": secrets.token_hex(8)})
        if not create_file(self.path, self._text):
            self._remove_abandoned()
            if not create_file(self.path, self._text):
                raise self._locked()
        self._released.clear()
        self._thread = threading.Thread(target=self._keep_alive, name=f"lock {self.path.name}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._released.set()
        self._thread.join()
        if self._is_mine():
            self.path.unlink(missing_ok=True)

    def _remove_abandoned(self) -> None:
        """Remove the file of a process that is gone. Only the process that holds a second file may do so."""
        with contextlib.suppress(FileNotFoundError):  # The holder has released it: nothing to remove.
            text = self._read()
            if not self._is_abandoned(text):
                raise self._locked()
            removing = self.path.with_suffix(".removing")
            if not create_file(removing, self._text):
                raise LockedError(removing, "another process takes the lock over")
            try:
                # The content last: by now the file may be that of a process that has just taken the lock.
                if self._is_abandoned(text) and self._read() == text:
                    self.path.unlink(missing_ok=True)
            finally:
                removing.unlink(missing_ok=True)

    def _is_abandoned(self, text: str) -> bool:
        """Whether the process that wrote this text is gone; FileNotFoundError when the file is."""
        content = _parsed(text)
        if _is_here(content) and not _is_running(content.get("pid"), content.get("started")):
            return True
        touched = self.path.stat().st_mtime
        # The time of the file system, which may live on a machine with another clock.
        with tempfile.NamedTemporaryFile(prefix=".now-", dir=self.path.parent) as probe:
            return os.fstat(probe.fileno()).st_mtime - touched > LIFETIME_SECONDS

    def _read(self) -> str:
        return self.path.read_text(encoding="utf-8", errors="replace")

    def _locked(self) -> LockedError:
        try:
            content = _parsed(self._read())
        except FileNotFoundError:
            content = {}
        host, pid, since = (content.get(name, "unknown") for name in ("host", "pid", "since"))
        return LockedError(self.path, f"locked by {host}, process {pid}, since {since}", not _is_here(content))

    def _is_mine(self) -> bool:
        try:
            return self._read() == self._text
        except FileNotFoundError:
            return False

    def _keep_alive(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            try:
                if self._is_mine():
                    os.utime(self.path)
                    continue
            except OSError:
                # The file system does not answer: nothing can be written now either.
                continue
            # This process was suspended for longer than the lifetime, or the file was removed. Another process may work
            # on the fold.
            print(f"error: {self.path}: this process has lost its lock and ends here", file=sys.stderr, flush=True)
            os._exit(1)


@contextlib.contextmanager
def lock_or_wait(lock: Lock, signals: StopSignals) -> Iterator[None]:
    """Hold the lock. If a process of another machine does, wait for as long as the file of a killed one counts.

    A task that is started again after its machine was lost finds its own lock, touched a moment ago. `LockedError`: the
    holder lives.
    """
    with contextlib.ExitStack() as held:
        end = None
        while True:
            last = end is not None and time.monotonic() > end
            try:
                held.enter_context(lock)
                break
            except LockedError as error:
                if last or not error.elsewhere:
                    raise
                if end is None:
                    seconds = LIFETIME_SECONDS + POLL_SECONDS
                    end = time.monotonic() + seconds
                    print(f"waiting up to {seconds:.0f} s, in case the holder was killed: {error}", flush=True)
            pause(signals)
        yield


def pause(signals: StopSignals) -> None:
    """Wait before the next look at a lock. Interrupted when a signal has come."""
    signals.check()
    time.sleep(POLL_SECONDS)
    signals.check()


def _parsed(text: str) -> dict[str, Any]:
    """What a lock file says; empty when it is damaged."""
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _is_here(content: dict[str, Any]) -> bool:
    """Whether a holder is for sure a process of this machine."""
    machine = _machine()
    return machine is not None and content.get("machine") == machine


def _machine() -> str | None:
    """This start of this machine, and its space of process numbers (containers have their own). None outside Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return None


def _is_running(pid: Any, started: Any = None) -> bool:
    """Whether the process of this machine with this number is the one that was started then.

    In a container that was started again a new process may have the number of the old one. True where that cannot be
    known.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, TypeError, OverflowError):  # A process of another user, or no number.
        pass
    now = _started(pid)
    return started is None or now is None or started == now


def _started(pid: Any) -> int | None:
    """When a process was started, in clock ticks since the machine was; None outside Linux."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
