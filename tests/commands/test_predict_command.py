"""`doubleunet-bs predict` as a user meets it."""

import json
import shutil
import zipfile

import numpy as np
import pydicom
import pydicom.data
import pytest
from dicom_variants import write_variant
from PIL import Image

from doubleunet_bs.__main__ import main
from doubleunet_bs.display import outline
from doubleunet_bs.inference.engines import ENGINES
from doubleunet_bs.inference.model_description import INTENDED_USE
from doubleunet_bs.inference.predictor import Predictor
from doubleunet_bs.results.overlay import CONTOUR

VIEWS = ("anterior", "posterior")
FILES = {
    "result.json",
    "overlay.png",
    "overlay.dcm",
    "scan.dcm",
    "report.html",
    "thumbnail.png",
    *(f"probability_{view}.png" for view in VIEWS),
    *(f"mask_{view}.{kind}" for view in VIEWS for kind in ("npy", "png")),
    "segmentation.dcm",
    "lesions.dcm",
    *(f"annotation_{view}.json" for view in VIEWS),
    *(f"view_{view}.png" for view in VIEWS),
}


def test_files_of_a_scan(command, phantoms, scan, trained_run):
    code, out, _ = command(phantoms / "phantom_0001.dcm")
    folder = command.out / scan.case
    assert code == 0
    assert {file.name for file in folder.iterdir()} == FILES
    assert [path.name for path in command.out.glob("case-*")] == [scan.case]
    predictor = Predictor(trained_run / "fold_01")
    expected = predictor.predict(scan)
    result = json.loads((folder / "result.json").read_text())
    for view in ("anterior", "posterior"):
        mask = np.load(folder / f"mask_{view}.npy", allow_pickle=False)
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, expected.masks[view])
        assert np.array_equal(np.asarray(Image.open(folder / f"mask_{view}.png")), 255 * expected.masks[view])
        assert result["views"][view]["metastatic_pixels"] == mask.sum()
        assert result["views"][view]["missing"] is False
    assert result["metastatic_pixels"] == sum(expected.lesion_pixels.values()) > 0
    assert result["intended_use"] == INTENDED_USE
    assert (result["case"], result["version"], result["engine"]) == (scan.case, "0.1.0", predictor.engine)
    assert (result["model"]["fold"], result["model"]["preparation"]["bin"]) == (1, 4)
    assert str(folder) in out
    assert INTENDED_USE in out
    assert "1 of 1 scans segmented" in out
    lesions, area = result["lesions"], result["lesion_area"]
    assert sum(lesion["pixels"] for lesion in lesions) == result["metastatic_pixels"] == area["lesion_pixels"]
    assert [lesion["number"] for lesion in lesions] == list(range(1, len(lesions) + 1))
    row, column = scan.pixel_spacing_mm
    assert area["lesion_area_mm2"] == pytest.approx(area["lesion_pixels"] * row * column)
    assert area["fraction_of_body"] == pytest.approx(area["lesion_pixels"] / area["body_pixels"])
    assert area["body_pixels"] == sum(view["body_pixels"] for view in result["views"].values()) > 100_000
    assert "not a bone scan index" in area["body_definition"]
    assert (result["format"], result["previous"], result["dicom"]["patient_identity"]) == (2, None, "none")
    named = {result["overlay"], result["report"], result["thumbnail"], "result.json"}
    named |= {result["dicom"][key] for key in ("segmentation", "lesions", "overlay", "scan")}
    for view in result["views"].values():
        named |= {view[key] for key in ("mask_npy", "mask_png", "probability", "annotation", "picture")}
    assert named == FILES
    picture = np.asarray(Image.open(folder / "overlay.png").convert("RGB"))
    lines = sum(outline(mask, 2).sum() for mask in expected.masks.values())
    # The dashed line at the end of the crop and letters may cover single pixels.
    assert np.all(picture[140:] == CONTOUR, axis=2).sum() == pytest.approx(lines, rel=0.02)


@pytest.mark.slow
def test_a_threshold_stands_in_every_result(command, phantoms, scan):
    file = phantoms / "phantom_0001.dcm"
    code, out, _ = command(file, "--threshold", "0.25", "--outputs", "dicom,report")
    assert code == 0 and "mask    probability of metastatic at least 0.25" in out
    folder, rule = command.out / scan.case, "probability of metastatic at least 0.25"
    result = json.loads((folder / "result.json").read_text())
    assert (result["threshold"], result["mask_rule"]) == (0.25, rule)
    assert rule in (folder / "report.html").read_text()
    for name in ("overlay.dcm", "segmentation.dcm"):
        assert rule.encode() in (folder / name).read_bytes()
    command(file, "--outputs", "report", "--overwrite")
    assert json.loads((folder / "result.json").read_text())["threshold"] is None
    assert "most probable class" in (folder / "report.html").read_text()
    assert command(file, "--threshold", "1.5", "--overwrite")[0] == 2


def test_lesions_of_the_views_are_matched(command, phantoms, scan):
    command(phantoms / "phantom_0001.dcm", "--outputs", "none")
    result = json.loads((command.out / scan.case / "result.json").read_text())
    areas = {area["number"]: area for area in result["lesions"]}
    assert [focus["number"] for focus in result["foci"]] == list(range(1, len(result["foci"]) + 1))
    both = [focus for focus in result["foci"] if focus["anterior"] and focus["posterior"]]
    assert len(areas) == len(result["foci"]) + len(both) and both
    for focus in both:
        one, other = areas[focus["anterior"]], areas[focus["posterior"]]
        assert (one["view"], other["view"]) == VIEWS and one["focus"] == other["focus"] == focus["number"]
        assert max(one["pixels"], other["pixels"]) <= 4 * min(one["pixels"], other["pixels"])


