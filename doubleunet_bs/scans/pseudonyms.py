"""Pseudonyms of scans and patients: keyed hashes, with the key and the lookup table in a file the user keeps."""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import stat
import tempfile
from pathlib import Path

from doubleunet_bs.errors import BoneScanError

FORMAT = "doubleunet-bs pseudonyms 1"
_DIGITS = 12
_MIN_KEY_BYTES = 16


class Pseudonyms:
    """Turns identifiers into pseudonyms that nobody can turn back without the key (decided here).

    The same key gives the same pseudonym for the same identifier, on any machine and in any order; a pseudonym is the
    first 12 hexadecimal digits of HMAC-SHA256. Every identifier that was asked for is remembered, so that the
    user can find his patient again: `save` writes key and table to a file only he can read.

    Args:
        key: at least 16 secret bytes.

    Attributes:
        cases: pseudonym -> identifier of every scan asked for.
        patients: pseudonym -> identifier of every patient asked for.
    """

    def __init__(self, key: bytes):
        if not isinstance(key, bytes) or len(key) < _MIN_KEY_BYTES:
            raise BoneScanError(f"a pseudonym key needs at least {_MIN_KEY_BYTES} bytes")
        self._key = key
        self.cases: dict[str, str] = {}
        self.patients: dict[str, str] = {}

    def __repr__(self) -> str:
        # Neither key nor identifiers may end up in a log.
        return f"Pseudonyms({len(self.cases)} cases, {len(self.patients)} patients)"

    @classmethod
    def new(cls) -> "Pseudonyms":
        """Pseudonyms under a new random key, with an empty table."""
        return cls(secrets.token_bytes(32))

    def case(self, source_id: str) -> str:
        """The pseudonym of a scan, "case-" and 12 hexadecimal digits."""
        return self._remember(self.cases, "case", source_id)

    def patient(self, patient_id: str) -> str:
        """The pseudonym of a patient, "patient-" and 12 hexadecimal digits."""
        return self._remember(self.patients, "patient", patient_id)

    def merge(self, other: "Pseudonyms") -> None:
        """Take over the table of another, for instance of a worker process with the same key.

        Raises:
            BoneScanError: when the keys differ.
        """
        if not hmac.compare_digest(self._key, other._key):
            raise BoneScanError("pseudonyms under two different keys cannot be merged")
        self.cases.update(other.cases)
        self.patients.update(other.patients)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Pseudonyms":
        """Read a file written by `save`.

        Raises:
            BoneScanError: when it is missing, damaged, or readable by anyone but its owner.
        """
        path = Path(path)
        try:
            mode = path.stat().st_mode
            if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise BoneScanError(f"{path}: others may read this key; run chmod 600 on it, or make a new one")
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as cause:
            raise BoneScanError(f"{path}: the pseudonym file cannot be read ({cause.strerror})") from None
        except (ValueError, RecursionError):
            raise BoneScanError(f"{path}: not a pseudonym file of this program") from None
        try:
            if content["format"] != FORMAT:
                raise ValueError
            pseudonyms = cls(bytes.fromhex(content["key"]))
            for table, make in (("cases", pseudonyms.case), ("patients", pseudonyms.patient)):
                for pseudonym, identifier in content[table].items():
                    if make(identifier) != pseudonym:
                        raise ValueError
        except (KeyError, TypeError, ValueError, AttributeError, BoneScanError):
            raise BoneScanError(f"{path}: not a pseudonym file of this program, or changed by hand") from None
        return pseudonyms

    def save(self, path: str | os.PathLike) -> None:
        """Write key and table as JSON, atomically; from its first byte on only the owner can read the file.

        Raises:
            BoneScanError: when the file cannot be written.
        """
        path = Path(path)
        content = {
            "format": FORMAT,
            "key": self._key.hex(),
            "cases": dict(sorted(self.cases.items())),
            "patients": dict(sorted(self.patients.items())),
        }
        temporary = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # mkstemp creates with mode 0600.
            handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
            with open(handle, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=2, ensure_ascii=False)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            temporary = None
        except OSError as cause:
            raise BoneScanError(f"{path}: the pseudonym file cannot be written ({cause.strerror})") from None
        finally:
            if temporary is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)

    def _remember(self, table: dict[str, str], kind: str, identifier: str) -> str:
        if not isinstance(identifier, str) or not identifier:
            raise BoneScanError(f"a {kind} without an identifier has no pseudonym")
        # The kind is part of the message: a scan and a patient with one identifier get unrelated pseudonyms.
        message = f"{kind}\0{identifier}".encode("utf-8", "surrogatepass")
        pseudonym = f"{kind}-" + hmac.new(self._key, message, hashlib.sha256).hexdigest()[:_DIGITS]
        if table.setdefault(pseudonym, identifier) != identifier:
            # 48 bits: one chance in a hundred million among a thousand scans.
            raise BoneScanError(f"two {kind}s would share the pseudonym {pseudonym}; use another key")
        return pseudonym
