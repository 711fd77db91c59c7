"""`doubleunet-bs inspect`: text, JSON and picture."""

import json
import shutil
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from PIL import Image
from real_scan import REAL

from doubleunet_bs.__main__ import main
from doubleunet_bs.phantom import make_phantom
from doubleunet_bs.phantom.dicom import write_dicom
from doubleunet_bs.preparation.summaries import BODY, CROP, KNEE, inspection_line


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(1, 0)


@pytest.fixture(scope="module")
def file(phantom, tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "phantom.dcm"
    write_dicom(phantom, path)
    return str(path)


def test_json_and_text_say_the_same(phantom, file, capsys):
    assert main(["inspect", file, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    anterior = figures["views"]["anterior"]
    assert anterior["counts"] == int(phantom.anterior.sum())
    assert figures["matrix"] == [1024, 256] and figures["view_source"] in ("private-view-name", "detector-angle")
    assert 7 < figures["brightness"] < 14 and 0.05 < figures["uptake_fraction"] < 0.4
    # The crop is centred on the body: row 640 lies 640 rows below its top.
    first, last = anterior["body_rows"]
    assert anterior["crop_top"] == (first + last + 1 - 950) // 2
    assert anterior["knee_row"] == anterior["crop_top"] + 640
    assert main(["inspect", file]) == 0
    text = capsys.readouterr().out
    assert f"{anterior['counts']:,} counts" in text and f"rows {first} to {last}" in text
    assert f"gain           {anterior['gain']:#.4g}" in text and "identified by: " in text


def test_binned_as_prepare_would(phantom, file, capsys):
    assert main(["inspect", file, "--bin", "4", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert main(["inspect", file, "--json"]) == 0
    full = json.loads(capsys.readouterr().out)
    # Sums of 16 pixels need about a sixteenth of the gain.
    gains = [one["views"]["anterior"]["gain"] for one in (figures, full)]
    assert (figures["bin"], full["bin"]) == (4, 1) and gains[0] < gains[1] / 4
    assert figures["views"]["anterior"]["counts"] == full["views"]["anterior"]["counts"]
    assert main(["inspect", file, "--bin", "4"]) == 0
    assert "counts of 4 x 4 pixels added" in capsys.readouterr().out


def test_the_picture_shows_body_crop_and_row_640(file, tmp_path, capsys):
    path = tmp_path / "look.png"
    assert main(["inspect", file, "--png", str(path), "--json"]) == 0
    view = json.loads(capsys.readouterr().out)["views"]["anterior"]
    with Image.open(path) as image:
        pixels = np.asarray(image)
    # Two pixels to one; the anterior view begins at column 16 and row 68.
    knee = 68 + 2 * view["knee_row"]
    assert (pixels[knee, 16 : 16 + 512] == KNEE).all()
    first, last = view["body_rows"]
    left, right = view["body_columns"]
    for row in (68 + 2 * first, 68 + 2 * last + 1):
        assert (pixels[row, 16 + 2 * left : 16 + 2 * (right + 1)] == BODY).all()
    assert (pixels == CROP).all(axis=2).any()
    # Below row 640 and beside the crop the paper is shaded, above row 640 it is white.
    corner = 68 + 2 * 1020, 16 + 2 * 200
    assert (pixels[corner] == np.array([235, 229, 217])).all() and (pixels[68 + 2 * 60, 16 + 2 * 200] == 255).all()
    # R and L, as in the other pictures: the letters of both views are each other's.
    letters = [pixels[74:92, 16 + 528 * view + edge :][:, :36].min(axis=2) < 100 for view, edge in ((0, 8), (1, 470))]
    assert letters[0].any() and letters[0].sum() == letters[1].sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(REAL, marks=pytest.mark.skipif(not REAL.exists(), reason="the real scan is not part of a clone")),
        Path(pydicom.data.get_testdata_file("JPGExtended.dcm")),
    ],
    ids=["NM1_JPLL", "JPGExtended"],
)
def test_a_real_anterior_view(path, tmp_path, capsys):
    assert main(["inspect", str(path)]) == 1
    assert "--allow-missing-view" in capsys.readouterr().err
    picture = tmp_path / "look.png"
    assert main(["inspect", str(path), "--allow-missing-view", "--json", "--png", str(picture)]) == 0
    figures = json.loads(capsys.readouterr().out)
    view = figures["views"]["anterior"]
    if path == REAL:
        assert view["counts"] == 3_596_452
    # Lossy compression makes a few counts of what was none.
    assert view["counts"] == pytest.approx(3_596_452, rel=0.06)
    assert figures["views"]["posterior"] is None
    # 764 rows of 2.26 mm: a man of 173 cm. The knees end at about row 640.
    first, last = view["body_rows"]
    assert abs(first - 90) <= 3 and abs(last - 853) <= 3
    assert 0.07 <= figures["uptake_fraction"] <= 0.27
    assert any("missing" in line for line in figures["warnings"])
    assert picture.exists()


def test_text_names_a_missing_view(capsys):
    path = pydicom.data.get_testdata_file("JPGExtended.dcm")
    assert main(["inspect", path, "--allow-missing-view"]) == 0
    out = capsys.readouterr().out
    assert "posterior        missing" in out and "warning " in out


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["a", "b", "c"], 2, "3 files"),
        (["/nowhere.dcm"], 1, "/nowhere.dcm"),
        (["a", "--png", "look.jpg"], 2, "must end in .png"),
    ],
)
def test_wrong_arguments_are_one_line(capsys, arguments, code, text):
    assert main(["inspect", *arguments]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and text in lines[0]


def test_a_folder_has_one_line_a_scan(phantom, file, tmp_path, capsys):
    folder = tmp_path / "export"
    folder.mkdir()
    shutil.copy(file, folder / "a.dcm")
    (folder / "notes.txt").write_text("nothing")
    (folder / "cut.dcm").write_bytes(Path(file).read_bytes()[:200_000])
    assert main(["inspect", str(folder)]) == 1
    printed = capsys.readouterr()
    heads, line, _, total, passed = printed.out.splitlines()
    assert heads.split() == ["scan", "anterior", "posterior", "body", "rows", "pixel", "mm", "gains", "warnings"]
    assert line.split()[:3] == ["a.dcm", f"{phantom.anterior.sum():,}", f"{phantom.posterior.sum():,}"]
    assert (total, passed) == ("1 of 2 scans can be used", "passed over: 1 not DICOM")
    assert printed.err.startswith("error: cut.dcm: ") and len(printed.err.splitlines()) == 1
    (folder / "cut.dcm").unlink()
    assert main(["inspect", str(folder), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["files"] == ["a.dcm"] and figures["views"]["anterior"]["counts"] == int(phantom.anterior.sum())
    figures["views"]["anterior"]["gain"] = 0.000712  # As of 16-bit pictures.
    assert " 0.000712, " in inspection_line("deep", figures)
    short, long = (inspection_line(name, figures, 60) for name in ("a.dcm", "x" * 70 + "/b.dcm"))
    assert len(short) == len(long) and short[60:] == long[60:] and long[:60] == "..." + "x" * 51 + "/b.dcm"
    assert main(["inspect", str(folder), "--png", str(tmp_path / "look.png")]) == 2
    (folder / "a.dcm").unlink()
    assert main(["inspect", str(folder)]) == 1
    assert "no scan is in it, only 1 not DICOM" in capsys.readouterr().err
