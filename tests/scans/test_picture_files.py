"""Grey pictures as scans."""

import shlex
import zipfile

import numpy as np
import pytest
from bodies import person
from PIL import Image

from doubleunet_bs.__main__ import main
from doubleunet_bs.errors import ScanError
from doubleunet_bs.results.input_scans import list_scans
from doubleunet_bs.scans import Pseudonyms, count_kinds, find_pictures, read_scan
from doubleunet_bs.scans.picture_files import PICTURE_WARNING, view_of_path

GREY = {view: np.minimum(person(number), 254).astype(np.uint8) for number, view in enumerate(("anterior", "posterior"))}


def save(folder, **images):
    paths = []
    for name, image in images.items():
        paths.append(folder / f"{name}.png")
        Image.fromarray(image).save(paths[-1])
    return paths


def test_two_pictures_are_the_views_of_one_scan_in_any_order(tmp_path):
    paths = save(tmp_path, S_ant=GREY["anterior"], S_post=GREY["posterior"])
    for given in (paths, paths[::-1]):
        scan = read_scan(given)
        for view, grey in GREY.items():
            np.testing.assert_array_equal(getattr(scan, view), grey)
        assert scan.pictures and scan.pixel_spacing_mm is None and scan.patient is None
        assert PICTURE_WARNING in scan.warnings and scan.anterior.dtype == np.uint16


def test_sixteen_bits_both_views_in_one_picture_and_a_finer_matrix(tmp_path):
    deep = {view: (grey.astype(np.uint16) * 200) for view, grey in GREY.items()}
    [both] = save(tmp_path, both=np.hstack(list(deep.values())))
    scan = read_scan(both)
    np.testing.assert_array_equal(scan.posterior, deep["posterior"])
    assert any("left half is taken as anterior" in line for line in scan.warnings)
    fine = {f"S_{view}": np.kron(grey, np.ones((2, 2), np.uint8)) for view, grey in GREY.items()}
    scan = read_scan(save(tmp_path, **fine))
    np.testing.assert_array_equal(scan.anterior, GREY["anterior"].astype(np.uint16) * 4)


def test_jpeg_saved_as_colour_is_grey_all_the_same(tmp_path):
    for view, grey in GREY.items():
        Image.fromarray(grey).convert("RGB").save(tmp_path / f"{view}.jpg")
    scan = read_scan([tmp_path / "anterior.jpg", tmp_path / "posterior.jpg"])
    assert np.abs(scan.anterior.astype(int) - GREY["anterior"]).mean() < 3


def test_names_that_tell_nothing_go_by_order_and_say_so(tmp_path):
    scan = read_scan(save(tmp_path, one=GREY["anterior"], two=GREY["posterior"]))
    np.testing.assert_array_equal(scan.anterior, GREY["anterior"])
    assert any("the first is taken as anterior" in line for line in scan.warnings)


def test_saturated_pixels_are_said(tmp_path):
    white = GREY["anterior"].copy()
    white[400:440, 100:150] = 255
    scan = read_scan(save(tmp_path, ant=white, post=GREY["posterior"]))
    assert [line for line in scan.warnings if "of the anterior view are saturated" in line]
    assert not [line for line in scan.warnings if "of the posterior view are saturated" in line]


COLOUR = np.dstack([GREY["anterior"], GREY["posterior"], GREY["anterior"]])


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (COLOUR, "colour"), (np.dstack([GREY["anterior"]] * 4), "colour"), (255 - GREY["anterior"], "inverted"),
        (np.zeros((1024, 256), np.uint8), "blank"), (GREY["anterior"][:, :200], "wrong-matrix"),
        (np.zeros((256, 1024), np.uint8), "wrong-matrix"),
    ],
)  # fmt: skip
def test_other_pictures_are_refused(tmp_path, image, reason):
    with pytest.raises(ScanError, match=r"S_ant\.png: ") as caught:
        read_scan(save(tmp_path, S_ant=image, S_post=GREY["posterior"]))
    assert caught.value.reason == reason


def test_damaged_pictures_the_same_view_twice_and_one_view_alone(tmp_path):
    paths = save(tmp_path, S_ant=GREY["anterior"], S_anterior=GREY["anterior"])
    with pytest.raises(ScanError, match="both pictures are named after the anterior view"):
        read_scan(paths)
    with pytest.raises(ScanError, match="picture of the posterior view is missing"):
        read_scan(paths[0])
    assert read_scan(paths[0], allow_missing_view=True).missing_views == ("posterior",)
    paths[0].write_bytes(paths[0].read_bytes()[:2000])
    with pytest.raises(ScanError, match="S_ant.png: is a damaged picture"):
        read_scan(paths[0], allow_missing_view=True)


def test_a_case_is_named_by_its_pixels(tmp_path):
    paths = save(tmp_path, ant=GREY["anterior"], post=GREY["posterior"])
    keyed = read_scan(paths, pseudonyms=Pseudonyms(bytes(32)))
    assert keyed.case != read_scan(paths).case and keyed.pixel_sha256 == read_scan(paths).pixel_sha256


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("S_ant.png", "S_post.png"), ("S_ANT.jpg", "S_POST.jpg"), ("a/Anterior/A5.png", "a/Posterior/P5.png"),
        ("wholeBodyANT/12.jpg", "wholeBodyPOST/12.jpg"), ("S-anterior.png", "S-posterior.png"),
    ],
)  # fmt: skip
def test_pairs_by_name_or_folder(tmp_path, one, other):
    assert view_of_path(one)[0] == "anterior" and view_of_path(other)[0] == "posterior"
    assert view_of_path(one)[1] == view_of_path(other)[1]
    for path in (one, other):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    found = find_pictures(tmp_path)
    assert [scan.paths for scan in found.scans] == [(one, other)] and found.rejected == ()


