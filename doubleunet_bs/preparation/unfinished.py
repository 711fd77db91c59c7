"""The hidden folder in which a preparation grows, and the journal by which an interrupted one goes on.

Beside the output `SHARDS` there is `.SHARDS.unfinished/` until everything is done:

    journal.jsonl   the fingerprints of inputs and settings, then one line after each shard: what is done
    lock            held while a process works here
    shards/         renamed to `SHARDS` at the end

A shard counts once its line is complete in the journal; what was written after the last line is written again. So is
what follows a shard whose files are not those of its line any more. The folder is for its owner only: names of files,
often those of the patients, are in the journal.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from doubleunet_bs.errors import BoneScanError
from doubleunet_bs.files import umask
from doubleunet_bs.preparation.shards import KINDS, file_sha256, shard_name

JOURNAL = "journal.jsonl"


class Unfinished:
    """The folder of one preparation. Made by `open_unfinished`.

    Attributes:
        shards: folder for the shard files. entries: what `note` was given so far, by earlier runs as well.
        lost: why finished work of an earlier run is done again, or "".
    """

    def __init__(self, folder: Path, entries: list[dict[str, Any]], lost: str = ""):
        self.folder = folder
        self.shards = folder / "shards"
        self.entries = entries
        self.lost = lost

    def note(self, entry: dict[str, Any]) -> None:
        """Append a line to the journal. It is on the disk when this returns."""
        with open(self.folder / JOURNAL, "a", encoding="utf-8") as journal:
            journal.write(json.dumps(entry, allow_nan=False) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
        self.entries.append(entry)

    def finish(self, out: Path) -> None:
        """Let the shards appear as `out` and remove the rest."""
        os.chmod(self.shards, 0o777 & ~umask())
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
def open_unfinished(out: Path, fingerprint: Mapping[str, str]) -> Iterator[Unfinished]:
    """Make the hidden folder of `out`, or go on in the one that an interrupted run with the same fingerprint left.

    The folder stays when the block is left by an exception; `finish` or `discard` remove it. Each entry after the first
    is expected to have "shard", the shard's entry in `dataset.json`.

    Args:
        out: the folder to make. fingerprint: what the result depends on, in words -> its hash.

    Raises:
        BoneScanError: `out` exists, or another process is preparing it.
    """
    check_free(out)
    folder = out.parent / f".{out.name}.unfinished"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BoneScanError(f"{out}: another process is preparing it at this moment") from None
        lines = _read_journal(folder / JOURNAL)
        unfinished = Unfinished(folder, [entry for _, entry in lines[1:]])
        changed = _changes(lines[0][1] if lines else None, fingerprint)
        if changed:
            if unfinished.entries or (not lines and any(unfinished.shards.glob("*.npy"))):
                unfinished.lost = f"starts over, since {changed}"
            for old in folder.iterdir():
                if old.name != "lock":
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
            unfinished.entries.clear()
        else:
            for number, entry in enumerate(unfinished.entries):
                damaged = _damaged(unfinished.shards, number, entry["shard"])
                if damaged:
                    unfinished.lost = f"makes shards again from {damaged} on, which is not as it was written"
                    os.truncate(folder / JOURNAL, lines[number][0])
                    del unfinished.entries[number:]
                    break
        unfinished.shards.mkdir(exist_ok=True)
        # Half-written files have hidden names (`files.replace_file`); a killed run could not remove its own.
        for half in unfinished.shards.rglob(".*"):
            half.unlink()
        if changed:
            unfinished.note({"fingerprint": dict(fingerprint)})
            unfinished.entries.clear()
        yield unfinished


def _changes(first: dict[str, Any] | None, fingerprint: Mapping[str, str]) -> str:
    """What is not as it was when the journal with this first line was begun, in words; "" when all is the same."""
    found = first.get("fingerprint") if first else None
    if not isinstance(found, dict):
        return "the journal of an interrupted run is damaged"
    changed = [name for name in fingerprint if found.get(name) != fingerprint[name]]
    return f"this has changed since it was interrupted: {', '.join(changed)}" if changed else ""


def _damaged(folder: Path, number: int, shard: dict[str, Any]) -> str:
    """Name of a file of a shard that is not as it was written, or ""."""
    for kind in KINDS:
        path = folder / shard_name(kind, number)
        if not path.is_file() or file_sha256(path) != shard[f"{kind}_sha256"]:
            return path.name
    return ""


def _read_journal(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The complete lines, each with the byte at which it ends. What follows an incomplete one, the mark of an
    interruption, is cut off the file."""
    if not path.exists():
        return []
    lines, good = [], 0
    data = path.read_bytes()
    for line in data.splitlines(keepends=True):
        try:
            entry = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n") or not isinstance(entry, dict):
            break
        good += len(line)
        lines.append((good, entry))
    if good < len(data):
        os.truncate(path, good)
    return lines
