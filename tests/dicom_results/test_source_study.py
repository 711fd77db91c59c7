"""What is taken from the headers of a scan: UIDs to refer to, and whether two scans are of one patient."""

import pydicom
import pytest

from doubleunet_bs.dicom_files.sources import Source
from doubleunet_bs.dicom_results.source_study import read_source_study, same_patient
from doubleunet_bs.errors import ScanError


@pytest.fixture(scope="module")
def phantom(phantoms):
    return phantoms / "phantom_0001.dcm"


def test_headers_that_cannot_be_referred_to(phantom, tmp_path):
    dataset = pydicom.dcmread(phantom)
    dataset.StudyInstanceUID = ""
    dataset.save_as(tmp_path / "scan.dcm")
    with pytest.raises(
        ScanError, match=r"scan\.dcm: has no valid StudyInstanceUID.*leave out --keep-identity"
    ) as error:
        read_source_study([Source(str(tmp_path / "scan.dcm"))])
    assert error.value.reason == "unreferable"


def test_a_pseudonym_does_not_become_a_patient(phantom, tmp_path):
    """A file without the patient has nothing to keep."""
    dataset = pydicom.dcmread(phantom)
    dataset.PatientIdentityRemoved = "YES"
    dataset.save_as(tmp_path / "scan.dcm")
    with pytest.raises(ScanError, match=r"scan\.dcm: the patient's identity has been removed.*leave out"):
        read_source_study([Source(str(tmp_path / "scan.dcm"))])


def test_the_same_patient(phantoms, phantom, tmp_path):
    first, second = [Source(str(phantom))], [Source(str(phantoms / "phantom_0002.dcm"))]
    assert same_patient(first, first) is True
    assert same_patient(first, second) is False
    dataset = pydicom.dcmread(phantom)
    dataset.PatientID = ""
    dataset.save_as(tmp_path / "nameless.dcm")
    assert same_patient(first, [Source(str(tmp_path / "nameless.dcm"))]) is None


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"IssuerOfPatientID": "A"}, {"IssuerOfPatientID": "B"}, False),
        ({"IssuerOfPatientID": "A"}, {}, True),
        ({"PatientBirthDate": "19400101"}, {"PatientBirthDate": "19800101"}, False),
        ({"PatientBirthDate": "19400101"}, {"PatientBirthDate": ""}, True),
        ({"PatientBirthDate": "19400101"}, {"PatientBirthDate": "1940.01.01"}, True),
        ({"PatientBirthDate": "19400101", "IssuerOfPatientID": "A"}, {"PatientBirthDate": "19400101"}, True),
        ({"PatientID": "", "PatientBirthDate": "19400101"}, {"PatientBirthDate": "19800101"}, False),
        ({"PatientID": "", "IssuerOfPatientID": "A"}, {"IssuerOfPatientID": "B"}, None),
    ],
)
def test_the_same_id_may_be_another_patient(phantom, tmp_path, first, second, expected):
    """Two hospitals both have a patient 12345."""
    sources = []
    for number, values in enumerate((first, second)):
        dataset = pydicom.dcmread(phantom)
        with pydicom.config.disable_value_validation():
            for keyword, value in ({"PatientID": "12345", "PatientBirthDate": ""} | values).items():
                setattr(dataset, keyword, value)
            dataset.save_as(tmp_path / f"{number}.dcm")
        sources.append([Source(str(tmp_path / f"{number}.dcm"))])
    assert same_patient(*sources) is expected
    assert same_patient(*sources[::-1]) is expected
