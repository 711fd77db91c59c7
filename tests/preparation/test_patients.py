"""patients.csv, and who the patients of a cohort are by it and by the headers."""

import json

import pytest

from doubleunet_bs.errors import DatasetError
from doubleunet_bs.preparation.patients import ISSUER_WARNING, PERSON_WARNING, Declaration, read_patients


def read(tmp_path, content):
    path = tmp_path / "patients.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_patients(path)[0]


def test_a_table_as_it_should_be(tmp_path):
    table = "scan,patient,cancer,metastases\na,P 1,breast,yes\nb,P 1,Prostate,NO\nc,,,\n\n"
    assert read(tmp_path, table) == {
        "a": Declaration("P 1", "breast", True),
        "b": Declaration("P 1", "prostate", False),
        "c": Declaration(None, None, None),
    }


@pytest.mark.parametrize(
    "table",
    [
        b"\xef\xbb\xbfscan;metastases\r\na;no\r\n",
        b"metastases,notes, scan \nno,something,a\n",
        b'"scan","metastases"\n"a","no"\n',
        b"scan,patient,cancer,metastases\na,,,no",
    ],
)
def test_what_spreadsheets_make_of_it(tmp_path, table):
    assert read(tmp_path, table) == {"a": Declaration(None, None, False)}


def test_tabs_are_taken_as_well(tmp_path):
    assert read(tmp_path, "scan\tmetastases\na, b\tno\n") == {"a, b": Declaration(None, None, False)}


@pytest.mark.parametrize(
    ("table", "place"),
    [
        ("", "first line"),
        ("patient,cancer\nSECRET,breast\n", "first line"),
        ("scan,scan\na,b\n", "first line"),
        ("scan,patient,patient\na,SECRET,b\n", "first line"),
        ("scan,patient\na,SECRET,x\n", "line 2"),
        ("scan,patient\na,SECRET\na,SECRET\n", "line 3"),
        ("scan,patient\n,SECRET\n", "line 2"),
        ("patient,cancer,metastases,scan\nSECRET,breast\n", "line 2"),
        ('scan,patient\na,"SECRET\n', "line"),
        (b"scan,patient\na,\xff\xfe\n", "is not UTF-8 text: convert it with iconv -f gb18030"),
        ("scan;patient\r\na;Müller\r\n".encode("cp1252"), "save it anew as UTF-8 (Excel: CSV UTF-8)"),
        ("scan,patient\na,b\n".encode("utf-16"), "is UTF-16 text: convert it with iconv -f utf-16"),
        (b"PK\x03\x04\x14\x00\xff", "save it as CSV"),
    ],
)
def test_a_wrong_table_names_the_line_and_no_patient(tmp_path, table, place):
    with pytest.raises(DatasetError) as caught:
        read(tmp_path, table)
    assert place in str(caught.value) and "SECRET" not in str(caught.value) and "\n" not in str(caught.value)


def test_all_wrong_cells_are_named_at_once_with_their_value(tmp_path):
    table = "scan,cancer,metastases\na,breast,y\nb,Brst,yes\nc,lung,none\na,,\n"
    with pytest.raises(DatasetError) as caught:
        read(tmp_path, table)
    assert str(caught.value).partition("patients.csv: ")[2] == (
        "5 cells to correct: line 2: metastases is 'y' (write yes, no or nothing); "
        "line 3: cancer is 'Brst' (write breast, prostate or nothing); "
        "line 4: cancer is 'lung' (write breast, prostate or nothing); "
        "line 4: metastases is 'none' (write yes, no or nothing); line 5: scan 'a' is in line 2 already"
    )
    with pytest.raises(DatasetError, match=r"100 cells to correct: line 2.*line 21: .*; and 80 more$"):
        read(tmp_path, "scan,metastases\n" + "".join(f"{number},maybe\n" for number in range(100)))


@pytest.mark.parametrize(
    ("columns", "meant"),
    [
        ("scan,pateint", "patient"), ("scan,patients", "patient"), ("scan,patient_id", "patient"),
        ("scan,PatientID", "patient"), ("scan,patient,pateint", "patient"), ("scan,metasteses", "metastases"),
        ("scan,metastatic", "metastases"), ("scan,has metastases", "metastases"), ("scan,patient,canser", "cancer"),
        ("scans,patient", "scan"), ("scan_name,patient", "scan"), ("patient,scan,scna", "scan"),
    ],
)  # fmt: skip
def test_a_column_near_a_known_one_is_an_error(tmp_path, columns, meant):
    with pytest.raises(DatasetError, match=f"line 1: column .*: did you mean {meant}"):
        read(tmp_path, f"{columns}\na,b,c\n")


