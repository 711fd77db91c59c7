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
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from doubleunet_bs.constants import CANCERS
from doubleunet_bs.errors import DatasetError, counted, one_line, os_reason
from doubleunet_bs.preparation.records import CaseRecord
from doubleunet_bs.scans.labels import decode_text, quoted

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


@dataclasses.dataclass(frozen=True)
class PatientTable:
    """The rows of `patients.csv` by the name of their scan, and what to say of its columns, one line each."""

    rows: dict[str, Declaration]
    notes: tuple[str, ...] = ()


def read_patients(path: str | os.PathLike) -> PatientTable:
    """Read the table: comma, semicolon or tab between the cells, UTF-8.

    Raises:
        DatasetError: not readable, no `scan` column, a column that seems to be a misspelt one, a cell with another word
            than allowed, a scan twice. All wrong lines are named at once, with the value.
    """
    path = Path(path)
    text = _read_text(path)
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
    return PatientTable(found, tuple(notes))


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


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise DatasetError(f"{path}: too large for a table of patients")
        data = path.read_bytes()
        if data[:4] == b"PK\x03\x04":
            raise DatasetError(f"{path}: a workbook and no text: save it as CSV (UTF-8)")
        # Names of files and of patients may come with composed accents or with separate ones.
        return unicodedata.normalize("NFC", decode_text(data))
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such table of patients") from None
    except ValueError as cause:
        raise DatasetError(f"{path}: is {cause}") from None
    except OSError as cause:
        raise DatasetError(f"{path}: cannot be read ({os_reason(cause)})") from None


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

    Scans that patients.csv assigns get none. `identifiers`: pseudonym -> Patient ID, or "PatientID\issuer".
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


def warn_of_persons(
    cases: Sequence[CaseRecord], sources: Sequence[PatientSource], persons: Mapping[str, Collection[tuple[str, str]]]
) -> list[CaseRecord]:
    """Add `PERSON_WARNING` where one Patient ID came with two birth dates or sexes, as when an anonymiser set it.

    Scans that patients.csv assigns get none. `persons`: pseudonym of a patient -> pairs of birth date and sex.
    """
    several = {
        patient
        for patient, pairs in persons.items()
        if any(len(set(values) - {""}) > 1 for values in zip(*pairs, strict=True))
    }
    return [
        dataclasses.replace(case, warnings=(*case.warnings, PERSON_WARNING))
        if source.header in several and not source.declared
        else case
        for case, source in zip(cases, sources, strict=True)
    ]


def note_of_near_patients(
    cases: Sequence[CaseRecord], identifiers: Mapping[str, str], names: Mapping[str, str]
) -> str | None:
    """What to say when patients are called alike, as "A-17" and "a17", and may be one, in training and test.

    Args:
        cases: of all scans.
        identifiers: pseudonym -> the patient in patients.csv or the header.
        names: case -> its scan, for the note.
    """
    alike: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for case in cases:
        # 1-17 and 11-7 are two.
        folded = re.sub(r"(?<=\d)[\W_]+(?=\d)", "-", identifiers[case.patient].casefold())
        folded = re.sub(r"[^\w-]|_|(?<!\d)-|-(?!\d)|(?<!\d)0+(?=\d)", "", folded)
        alike[folded].setdefault(case.patient, names[case.case])
    found = [name for patients in alike.values() if len(patients) > 1 for name in patients.values()]
    if not found:
        return None
    shown = ", ".join(map(one_line, found[:3])) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    return f"patients who differ in capitals, zeros or punctuation only count as several, see {shown}: are they one?"


def note_of_one_patient(sources: Sequence[PatientSource]) -> str | None:
    """What to say when all scans have one Patient ID, which may be an anonymiser's: "0" or "ANON"."""
    one = len({source.header for source in sources}) == 1 and sources[0].header is not None
    if len(sources) < SMALLEST_SUSPECT_COHORT or not one or any(source.declared for source in sources):
        return None
    return f"all {len(sources)} scans have one Patient ID: if they are of several patients, say so in {FILE}"
