"""Pseudonyms of scans and patients: keyed hashes, with the key and the lookup table in a file the user keeps.

Two files lead back from a pseudonym, both for their owner only. The file of `Pseudonyms.save` holds the key, the
identifiers and the paths. The table of `save_file_table` has one line `case,path` for each file of a scan.
"""

import contextlib
import csv
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from doubleunet_bs.constants import CASE_NAME
from doubleunet_bs.errors import BoneScanError, os_reason, printable
from doubleunet_bs.files import create_file, csv_text, json_text, write_text

FORMAT = "doubleunet-bs pseudonyms 1"
_DIGITS = 12
_MIN_KEY_BYTES = 16


class Pseudonyms:
    """Turns identifiers into pseudonyms that cannot be reversed without the key.

    A pseudonym is the first 12 hexadecimal digits of an HMAC-SHA256. Every identifier is remembered: `save` writes key
    and table to a file that only you can read.

    Args:
        key: at least 16 secret bytes.

    Attributes:
        cases: pseudonym -> identifier of every scan asked for.
        patients: pseudonym -> identifier of every patient asked for.
        persons: pseudonym of a patient -> pairs of birth date and sex that came with it; never written to a file.
        files: pseudonym of a scan -> absolute paths of its one or two files, where they are known.

    Example:
        >>> pseudonyms = Pseudonyms(bytes(32))
        >>> case = pseudonyms.case("1.2.3")
        >>> pseudonyms.files[case] = ("/export/wb37.dcm",)
        >>> pseudonyms.cases[case], pseudonyms.files[case]
        ('1.2.3', ('/export/wb37.dcm',))
    """

    def __init__(self, key: bytes):
        if not isinstance(key, bytes) or len(key) < _MIN_KEY_BYTES:
            raise BoneScanError(f"a pseudonym key needs at least {_MIN_KEY_BYTES} bytes")
        self._key = key
        self.cases: dict[str, str] = {}
        self.patients: dict[str, str] = {}
        self.files: dict[str, tuple[str, ...]] = {}
        self.persons: dict[str, set[tuple[str, str]]] = {}

    def __repr__(self) -> str:
        # Neither key nor identifiers may end up in a log.
        return f"Pseudonyms({len(self.cases)} cases, {len(self.patients)} patients)"

    @classmethod
    def new(cls) -> "Pseudonyms":
        """Pseudonyms under a new random key, with an empty table."""
        return cls(secrets.token_bytes(32))

    @property
    def key_mark(self) -> str:
        """16 hexadecimal digits that differ between keys and reveal nothing of them."""
        return hmac.new(self._key, b"which key", hashlib.sha256).hexdigest()[:16]

    def case(self, source_id: str) -> str:
        """The pseudonym of a scan, "case-" and 12 hexadecimal digits."""
        return self._remember(self.cases, "case", source_id)

    def patient(self, patient_id: str) -> str:
        """The pseudonym of a patient, "patient-" and 12 hexadecimal digits."""
        return self._remember(self.patients, "patient", patient_id)

    def merge(self, other: "Pseudonyms") -> None:
        """Add the table of another object. BoneScanError when the keys differ."""
        if not hmac.compare_digest(self._key, other._key):
            raise BoneScanError("pseudonyms under two different keys cannot be merged")
        self.cases.update(other.cases)
        self.patients.update(other.patients)
        self.files.update(other.files)
        for patient, seen in other.persons.items():
            self.persons.setdefault(patient, set()).update(seen)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Pseudonyms":
        """Read what `save` wrote; `BoneScanError` when it is missing, damaged, or readable by others than its owner."""
        path = Path(path)
        try:
            mode, text = path.stat().st_mode, path.read_bytes()
        except OSError as cause:
            raise BoneScanError(f"{path}: the pseudonym file cannot be read ({os_reason(cause)})") from None
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise BoneScanError(f"{path}: others may read this key: run chmod 600 on it, or make a new one")
        try:
            content = json.loads(text)
            if content["format"] != FORMAT:
                raise ValueError
            pseudonyms = cls(bytes.fromhex(content["key"]))
            for table, make in (("cases", pseudonyms.case), ("patients", pseudonyms.patient)):
                for pseudonym, identifier in content[table].items():
                    if make(identifier) != pseudonym:
                        raise ValueError
            for pseudonym, paths in content["files"].items():
                if pseudonym not in pseudonyms.cases or not all(isinstance(path, str) for path in paths):
                    raise ValueError
                pseudonyms.files[pseudonym] = tuple(paths)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, BoneScanError):
            raise BoneScanError(f"{path}: not a pseudonym file of this program, or changed by hand") from None
        return pseudonyms

    @classmethod
    def open(cls, path: str | os.PathLike, create: bool = False) -> "Pseudonyms":
        """Load a file, or begin with a new key where there is none: `save` then makes the file.

        `create` makes it at once, so that several processes that begin together have the same key.
        """
        if create and not Path(path).exists():
            try:
                create_file(path, cls.new()._text(), mode=0o600)
            except OSError as cause:
                raise BoneScanError(f"{path}: the pseudonym file cannot be written ({os_reason(cause)})") from None
        return cls.load(path) if Path(path).exists() else cls.new()

    def save(self, path: str | os.PathLike) -> None:
        """Write key and table as JSON, atomically; only the owner can ever read the file.

        The table of a file that is there already, of other data sets with the same key, is kept. Several processes may
        save at the same time.

        Raises:
            BoneScanError: when the file cannot be written, or is there with another key.
        """
        path = Path(path)
        try:
            if not create_file(path, self._text(), mode=0o600):
                with _locked(path):
                    together = self.load(path)
                    if not hmac.compare_digest(self._key, together._key):
                        raise BoneScanError(f"{path}: holds another key: choose another file")
                    together.merge(self)
                    write_text(path, together._text(), mode=0o600)
        except OSError as cause:
            raise BoneScanError(f"{path}: the pseudonym file cannot be written ({os_reason(cause)})") from None

    def _text(self) -> str:
        return json_text(
            {
                "format": FORMAT,
                "key": self._key.hex(),
                "cases": dict(sorted(self.cases.items())),
                "patients": dict(sorted(self.patients.items())),
                "files": {case: [printable(path) for path in paths] for case, paths in sorted(self.files.items())},
            }
        )

    def _remember(self, table: dict[str, str], kind: str, identifier: str) -> str:
        if not isinstance(identifier, str) or not identifier:
            raise BoneScanError(f"a {kind} without an identifier has no pseudonym")
        # The kind is part of the message: a scan and a patient with one identifier get unrelated pseudonyms.
        message = f"{kind}\0{identifier}".encode("utf-8", "surrogatepass")
        pseudonym = f"{kind}-" + hmac.new(self._key, message, hashlib.sha256).hexdigest()[:_DIGITS]
        if table.setdefault(pseudonym, identifier) != identifier:
            # 48 bits: one chance in a hundred million among a thousand scans.
            raise BoneScanError(f"two {kind}s would share the pseudonym {pseudonym}: use another key")
        return pseudonym


