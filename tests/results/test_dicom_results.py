"""DICOM results: valid for an independent checker, exact on the source, with the patient only on request."""

import shutil
import subprocess

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_variants import KINDS, VIEWS, write_variant
from handmade_prediction import lesions_of, make_prediction
from pydicom.uid import NuclearMedicineImageStorage

from doubleunet_bs.errors import RunError
from doubleunet_bs.results.dicom_results import dicom_results
from doubleunet_bs.results.overlay import overlay_picture, view_pictures
from doubleunet_bs.results.source_study import read_source_study
from doubleunet_bs.scans import read_scan
from doubleunet_bs.scans.dicom_file import is_phantom
from doubleunet_bs.scans.sources import Source

LEVEL = 60


@pytest.fixture(scope="module")
def phantom(phantoms):
    return phantoms / "phantom_0001.dcm"


def write_results(files, folder, identified: bool, level: int = LEVEL, drawn: bool = False):
    """Predict what is bright; returns the scan, and name -> path of the DICOM files.

    The secondary capture is a few grey pixels unless `drawn`.
    """
    scan = read_scan(files, allow_missing_view=True)
    prediction = make_prediction(scan, {view: getattr(scan, view) > level for view in VIEWS})
    picture = np.full((20, 10, 3), 128, np.uint8)
    if drawn:
        picture = overlay_picture(scan, prediction, lesions_of(scan, prediction), view_pictures(scan))
    study = read_source_study([Source(str(path)) for path in files]) if identified else None
    paths = {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in dicom_results(scan, prediction, picture, study).items():
        paths[name] = folder / name
        paths[name].write_bytes(content)
    return scan, paths


def referenced_pixels(segmentation, sources) -> np.ndarray:
    """The pixels of the frame that a segmentation says it was made from."""
    (group,) = segmentation.PerFrameFunctionalGroupsSequence
    reference = group.DerivationImageSequence[0].SourceImageSequence[0]
    (source,) = [one for one in sources if one.SOPInstanceUID == reference.ReferencedSOPInstanceUID]
    assert reference.ReferencedSOPClassUID == source.SOPClassUID
    series = segmentation.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    assert series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert series.ReferencedInstanceSequence[0].ReferencedSOPClassUID == source.SOPClassUID
    assert segmentation.StudyInstanceUID == source.StudyInstanceUID
    several = int(source.NumberOfFrames) > 1
    assert ("ReferencedFrameNumber" in reference) == several
    frames = source.pixel_array
    return frames[reference.ReferencedFrameNumber - 1] if several else frames


@pytest.mark.parametrize("identified", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_segmentations_lie_on_their_source(kind, identified, phantom, tmp_path):
    files = write_variant(phantom, kind, tmp_path / "source")
    scan, paths = write_results(files, tmp_path / "results", identified)
    present = [view for view in VIEWS if view not in scan.missing_views]
    names = {f"segmentation_{view}.dcm" for view in present} | {"overlay.dcm"}
    assert set(paths) == (names if identified else names | {"scan.dcm"})
    sources = [pydicom.dcmread(path) for path in (files if identified else [paths["scan.dcm"]])]
    whole = pydicom.dcmread(phantom).pixel_array
    for view in present:
        segmentation = highdicom.seg.segread(paths[f"segmentation_{view}.dcm"])
        mapped = segmentation.pixel_array
        pixels = referenced_pixels(segmentation, sources)
        assert mapped.shape == pixels.shape
        if identified and kind == "finer-matrix":
            coarse = pixels.reshape(1024, 2, 256, 2).sum(axis=(1, 3))
            expected = (coarse > LEVEL).repeat(2, axis=0).repeat(2, axis=1)
        elif identified and kind == "side-by-side":
            half = np.s_[:, :256] if view == "anterior" else np.s_[:, 256:]
            expected = np.zeros(pixels.shape, bool)
            expected[half] = pixels[half] > LEVEL
        else:
            expected = pixels > LEVEL
        assert expected.any()
        assert np.array_equal(mapped == 1, expected)
        # The right frame for the view, whatever its place in the file.
        assert expected.sum() == (whole[VIEWS.index(view)] > LEVEL).sum() * (4 if mapped.shape[0] == 2048 else 1)
        assert list(segmentation.PatientOrientation) == ["L" if view == "anterior" else "R", "F"]
        assert (segmentation.SegmentationType, segmentation.NumberOfFrames) == ("BINARY", 1)
        (segment,) = segmentation.SegmentSequence
        codes = [
            (sequence[0].CodeValue, sequence[0].CodingSchemeDesignator)
            for sequence in (segment.SegmentedPropertyCategoryCodeSequence, segment.SegmentedPropertyTypeCodeSequence)
        ]
        assert codes == [("49755003", "SCT"), ("14799000", "SCT")]
        assert (segment.SegmentAlgorithmType, segment.SegmentAlgorithmName) == ("AUTOMATIC", "doubleunet_bs")
        assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "0.1.0"


@pytest.mark.parametrize("identified", [True, False])
def test_read_back_by_the_source_frame(identified, phantom, tmp_path):
    _, paths = write_results([phantom], tmp_path, identified)
    source = pydicom.dcmread(phantom if identified else paths["scan.dcm"])
    for number, view in enumerate(VIEWS, start=1):
        segmentation = highdicom.seg.segread(paths[f"segmentation_{view}.dcm"])
        found = segmentation.get_pixels_by_source_frame(source.SOPInstanceUID, [number], combine_segments=True)
        assert np.array_equal(found[0] == 1, source.pixel_array[number - 1] > LEVEL)


@pytest.mark.parametrize("identified", [True, False])
@pytest.mark.parametrize(
    ("kind", "level"), [("two-frames", LEVEL), ("two-frames", 65535), ("two-files", LEVEL), ("one-view", LEVEL)]
)
def test_dciodvfy_finds_no_error(kind, level, identified, phantom, tmp_path):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian: apt-get install dicom3tools)")
    files = write_variant(phantom, kind, tmp_path / "source")
    _, paths = write_results(files, tmp_path / "results", identified, level, drawn=True)
    for path in paths.values():
        done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True)
        said = done.stdout + done.stderr
        assert any(kind in said for kind in ("Segmentation", "SCImage", "NMImage")), said
        assert "Error" not in said, f"{path.name}: {said}"


