"""The log of a run of `predict`, which names scans by their pseudonyms only."""

import datetime
import os
from pathlib import Path
from types import TracebackType

from doubleunet_bs.errors import RunError, SettingsError, os_reason
from doubleunet_bs.files import nearest_existing


def check_log(path: Path) -> None:
    """Look whether a log can be written, without writing anything.

    Raises:
        SettingsError: it is a folder, a file is where a folder must be, or permission is missing.
    """
    there = nearest_existing(path)
    if path.is_dir():
        reason = "Is a directory"
    elif there != path and not there.is_dir():
        reason = "Not a directory"
    elif not os.access(there, os.W_OK):
        reason = "Permission denied"
    else:
        return
    raise SettingsError(f"{path}: the log cannot be written ({reason}): give --log another file")


class RunLog:
    """Appends one line per event to a file, after those of earlier runs; without a file it does nothing.

    File names, folders and texts of errors are left out, since they may hold a patient's name. A scan is named by its
    pseudonym, or by its number in the run when it could not be read, and an error by its reason.

    Raises:
        SettingsError: the file cannot be written.
    """

    def __init__(self, path: Path | None):
        self._file = None
        if path is not None:
            check_log(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.line(f"stopped: {kind.__name__}")
        if self._file is not None:
            self._file.close()

    def line(self, text: str) -> None:
        """Append a line with the local time; it is in the file when this returns."""
        if self._file is not None:
            try:
                self._file.write(f"{datetime.datetime.now().isoformat(timespec='seconds')} {text}\n")
                self._file.flush()
            except OSError as cause:
                raise RunError(f"{self._file.name}: the log cannot be written ({os_reason(cause)})") from None
