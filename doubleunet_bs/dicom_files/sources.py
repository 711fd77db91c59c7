"""A DICOM file in a folder or in a zip archive: bounded reading, and every failure is a `ScanError`."""

import contextlib
import dataclasses
import lzma
import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, BinaryIO

from doubleunet_bs.dicom_files.other_files import DICOM_SUFFIXES, kind_by_name
from doubleunet_bs.errors import ScanError, one_line, os_reason

MEBIBYTE = 1024 * 1024

# A file, an archive member or an inflated data set larger than this is not a whole-body scan.
MAX_FILE_BYTES = 64 * MEBIBYTE

# Everything before the pixel data. Real headers are under 100 KB, or hold calibration images of several MB.
MAX_HEADER_BYTES = 16 * MEBIBYTE

# Where the header of nearly every file has ended. Only of the others more is read.
FIRST_LOOK_BYTES = 1 << 16

# Items of sequences in a header: eight bytes each become a Python object of more than one KB.
MAX_HEADER_ITEMS = 20_000

# Decoded pixels of one file: two 2048 x 512 frames of 64 bits are 16 MB.
MAX_PIXEL_BYTES = 16 * MEBIBYTE

# A zip archive: its table of contents, its members together, and how far a member may be compressed.
MAX_ARCHIVE_DIRECTORY_BYTES = 16 * MEBIBYTE
MAX_ARCHIVE_MEMBERS = 50_000
MAX_ARCHIVE_BYTES = 64 * 1024 * MEBIBYTE
MAX_ARCHIVE_RATIO = 200

# The compressed frames of one file, decoded in a process of their own.
DECODER_SECONDS = 30
DECODER_BYTES = 1024 * MEBIBYTE

_ARCHIVE_ERRORS = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError,
    NotImplementedError, RuntimeError, ValueError, OverflowError,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Source:
    """One file, or one member of a zip archive.

    Attributes:
        path: the file, or the archive.
        member: name of the member in the archive, exactly as its table of contents has it, or "".
    """

    path: str
    member: str = ""

    @property
    def steps(self) -> list[str]:
        """Folders and name of the member, or the name of the file. Some programs on Windows separate by backslashes."""
        return self.member.replace("\\", "/").split("/") if self.member else [os.path.basename(self.path)]

    @property
    def label(self) -> str:
        """How messages name it: the path, and behind a "!" the member."""
        label = f"{self.path}!{'/'.join(self.steps)}" if self.member else self.path
        # A name may hold line breaks, or bytes that no terminal can show.
        return one_line(label)

    @property
    def stem(self) -> str:
        """The file name without folders and suffix of DICOM or a picture, accents composed.

        Label files are named after it.
        """
        # A member may be called like a folder and hold something all the same.
        name = next(filter(None, reversed(self.steps)), "")
        name = unicodedata.normalize("NFC", name)
        for suffix in (*DICOM_SUFFIXES, ".png", ".jpg", ".jpeg"):
            if name.lower().endswith(suffix) and len(name) > len(suffix):
                return name[: -len(suffix)]
        return name

    def read(self, limit: int = MAX_FILE_BYTES, archive: zipfile.ZipFile | None = None) -> tuple[bytes, bool]:
        """Return the first `limit` bytes, and whether that is all there is. `archive` is that of a member, if open.

        Raises:
            ScanError: `unreadable`, or `archive` for a damaged or encrypted archive.
        """
        if archive is not None:
            return read_member(archive, self.member, limit)
        if self.member:
            with open_archive(self.path) as archive:
                return read_member(archive, self.member, limit)
        with open_file(self.path) as file:
            return _read_bounded(file, limit)


@contextlib.contextmanager
def prefix_errors(source: Source) -> Iterator[None]:
    """Put the file's name before the message of a `ScanError`."""
    try:
        yield
    except ScanError as error:
        raise ScanError(f"{source.label}: {error}", error.reason) from None


def open_file(path: str) -> BinaryIO:
    """Open a regular file; `unreadable` when there is none, or it is a folder, a pipe or a device, or not allowed."""
    try:
        # A pipe without a writer would block for ever, so look before opening.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ScanError("is not a regular file: give the file or files of one scan", "unreadable")
        return open(path, "rb")
    except FileNotFoundError:
        raise ScanError("no such file", "unreadable") from None
    except (OSError, ValueError) as cause:
        raise ScanError(
            f"cannot be read ({os_reason(cause) if isinstance(cause, OSError) else 'bad name'})", "unreadable"
        ) from None


def is_archive(path: str) -> bool:
    """Whether the file begins as a zip archive does. False when it cannot be read."""
    try:
        with open_file(path) as file:
            return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    except (ScanError, OSError):
        return False


def open_archive(path: str) -> zipfile.ZipFile:
    """Open a zip archive after its size on paper was checked; `unreadable`, `archive` (damaged) or `archive-bomb`."""
    try:
        with open_file(path) as file:
            _check_directory(file)
        archive = zipfile.ZipFile(path)
    except _ARCHIVE_ERRORS as cause:
        raise _archive_error(cause, "is a damaged zip archive") from None
    try:
        if sum(member.file_size for member in archive.infolist()) > MAX_ARCHIVE_BYTES:
            raise ScanError("unpacks to more than any export of scans does", "archive-bomb")
        for member in archive.infolist():
            member.filename = _member_name(member)
        files = [member.filename for member in archive.infolist() if not member.is_dir()]
        if len(set(files)) < len(files):
            raise ScanError("holds two files of one name: unpack it first", "archive")
        archive.NameToInfo = {member.filename: member for member in archive.infolist()}
    except ScanError:
        archive.close()
        raise
    return archive


