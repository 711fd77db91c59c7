"""What DICOM results say of a predicted skeleton: regions, the bone of each lesion, the Bone Scan Index."""

import subprocess

import highdicom
import numpy as np
import pytest
from handmade_prediction import make_prediction

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.findings.skeleton_result import find_index
from doubleunet_bs.results.result_files import JobSettings
from doubleunet_bs.results.result_folder import write_prediction

RIBS, PELVIS, BORDER = 4, 11, 400


@pytest.fixture(scope="module")
def written(scan, tmp_path_factory):
    """A result whose skeleton is ribs above a row and pelvis below it."""
    regions = {view: np.full(scan.anterior.shape, RIBS, np.uint8) for view in VIEWS}
    for view in VIEWS:
        regions[view][BORDER:] = PELVIS
    prediction = make_prediction(scan)
    found = find_index(scan, prediction, make_prediction(scan, regions), "icrp110-female")
    settings = JobSettings(out=tmp_path_factory.mktemp("skeleton"), outputs=("dicom",))
    return write_prediction(settings, scan, prediction, skeleton=found)


def test_regions_are_segments(written):
    segmentation = highdicom.seg.segread(written.folder / "segmentation.dcm")
    assert [one.SegmentLabel for one in segmentation.SegmentSequence] == ["metastasis", "ribs", "pelvis"]
    groups = segmentation.PerFrameFunctionalGroupsSequence
    numbers = [group.SegmentIdentificationSequence[0].ReferencedSegmentNumber for group in groups]
    for number, rows in ((2, np.s_[:BORDER]), (3, np.s_[BORDER:])):
        mask = np.zeros(segmentation.pixel_array.shape[1:], bool)
        mask[rows] = True
        frames = [frame for frame, of in zip(segmentation.pixel_array, numbers, strict=True) if of == number]
        assert len(frames) == 2 and all(np.array_equal(frame, mask) for frame in frames)


@pytest.mark.slow
def test_each_lesion_names_its_bone_and_its_number_in_the_report(written):
    lesions = written.result["lesions"]
    assert {lesion["region"] for lesion in lesions} == {"ribs", "pelvis"}
    clear = [lesion for lesion in lesions if lesion["last_row"] < BORDER or lesion["first_row"] >= BORDER]
    assert all((lesion["region"] == "ribs") == (lesion["last_row"] < BORDER) for lesion in clear)
    report = highdicom.sr.srread(written.folder / "lesions.dcm")
    groups = report.content.get_planar_roi_measurement_groups()
    assert [group.finding_sites[0].value.meaning.lower() for group in groups] == [one["region"] for one in lesions]
    numbers = [f"Focus {one['focus']}, {one['view']}" for one in lesions]
    assert [group.tracking_identifier.removesuffix(", SYNTHETIC PHANTOM") for group in groups] == numbers


def test_the_index_is_a_report_of_its_own(written):
    [group] = highdicom.sr.srread(written.folder / "bsi.dcm").content.get_image_measurement_groups()
    index, *fractions = group.get_measurements()
    assert float(index.value) == pytest.approx(written.result["bone_scan_index"]["value"], abs=1e-4)
    shown = [share for share in written.result["bone_scan_index"]["regions"] if share["fraction"] is not None]
    assert [float(one.value) for one in fractions] == pytest.approx(
        [100 * share["fraction"] for share in shown], abs=1e-4
    )
    assert written.result["dicom"]["bone_scan_index"] == "bsi.dcm"


def test_a_validator_finds_no_error(written):
    for path in written.folder.glob("*.dcm"):
        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True)
        assert "Error" not in said.stdout + said.stderr, path.name
