"""`patients.csv` in the labels folder: who a scan belongs to and what is known of him (decided here).

    scan,patient,cancer,metastases
    scan-001,A-17,breast,yes
    scan-002,A-17,breast,no

`scan` is the file's name without its ending; where scans in several folders have one name, with the folders in front:
`2019/scan-001`. The other columns may be empty or left out. A normal scan says `no`; a
scan without an annotation that says nothing is a forgotten annotation. Capitals in the file's name do not matter. A
patient given here holds whatever the header says.
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
        patient: as the user calls him, to be replaced by a pseudonym; None when the cell is empty.
        cancer: "breast", "prostate" or None. metastases: True, False or None.
    """

    patient: str | None
    cancer: str | None
    metastases: bool | None


def read_patients(path: str | os.PathLike) -> dict[str, Declaration]:
    """Scan name -> its row.

    Comma or semicolon between the cells, UTF-8. Further columns are not looked at. Messages name line and column but no
    cell, since names may stand in the wrong column.

    Raises:
        DatasetError: not readable, no `scan` column, a cell with another word than allowed, a scan twice.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise DatasetError(f"{path}: too large for a table of patients")
        # Names of files and of patients may come with composed accents or with separate ones.
        text = unicodedata.normalize("NFC", path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such table of patients") from None
    except (OSError, UnicodeDecodeError) as cause:
        raise DatasetError(f"{path}: not readable as UTF-8 text ({type(cause).__name__})") from None
    head = text.partition("\n")[0]
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=";" if ";" in head and "," not in head else ",", strict=True
    )
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
            raise DatasetError(f"{path}: line {line} has {len(row)} cells, the first line names {len(columns)} columns")
        cells = {name: cell.strip() for name, cell in zip(columns, row, strict=False)}
        cancer, metastases = cells.get("cancer", "").lower(), cells.get("metastases", "").lower()
        if cancer and cancer not in CANCERS:
            raise DatasetError(f"{path}: line {line}: the column cancer must say breast or prostate, or nothing")
        if metastases not in ("yes", "no", ""):
            raise DatasetError(f"{path}: line {line}: the column metastases must say yes or no, or nothing")
        # A short row may not even have the cell.
        if not cells.get("scan"):
            raise DatasetError(f"{path}: line {line}: the column scan is empty")
        if cells["scan"] in found:
            raise DatasetError(f"{path}: line {line}: this scan has a line already")
        found[cells["scan"]] = Declaration(
            patient=cells.get("patient") or None,
            cancer=cancer or None,
            metastases={"yes": True, "no": False, "": None}[metastases],
        )
    return found


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
    """Let a scan that patients.csv does not assign join the patient of the other scans with its Patient ID.

    Args:
        cases: records of all scans of a data set.
        sources: one for each case.
    """
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

    They may be one patient, who would then be in two folds, or two patients of different institutions: only
    patients.csv can tell. Scans that it assigns get no warning.

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