def save_file_table(path: str | os.PathLike, files: Mapping[str, Sequence[str]]) -> None:
    """Write a CSV table `case,path` that only its owner can read. Lines of other cases in an existing table are kept.

    Several processes may save at the same time. `BoneScanError`: it cannot be written, or another file is there.
    """
    try:
        create_file(path, "case,path\n", mode=0o600)
        with _locked(Path(path)):
            together = load_file_table(path) | dict(files)
            rows = ((case, printable(name)) for case, names in sorted(together.items()) for name in names)
            write_text(path, csv_text([("case", "path"), *rows]), mode=0o600)
    except OSError as cause:
        raise BoneScanError(f"{path}: the table of files cannot be written ({os_reason(cause)})") from None


def load_file_table(path: str | os.PathLike) -> dict[str, tuple[str, ...]]:
    """Case -> paths, from a table of `save_file_table`. BoneScanError when it is none."""
    found: dict[str, tuple[str, ...]] = {}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, strict=True))
        if rows[:1] != [["case", "path"]]:
            raise ValueError
        for case, name in rows[1:]:
            if not CASE_NAME.fullmatch(case):
                raise ValueError
            found[case] = (*found.get(case, ()), name)
    except (OSError, ValueError, csv.Error):
        raise BoneScanError(f"{path}: not a readable table of files: remove it") from None
    return found


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an existing file for this process alone."""
    while True:
        with open(path, "rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever held it before may have put another file in its place.
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                yield
                return
