"""patients.csv."""

import pytest

from doubleunet_bs.errors import DatasetError
from doubleunet_bs.preparation.patients import Declaration, read_patients


def read(tmp_path, content):
    path = tmp_path / "patients.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_patients(path)


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


@pytest.mark.parametrize(
    ("table", "place"),
    [
        ("", "first line"),
        ("patient,cancer\nSECRET,breast\n", "first line"),
        ("scan,scan\na,b\n", "first line"),
        ("scan,metastases\na,SECRET\n", "line 2"),
        ("scan,cancer\na,breast\nb,SECRET\n", "line 3"),
        ("scan,patient\na,SECRET,x\n", "line 2"),
        ("scan,patient\na,SECRET\na,SECRET\n", "line 3"),
        ("scan,patient\n,SECRET\n", "line 2"),
        ("patient,cancer,metastases,scan\nSECRET,breast\n", "line 2"),
        ('scan,patient\na,"SECRET\n', "line"),
        (b"scan,patient\na,\xff\xfe\n", "UTF-8"),
    ],
)
def test_a_wrong_table_names_the_line_and_no_cell(tmp_path, table, place):
    with pytest.raises(DatasetError) as caught:
        read(tmp_path, table)
    assert place in str(caught.value) and "SECRET" not in str(caught.value) and "\n" not in str(caught.value)


def test_no_table(tmp_path):
    with pytest.raises(DatasetError, match="no such table"):
        read_patients(tmp_path / "patients.csv")
