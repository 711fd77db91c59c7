"""The errors a user can meet: one line that names the file, what is wrong and what to do.

Every command turns a `BoneScanError` into that line on standard error and the exit code of its class.
Anything else that escapes is a defect of this package.
"""

import errno
import os
import re
import shutil
from collections.abc import Sequence


class BoneScanError(Exception):
    """Base of all errors of this package. The message is one line for a person, without patient data."""

    exit_code = 1


class SettingsError(BoneScanError):
    """A wrong argument or an impossible setting. Exit code 2."""

    exit_code = 2


def missing_extra(name: str) -> SettingsError:
    """The error for packages that only some users need: an extra of setup.cfg."""
    return SettingsError(f'the extra {name} is not installed: pip install -e ".[{name}]" in the clone')


class ScanError(BoneScanError):
    """A file cannot be used as a whole-body bone scan.

    Args:
        message: one line for a person.
        reason: short machine-readable slug, for instance `"not-dicom"` or `"missing-view"`.
    """

    def __init__(self, message: str, reason: str = "unusable"):
        super().__init__(message)
        self.reason = reason

    def __reduce__(self):
        return type(self), (str(self), self.reason)


class LabelError(ScanError):
    """An annotation file cannot be turned into a mask without guessing."""


class DatasetError(BoneScanError):
    """A shard folder, a folds file or a class map is missing, damaged or of another version."""


class RunError(BoneScanError):
    """A run folder, a checkpoint or an exported model is missing, damaged or belongs to something else."""


class ServerError(BoneScanError):
    """A model server does not answer, or not as a server of a model of this package."""


def counted(number: int, noun: str) -> str:
    """ "1 scan", "2 scans", "2 copies", "2 days": the number, and the noun in the plural unless there is one."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if re.search("[^aeiou]y$", noun) else f"{number} {noun}s"


def full_disk(error: BaseException, path: str | os.PathLike) -> OSError | None:
    """An `OSError` for `path` if the text of `error` names a full disk or quota, else None.

    TensorFlow has one class for a full memory and a full disk. HDF5 adds lines of addresses and raises RuntimeError.
    """
    number = _full(error)
    return OSError(number, os.strerror(number), str(path)) if number else None


def _full(error: BaseException) -> int | None:
    return next((number for number in (errno.ENOSPC, errno.EDQUOT) if os.strerror(number) in str(error)), None)


def os_reason(error: BaseException) -> str:
    """Why the system refused: "No space left on device", "Permission denied".

    NumPy leaves the reason out, pydicom wraps the error in one of its own, and `shutil.copytree` makes a list of them.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, shutil.Error) and isinstance(cause.args[0], list):
            # Source, destination and text: "[Errno 28] No space left on device: 'NAME'".
            return re.sub(r"^\[Errno \d+\] |: '.*$", "", str(cause.args[0][0][2]))
        if isinstance(cause, FileExistsError):
            return "a file is in the way"
        if isinstance(cause, OSError) and cause.strerror:
            number = _full(cause)
            return os.strerror(number) if number else cause.strerror
        cause = cause.__cause__ or cause.__context__
    # NumPy: "262144 requested and 36736 written". Only a full disk or quota takes a part.
    return os.strerror(errno.ENOSPC) if "requested and" in str(error) else str(error) or type(error).__name__


def one_line(text: object) -> str:
    """Text from outside in one line: what cannot be printed, such as a line break, becomes "?"."""
    return "".join(character if character.isprintable() else "?" for character in str(text))


def printable(text: str) -> str:
    """A file name as UTF-8 can hold it: bytes that are none become escapes such as `\\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def first_of(names: Sequence[str]) -> str:
    """ "a, b, c and 12 more": the first three names of a list."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(one_line, names[:3])) + more
