"""One process a fold: lock files in `RUN/locks`, for processes on any machines that share the run folder.

A lock is a file that one process alone can create. Its holder touches it every 15 seconds and removes it at the end.
That of a killed process is taken over: at once on the same machine, elsewhere when it is two minutes old. Locks of the
kernel do not reach every machine over NFS. `flufl.lock` needs hard links, which SMB lacks, and clocks that agree.
"""

import contextlib
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from doubleunet_bs.errors import RunError
from doubleunet_bs.files import create_file
from doubleunet_bs.stop_signals import StopSignals

FOLDER = "locks"
BEAT_SECONDS, POLL_SECONDS = 15.0, 5.0
LIFETIME_SECONDS = 120.0  # Longer than a beat and the minute for which NFS may show an old time together.
TAKEOVER_SECONDS = LIFETIME_SECONDS + POLL_SECONDS
"""So long a task that is started again waits: the lock of its killed predecessor is abandoned by then."""


class LockedError(RunError):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(run: Path, name: str, signals: StopSignals | None = None, seconds: float = 0.0) -> Iterator[None]:
    """Hold a lock of a run folder ("fold_01", "pretrain") within the block.

    `LockedError`: another process holds it, and still does after so many `seconds`. `Interrupted`: one of the `signals`
    came meanwhile.
    """
    path, end, told = run / FOLDER / f"{name}.lock", time.monotonic() + seconds, False
    since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    holder = f"{socket.gethostname()}, process {os.getpid()}, since {since}"
    text = f"{holder}\n{_machine()} {os.getpid()}\n{secrets.token_hex(8)}\n"
    while not create_file(path, text) and not (_remove_abandoned(path) and create_file(path, text)):
        error = LockedError(f"locked by {_lines(path)[0]}: if that process is gone, delete {path}")
        if signals is None or time.monotonic() > end:
            raise error
        if not told:
            print(f"waiting: {error}", flush=True)
            told = True
        signals.check()
        time.sleep(POLL_SECONDS)
        signals.check()
    released = threading.Event()
    beat = threading.Thread(target=_keep_alive, args=(path, text, released), daemon=True)
    beat.start()
    try:
        yield
    finally:
        released.set()
        beat.join()
        if _lines(path) == text.splitlines():
            path.unlink(missing_ok=True)


def _keep_alive(path: Path, text: str, released: threading.Event) -> None:
    while not released.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):  # The file system does not answer: nothing can be written now either.
            if _lines(path) != text.splitlines():
                # Suspended for longer than the lifetime, or the file was removed: another process may train the fold.
                print(f"error: {path}: this process has lost its lock and ends here", file=sys.stderr, flush=True)
                os._exit(1)
            os.utime(path)


def _remove_abandoned(path: Path) -> bool:
    """Whether the lock is free: its holder has released it, or is gone, and its file is removed here."""
    found, aside = _lines(path), path.with_suffix(f".{secrets.token_hex(8)}")
    try:
        if not _is_abandoned(path, found[1]):
            return False
        os.rename(path, aside)
    except FileNotFoundError:
        return True
    if _lines(aside) != found:
        os.rename(aside, path)  # That of a process which has taken it over meanwhile.
        return False
    aside.unlink()
    return True


def _is_abandoned(path: Path, process: str) -> bool:
    """Whether the holder, of which the second line of the file tells, is gone; FileNotFoundError when the file is."""
    machine, _, pid = process.rpartition(" ")
    if machine and machine == _machine() and not os.path.exists(f"/proc/{pid}"):
        return True
    touched = path.stat().st_mtime
    # The time of the file system, which may live on a machine with another clock.
    with tempfile.NamedTemporaryFile(prefix=".now-", dir=path.parent) as probe:
        return os.fstat(probe.fileno()).st_mtime - touched > LIFETIME_SECONDS


def _lines(path: Path) -> list[str]:
    """Holder, process and token. Without a file, or with a damaged one, "unknown" and ""."""
    with contextlib.suppress(FileNotFoundError):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        if len(lines) == 3:
            return lines
    return ["unknown", ""]


def _machine() -> str:
    """This start of this machine and its process numbers, of which containers have their own; "" outside Linux."""
    with contextlib.suppress(OSError):
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.stat('/proc/self/ns/pid').st_ino}"
    return ""
