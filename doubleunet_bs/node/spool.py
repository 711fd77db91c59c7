"""The node's memory on disk: received files, the state of every study, what has been sent where.

A file counts as received once it and its row are on disk (fsync, then commit); only then is it acknowledged. Every
state is one row of an SQLite database, so a node that was killed continues where it was. Names in here are hashes of
UIDs and paths. The folder is for its owner only, since the files hold patients.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from doubleunet_bs.dicom_files.dicom_file import load_header, pydicom_silence
from doubleunet_bs.dicom_files.header_values import read_identifier
from doubleunet_bs.dicom_files.sources import MAX_FILE_BYTES, MAX_HEADER_BYTES, Source
from doubleunet_bs.errors import RunError, ScanError, os_reason
from doubleunet_bs.files import sync_folder

WAITING, SENT, REFUSED = "waiting", "sent", "refused"
"""States of a delivery. Refused: the destination said that it will not take this file, or is no longer configured."""
RECEIVING, PREDICTING, SENDING, DONE, ASIDE = "receiving", "predicting", "sending", "done", "aside"
"""States of a study. Aside: no result can be made, for a reason that is kept; another file starts the study again."""

FAILED, CRASHED = "failed", "crash"
"""Reasons of a study that could not be segmented, and of one during which the node ended, though it was tried again."""
QUEUE = "queue.sqlite"
"""The database in a spool."""
CRASH_PAUSE = 20.0
"""Seconds that a study waits for each time that it was being predicted when the node ended."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS study (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, state TEXT NOT NULL, due REAL NOT NULL,
    changed REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',
    removed INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS study_state ON study (state, due);
