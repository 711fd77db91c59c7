"""The hidden folder in which a preparation grows, and the journal by which an interrupted one goes on.

Beside the output `SHARDS` there is `.SHARDS.unfinished/` until everything is done:

    journal.jsonl   the fingerprint of inputs and settings, then one line after each shard: what is done
    lock            held while a process works here
    shards/         renamed to `SHARDS` at the end

A shard counts once its line is complete in the journal; what was written after the last line is written again.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doubleunet_bs.errors import BoneScanError

JOURNAL = "journal.jsonl"


class Unfinished:
    """The folder of one preparation. Made by `open_unfinished`.

    Attributes:
        shards: folder for the shard files. entries: what `note` was given so far, by earlier runs as well.
    """

    def __init__(self, folder: Path, entries: list[dict[str, Any]]):
        self.folder = folder
        self.shards = folder / "shards"
        self.entries = entries

    def note(self, entry: dict[str, Any]) -> None:
        """Append a line to the journal. It is on the disk when this returns."""
        with open(self.folder / JOURNAL, "a", encoding="utf-8") as journal:
            journal.write(json.dumps(entry, allow_nan=False) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
        self.entries.append(entry)

    def finish(self, out: Path) -> None:
        """Let the shards appear as `out` and remove the rest."""
        os.chmod(self.shards, 0o777 & ~_umask())
        os.rename(self.shards, out)
        self.discard()

    def discard(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def check_free(out: Path) -> None:
    """Raise `BoneScanError` when `out` exists and is not an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BoneScanError(f"{out}: exists already; choose another folder or remove it first")


@contextlib.contextmanager
def open_unfinished(out: Path, fingerprint: str) -> Iterator[Unfinished]:
    """Make the hidden folder of `out`, or go on in the one that an interrupted run with the same fingerprint left.

    The folder stays when the block is left by an exception; `finish` or `discard` remove it.

    Raises:
        BoneScanError: `out` exists, or another process is preparing it.
    """
    check_free(out)
    folder = out.parent / f".{out.name}.unfinished"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BoneScanError(f"{out}: another process is preparing it at this moment") from None
        entries = _read_journal(folder / JOURNAL)
        if not entries or entries[0] != {"fingerprint": fingerprint}:
            for old in folder.iterdir():
                if old.name != "lock":
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
            entries = []
        unfinished = Unfinished(folder, entries[1:])
        unfinished.shards.mkdir(exist_ok=True)
        # Half-written files have hidden names (`files.replace_file`); a killed run could not remove its own.
        for half in unfinished.shards.rglob(".*"):
            half.unlink()
        if not entries:
            unfinished.note({"fingerprint": fingerprint})
            unfinished.entries.clear()
        yield unfinished


def _read_journal(path: Path) -> list[dict[str, Any]]:
    """The complete lines. What follows an incomplete one, the mark of an interruption, is cut off the file."""
    if not path.exists():
        return []
    entries, good = [], 0
    data = path.read_bytes()
    for line in data.splitlines(keepends=True):
        try:
            entry = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n") or not isinstance(entry, dict):
            break
        entries.append(entry)
        good += len(line)
    if good < len(data):
        os.truncate(path, good)
    return entries


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
