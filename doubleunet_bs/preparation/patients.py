"""`patients.csv` in the labels folder: the patient of each scan and what is known of them.

    scan,patient,cancer,metastases
    scan-001,A-17,breast,yes
    scan-002,A-17,breast,no

`scan` is the file's name without its ending, with folders in front where several scans have one name: `2019/scan-001`.
A scan in two files has two names, and either may stand here.
The other columns may be empty or left out. A scan without an annotation and without a `no` is rejected, since its
annotation may have been forgotten. A patient given here overrides the header.
"""

import csv
import dataclasses
import difflib
import io
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from doubleunet_bs.constants import CANCERS
from doubleunet_bs.errors import DatasetError, counted, first_of
from doubleunet_bs.preparation.records import CaseRecord
from doubleunet_bs.scans.labels import quoted, read_file
from doubleunet_bs.scans.pseudonyms import Pseudonyms

FILE = "patients.csv"
COLUMNS = ("scan", "patient", "cancer", "metastases")
LARGEST_FILE = 16 << 20
MOST_FAULTS = 20


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


def read_patients(path: str | os.PathLike) -> tuple[dict[str, Declaration], list[str]]:
    """The rows by the name of their scan, and what to say of the columns. Cells end with comma, semicolon or tab.

    Raises:
        DatasetError: not readable, no `scan` column, a column that seems to be a misspelt one, a cell with another word
            than allowed, a scan twice. All wrong lines are named at once, with the value.
    """
    path = Path(path)
    # Names of files and of patients may come with composed accents or with separate ones.
    text = unicodedata.normalize("NFC", read_file(path, LARGEST_FILE, "table of patients", DatasetError))
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error:
        raise DatasetError(f"{path}: line {reader.line_num} is not a row of a table") from None
    columns = [unicodedata.normalize("NFKC", cell).strip().casefold() for cell in rows[0][1]] if rows else []
    notes = _check_columns(path, columns)
    found: dict[str, Declaration] = {}
    lines: dict[str, int] = {}
    wrong: list[str] = []
    for line, row in rows[1:]:
        if len(row) > len(columns):
            wrong.append(f"line {line} has {len(row)} cells for {len(columns)} columns")
            continue
        # A short row lacks the last cells.
        cells = {name: cell.strip() for name, cell in zip(columns, row, strict=False)}
        faults, scan, declaration = _read_row(cells)
        wrong += [f"line {line}: {fault}" for fault in faults]
        if scan and lines.setdefault(scan, line) != line:
            wrong.append(f"line {line}: scan {quoted(scan)} is in line {lines[scan]} already")
        found[scan] = declaration
    if wrong:
        more = f"; and {len(wrong) - MOST_FAULTS} more" if len(wrong) > MOST_FAULTS else ""
        raise DatasetError(f"{path}: {counted(len(wrong), 'cell')} to correct: {'; '.join(wrong[:MOST_FAULTS])}{more}")
    return found, notes


def _check_columns(path: Path, columns: Sequence[str]) -> list[str]:
    """What to say of the columns. A misspelt one would be ignored, and one patient then count as two."""
    absent = [name for name in COLUMNS if name not in columns]
    for column in columns:
        near = difflib.get_close_matches(column, COLUMNS, 1, 0.9) or difflib.get_close_matches(column, absent, 1, 0.7)
        near = near or [
            name for name in COLUMNS if sorted(name) == sorted(column) or (name in absent and name in column)
        ]
        if column not in COLUMNS and near:
            raise DatasetError(f"{path}: line 1: column {quoted(column)}: did you mean {near[0]}? Rename or remove it")
    if columns.count("scan") != 1 or any(columns.count(name) > 1 for name in COLUMNS):
        raise DatasetError(f"{path}: the first line must name the columns {','.join(COLUMNS)}")
    others = ", ".join(quoted(column) for column in columns if column not in COLUMNS)
    notes = [f"{path.name}: columns that are not read: {others}"] if others else []
    if "patient" not in columns:
        notes.append(f"{path.name} lacks the column patient: patients are taken from the headers")
    return notes


def _read_row(cells: Mapping[str, str]) -> tuple[list[str], str, Declaration]:
    """What is wrong in a row, its scan, and what is declared of it."""
    scan, cancer, metastases = (cells.get(name, "") for name in ("scan", "cancer", "metastases"))
    faults = [] if scan else ["the column scan is empty"]
    if cancer and cancer.lower() not in CANCERS:
        faults.append(f"cancer is {quoted(cancer)} (write {', '.join(CANCERS)} or nothing)")
    if metastases.lower() not in ("yes", "no", ""):
        faults.append(f"metastases is {quoted(metastases)} (write yes, no or nothing)")
    says = {"yes": True, "no": False}.get(metastases.lower())
    return faults, scan, Declaration(cells.get("patient") or None, cancer.lower() or None, says)