def test_folder_and_archive(command, phantoms, tmp_path):
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.write(phantoms / "phantom_0002.dcm", "deep/within/x")
    code, out, _ = command(phantoms, "--outputs", "none", out=tmp_path / "a")
    assert (code, len(list((tmp_path / "a").glob("case-*")))) == (0, 2)
    code, out, _ = command(tmp_path / "export.zip", "--outputs", "none", out=tmp_path / "b")
    assert (code, len(list((tmp_path / "b").glob("case-*")))) == (0, 1)
    assert {path.name for path in (tmp_path / "b").glob("case-*")} < {
        path.name for path in (tmp_path / "a").glob("case-*")
    }


def test_existing_results_stay_without_overwrite(command, phantoms, scan):
    file = (phantoms / "phantom_0001.dcm", "--outputs", "none")
    command(*file)
    result = command.out / scan.case / "result.json"
    result.write_text("mine")
    code, _, err = command(*file)
    assert code == 1
    assert "--overwrite" in err
    assert result.read_text() == "mine"
    assert command(*file, "--overwrite")[0] == 0
    assert json.loads(result.read_text())["case"] == scan.case
    result.unlink()
    code, _, err = command(*file, "--overwrite")
    assert code == 1
    assert "is no result of this package" in err


def test_one_bad_file_does_not_stop_the_others(command, phantoms, tmp_path):
    (tmp_path / "notes.txt").write_text("no scan")
    copy = shutil.copy(phantoms / "phantom_0001.dcm", tmp_path / "copy.dcm")
    code, out, err = command(tmp_path / "notes.txt", phantoms / "phantom_0001.dcm", copy, "--outputs", "none")
    assert code == 1
    assert "1 of 2 scans segmented" in out and "passed over: 1 copy" in out
    assert "notes.txt: is not a DICOM file" in err
    assert f"warning: {copy}: has the same counts as" in err
    assert len(list(command.out.glob("case-*"))) == 1


def test_a_model_of_another_kind_is_refused_before_any_network_is_loaded(command, phantoms, trained_run, monkeypatch):
    monkeypatch.delattr("doubleunet_bs.results.predict_scans.Predictor")
    code, _, err = command(phantoms, "--skeleton", trained_run / "fold_01")
    assert code == 1 and "fold_01: a model of lesions: give one of the skeleton" in err


def test_wrong_arguments(command, phantoms, tmp_path, capsys):
    code, _, err = command(tmp_path / "nowhere.dcm")
    assert code == 2
    assert "nowhere.dcm: no such file or folder" in err
    (tmp_path / "file").touch()
    assert command(phantoms, out=tmp_path / "file")[0] == 2
    with pytest.raises(SystemExit) as stopped:
        command(phantoms, "--engine", "abacus")
    assert stopped.value.code == 2
    (tmp_path / "empty").mkdir()
    assert command(tmp_path / "empty")[0] == 1
    assert main(["predict", str(phantoms), "--model", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert not (tmp_path / "out").exists()
    assert "not a model folder" in capsys.readouterr().err


def test_two_files_of_one_view_each(command, phantoms, tmp_path, scan):
    """The frames of a scan written to two files of one study give the result of the whole scan."""
    files = write_variant(phantoms / "phantom_0001.dcm", "two-files", tmp_path / "source")
    code, out, err = command(*files, "--outputs", "none")
    assert (code, err) == (0, "")
    assert [path.name for path in command.out.glob("case-*")] == [scan.case]
    code, _, err = command(files[0], "--overwrite")
    assert code == 1
    assert "--allow-missing-view" in err


def test_pictures_get_results_without_dicom(command, tmp_path, scan):
    paths = [tmp_path / f"S_{view}.png" for view in VIEWS]
    for path, view in zip(paths, VIEWS, strict=True):
        Image.fromarray(np.minimum(getattr(scan, view), 254).astype(np.uint8)).save(path)
    code, out, _ = command(*paths[::-1])
    [folder] = [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert code == 0 and "do not rely on the result" in out
    assert {path.name for path in folder.iterdir()} == {name for name in FILES if not name.endswith(".dcm")}
    result = json.loads((folder / "result.json").read_text())
    assert any("display grey instead of counts" in line for line in result["warnings"])
    code, out, _ = command(*paths, "--skip-existing")
    assert code == 0
    assert "0 of 1 scans segmented" in out and "1 done before" in out
    assert command(*paths, "--keep-identity", "--overwrite")[0] == 1


@pytest.mark.slow
def test_real_scan_with_a_missing_view(command):
    """A real anterior scan in pydicom's own test data (JPEG lossy, GE Millennium)."""
    file = pydicom.data.get_testdata_file("JPGExtended.dcm", download=False)
    if file is None:
        pytest.skip("this pydicom brings no JPGExtended.dcm")
    code, _, err = command(file)
    assert code == 1
    assert "--allow-missing-view" in err
    code, out, _ = command(file, "--allow-missing-view")
    assert code == 0, out
    (folder,) = command.out.glob("case-*")
    result = json.loads((folder / "result.json").read_text())
    (missing,) = [view for view, content in result["views"].items() if content["missing"]]
    assert result["views"][missing]["metastatic_pixels"] == 0
    assert any("missing" in warning for warning in result["warnings"])
    assert not np.load(folder / f"mask_{missing}.npy").any()
    absent = {f"annotation_{missing}.json", f"view_{missing}.png"}
    assert {file.name for file in folder.iterdir()} == FILES - absent
    assert {result["views"][missing][key] for key in ("annotation", "picture", "body_pixels")} == {None}
    assert "view missing" in (folder / "report.html").read_text()


def test_help_names_every_file_and_engine(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in (*FILES, *ENGINES))