def test_other_columns_and_a_missing_patient_are_said(tmp_path):
    path = tmp_path / "patients.csv"
    path.write_text("scan,patient,cancer,scanner,PatientID,patient_age\na,b,,,,\n")
    assert read_patients(path)[1] == ["patients.csv: columns that are not read: 'scanner', 'patientid', 'patient_age'"]
    path.write_text("\N{FULLWIDTH LATIN SMALL LETTER S}can, Cancer\na,\n")
    assert read_patients(path)[1] == ["patients.csv lacks the column patient: patients are taken from the headers"]


def test_no_table(tmp_path):
    with pytest.raises(DatasetError, match="no such table"):
        read_patients(tmp_path / "patients.csv")


def records_of(cohort):
    result = cohort.prepare()
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
    other, *records = records_of(cohort)
    assert warned([other]) == [False] and warned(records) == expected
    assert len({record.patient for record in records}) == len(set(issuers))


def test_what_the_table_says_needs_no_warning(cohort):
    scans(cohort, "", "UKX", "UKX")
    cohort.declare("s1,Ann,breast,yes", "s2,Ann,breast,yes", "s3,Ann,breast,yes")
    records = records_of(cohort)
    assert warned(records) == [False] * 3 and len({record.patient for record in records}) == 1


def test_one_line_is_enough_for_scans_with_the_same_header(cohort):
    scans(cohort, "", "UKX", "UKX")
    cohort.declare("s1,Ann,breast,yes", "s2,Ann,breast,yes")
    records = records_of(cohort)
    assert warned(records) == [False] * 3 and len({record.patient for record in records}) == 1


def test_the_one_that_the_table_leaves_out_is_warned_of(cohort):
    scans(cohort, "", "UKX")
    cohort.declare("s1,Ann,breast,yes")
    assert warned(records_of(cohort)) == [False, True]


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
    records = records_of(cohort)
    assert [PERSON_WARNING in record.warnings for record in records] == [expected] * len(people)
    assert "19500101" not in (cohort.out / "dataset.json").read_text()
    assert "19500101" not in (cohort.root / "shards.identities.json").read_text()


def test_one_id_for_all_is_said_unless_the_table_says_who_is_who(cohort):
    persons(cohort, ("19500101", "F"), ("19610202", "M"), ("19700303", "F"))
    cohort.declare(*(f"s{number},P{number},breast,yes" for number in range(3)))
    result = cohort.prepare()
    assert result.notes == () and not any(PERSON_WARNING in record.warnings for record in result.records)
    assert len({record.patient for record in result.records}) == 3
    (cohort.labels / "patients.csv").unlink()
    result = cohort.prepare(out=cohort.root / "again", workers=2)
    assert result.notes == ("all 3 scans have one Patient ID: if they are of several patients, say so in patients.csv",)
    assert all(PERSON_WARNING in record.warnings for record in result.records)


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
    result = two.prepare()
    assert result.rejected == () and result.records[0].patient == result.records[1].patient
    assert [record.cancer for record in result.records] == ["breast", "breast"]


def test_two_tables_are_one_too_many(two):
    (two.labels / "PATIENTS.csv").write_text((two.labels / "patients.csv").read_text())
    with pytest.raises(DatasetError, match="PATIENTS.csv.*patients.csv.*keep one"):
        two.prepare()


@pytest.mark.parametrize("place", ["labels/patients-breast.csv", "labels/breast/patients.csv", "scans/Patients.csv"])
def test_a_table_elsewhere_is_a_problem(two, place):
    folder, _, name = place.partition("/")
    path = two.root / place
    path.parent.mkdir(exist_ok=True)
    (two.labels / "patients.csv").rename(path)
    [problem] = two.prepare().rejected
    assert (problem.path, problem.reason) == (name, "unread-table") and "--patients" in problem.message
    assert (folder == "scans") == ("scans folder" in problem.message)
    result = two.prepare(patients=path)
    assert result.rejected == () and result.records[0].patient == result.records[1].patient


