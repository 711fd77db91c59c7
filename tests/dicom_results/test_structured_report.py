"""Structured reports: the figures of each lesion, outlines that are drawn back to its pixels, other readers."""

import dataclasses
import json
import shutil
import subprocess

import highdicom.sr as sr
import numpy as np
import pydicom
import pytest
from dicom_variants import KINDS, write_variant
from handmade_prediction import make_prediction, reported
from highdicom.sr.utils import find_content_items
from orthanc import require_program
from PIL import Image, ImageDraw
from pydicom.sr.codedict import codes

from doubleunet_bs import __version__
from doubleunet_bs.bsi.regions import REGIONS
from doubleunet_bs.dicom_files.sources import Source
from doubleunet_bs.dicom_results.result_header import LONG_AGO, header_with_identity, header_without_identity
from doubleunet_bs.dicom_results.segmentation import map_to_frame
from doubleunet_bs.dicom_results.source_study import read_source_study
from doubleunet_bs.dicom_results.structured_report import bsi_report, lesion_report
from doubleunet_bs.inference.model_description import device_uid
from doubleunet_bs.scans import read_scan


@pytest.fixture(scope="module")
def phantom(phantoms):
    return phantoms / "phantom_0001.dcm"


def some_masks(shape) -> dict[str, np.ndarray]:
    """A block, a single pixel, two blocks that touch at a corner, a ring; the ring alone from behind."""
    front, back = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    front[100:110, 120:140] = front[300, 130] = front[400:405, 90:95] = front[405:407, 95:99] = 1
    for view in (front, back):
        view[500:520, 100:120] = 1
        view[508:512, 106:113] = 0
    return {"anterior": front, "posterior": back}


def make_report(files, identified: bool, region=None, **changes):
    """The scan, its prediction and header, the lesions, and the report."""
    scan = dataclasses.replace(read_scan(files, allow_missing_view=True), **changes)
    masks = {view: mask for view, mask in some_masks(scan.anterior.shape).items() if view not in scan.missing_views}
    prediction = make_prediction(scan, masks)
    prediction.probabilities["posterior"][500, 100] = 1
    header = header_without_identity(scan, prediction)
    if identified:
        study = read_source_study([Source(str(path)) for path in files])
        header = header_with_identity(study, scan, prediction, LONG_AGO)
    lesions = reported(scan, prediction, region)
    return scan, prediction, header, lesions, lesion_report(prediction, header, lesions)


def groups_of(dataset, tmp_path) -> list:
    dataset.save_as(tmp_path / "report.dcm")
    return sr.srread(tmp_path / "report.dcm").content.get_planar_roi_measurement_groups()


def figures(group) -> dict:
    return {one.name.meaning: (float(one.value), one.unit.value) for one in group.get_measurements()}


def test_figures_of_each_lesion(phantom, tmp_path):
    scan, _, header, lesions, dataset = make_report([phantom], True)
    groups = groups_of(dataset, tmp_path)
    assert len(groups) == len(lesions) == 5
    for group, one in zip(groups, lesions, strict=True):
        counts = getattr(scan, one.lesion.view)[one.area.box][one.area.inside]
        row, column = scan.pixel_spacing_mm
        assert figures(group) == {
            "Area": (pytest.approx(counts.size * row * column, abs=0.01), "mm2"),
            # One of the ring's 372 pixels has 100 % from behind.
            "Probability": (90.03 if one.lesion.view == "posterior" else 90.0, "%"),
            "Peak probability": (100.0 if one.lesion.view == "posterior" else 90.0, "%"),
            "Total counts": (counts.sum(), "{counts}"),
            "Maximum counts": (counts.max(), "{counts}"),
        }
        assert [site.value.value for site in group.finding_sites] == ["272673000"]
        assert group.tracking_uid == one.tracking_uid
        assert (
            group.tracking_identifier
            == {
                "anterior": f"Focus {one.focus}, anterior, SYNTHETIC PHANTOM",
                "posterior": f"Area {one.lesion.number}, SYNTHETIC PHANTOM",
            }[one.lesion.view]
        )
        assert group.finding_type.value == "14799000"
        reference = group.roi.ContentSequence[0].ReferencedSOPSequence[0]
        source = header.frames[one.lesion.view]
        assert (reference.ReferencedSOPInstanceUID, reference.ReferencedFrameNumber) == (
            source.sop_instance_uid,
            source.frame,
        )
        own = {one.name.value for one in group.get_measurements() if one.name.scheme_designator == "99DUBS"}
        assert own == {"probability-peak", "counts-total", "counts-maximum"}
    # Rows 100 to 109 and columns 120 to 139: an eighth of a pixel inside the edges.
    points = groups[0].roi.value
    assert [*points.min(axis=0), *points.max(axis=0)] == [120.125, 100.125, 139.875, 109.875]
    assert dataset.SOPClassUID == pydicom.uid.Comprehensive3DSRStorage
    flags = (dataset.CompletionFlag, dataset.PreliminaryFlag, dataset.VerificationFlag)
    assert flags == ("COMPLETE", "PRELIMINARY", "UNVERIFIED")
    for name, value in ((codes.DCM.AlgorithmName, "doubleunet_bs"), (codes.DCM.AlgorithmVersion, __version__)):
        items = find_content_items(dataset, name=name, recursive=True)
        assert [item.value for item in items] == [value] * 5
    assert dataset.ContributingEquipmentSequence[-1].DeviceUID == device_uid("ab" * 32)