CREATE TABLE IF NOT EXISTS instance (
    study INTEGER NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (study, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS delivery (
    destination TEXT NOT NULL, uid TEXT NOT NULL, study INTEGER NOT NULL, file TEXT NOT NULL, state TEXT NOT NULL,
    PRIMARY KEY (destination, uid)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS delivery_state ON delivery (destination, state, study);
CREATE INDEX IF NOT EXISTS delivery_waiting ON delivery (study) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS delivery_uid ON delivery (uid);
CREATE TABLE IF NOT EXISTS watched (path TEXT PRIMARY KEY, size INTEGER NOT NULL, modified INTEGER NOT NULL);
"""


@dataclasses.dataclass(frozen=True)
class Study:
    """A study whose turn it is.

    Attributes:
        number: its name in the log.
        folder: its received files.
        attempts: how often it was tried before.
    """

    number: int
    folder: Path
    attempts: int


@dataclasses.dataclass(frozen=True)
class Delivery:
    """A result to send: the name of its destination, its SOP Instance UID, its study's number, its file."""

    destination: str
    uid: str
    study: int
    path: Path


class Spool:
    """Opens the spool for this process alone; makes it where it does not exist. May be used from several threads.

    Args:
        folder: of the spool.
        destinations: names of those that are configured. What was not sent to others is kept as if they had refused it.

    Attributes:
        unsent: as `unsent_elsewhere`.

    Raises:
        RunError: another node uses the folder, or it cannot be made or read.
    """

    def __init__(self, folder: Path, destinations: Sequence[str]):
        self.folder, self.destinations = folder, tuple(destinations)
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
            self._owner = open(folder / "lock", "w", encoding="ascii")  # noqa: SIM115 - open as long as the node runs
            fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # What a killed node was just receiving has not been acknowledged.
            shutil.rmtree(self.incoming, ignore_errors=True)
            self.incoming.mkdir(mode=0o700)
            self._database = sqlite3.connect(folder / QUEUE, check_same_thread=False, isolation_level=None)
            self._database.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; {_SCHEMA}")
        except BlockingIOError:
            raise RunError(f"{folder}: another node uses this spool: stop it or name another folder") from None
        except (OSError, sqlite3.Error) as cause:
            raise RunError(f"{folder}: the spool cannot be opened ({os_reason(cause)})") from None
        with self._transaction() as database:
            _put_back(database)
            self.unsent = unsent_elsewhere(database, self.destinations)
            # A destination that refused a file may have been repaired since.
            configured = f"destination IN ({', '.join('?' * len(self.destinations))})"
            database.execute(
                f"UPDATE delivery SET state = CASE WHEN {configured} THEN ? ELSE ? END WHERE state != ?",
                (*self.destinations, WAITING, REFUSED, SENT),
            )
            database.execute(
                "UPDATE study SET state = ? WHERE state = ? AND id IN (SELECT study FROM delivery WHERE state = ?)",
                (SENDING, DONE, WAITING),
            )
            _settle(database)

    def close(self) -> None:
        """Leave the spool to another process."""
        with self._lock:
            self._database.close()
        self._owner.close()

    @property
    def incoming(self) -> Path:
        """Where files are until they are whole."""
        return self.folder / "incoming"

    def free_bytes(self) -> int:
        """Free space of the spool's disk."""
        return shutil.disk_usage(self.folder).free

    def is_full(self, min_free_mb: int) -> bool:
        """Whether the disk has less free space than it must keep."""
        return self.free_bytes() < min_free_mb << 20

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reading():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            finally:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """The database, for one thread at a time; its errors, such as a full disk, become an OSError."""
        with self._lock:
            try:
                yield self._database
            except sqlite3.Error as cause:
                raise OSError(errno.EIO, f"queue: {cause}", str(self.folder)) from None

    def receive(self, path: Path, quiet_seconds: float) -> tuple[int, bool]:
        """Take a whole DICOM file into its study. When this returns, it is safely on disk.

        Args:
            path: a file in `incoming`; it is moved.
            quiet_seconds: how long to wait for more of the study.

        Returns:
            The study's number, and whether the file is new: False for a result of this node, and for one that was
            received before, byte for byte, unless a part of its study has no result.

        Raises:
            ScanError: not DICOM, too large, or without the UIDs that every file has.
            OSError: it cannot be written.
        """
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ScanError("is larger than any bone scan", "too-large")
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        with pydicom_silence:
            dataset = load_header(*Source(str(path)).read(MAX_HEADER_BYTES)).dataset
            study_uid, uid = (read_identifier(dataset, name) for name in ("StudyInstanceUID", "SOPInstanceUID"))
        if not study_uid or not uid:
            raise ScanError("has no study or instance UID", "no-uid")
        key, instance = (hashlib.sha256(one.encode()).hexdigest()[:32] for one in (study_uid, uid))
        folder = self.folder / "received" / key
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        now = time.time()
        with self._transaction() as database:
            # An archive that passes on what it receives sends the node's own results back.
            own = database.execute("SELECT study FROM delivery WHERE uid = ?", (uid,)).fetchone()
            if own:
                path.unlink()
                return own[0], False
            known = database.execute(
                "SELECT study.id, digest, reason FROM study JOIN instance ON study.id = study "
                "WHERE study.key = ? AND instance.key = ?",
                (key, instance),
            ).fetchone()
            if known and known[1:] == (digest, ""):
                path.unlink()
                return known[0], False
            # A file that comes again with changes takes the place of the first, as in an archive.
            os.replace(path, folder / f"{instance}.dcm")
            for place in (folder, folder.parent, self.folder):
                sync_folder(place)
            database.execute(
                "INSERT INTO study (key, state, due, changed) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                "state = excluded.state, due = excluded.due, changed = excluded.changed, attempts = 0, reason = '', "
                "removed = 0",
                (key, RECEIVING, now + quiet_seconds, now),
            )
            [number] = database.execute("SELECT id FROM study WHERE key = ?", (key,)).fetchone()
            database.execute("REPLACE INTO instance VALUES (?, ?, ?)", (number, instance, digest))
        return number, True

    def next_study(self) -> Study | None:
        """The study that has been quiet for long enough, marked as being predicted; None when there is none.

        One study is predicted at a time. What still has the mark could not be noted, for instance on a full disk.
        """
        with self._transaction() as database:
            _put_back(database)
            row = database.execute(
                "SELECT id, key, attempts FROM study WHERE state = ? AND due <= ? ORDER BY due LIMIT 1",
                (RECEIVING, time.time()),
            ).fetchone()
            if row is None:
                return None
            database.execute("UPDATE study SET state = ?, attempts = attempts + 1 WHERE id = ?", (PREDICTING, row[0]))
        number, key, attempts = row
        return Study(number, self.folder / "received" / key, attempts)

    def finish(self, study: Study, results: dict[str, Path], reason: str = "") -> str:
        """Note the results of a study for every destination, in one step.

        Args:
            study: from `next_study`.
            results: SOP Instance UID -> file; empty when there are none.
            reason: why the study, or a part of it, has no result.

        Returns:
            The study's new state. A file that came meanwhile has set it back to receiving.
        """
        state = (SENDING if self.destinations else DONE) if results else ASIDE
        with self._transaction() as database:
            changed = database.execute(
                "UPDATE study SET state = ?, reason = ?, changed = ? WHERE id = ? AND state = ?",
                (state, reason, time.time(), study.number, PREDICTING),
            ).rowcount
            if not changed:
                return RECEIVING
            # Results of fewer files that were not sent yet.
            database.execute("DELETE FROM delivery WHERE study = ? AND state != ?", (study.number, SENT))
            for destination in self.destinations:
                for uid, path in results.items():
                    row = (destination, uid, study.number, str(path.relative_to(self.folder)), WAITING)
                    database.execute("INSERT OR IGNORE INTO delivery VALUES (?, ?, ?, ?, ?)", row)
            _settle(database)
        return state

    def postpone(self, study: Study, seconds: float, count: bool = True) -> None:
        """Try a study again later; without `count` the attempt is not counted."""
        with self._transaction() as database:
            database.execute(
                "UPDATE study SET state = ?, due = ?, attempts = attempts - ? WHERE id = ? AND state = ?",
                (RECEIVING, time.time() + seconds, 0 if count else 1, study.number, PREDICTING),
            )

    def deliveries(self, destination: str) -> list[Delivery]:
        """The first twelve files that wait for a destination, oldest study first."""
        with self._reading() as database:
            rows = database.execute(
                "SELECT uid, study, file FROM delivery WHERE destination = ? AND state = ? ORDER BY study LIMIT 12",
                (destination, WAITING),
            ).fetchall()
        return [Delivery(destination, uid, study, self.folder / file) for uid, study, file in rows]

    def delivered(self, delivery: Delivery, state: str) -> None:
        """Note that a destination has stored a file (SENT), or will not take it (REFUSED)."""
        with self._transaction() as database:
            database.execute(
                "UPDATE delivery SET state = ? WHERE destination = ? AND uid = ?",
                (state, delivery.destination, delivery.uid),
            )
            _settle(database)

    def is_watched(self, path: str, size: int, modified: int) -> bool:
        """Whether this file of the watch folder, unchanged, has been taken."""
        with self._reading() as database:
            row = database.execute("SELECT size, modified FROM watched WHERE path = ?", (_hashed(path),)).fetchone()
        return row == (size, modified)

    def mark_watched(self, path: str, size: int, modified: int) -> None:
        """Note that a file of the watch folder has been taken."""
        with self._transaction() as database:
            database.execute("REPLACE INTO watched VALUES (?, ?, ?)", (_hashed(path), size, modified))

    def copy_in(self, path: str) -> Path:
        """Copy a file into `incoming`."""
        handle, name = tempfile.mkstemp(dir=self.incoming)
        try:
            with open(handle, "wb") as target, open(path, "rb") as source:
                shutil.copyfileobj(source, target)
        except BaseException:
            os.unlink(name)
            raise
        return Path(name)

    def figures(self) -> dict[str, dict]:
        """For the metrics: "studies" by state, "deliveries" by (destination, state)."""
        with self._reading() as database:
            read = database.execute
            waiting = read("SELECT destination, state, COUNT(*) FROM delivery GROUP BY destination, state").fetchall()
            return {
                "studies": dict(read("SELECT state, COUNT(*) FROM study GROUP BY state").fetchall()),
                "deliveries": {(destination, state): number for destination, state, number in waiting},
            }

    def remove_old(self, days: float) -> int:
        """Remove the files of studies that were done or set aside some days ago. What was sent stays known.

        Returns:
            The number of studies whose files went.
        """
        with self._reading() as database:
            rows = database.execute(
                "SELECT id, key FROM study WHERE state IN (?, ?) AND changed < ? AND NOT removed",
                (DONE, ASIDE, time.time() - days * 86400),
            ).fetchall()
        for number, key in rows:
            with self._transaction() as database:
                changed = database.execute(
                    "UPDATE study SET removed = 1 WHERE id = ? AND state IN (?, ?)", (number, DONE, ASIDE)
                ).rowcount
                if changed:
                    database.execute("DELETE FROM instance WHERE study = ?", (number,))
                    database.execute("DELETE FROM delivery WHERE study = ? AND state != ?", (number, SENT))
                    shutil.rmtree(self.folder / "received" / key, ignore_errors=True)
                    shutil.rmtree(self.results(number), ignore_errors=True)
        return len(rows)

    def results(self, number: int) -> Path:
        """Folder of a study's results."""
        return self.folder / "results" / str(number)


def unsent_elsewhere(database: sqlite3.Connection, destinations: Collection[str]) -> dict[str, int]:
    """Name of a destination that is no longer configured -> number of results that were not sent to it."""
    rows = database.execute("SELECT destination, COUNT(*) FROM delivery WHERE state != ? GROUP BY destination", (SENT,))
    return {name: number for name, number in rows if name not in destinations}


def _put_back(database: sqlite3.Connection) -> None:
    """Let a study that is marked as being predicted wait for another try, behind the others."""
    database.execute(
        "UPDATE study SET state = ?, due = ? + ? * attempts WHERE state = ?",
        (RECEIVING, time.time(), CRASH_PAUSE, PREDICTING),
    )


def _settle(database: sqlite3.Connection) -> None:
    """A study is done when nothing of it waits."""
    database.execute(
        "UPDATE study SET state = ?, changed = ? WHERE state = ? AND NOT EXISTS "
        "(SELECT 1 FROM delivery WHERE delivery.study = study.id AND delivery.state = 'waiting')",
        (DONE, time.time(), SENDING),
    )


def _hashed(path: str) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()