@pytest.mark.parametrize("identified", [True, False])
def test_one_series_and_what_it_must_say(identified, phantom, tmp_path):
    """Both segmentations are in one series; a phantom's results call themselves that, and none is for diagnosis."""
    _, paths = write_results([phantom], tmp_path / "first", identified)
    results = {name: pydicom.dcmread(path) for name, path in paths.items()}
    both = [results[f"segmentation_{view}.dcm"] for view in VIEWS]
    assert len({one.SeriesInstanceUID for one in both}) == len({one.SeriesNumber for one in both}) == 1
    assert len({one.SOPInstanceUID for one in both}) == 2
    assert results["overlay.dcm"].SeriesInstanceUID != both[0].SeriesInstanceUID
    for view, one in zip(VIEWS, both, strict=True):
        assert one.ContentDescription == f"Predicted pixels, {view} view; phantom; not for diagnosis"
    assert all(is_phantom(one) for one in results.values())
    # Sent again, the results of a scan do not become second results in an archive.
    _, again = write_results([phantom], tmp_path / "second", identified)
    other = pydicom.dcmread(again["segmentation_anterior.dcm"])
    assert other.SOPInstanceUID == both[0].SOPInstanceUID
    assert other.SeriesInstanceUID == both[0].SeriesInstanceUID

    dataset = pydicom.dcmread(phantom)
    dataset.ManufacturerModelName = "Camera"
    dataset.ImageComments = ""
    dataset.save_as(tmp_path / "unmarked.dcm")
    scan, paths = write_results([tmp_path / "unmarked.dcm"], tmp_path / "third", identified)
    assert not scan.phantom
    for name, path in paths.items():
        one = pydicom.dcmread(path)
        assert not is_phantom(one)
        if name.startswith("segmentation"):
            assert one.ContentDescription.endswith(" view; not for diagnosis")


def test_an_error_is_blamed_on_the_header_only_when_it_is_used(phantom, tmp_path, monkeypatch):
    from doubleunet_bs.results import dicom_results as module

    def fail(*_):
        raise ValueError("no such value")

    monkeypatch.setattr(module, "secondary_capture", fail)
    with pytest.raises(RunError, match=r"cannot hold this header \(ValueError\): leave out --keep-identity"):
        write_results([phantom], tmp_path, True)
    with pytest.raises(ValueError, match="no such value"):
        write_results([phantom], tmp_path, False)


def test_nothing_predicted_is_an_empty_frame(phantom, tmp_path):
    _, paths = write_results([phantom], tmp_path, False, level=65535)
    for view in VIEWS:
        segmentation = highdicom.seg.segread(paths[f"segmentation_{view}.dcm"])
        assert segmentation.pixel_array.shape == (1024, 256)
        assert not segmentation.pixel_array.any()
        assert len(segmentation.SegmentSequence) == 1


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
    assert paths["overlay.dcm"].stat().st_size < capture.pixel_array.nbytes / 2
    assert capture.ImageType[:2] == ["DERIVED", "SECONDARY"]
    assert "not for diagnosis" in capture.DerivationDescription
    segmentation = pydicom.dcmread(paths["segmentation_anterior.dcm"])
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
    one, other = (pydicom.dcmread(paths["segmentation_anterior.dcm"]) for paths in (first, third))
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
    dataset.SpecificCharacterSet = "ISO_IR 100"
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
    with pytest.raises(RunError) as error:
        dicom_results(scan, prediction, overlay_picture(scan, prediction, (), view_pictures(scan)), study)
    assert "leave out --keep-identity" in str(error.value) and "SECRET" not in str(error.value)