def test_one_folder_for_scans_and_labels(two):
    for path in two.labels.iterdir():
        path.rename(two.scans / path.name)
    two.labels = two.scans
    assert two.prepare().rejected == ()


def test_a_table_that_is_a_broken_link_is_an_error(two):
    (two.labels / "patients.csv").unlink()
    (two.labels / "patients.csv").symlink_to("nowhere")
    with pytest.raises(DatasetError, match="no such table"):
        two.prepare()


def test_a_misspelt_column_stops_everything_and_other_columns_are_said(two):
    path = two.labels / "patients.csv"
    path.write_text(path.read_text().replace("patient,", "pateint,"))
    with pytest.raises(DatasetError, match="did you mean patient"):
        two.prepare(skip_invalid=True)
    path.write_text(path.read_text().replace("pateint,", "age,"))
    result = two.prepare()
    assert len({record.patient for record in result.records}) == 2 and result.notes == (
        "patients.csv: columns that are not read: 'age'",
        "patients.csv lacks the column patient: patients are taken from the headers",
    )


def test_patients_come_from_the_table_then_from_the_header(cohort):
    for name, number, header in (("a", 1, "H1"), ("b", 2, "H1"), ("c", 3, "H2"), ("d", 4, "H2"), ("e", 5, "H3")):
        cohort.positive(name, number, header)
    # b has no line, but the PatientID of a: it follows a. d is another person than c, whatever the header says.
    cohort.declare("a,Ann,breast,", "c,Cleo,breast,", "d,Dora,breast,")
    records = cohort.prepare().records
    a, b, c, d, e = (record.patient for record in records)
    assert a == b and len({a, c, d, e}) == 4
    assert all(patient.startswith("patient-") for patient in (a, c, d, e))


def test_what_the_table_says_is_never_changed(cohort):
    # a2 is an older scan of ID-1, from before the numbers were changed; the header of b holds the number of somebody
    # else.
    for name, number, header in (("a", 1, "ID-1"), ("a2", 2, "OLD-1"), ("b", 3, "ID-1"), ("c", 4, "OLD-1")):
        cohort.positive(name, number, header)
    cohort.declare("a,ID-1,breast,", "a2,ID-1,breast,", "b,ID-2,breast,")
    a, a2, b, c = (record.patient for record in cohort.prepare().records)
    names = json.loads((cohort.root / "shards.identities.json").read_text())["patients"]
    # c has no line and follows a2, with which it shares the PatientID.
    assert [names[patient] for patient in (a, a2, b, c)] == ["ID-1", "ID-1", "ID-2", "ID-1"]


def test_a_header_that_stands_for_two_patients_assigns_nobody(cohort):
    for name, number in (("a", 1), ("b", 2), ("c", 3)):
        cohort.positive(name, number, "ID-1")
    cohort.declare("a,ID-1,breast,", "b,ID-2,breast,")
    a, b, c = (record.patient for record in cohort.prepare().records)
    assert a == c != b


def test_patients_who_may_be_one_are_said(cohort):
    for name, number, header in (("a", 1, "ID-07"), ("b", 2, "id 7"), ("c", 3, "ID-70"), ("d", 4, "x"), ("e", 5, "y")):
        cohort.positive(name, number, header)
    cohort.declare("d,Dora,breast,", "e,dora,breast,")
    [note] = [line for line in cohort.prepare().notes if "are they one" in line]
    assert note.endswith("see a.dcm, b.dcm, d.dcm and 1 more: are they one?")
    cohort.declare("a,1-17,,", "b,11-7,,")
    [note] = [line for line in cohort.prepare(out=cohort.root / "again").notes if "are they one" in line]
    assert note.endswith("see d.dcm, e.dcm: are they one?")


def test_without_any_patient_each_scan_is_its_own(cohort):
    for name, number in (("a", 1), ("b", 2)):
        cohort.positive(name, number)
        dataset = cohort.dataset(number)
        del dataset.PatientID
        dataset.save_as(cohort.scans / f"{name}.dcm", enforce_file_format=True)
    records = cohort.prepare().records
    assert records[0].patient != records[1].patient
    assert all(any("no Patient ID in patients.csv" in line for line in record.warnings) for record in records)
