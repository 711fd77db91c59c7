"""One PatientID with an Issuer of Patient ID in some exports and without in others."""

import pytest

from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort
from doubleunet_bs.preparation.patients import ISSUER_WARNING, PERSON_WARNING


def prepare(cohort):
    result = prepare_cohort(CohortJob(cohort.scans, cohort.labels, cohort.out))
    assert result.rejected == ()
    return result.records


def scans(cohort, *issuers, patient="4711"):
    """s1, s2, ... of the same PatientID, each with its issuer or without one."""
    for number, issuer in enumerate(issuers, start=1):
        cohort.positive(f"s{number}", number, patient)
        dataset = cohort.dataset(number, patient)
        if issuer:
            dataset.IssuerOfPatientID = issuer
        dataset.save_as(cohort.scans / f"s{number}.dcm", enforce_file_format=True)


def warned(records):
    return [ISSUER_WARNING in record.warnings for record in records]


@pytest.mark.parametrize(
    ("issuers", "expected"),
    [
        (("", "UKX"), [True, True]),
        (("", "UKX", "UKY"), [True, True, True]),
        # Two institutions that both name themselves, or none that does, leave no doubt.
        (("UKX", "UKY"), [False, False]),
        (("UKX", "UKX"), [False, False]),
        (("", ""), [False, False]),
    ],
)
def test_a_warning_where_some_exports_leave_the_issuer_out(cohort, issuers, expected):
    scans(cohort, *issuers)
    cohort.positive("other", 9, "4712")
    # In the order of their names.
    other, *records = prepare(cohort)
    assert warned([other]) == [False] and warned(records) == expected
    assert len({record.patient for record in records}) == len(set(issuers))


def test_what_the_table_says_needs_no_warning(cohort):
    scans(cohort, "", "UKX", "UKX")
    cohort.declare("s1,Ann,breast,yes", "s2,Ann,breast,yes", "s3,Ann,breast,yes")
    records = prepare(cohort)
    assert warned(records) == [False] * 3 and len({record.patient for record in records}) == 1


def test_one_line_is_enough_for_scans_with_the_same_header(cohort):
    scans(cohort, "", "UKX", "UKX")
    cohort.declare("s1,Ann,breast,yes", "s2,Ann,breast,yes")
    records = prepare(cohort)
    assert warned(records) == [False] * 3 and len({record.patient for record in records}) == 1


def test_the_one_that_the_table_leaves_out_is_warned_of(cohort):
    scans(cohort, "", "UKX")
    cohort.declare("s1,Ann,breast,yes")
    assert warned(prepare(cohort)) == [False, True]


def persons(cohort, *people, patient="0"):
    """A scan for each (birth date, sex), all with one Patient ID."""
    for number, (birth, sex) in enumerate(people):
        name = f"s{number}"
        cohort.positive(name, number)
        dataset = cohort.dataset(number, patient)
        dataset.PatientBirthDate, dataset.PatientSex = birth, sex
        dataset.save_as(cohort.scans / f"{name}.dcm", enforce_file_format=True)


@pytest.mark.parametrize(
    ("people", "expected"),
    [
        ([("19500101", "F"), ("19610202", "F")], True),
        ([("19500101", "F"), ("19500101", "M")], True),
        ([("19500101", "F"), ("19500101", "F")], False),
        ([("", "F"), ("19500101", "")], False),
        ([("", ""), ("", "")], False),
    ],
)
def test_one_id_with_two_birth_dates_or_sexes_is_said(cohort, people, expected):
    persons(cohort, *people)
    records = prepare(cohort)
    assert [PERSON_WARNING in record.warnings for record in records] == [expected] * len(people)
    assert "19500101" not in (cohort.out / "dataset.json").read_text()
    assert "19500101" not in (cohort.root / "shards.identities.json").read_text()


def test_one_id_for_all_is_said_unless_the_table_says_who_is_who(cohort):
    persons(cohort, ("19500101", "F"), ("19610202", "M"), ("19700303", "F"))
    cohort.declare(*(f"s{number},P{number},breast,yes" for number in range(3)))
    result = prepare_cohort(CohortJob(cohort.scans, cohort.labels, cohort.out))
    assert result.notes == () and not any(PERSON_WARNING in record.warnings for record in result.records)
    assert len({record.patient for record in result.records}) == 3
    (cohort.labels / "patients.csv").unlink()
    result = prepare_cohort(CohortJob(cohort.scans, cohort.labels, cohort.root / "again", workers=2))
    assert result.notes == ("all 3 scans have one Patient ID: if they are of several patients, say so in patients.csv",)
    assert all(PERSON_WARNING in record.warnings for record in result.records)
