"""One process a fold: lock files in `RUN/locks`, for processes on any machines that share the run folder.

A lock is a file that only one process can create. Its holder touches it every 15 seconds and removes it at the end. The
file of a killed process is removed by the next one: at once when no process has its number on this machine, otherwise
when nobody has touched it for two minutes. Locks of the kernel are not used: over NFS they do not reach every machine.

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

    Raises:
        LockedError: on entry, when another process holds the lock.
    """

    def __init__(self, run_path: str | os.PathLike, name: str):
        self.path = Path(run_path) / FOLDER / f"{name}.lock"
        self._text = ""
        self._released = threading.Event()

    def __enter__(self) -> Self:
        since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "machine": _machine(), "since": since}
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
        content, machine = self._content(), _machine()
        if machine and content.get("machine") == machine and not _is_running(content.get("pid")):
            return True
        try:
            touched = self.path.stat().st_mtime
        except FileNotFoundError:
            return True
        # The time of the file system, which may live on a machine with another clock.
        with tempfile.NamedTemporaryFile(prefix=".now-", dir=self.path.parent) as probe:
            return os.fstat(probe.fileno()).st_mtime - touched > LIFETIME_SECONDS

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


def _machine() -> str | None:
    """This start of this machine, and its space of process numbers (containers have their own). None outside Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return None


def _is_running(pid: Any) -> bool:
    """Whether a process of this machine has this number. True where that cannot be known."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, TypeError, OverflowError):  # A process of another user, or no number.
        pass
    return True
