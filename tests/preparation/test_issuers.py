"""One PatientID with an Issuer of Patient ID in some exports and without in others."""

import pytest

from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort
from doubleunet_bs.preparation.patients import ISSUER_WARNING


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