ISSUER_WARNING = (
    "its Patient ID has an issuer in some headers and none in others: treated as different patients unless "
    "patients.csv says otherwise"
)


PERSON_WARNING = (
    "its Patient ID comes with two birth dates or sexes: say in patients.csv which scans are of one patient"
)
SMALLEST_SUSPECT_COHORT = 3


class PatientSource(NamedTuple):
    """Where the patient of a scan is known from.

    Attributes:
        header: pseudonym of the Patient ID in the header (with its issuer), or None.
        declared: whether patients.csv says who the patient is.
    """

    header: str | None
    declared: bool


def settle_patients(
    cases: Sequence[CaseRecord], sources: Sequence[PatientSource], pseudonyms: Pseudonyms
) -> list[CaseRecord]:
    """Let scans that patients.csv does not assign join the patient of the others with their Patient ID.

    They get `ISSUER_WARNING` where one Patient ID came with an issuer from one export and without from another, and
    `PERSON_WARNING` where it came with two birth dates or sexes, as when an anonymiser set it.
    """
    assigned: defaultdict[str | None, set[str]] = defaultdict(set)
    for case, source in zip(cases, sources, strict=True):
        if source.declared:
            assigned[source.header].add(case.patient)
    # What the table says holds, also where it says the same as another scan's header, which may be wrong.
    joins = [
        source.header is not None and not source.declared and len(assigned[source.header]) == 1 for source in sources
    ]
    patients = [
        next(iter(assigned[source.header])) if join else case.patient
        for case, source, join in zip(cases, sources, joins, strict=True)
    ]
    bare = [pseudonyms.patients[source.header].partition("\\") if source.header else None for source in sources]
    issued, named = defaultdict(set), defaultdict(set)
    for identifier, patient in zip(bare, patients, strict=True):
        if identifier is not None:
            issued[identifier[0]].add(bool(identifier[2]))
            named[identifier[0]].add(patient)
    persons = {
        patient
        for patient, pairs in pseudonyms.persons.items()
        if any(len(set(values) - {""}) > 1 for values in zip(*pairs, strict=True))
    }
    found = []
    for case, source, patient, identifier in zip(cases, sources, patients, bare, strict=True):
        warnings = list(case.warnings)
        if identifier is not None and not source.declared:
            if len(issued[identifier[0]]) == 2 and len(named[identifier[0]]) > 1:
                warnings.append(ISSUER_WARNING)
            if source.header in persons:
                warnings.append(PERSON_WARNING)
        found.append(dataclasses.replace(case, patient=patient, warnings=tuple(warnings)))
    return found


def notes_on_patients(
    cases: Sequence[CaseRecord],
    sources: Sequence[PatientSource],
    identifiers: Mapping[str, str],
    names: Mapping[str, str],
) -> list[str]:
    """What to say when all scans have one Patient ID, which may be an anonymiser's ("0" or "ANON"), and when patients
    are called alike, as "A-17" and "a17", and may be one, in training and test.

    Args:
        cases, sources: of all scans.
        identifiers: pseudonym -> the patient in patients.csv or the header.
        names: case -> its scan, for the note.
    """
    notes = []
    one = len({source.header for source in sources}) == 1 and sources[0].header is not None
    if len(sources) >= SMALLEST_SUSPECT_COHORT and one and not any(source.declared for source in sources):
        notes.append(f"all {len(sources)} scans have one Patient ID: if they are of several patients, say so in {FILE}")
    alike: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for case in cases:
        # 1-17 and 11-7 are two.
        folded = re.sub(r"(?<=\d)[\W_]+(?=\d)", "-", identifiers[case.patient].casefold())
        folded = re.sub(r"[^\w-]|_|(?<!\d)-|-(?!\d)|(?<!\d)0+(?=\d)", "", folded)
        alike[folded].setdefault(case.patient, names[case.case])
    if found := [name for patients in alike.values() if len(patients) > 1 for name in patients.values()]:
        alike_in = "patients who differ in capitals, zeros or punctuation only count as several"
        notes.append(f"{alike_in}, see {first_of(found)}: are they one?")
    return notes
