"""What lies beside scans and is none: by name or first bytes, the kind under which it is counted."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

from doubleunet_bs.errors import ScanError, counted

# Name endings that are no part of the name. Others stay, since UIDs are full of dots.
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima", ".img", ".nm")

_SYSTEM = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "lost+found"}
_SYSTEM |= {"system volume information"}
_SYSTEM |= {"#snapshot", "~snapshot", "@recently-snapshot"}  # earlier states of all files, on network storage
_BINS = {"$recycle.bin", "recycler", "recycled", "#recycle", "@recycle", "recycle bin", "network trash folder"}
_BINS |= {"trash", "trashbox"}
_SUFFIX_KINDS = {
    "annotation": ("json",),
    "table": ("csv", "tsv", "xlsx", "xls", "ods"),
    "picture": ("png", "jpg", "jpeg", "gif", "bmp", "tif", "tiff", "webp"),
}
_KINDS = {suffix: kind for kind, suffixes in _SUFFIX_KINDS.items() for suffix in suffixes}
# Empty on every CD of some viewers. Another file without content and ending is a copy that failed.
_EMPTY_NAMES = {"lockfile", "version"}
_ARCHIVE_SUFFIXES = (".zip", ".gz", ".tgz", ".tar", ".rar", ".7z", ".bz2", ".xz", ".iso", ".lzma", ".lzh", ".arj",
                     ".dmg", ".nrg", ".mdf", ".vhd", ".vhdx")  # fmt: skip
# Where a container has its mark, the mark, its name with its article.
_CONTAINERS = (
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"PK\x07\x08", "a split zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"Rar!", "an RAR archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ\0", "an xz archive"),
    (32769, b"CD001", "a CD image"),
)
_FORMATS = (
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"%PDF", "a PDF document"),
    (0, b"!INTERFILE", "an Interfile header"),
    (344, b"n+1\0", "a NIfTI image"),
)


@dataclasses.dataclass(frozen=True)
class PassedOver:
    """A file that is no bone scan and is not meant to be one. It is counted and is no problem.

    Attributes:
        path: as in `Rejection`.
        kind: "CT", "screen capture", "DICOMDIR", "not DICOM", "picture"..., as `count_kinds` shows it.
    """

    path: str
    kind: str


def count_kinds(files: Iterable[PassedOver]) -> str:
    """The kinds with their numbers, the most frequent first: "12 CT, 3 pictures, 1 DICOMDIR"; "" without files."""
    kinds = Counter(file.kind for file in files).most_common()
    return ", ".join(
        counted(number, kind) if kind.islower() else f"{number} {kind}"
        for kind, number in sorted(kinds, key=lambda each: (-each[1], each[0]))
    )


def kind_by_name(steps: Sequence[str]) -> str | None:
    """The kind of what systems leave behind, from the names of folders and file; None for anything else."""
    for step in steps:
        name = step.lower()
        if name in _BINS or name.startswith(".trash"):
            return "recycle bin"
        if name in _SYSTEM:
            return "system file"
        # "." and ".." are steps of a path, not hidden files: archives are full of "./name".
        if name.startswith(".") and name not in (".", ".."):
            return "hidden file"
    return None


def kind_of_other(name: str, data: bytes) -> str | None:
    """The kind of a file whose first bytes are not those of DICOM; None when it may be a damaged scan."""
    lowered = name.lower()
    _, dot, suffix = lowered.rpartition(".")
    if dot and suffix in _KINDS:
        return _KINDS[suffix]
    if ".jar." in lowered or suffix == "jar":  # parts of a viewer on CDs
        return "not DICOM"
    if lowered.endswith((*DICOM_SUFFIXES, *_ARCHIVE_SUFFIXES)) or container(data) is not None:
        return None
    # The parts of a UID are no suffix.
    if dot and suffix[:1].isalpha() and len(suffix) <= 8:
        return "not DICOM"
    text = b"\0" not in data[:4096] and data
    return "not DICOM" if text or lowered in _EMPTY_NAMES else None


def kind_of_package(members: Sequence[str]) -> str | None:
    """The kind of a zip archive that is a document or a program; None for an archive of files."""
    if any(name in ("[Content_Types].xml", "mimetype") for name in members):
        return "office file"
    return "not DICOM" if "META-INF/MANIFEST.MF" in members else None


def container(data: bytes) -> str | None:
    """The name, with its article, of the kind of container that these first bytes begin; None for none."""
    return next((name for at, mark, name in _CONTAINERS if data[at : at + len(mark)] == mark), None)


def not_dicom(data: bytes) -> ScanError:
    """The error for a file that does not begin as DICOM does."""
    if (name := container(data)) is not None:
        return ScanError(f"is {name}: unpack it first", "archive")
    if not data:
        return ScanError("is empty: copy it again", "not-dicom")
    format_name = next((name for at, mark, name in _FORMATS if data[at : at + len(mark)] == mark), None)
    return ScanError(f"is {format_name}, not a DICOM file" if format_name else "is not a DICOM file", "not-dicom")


class OtherFileError(ScanError):
    """A DICOM file that is whole, but not the counts of a whole-body scan.

    Args:
        message, reason: as for `ScanError`.
        kind: as in `PassedOver`.
    """

    def __init__(self, message: str, reason: str, kind: str):
        super().__init__(message, reason)
        self.kind = kind

    def __reduce__(self):
        return type(self), (str(self), self.reason, self.kind)
