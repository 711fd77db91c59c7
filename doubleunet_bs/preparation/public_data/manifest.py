"""The masks for BS-80K: their manifest, the published split in it, and the check of every file against it."""

import csv
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.dicom_files.sources import walk_folders
from doubleunet_bs.errors import DatasetError
from doubleunet_bs.preparation.public_data.data_sets import UNUSED
from doubleunet_bs.preparation.public_data.pictures import read_text
from doubleunet_bs.preparation.records import PARTS
from doubleunet_bs.scans.scan_files import Rejection

_COLUMNS = {"mask_set", "patient_id", "view", "file", "source", "split", "sha256"}


def read_manifest(folder: Path) -> list[dict[str, str]]:
    path = folder / "manifest.csv"
    if not path.is_file():
        raise DatasetError(f"{folder}: has no manifest.csv: name the folder of the masks with --labels")
    sums = folder / "SHA256SUMS.txt"
    if sums.is_file():
        known = {name.lstrip("*./"): digest for digest, name in map(_halves, read_text(sums).splitlines())}
        wanted = known.get("manifest.csv")
        # An unpacking program may have changed the ends of the lines.
        data = path.read_bytes()
        if wanted and wanted.lower() not in (_sha256(data), _sha256(data.replace(b"\r\n", b"\n"))):
            raise DatasetError(f"{path}: not as SHA256SUMS.txt describes it: unpack the archive again")
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    rows = [{str(key).strip(): (value or "").strip() for key, value in row.items()} for row in reader]
    if not rows or not set(rows[0]) >= _COLUMNS:
        raise DatasetError(f"{path}: must have the columns {', '.join(sorted(_COLUMNS))}")
    for line, row in enumerate(rows, start=2):
        if not re.search(r"\d+$", row["patient_id"]) or row["view"].lower() not in VIEWS:
            raise DatasetError(f"{path}: line {line} names no patient or view")
    if not any(map(is_hotspot, rows)):
        found = ", ".join(sorted({repr(row["mask_set"][:20]) for row in rows})[:5])
        raise DatasetError(f"{path}: has no hot-spot mask: mask_set must be 'hotspot_masks', found {found}")
    return rows


def _halves(line: str) -> tuple[str, str]:
    first, _, rest = line.strip().partition(" ")
    return first, rest.strip()


def number_of(row: Mapping[str, str]) -> int:
    return int(row["patient_id"].rpartition("_")[2])


def is_hotspot(row: Mapping[str, str]) -> bool:
    return "hotspot" in re.sub(r"[\W_]", "", row["mask_set"].lower())


def split_of(rows: Sequence[Mapping[str, str]], folder: Path) -> dict[int, str]:
    """Number -> "train", "validation", "test" or "unused"."""
    split: dict[int, str] = {}
    for row in rows:
        number, part = number_of(row), {"val": "validation"}.get(row["split"].lower(), row["split"].lower())
        if part not in (*PARTS, UNUSED):
            raise DatasetError(f"{folder / 'manifest.csv'}: {row['patient_id']} is in the unknown part {part[:20]!r}")
        if split.setdefault(number, part) != part:
            raise DatasetError(f"{folder / 'manifest.csv'}: {row['patient_id']} is in two parts of the split")
    return split


def check_files(
    folder: Path, rows: Sequence[Mapping[str, str]]
) -> tuple[dict[tuple[int, str], Path | None], list[Rejection]]:
    """(number, view) -> hot-spot mask, None when it is missing or another one; and what is wrong."""
    there = {
        Path(place, name).relative_to(folder).as_posix().lower(): Path(place, name)
        for place, names in walk_folders(folder)
        for name in names
    }
    files: dict[tuple[int, str], Path | None] = {}
    rejected = []
    for row in filter(is_hotspot, rows):
        key, name = (number_of(row), row["view"].lower()), row["file"].replace("\\", "/")
        path = there.get(name.lower()) or there.get(f"hotspot_masks/{name}".lower())
        files[key] = None
        if path is None:
            rejected.append(
                Rejection(name, "missing-file", "is in manifest.csv, but not there: unpack the archive again")
            )
        elif _sha256(path.read_bytes()) != row["sha256"].lower():
            message = "its SHA-256 is not that of manifest.csv: unpack the archive again"
            rejected.append(Rejection(name, "checksum", message))
        else:
            files[key] = path
    return files, rejected


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