def test_unknown_spacing_gives_no_area_and_a_skeleton_the_bone(phantom, tmp_path):
    *_, dataset = make_report([phantom], False, REGIONS[3], pixel_spacing_mm=None)
    for group in groups_of(dataset, tmp_path):
        assert "Area" not in figures(group)
        assert [site.value.value for site in group.finding_sites] == ["113197003"]


@pytest.mark.slow
@pytest.mark.parametrize("identified", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_outlines_are_those_of_the_pixels_in_their_source_frame(kind, identified, phantom, tmp_path):
    files = write_variant(phantom, kind, tmp_path / "source")
    scan, prediction, header, lesions, dataset = make_report(files, identified)
    drawn: dict[tuple, np.ndarray] = {}
    expected: dict[tuple, np.ndarray] = {}
    for group, one in zip(groups_of(dataset, tmp_path), lesions, strict=True):
        frame = header.frames[one.lesion.view]
        image = Image.new("1", frame.shape[::-1])
        # Four times as fine, pixel centres are inside or outside of the outline without doubt.
        points = group.roi.value
        assert np.array_equal(points[0], points[-1])
        fine = Image.new("1", (frame.shape[1] * 4, frame.shape[0] * 4))
        ImageDraw.Draw(fine).polygon([tuple(point) for point in (points * 4 - 0.5).tolist()], fill=1, outline=1)
        image = np.asarray(fine)[2::4, 2::4]
        key = (frame.sop_instance_uid, frame.frame)
        drawn[key] = drawn.get(key, False) | image
        mask = np.zeros(scan.anterior.shape, np.uint8)
        mask[one.area.box] = one.area.inside
        expected[key] = expected.get(key, False) | (map_to_frame(mask, frame) == 1)
    for key, image in drawn.items():
        rings = 4 * 7 * (4 if kind == "finer-matrix" and identified else 1)
        extra = image & ~expected[key]
        # The outer outline encloses the hole of a ring.
        assert not (expected[key] & ~image).any()
        assert extra.sum() in (rings, 2 * rings)


def test_the_index_is_a_report_of_its_own(phantom, tmp_path):
    scan, prediction, header, _, lesions = make_report([phantom], False)
    fractions = {REGIONS[3]: 0.125, REGIONS[10]: 0.0}
    dataset = bsi_report(header, 1.234, fractions, "icrp110-female", [prediction.model])
    assert dataset.SeriesInstanceUID != lesions.SeriesInstanceUID
    dataset.save_as(tmp_path / "bsi.dcm")
    (group,) = sr.srread(tmp_path / "bsi.dcm").content.get_image_measurement_groups()
    assert [site.value.value for site in group.finding_sites] == ["113192009"]
    values = [
        (one.name.value, float(one.value), [s.value.value for s in one.finding_sites])
        for one in group.get_measurements()
    ]
    assert values == [
        ("bsi", 1.234, []),
        ("bsi-fraction", 12.5, ["113197003"]),
        ("bsi-fraction", 0.0, ["118645006"]),
    ]
    sources = [one.ReferencedSOPSequence[0] for one in group.source_images]
    assert [(one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID) for one in sources] == [
        (frame.sop_class_uid, frame.sop_instance_uid) for frame in header.frames.values()
    ]
    assert b"weights icrp110-female" in (tmp_path / "bsi.dcm").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("identified", [True, False])
@pytest.mark.parametrize("what", ["lesions", "bsi"])
def test_others_read_it(what, identified, phantom, tmp_path):
    """DCMTK, dicom3tools and dcmqi, the reader of 3D Slicer."""
    _, prediction, header, lesions, dataset = make_report([phantom], identified)
    if what == "bsi":
        dataset = bsi_report(header, 1.0, {REGIONS[0]: 0.5}, "icrp110-male", [prediction.model])
    path = tmp_path / "report.dcm"
    dataset.save_as(path)

    def run(program, package, *arguments):
        found = shutil.which(program) if package != "dcmtk" else require_program(program, package)
        if found is None:
            pytest.skip(f"{program} is not installed (pip install {package})")
        command = [found, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0 and "Error" not in done.stdout + done.stderr, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "Comprehensive3DSR" in run("dciodvfy", "dicom3tools", path)
    dump = run("dsrdump", "dcmtk", path)
    assert dump.count("Measurement Group") == {"lesions": len(lesions), "none": 0, "bsi": 1}[what]
    if what == "lesions":
        run("tid1500reader", "dcmqi", "--inputDICOM", path, "--outputMetadata", tmp_path / "read.json")
        read = json.loads((tmp_path / "read.json").read_text())["Measurements"]
        assert [one["TrackingUniqueIdentifier"] for one in read] == [one.tracking_uid for one in lesions]