def test_what_is_no_pair_is_rejected_and_other_files_are_passed_over(tmp_path):
    for name in ("S_ant.png", "T_ant.png", "T_anterior.png", "T_post.png", "santos.png", "notes.txt"):
        (tmp_path / name).touch()
    found = find_pictures(tmp_path)
    assert {scan.paths for scan in found.scans} == {("santos.png",), ("T_ant.png", "T_post.png")}
    assert {(file.path, file.reason) for file in found.rejected} == {
        ("S_ant.png", "missing-view"),
        ("T_anterior.png", "ambiguous-pair"),
    }
    assert [file.path for file in found.passed_over] == ["notes.txt"]


def test_other_pictures_beside_scans_are_passed_over(tmp_path):
    """A logo, a screenshot, a mask; pairs by name and what has the size of a scan stay."""
    both = np.hstack([GREY["anterior"], GREY["posterior"]])
    save(tmp_path, logo=np.zeros((64, 64), np.uint8), anterior_note=np.zeros((64, 64), np.uint8), both=both)
    save(tmp_path, mask=GREY["anterior"], S_ant=GREY["anterior"], S_post=GREY["posterior"], T_ant=GREY["anterior"])
    (tmp_path / "damaged.png").write_bytes(b"no picture")
    (tmp_path / "old.zip").touch()
    found = find_pictures(tmp_path, others_beside=True)
    assert [scan.paths for scan in found.scans] == [("S_ant.png", "S_post.png"), ("both.png",)]
    assert [(file.path, file.reason) for file in found.rejected] == [("T_ant.png", "missing-view")]
    assert count_kinds(found.passed_over) == "4 pictures, 1 zip archive"
    (tmp_path / "gone.png").symlink_to("nowhere")
    assert "unreadable" in [file.reason for file in find_pictures(tmp_path, others_beside=True).rejected]
    assert len(find_pictures(tmp_path).scans) == 5


def test_masks_named_like_views_are_no_scans(tmp_path):
    """As segmentation programs leave them beside their pictures; those of a normal scan are black."""
    mask = np.where(GREY["anterior"] > 10, 255, 0).astype(np.uint8)
    save(tmp_path, S_ant=GREY["anterior"], S_post=GREY["posterior"], S_ant_mask=mask, S_post_mask=mask // 127)
    save(tmp_path, T_ant_mask=mask * 0, T_post_mask=mask * 0, U_mask=np.hstack([mask, mask]))
    Image.fromarray(mask > 0).save(tmp_path / "V_ant.png")
    for others_beside in (True, False):
        found = find_pictures(tmp_path, others_beside=others_beside)
        blank = [] if others_beside else [("T_ant_mask.png", "T_post_mask.png")]
        assert [scan.paths for scan in found.scans] == [("S_ant.png", "S_post.png"), *blank] and found.rejected == ()
        assert count_kinds(found.passed_over) == ("4 masks, 2 blank pictures" if others_beside else "4 masks")
    with pytest.raises(ScanError, match=r"S_ant_mask\.png: has the few grey levels of a mask"):
        read_scan([tmp_path / "S_ant_mask.png", tmp_path / "S_post_mask.png"])


def test_pictures_in_an_archive_are_passed_over(tmp_path, capsys):
    for path in save(tmp_path, S_ant=GREY["anterior"], S_post=GREY["posterior"]):
        with zipfile.ZipFile(tmp_path / "old.zip", "a") as archive:
            archive.write(path, path.name)
        path.unlink()
    assert main(["inspect", str(tmp_path)]) == 1
    assert "no scan is in it, only 1 zip archive" in capsys.readouterr().err
    assert count_kinds(list_scans([str(tmp_path / "old.zip")]).passed_over) == "2 pictures"
    assert count_kinds(list_scans([str(tmp_path)]).passed_over) == "1 zip archive"


def test_columns_of_a_folder_are_as_wide_as_the_names_of_a_pair(tmp_path, capsys):
    save(tmp_path, whole_body_0001_ant=GREY["anterior"], whole_body_0001_post=GREY["posterior"])
    save(tmp_path, b_ant=GREY["anterior"], b_post=GREY["posterior"])
    assert main(["inspect", str(tmp_path)]) == 0
    heads, *lines = capsys.readouterr().out.splitlines()[:3]
    assert {line.split("  ")[0] for line in lines} >= {"whole_body_0001_ant.png + whole_body_0001_post.png"}
    counts = f"{GREY['anterior'].sum():,}"
    ends = {line.index(counts) + len(counts) for line in lines}
    assert ends == {heads.index("anterior") + len("anterior")}


def test_names_that_tell_no_view_are_answered_by_names_that_do(tmp_path, capsys):
    """AP and PA are directions of an X-ray beam: which of them shows the front of a patient would be a guess."""
    for name in ("scans", "labels"):
        (tmp_path / name).mkdir()
    save(tmp_path / "scans", C_AP=GREY["anterior"], C_PA=GREY["posterior"])
    assert main(["inspect", str(tmp_path / "scans")]) == 1
    advice = "no scan is in it, only 2 pictures: name the views S_ant.png and S_post.png"
    assert capsys.readouterr().err.endswith(f"{advice}\n")
    assert main(shlex.split(f"prepare --scans {tmp_path}/scans --labels {tmp_path}/labels --out {tmp_path}/out")) == 1
    assert capsys.readouterr().err.endswith(f"{advice}, and pass --pictures\n")
