"""One process a fold: lock files in `RUN/locks`, for processes on any machines that share the run folder.

A lock is a file that only one process can create. Its holder touches it every 15 seconds and removes it at the end. A
file
that a killed process left is removed by the next one: at once on the same machine, elsewhere when nobody has touched it
for two minutes. Locks of the kernel are not used, since over NFS they do not reach every machine.

The file names machine and process, no user. It never leaves the run folder.
"""

import json
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

from doubleunet_bs.errors import RunError
from doubleunet_bs.files import create_file, json_text

FOLDER = "locks"
BEAT_SECONDS = 15.0
LIFETIME_SECONDS = 120.0
"""Longer than a beat and the minute for which NFS may show an old time together."""


class LockedError(RunError):
    """Another process holds the lock.

    Args:
        path: the lock file.
        holder: who holds it: "locked by HOST, process N, since ...".
    """

    def __init__(self, path: Path, holder: str):
        super().__init__(f"{path}: {holder}; if that process is gone, delete this file")
        self.holder = holder


class Lock:
    """A lock of a run, held within its `with` block.

    Args:
        run_path: the run folder.
        name: "fold_01", "pretrain".
        beat: seconds between two touches.
        lifetime: seconds without a touch after which another machine may remove the file.

    Raises:
        LockedError: on entry, when another process holds the lock.
    """

    def __init__(
        self,
        run_path: str | os.PathLike,
        name: str,
        beat: float = BEAT_SECONDS,
        lifetime: float = LIFETIME_SECONDS,
    ):
        self.path = Path(run_path) / FOLDER / f"{name}.lock"
        self._beat, self._lifetime = beat, lifetime
        self._text = ""
        self._released = threading.Event()

    def __enter__(self) -> Self:
        since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        self._text = json_text({**_this_process(), "since": since, "token": secrets.token_hex(8)})
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
        if not self._is_abandoned():
            raise self._locked()
        removing = self.path.with_suffix(".removing")
        if not create_file(removing, self._text):
            raise LockedError(removing, "another process takes the lock over")
        try:
            if self._is_abandoned():
                self.path.unlink(missing_ok=True)
        finally:
            removing.unlink(missing_ok=True)

    def _is_abandoned(self) -> bool:
        content = self._content()
        machine = _machine()
        if machine and content.get("machine") == machine and isinstance(content.get("pid"), int):
            return not _is_running(content["pid"], content.get("started"))
        try:
            touched = self.path.stat().st_mtime
        except FileNotFoundError:
            return True
        # The time of the file system, which may live on a machine with another clock.
        with tempfile.NamedTemporaryFile(prefix=".now-", dir=self.path.parent) as probe:
            return os.fstat(probe.fileno()).st_mtime - touched > self._lifetime

    def _content(self) -> dict[str, Any]:
        """What the lock file says; empty when it is damaged or gone."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _locked(self) -> LockedError:
        host, pid, since = (self._content().get(name, "unknown") for name in ("host", "pid", "since"))
        return LockedError(self.path, f"locked by {host}, process {pid}, since {since}")

    def _is_mine(self) -> bool:
        try:
            return self.path.read_text(encoding="utf-8") == self._text
        except FileNotFoundError:
            return False

    def _keep_alive(self) -> None:
        while not self._released.wait(self._beat):
            try:
                if self._is_mine():
                    os.utime(self.path)
                    continue
            except OSError:
                # The file system does not answer: nothing can be written now either.
                continue
            # This process was suspended for longer than the lifetime, or somebody has removed the file. Another process
            # may work on the fold: what this one has saved is in its hands now.
            print(f"error: {self.path}: this process has lost its lock and ends here", file=sys.stderr, flush=True)
            os._exit(1)


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": _start_time(pid), "machine": _machine()}


def _machine() -> str:
    """This start of this machine, and its space of process numbers (containers have their own). "" outside Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except (OSError, ValueError):
        return ""


def _is_running(pid: int, started: int | None) -> bool:
    """Whether a process of this machine, known by its number and start time, still runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # Of another user, whose start time may be hidden.
        return True
    return _start_time(pid) == started


def _start_time(pid: int) -> int | None:
    """When a process started, in ticks since the machine did. None when it has ended or nothing is known."""
    try:
        # The name, second and in parentheses, may hold anything. State and start time are the third and the 22nd field.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
