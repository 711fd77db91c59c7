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
from pathlib import Path

from doubleunet_bs.errors import DatasetError
from doubleunet_bs.preparation.records import CANCERS

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
