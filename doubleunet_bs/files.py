"""Files that appear whole or not at all."""

import csv
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from doubleunet_bs.errors import BoneScanError, RunError, SettingsError, full_disk, os_reason

MOST_DIGITS = 300
"""Of a whole number in JSON: a larger one is no floating-point number."""


def replace_file(path: str | os.PathLike, write: Callable[[Path], object], mode: int | None = None) -> None:
    """Let `write` fill a temporary file beside `path` with the same suffix, then rename it over `path`.

    `mode` are the permissions; None leaves them to the umask. With 0o600 only the owner can ever read it.
    """
    path = Path(path)
    handle, name = _temporary(path, "".join(path.suffixes))
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        os.chmod(temporary, 0o666 & ~umask() if mode is None else mode)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as cause:
        _name(cause, path)
        raise
    except RuntimeError as cause:
        # HDF5, when it closes a file.
        if full := full_disk(cause, path):
            raise full from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str, mode: int | None = None) -> None:
    """Write UTF-8 text to `path` atomically; `mode` as for `replace_file`."""
    replace_file(path, lambda temporary: temporary.write_text(text, "utf-8", "backslashreplace"), mode)


def json_text(content: Any) -> str:
    """`content` as indented JSON. NaN and infinity are refused: use None."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A file name that is not UTF-8 becomes an escape, from which every reader of JSON gets the name back.
    return text.encode("utf-8", "backslashreplace").decode()


def csv_text(lines: Iterable[Sequence[object]]) -> str:
    """Lines of cells as CSV; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def write_json(path: str | os.PathLike, content: Any, mode: int | None = None) -> None:
    """Write `json_text(content)` to `path` atomically; `mode` as for `replace_file`."""
    write_text(path, json_text(content), mode)


def create_file(path: str | os.PathLike, text: str, mode: int | None = None) -> bool:
    """Write UTF-8 text to `path` unless something is there already. Of several processes, on any machine, one succeeds.

    Returns whether this call made the file, which appears with all of its content at once.
    """
    path = Path(path)
    handle, name = _temporary(path)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~umask() if mode is None else mode)
        try:
            os.link(name, path)
        except FileExistsError:
            # Over NFS an answer can get lost and the repeated request then finds its own link.
            return os.stat(name).st_nlink > 1
        except OSError:
            # A file system without hard links: exclusive as well, but for a moment the file is there without content.
            return _create_in_place(path, text, 0o666 if mode is None else mode)
        return True
    except OSError as cause:
        _name(cause, path)
        raise
    finally:
        os.unlink(name)


def _temporary(path: Path, suffix: str = "") -> tuple[int, str]:
    """An open temporary file beside `path`, and its name. The folder is made where it is missing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.mkstemp(prefix=f".{path.name.split('.')[0]}-", suffix=suffix, dir=path.parent)
    except OSError as cause:
        _name(cause, path)
        raise


def _name(error: OSError, path: Path) -> None:
    """Let an error name the file or folder that was to be made: a full disk names none, or a temporary one."""
    # NumPy gives its reason in the text alone, which a file name replaces.
    error.strerror = os_reason(error)
    error.filename = str(path)


def _create_in_place(path: Path, text: str, mode: int = 0o666) -> bool:
    try:
        with open(path, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    return True


def read_json(path: str | os.PathLike, error: type[BoneScanError] = BoneScanError, what: str = "file") -> Any:
    """Read JSON, turning every way it can fail into `error` naming `path` and `what` it is: "folds file"."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), parse_int=_parse_whole)
    except FileNotFoundError:
        raise error(f"{path}: no such {what}") from None
    except (OSError, ValueError, RecursionError) as cause:
        raise error(f"{path}: not a readable {what} ({os_reason(cause)})") from None


def _parse_whole(digits: str) -> int:
    """A whole number that can be compared and converted: a larger one would end in an OverflowError somewhere."""
    if len(digits) > MOST_DIGITS:
        raise ValueError("a whole number of too many digits")
    return int(digits)


@contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yield an empty folder beside `path` that is renamed to `path` when the block ends without an error.

    A block that removes the folder itself leaves nothing. `BoneScanError`: `path` exists and is not an empty folder.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise BoneScanError(f"{path}: exists already: choose another folder or remove it first")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as cause:
        # Not the name of the temporary folder, which says nothing.
        raise BoneScanError(f"{path}: the folder cannot be made ({os_reason(cause)}): choose another place") from None
    try:
        yield temporary
        if temporary.exists():
            os.chmod(temporary, 0o777 & ~umask())
            if path.exists():
                path.rmdir()
            os.rename(temporary, path)
    except OSError as cause:
        # Not the name of the temporary folder, which says nothing.
        if cause.filename is None or Path(cause.filename).is_relative_to(temporary):
            _name(cause, path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def nearest_existing(path: str | os.PathLike) -> Path:
    """The path itself, or the innermost folder above it that is there."""
    path = Path(path)
    # Not by Path, whose `exists` raises in a folder that may not be entered.
    return next(part for part in (path, *path.absolute().parents) if os.path.exists(part))


def umask() -> int:
    """The permission bits that new files of this process lack."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def no_folder(path: str | os.PathLike) -> SettingsError:
    """The error for a path that should be a folder: nothing is there, or a file."""
    return SettingsError(f"{path}: {'is a file: give its folder' if os.path.exists(path) else 'no such folder'}")


def exists_already(folder: Path) -> RunError:
    """The error for a result that would have to be replaced."""
    return RunError(f"{folder}: exists already: give --overwrite or another --out folder")


@contextmanager
def replaced_folder(path: Path, replace: bool = True) -> Iterator[Path]:
    """Yield an empty folder beside `path` that takes its place when the block ends without an error.

    What was at `path` stays untouched until then, and comes back when anything, Ctrl-C too, stops the renaming. Without
    `replace`, what is there in the end is a `RunError`, even what another process has put there meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    # mkdtemp is for the owner alone; a server under another account must be able to read.
    new, old = aside / "new", aside / "old"
    try:
        new.mkdir(mode=0o777 & ~umask())
        yield new
        try:
            if replace and path.exists():
                os.rename(path, old)
            os.rename(new, path)
        except BaseException as cause:
            if old.exists() and not path.exists():
                os.rename(old, path)
            if not replace and isinstance(cause, OSError) and path.exists():
                raise exists_already(path) from None
            raise
    except OSError as cause:
        # Not the name of the temporary folder, which says nothing.
        if cause.filename is None or Path(cause.filename).is_relative_to(aside):
            _name(cause, path)
        raise
    finally:
        # Stopped once more while it was put back, the old folder stays where it is.
        if path.exists() or not old.exists():
            shutil.rmtree(aside, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
