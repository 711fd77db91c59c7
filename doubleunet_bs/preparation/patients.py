"""`patients.csv` in the labels folder: the patient of each scan and what is known of them.

    scan,patient,cancer,metastases
    scan-001,A-17,breast,yes
    scan-002,A-17,breast,no

`scan` is the file's name without its ending, with folders in front where several scans have one name: `2019/scan-001`.
The other columns may be empty or left out. A scan without an annotation and without a `no` is rejected, since its
annotation may have been forgotten. A patient given here overrides the header.
"""

import csv
import dataclasses
import io
import os
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from doubleunet_bs.constants import CANCERS
from doubleunet_bs.errors import DatasetError
from doubleunet_bs.preparation.records import CaseRecord

FILE = "patients.csv"
LARGEST_FILE = 16 << 20


@dataclasses.dataclass(frozen=True)
class Declaration:
    """One row.

    Attributes:
        patient: the user's name for the patient, to be replaced by a pseudonym; None when the cell is empty.
        cancer: "breast", "prostate" or None. metastases: True, False or None.
    """

    patient: str | None
    cancer: str | None
    metastases: bool | None


def read_patients(path: str | os.PathLike) -> dict[str, Declaration]:
    """Scan name -> its row.

    Comma or semicolon between the cells, UTF-8. Further columns are ignored. Messages name line and column but never a
    cell, since patients' names may be in the wrong column.

    Raises:
        DatasetError: not readable, no `scan` column, a cell with another word than allowed, a scan twice.
    """
    path = Path(path)
    text = _read_text(path)
    head = text.partition("\n")[0]
    delimiter = ";" if ";" in head and "," not in head else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error:
        raise DatasetError(f"{path}: line {reader.line_num} is not a row of a table") from None
    columns = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    if columns.count("scan") != 1 or any(columns.count(name) > 1 for name in ("patient", "cancer", "metastases")):
        raise DatasetError(f"{path}: the first line must name the columns scan,patient,cancer,metastases")
    found: dict[str, Declaration] = {}
    for line, row in rows[1:]:
        if len(row) > len(columns):
            raise DatasetError(f"{path}: line {line} has {len(row)} cells for {len(columns)} columns: remove some")
        # A short row lacks the last cells.
        cells = {name: cell.strip() for name, cell in zip(columns, row, strict=False)}
        try:
            scan, declaration = _read_row(cells)
        except ValueError as wrong:
            raise DatasetError(f"{path}: line {line}: {wrong}") from None
        if scan in found:
            raise DatasetError(f"{path}: line {line}: this scan has a line already: keep one")
        found[scan] = declaration
    return found


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise DatasetError(f"{path}: too large for a table of patients")
        # Names of files and of patients may come with composed accents or with separate ones.
        return unicodedata.normalize("NFC", path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such table of patients") from None
    except (OSError, UnicodeDecodeError) as cause:
        raise DatasetError(f"{path}: not readable as UTF-8 text ({type(cause).__name__})") from None


def _read_row(cells: Mapping[str, str]) -> tuple[str, Declaration]:
    """The scan of a row and what is declared of it. Raises ValueError with a message that quotes no cell."""
    cancer, metastases = cells.get("cancer", "").lower(), cells.get("metastases", "").lower()
    if cancer and cancer not in CANCERS:
        raise ValueError(f"the column cancer must be {' or '.join(CANCERS)}, or empty")
    if metastases not in ("yes", "no", ""):
        raise ValueError("the column metastases must be yes or no, or empty")
    if not cells.get("scan"):
        raise ValueError("the column scan is empty")
    says = {"yes": True, "no": False, "": None}[metastases]
    return cells["scan"], Declaration(patient=cells.get("patient") or None, cancer=cancer or None, metastases=says)


ISSUER_WARNING = (
    "its Patient ID has an issuer in some headers and none in others: treated as different patients unless "
    "patients.csv says otherwise"
)


@dataclasses.dataclass(frozen=True)
class PatientSource:
    """Where the patient of a scan is known from.

    Attributes:
        header: pseudonym of the Patient ID in the header (with its issuer), or None.
        declared: whether patients.csv says who the patient is.
    """

    header: str | None
    declared: bool


def same_patients(cases: Sequence[CaseRecord], sources: Sequence[PatientSource]) -> list[CaseRecord]:
    """Let scans that patients.csv does not assign join the patient of the others with their Patient ID."""
    assigned: defaultdict[str | None, set[str]] = defaultdict(set)
    for case, source in zip(cases, sources, strict=True):
        if source.declared and source.header is not None:
            assigned[source.header].add(case.patient)
    # What the table says holds, also where it says the same as another scan's header, which may be wrong.
    return [
        dataclasses.replace(case, patient=next(iter(assigned[source.header])))
        if not source.declared and len(assigned[source.header]) == 1
        else case
        for case, source in zip(cases, sources, strict=True)
    ]


def warn_of_issuers(
    cases: Sequence[CaseRecord], sources: Sequence[PatientSource], identifiers: Mapping[str, str]
) -> list[CaseRecord]:
    r"""Add `ISSUER_WARNING` where one Patient ID came with an issuer from one export and without from another.

    Scans that patients.csv assigns get no warning.

    Args:
        cases, sources: as for `same_patients`, after it.
        identifiers: pseudonym -> Patient ID, with an issuer "PatientID\issuer".
    """
    alike = defaultdict(list)
    for number, source in enumerate(sources):
        if source.header is not None:
            bare, _, issuer = identifiers[source.header].partition("\\")
            alike[bare].append((number, bool(issuer)))
    found = list(cases)
    for scans in alike.values():
        both_kinds = len({issued for _, issued in scans}) == 2
        if both_kinds and len({cases[number].patient for number, _ in scans}) > 1:
            for number, _ in scans:
                if not sources[number].declared:
                    case = found[number]
                    found[number] = dataclasses.replace(case, warnings=(*case.warnings, ISSUER_WARNING))
    return found