def read_member(archive: zipfile.ZipFile, name: str, limit: int = MAX_FILE_BYTES) -> tuple[bytes, bool]:
    """Return the first `limit` bytes of a member, and whether that is all. Nothing is written to disk.

    Raises:
        ScanError: `archive`, `archive-bomb` for a member that is packed unlike any image, or `unreadable`.
    """
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise ScanError("no such file in the archive", "unreadable") from None
    if member.flag_bits & 1:
        raise ScanError("is encrypted: unpack the archive first", "archive")
    if member.file_size > MEBIBYTE and member.file_size > MAX_ARCHIVE_RATIO * max(member.compress_size, 1):
        raise ScanError(f"unpacks to {member.file_size // MEBIBYTE} MB from next to nothing", "archive-bomb")
    try:
        with archive.open(member) as file:
            return _read_bounded(file, limit)
    except _ARCHIVE_ERRORS as cause:
        raise _archive_error(cause, "cannot be unpacked from its archive") from None


def list_members(archive: zipfile.ZipFile) -> list[str]:
    """The names of the files in the archive, sorted, without folders."""
    files = {member.filename for member in archive.infolist() if not member.is_dir()}
    # Some programs on Windows separate folders by backslashes.
    return sorted(name for name in files if not name.endswith("\\") or archive.getinfo(name).file_size)


def _archive_error(cause: Exception, message: str) -> ScanError:
    # A failing disk is no damaged archive. Libraries of compression raise OSError, too, but without a reason.
    if isinstance(cause, OSError) and cause.strerror:
        return ScanError(f"cannot be read ({cause.strerror})", "unreadable")
    return ScanError(message, "archive")


def _member_name(member: zipfile.ZipInfo) -> str:
    """The name of a member whose program did not mark it as UTF-8, which zipfile reads as code page 437.

    Raises:
        ScanError: `archive` when it cannot be known: annotations and patients.csv would not find the scan.
    """
    name = member.filename
    if member.flag_bits & 0x800 or name.isascii():
        return name
    # From Python 3.12 on zipfile has put the Unicode Path into `filename`.
    checksum, extra = struct.pack("<I", zlib.crc32(member.orig_filename.encode("cp437"))), member.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<2H", extra)
        # Info-ZIP's Unicode Path: version, checksum of the raw name, name.
        if kind == 0x7075 and extra[5:9] == checksum:
            return extra[9 : 4 + size].decode("utf-8", "replace")
        extra = extra[4 + size :]
    raw = name.encode("cp437")
    with contextlib.suppress(UnicodeDecodeError):
        return raw.decode("utf-8")
    # Letters of western languages are where Windows puts them. Anything else was written in another code page, and so
    # were words that are wholly Japanese.
    western = all(character.isascii() or "\xc0" <= character <= "\xff" for character in name)
    words = re.findall(r"[^\W\d_]+", raw.decode("cp932", "replace"))
    if western and not any(word[0] > "\u3040" and not re.search("[A-Za-z\ufffd]", word) for word in words):
        return name
    raise ScanError("has names in an unknown encoding, not marked as UTF-8: unpack it first", "archive")


def _read_bounded(file: IO[bytes], limit: int) -> tuple[bytes, bool]:
    try:
        data = file.read(limit + 1)
    except OSError as cause:
        raise ScanError(f"cannot be read ({os_reason(cause)})", "unreadable") from None
    return data[:limit], len(data) <= limit


def _check_directory(file: BinaryIO) -> None:
    """Refuse a table of contents too large to be loaded: zipfile would read all of it."""
    end = file.seek(0, os.SEEK_END)
    tail_start = max(end - 65557, 0)
    file.seek(tail_start)
    tail = file.read()
    position = tail.rfind(b"PK\x05\x06")
    if position < 0 or len(tail) < position + 22:
        raise ScanError("is a damaged zip archive", "archive")
    members, size = struct.unpack_from("<HI", tail, position + 10)
    # A zip64 archive keeps the true figures in a second record, 76 bytes before the first.
    record = tail[max(position - 76, 0) : position]
    if len(record) == 76 and record[:4] == b"PK\x06\x06" and record[56:60] == b"PK\x06\x07":
        members, size = struct.unpack_from("<QQ", record, 32)
    if members > MAX_ARCHIVE_MEMBERS or size > MAX_ARCHIVE_DIRECTORY_BYTES:
        raise ScanError(f"has more than {MAX_ARCHIVE_MEMBERS:,} files: unpack it first", "archive-bomb")


def walk_files(
    folder: str | os.PathLike[str],
    unreadable: Callable[[OSError], None] | None = None,
    left_out: Callable[[str], None] | None = None,
) -> Iterator[str]:
    """The files of a folder and of all folders below it, also linked ones, each once, except hidden folders and bins.

    Args:
        folder: where to begin.
        unreadable: told of folders that cannot be listed; without it they are passed over.
        left_out: told of folders that are hidden, or a recycle bin.

    Yields:
        The path of a file, which begins with `folder`. Those of one folder are sorted by name.
    """
    # A link may lead back to what has been searched, or round in circles.
    seen: set[tuple[int, int]] = set()
    for where, folders, names in os.walk(os.fspath(folder), onerror=unreadable, followlinks=True):
        try:
            status = os.stat(where)
        except OSError as gone:
            folders.clear()
            if unreadable is not None:
                unreadable(gone)
            continue
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        kept = [name for name in folders if kind_by_name([name]) is None]
        if left_out is not None:
            for name in set(folders) - set(kept):
                left_out(os.path.join(where, name))
        # Links last: of two ways to a folder its own name is the one to report.
        folders[:] = sorted(kept, key=lambda name: (os.path.islink(os.path.join(where, name)), name))
        yield from (os.path.join(where, name) for name in sorted(names))
