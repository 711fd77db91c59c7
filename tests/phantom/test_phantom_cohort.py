"""Files of a phantom cohort: DICOM header, Labelme outlines, patients.csv, determinism, refusals."""

import csv
import hashlib
import json
import warnings

import numpy as np
import pydicom
import pytest

from doubleunet_bs.__main__ import main
from doubleunet_bs.constants import CANCERS
from doubleunet_bs.errors import BoneScanError, SettingsError
from doubleunet_bs.phantom import make_cohort, make_phantom
from doubleunet_bs.phantom.cohort import count_positives, to_labelme
from doubleunet_bs.phantom.dicom import patient_id
from doubleunet_bs.phantom.scan import draw_polygons


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("cohort") / "out", 3, positive_fraction=0.6, seed=4)


def digests(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_layout(folder):
    assert set(digests(folder)) == {
        "truth.csv",
        "labels/patients.csv",
        *(f"scans/phantom_000{k}.dcm" for k in (1, 2, 3)),
        *(f"labels/phantom_000{k}_{view}.json" for k in (1, 2) for view in ("anterior", "posterior")),
        *(f"regions/phantom_000{k}_{view}.png" for k in (1, 2, 3) for view in ("anterior", "posterior")),
    }
    with open(folder / "labels" / "patients.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["metastases"] for row in rows] == ["yes", "yes", "no"]
    assert rows[2] == {"scan": "phantom_0003", "patient": "PHANTOM-S4-0003", "cancer": "breast", "metastases": "no"}


def test_a_scan_depends_on_its_number_and_not_on_the_size_of_the_cohort(folder, tmp_path):
    smaller, larger = digests(make_cohort(tmp_path / "out", 1, positive_fraction=0.6, seed=4)), digests(folder)
    for name in set(smaller) - {"labels/patients.csv", "truth.csv"}:
        assert larger[name] == smaller[name], name


def test_dicom_header_is_that_of_a_ge_discovery(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = pydicom.dcmread(folder / "scans" / "phantom_0001.dcm")
        frames = dataset.pixel_array
        text = str(dataset)
    scan = make_phantom(4, 0)
    assert np.array_equal(frames, np.stack([scan.anterior, scan.posterior]))
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.20" and dataset.Modality == "NM"
    assert list(dataset.ImageType) == ["ORIGINAL", "PRIMARY", "WHOLE BODY", "EMISSION"]
    assert (dataset.NumberOfFrames, dataset.Rows, dataset.Columns, dataset.PixelRepresentation) == (2, 1024, 256, 0)
    assert list(dataset.FrameIncrementPointer) == [0x00540010, 0x00540020]
    assert list(dataset.EnergyWindowVector) == [1, 1] and list(dataset.DetectorVector) == [1, 2]
    assert [float(item.StartAngle) for item in dataset.DetectorInformationSequence] == [180, 0]
    for item in dataset.DetectorInformationSequence:
        assert "ImageOrientationPatient" in item and not item.ImageOrientationPatient
        assert "ViewCodeSequence" not in item
    assert dataset[0x0011, 0x0010].value == "GEMS_GENIE_1"
    for element in (0x1012, 0x1030):
        assert [name.rsplit("_")[-1] for name in dataset[0x0011, element].value] == ["ANT", "POST"]
    assert int(dataset.CountsAccumulated) == frames.sum(dtype=np.int64) == scan.total_counts
    assert [float(value) for value in dataset.PixelSpacing] == list(scan.pixel_spacing_mm)
    # mm/s, from the table speed in cm/min and from length over time
    assert float(dataset.ScanVelocity) == pytest.approx(scan.acquisition.speed / 6, rel=0.01)
    assert float(dataset.ScanVelocity) == pytest.approx(
        1000 * dataset.ScanLength / dataset.ActualFrameDuration, rel=0.01
    )
    assert dataset.PatientID == "PHANTOM-S4-0001" and "SYNTHETIC" in dataset.ImageComments
    assert dataset.StudyDate == "19000101"
    uids = {element.value for element in dataset.iterall() if element.keyword.endswith("InstanceUID")}
    assert len(uids) == 3 and all(uid.startswith("2.25.") for uid in uids)
    assert "MDP" in text


def test_outlines_give_the_masks_back(folder):
    seen = 0
    for index in (0, 1):
        scan = make_phantom(4, index)
        for view in ("anterior", "posterior"):
            content = json.loads((folder / "labels" / f"phantom_000{index + 1}_{view}.json").read_text())
            assert (content["imageHeight"], content["imageWidth"], content["imageData"]) == (1024, 256, None)
            assert content["imagePath"] == f"phantom_000{index + 1}.dcm" and content["version"].startswith("5.")
            for shape in content["shapes"]:
                assert shape["label"] == "metastasis" and shape["shape_type"] == "polygon" and len(shape["points"]) >= 3
            drawn = draw_polygons([shape["points"] for shape in content["shapes"]], (1024, 256))
            assert np.array_equal(drawn * 2, scan.lesions[view])
            seen += drawn.any()
    assert seen >= 2


def test_a_view_without_visible_lesions_has_no_shapes():
    scan = make_phantom(4, 0, metastatic=False)
    assert to_labelme(scan, "anterior", "x.dcm")["shapes"] == []


@pytest.mark.parametrize("fraction, expected", [(0.0, 0), (1.0, 10), (0.9, 9), (0.5, 5), (0.25, 3)])
def test_positives_are_spread_over_the_cohort(fraction, expected):
    numbers = [count_positives(patients, fraction) for patients in range(11)]
    assert numbers[-1] == expected and set(np.diff(numbers)) <= {0, 1}
    assert numbers[1] == (fraction > 0)


@pytest.mark.parametrize("wrong", [
    {"patients": 0}, {"patients": -1}, {"patients": 1.5}, {"seed": -1}, {"cancer": "lung"}, {"positive_fraction": 1.1},
    {"positive_fraction": -0.1}, {"positive_fraction": float("nan")}, {"wanted_index": (2.0, 1.0)},
    {"wanted_index": (0.0, 1.0)}, {"wanted_index": (1.0, 21.0)}, {"wanted_index": (float("nan"), 1.0)},
])  # fmt: skip
def test_wrong_arguments_write_nothing(wrong, tmp_path):
    with pytest.raises(SettingsError):
        make_cohort(tmp_path / "out", **{"patients": 1, **wrong})
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(BoneScanError, match="exists already"):
        make_cohort(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_command_line(tmp_path, capsys):
    out = tmp_path / "cohort"
    assert main(["phantom", "--out", str(out), "--patients", "1", "--cancer", "prostate", "--seed", "2"]) == 0
    printed = capsys.readouterr().out
    assert "1 synthetic prostate scans" in printed and str(out / "labels") in printed
    assert main(["phantom", "--out", str(out), "--patients", "1"]) == 1
    assert "exists already" in capsys.readouterr().err
    for wrong in (
        ["--patients", "0"],
        ["--patients", "1", "--positive-fraction", "2"],
        ["--patients", "1", "--bsi", "many"],
        ["--patients", "1", "--bsi", "5:1"],
    ):
        assert main(["phantom", "--out", str(tmp_path / "no"), *wrong]) == 2
        assert capsys.readouterr().err.startswith("error: ")
    for wrong in (["--patients", "many"], ["--patients", "1", "--cancer", "lung"], []):
        with pytest.raises(SystemExit) as exit_info:
            main(["phantom", "--out", str(tmp_path / "no"), *wrong])
        assert exit_info.value.code == 2
    assert not (tmp_path / "no").exists()


def test_nobody_is_in_two_cohorts(folder):
    """Numbers start at 1 in all; prepared with one key, equal identifiers would be the same patient."""
    with open(folder / "labels" / "patients.csv", newline="") as file:
        listed = [row["patient"] for row in csv.DictReader(file)]
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.glob("scans/*.dcm"))]
    assert listed == [header.PatientID for header in headers]
    assert [str(header.PatientName).replace("^", "-") for header in headers] == listed
    assert len({header.SOPInstanceUID for header in headers}) == 3
    ids = [patient_id(0, cancer, seed, varied) for cancer in CANCERS for seed in (0, 7) for varied in (False, True)]
    assert len(set(ids)) == len(ids) == 8
    assert patient_id(0, "breast") == "PHANTOM-0001" and patient_id(1, "prostate", 7) == "PHANTOM-S7-P0002"
    assert patient_id(0, "breast", 7, varied=True) == "PHANTOM-S7-V0001"
