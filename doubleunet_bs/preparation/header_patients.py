"""Who a scan is taken for: patients.csv first, then the PatientID of the header (decided here)."""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence

from doubleunet_bs.preparation.records import CaseRecord

ISSUER_WARNING = (
    "its PatientID stands in some headers with an issuer and in others without: taken as different patients; "
    "if they are one, say so in patients.csv"
)


def same_patients(
    cases: Sequence[CaseRecord], header_patients: Sequence[str | None], declared: Sequence[bool]
) -> list[CaseRecord]:
    """Let a scan that patients.csv does not assign join the patient of the other scans with its PatientID.

    Args:
        cases: records of all scans of a data set.
        header_patients: for each the pseudonym of the header's PatientID (with its issuer), or None.
        declared: for each whether patients.csv says who the patient is.
    """
    assigned = defaultdict(set)
    for case, header, by_table in zip(cases, header_patients, declared, strict=True):
        if by_table and header is not None:
            assigned[header].add(case.patient)
    # What the table says holds, also where it says the same as another scan's header, which may be wrong.
    return [
        dataclasses.replace(case, patient=next(iter(assigned[header])))
        if not by_table and len(assigned.get(header, ())) == 1
        else case
        for case, header, by_table in zip(cases, header_patients, declared, strict=True)
    ]


def warn_of_issuers(
    cases: Sequence[CaseRecord],
    header_patients: Sequence[str | None],
    declared: Sequence[bool],
    identifiers: Mapping[str, str],
) -> list[CaseRecord]:
    r"""Add `ISSUER_WARNING` where one PatientID came with an issuer from one export and without from another.

    They may be one patient, who would then stand in two folds, or two of different institutions: only patients.csv can
    say. Scans that it assigns are not warned of.

    Args:
        cases, header_patients, declared: as for `same_patients`, after it.
        identifiers: pseudonym -> PatientID, with an issuer "PatientID\issuer".
    """
    alike = defaultdict(list)
    for number, header in enumerate(header_patients):
        if header is not None:
            bare, _, issuer = identifiers[header].partition("\\")
            alike[bare].append((number, bool(issuer)))
    found = list(cases)
    for scans in alike.values():
        both_kinds = len({issued for _, issued in scans}) == 2
        if both_kinds and len({cases[number].patient for number, _ in scans}) > 1:
            for number, _ in scans:
                if not declared[number]:
                    case = found[number]
                    found[number] = dataclasses.replace(case, warnings=(*case.warnings, ISSUER_WARNING))
    return found
