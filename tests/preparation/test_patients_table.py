"""Which table of patients a preparation reads, and that none is passed over in silence."""

import pytest

from doubleunet_bs.errors import DatasetError
from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort


def prepare(cohort, **others):
    return prepare_cohort(CohortJob(cohort.scans, cohort.labels, cohort.out, **others))


@pytest.fixture
def two(cohort):
    """Two scans of one patient, which only the table says."""
    for number, name in enumerate("ab"):
        cohort.positive(name, number)
    cohort.declare("a,Ann,breast,yes", "b,Ann,breast,yes")
    return cohort


@pytest.mark.parametrize("name", ["patients.csv", "Patients.csv", "PATIENTS.CSV"])
def test_capitals_do_not_matter(two, name):
    (two.labels / "patients.csv").rename(two.labels / name)
    result = prepare(two)
    assert result.rejected == () and result.records[0].patient == result.records[1].patient
    assert [record.cancer for record in result.records] == ["breast", "breast"]


def test_two_tables_are_one_too_many(two):
    (two.labels / "PATIENTS.csv").write_text((two.labels / "patients.csv").read_text())
    with pytest.raises(DatasetError, match="PATIENTS.csv.*patients.csv.*keep one"):
        prepare(two)


@pytest.mark.parametrize("place", ["labels/patients-breast.csv", "labels/breast/patients.csv", "scans/Patients.csv"])
def test_a_table_elsewhere_is_a_problem(two, place):
    folder, _, name = place.partition("/")
    path = two.root / place
    path.parent.mkdir(exist_ok=True)
    (two.labels / "patients.csv").rename(path)
    [problem] = prepare(two).rejected
    assert (problem.path, problem.reason) == (name, "unread-table") and "--patients" in problem.message
    assert (folder == "scans") == ("scans folder" in problem.message)
    result = prepare(two, patients=path)
    assert result.rejected == () and result.records[0].patient == result.records[1].patient


def test_one_folder_for_scans_and_labels(two):
    for path in two.labels.iterdir():
        path.rename(two.scans / path.name)
    two.labels = two.scans
    assert prepare(two).rejected == ()


def test_a_table_that_is_a_broken_link_is_an_error(two):
    (two.labels / "patients.csv").unlink()
    (two.labels / "patients.csv").symlink_to("nowhere")
    with pytest.raises(DatasetError, match="no such table"):
        prepare(two)


def test_a_misspelt_column_stops_everything_and_other_columns_are_said(two):
    path = two.labels / "patients.csv"
    path.write_text(path.read_text().replace("patient,", "pateint,"))
    with pytest.raises(DatasetError, match="did you mean patient"):
        prepare(two, skip_invalid=True)
    path.write_text(path.read_text().replace("pateint,", "age,"))
    result = prepare(two)
    assert len({record.patient for record in result.records}) == 2 and result.notes == (
        "patients.csv: columns that are not read: 'age'",
        "patients.csv lacks the column patient: patients are taken from the headers",
    )
