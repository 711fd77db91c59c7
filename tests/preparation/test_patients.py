"""patients.csv."""

import pytest

from doubleunet_bs.errors import DatasetError
from doubleunet_bs.preparation.patients import Declaration, read_patients


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
        ("scan,patient\na,SECRET,x\n", "line 2"),
        ("scan,patient\na,SECRET\na,SECRET\n", "line 3"),
        ("scan,patient\n,SECRET\n", "line 2"),
        ("patient,cancer,metastases,scan\nSECRET,breast\n", "line 2"),
        ('scan,patient\na,"SECRET\n', "line"),
        (b"scan,patient\na,\xff\xfe\n", "is not UTF-8 text: convert it with iconv -f gb18030"),
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
