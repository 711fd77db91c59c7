"""Which annotation and which line of patients.csv belong to which scan, by the names and the places of the files."""

import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from doubleunet_bs.errors import DatasetError
from doubleunet_bs.preparation.shards import open_shards


def problems(result):
    return {(problem.path, problem.reason) for problem in result.rejected}


def below(cohort, *folders):
    for folder in folders:
        for root in (cohort.scans, cohort.labels):
            (root / folder).mkdir(parents=True)


def test_annotations_in_linked_folders_are_found(cohort):
    cohort.positive("a", 1)
    archive = cohort.root / "archive"
    archive.mkdir()
    for view in ("anterior", "posterior"):
        (cohort.labels / f"a_{view}.json").rename(archive / f"a_{view}.json")
    (archive / "nobody.json").write_text("{}")
    (cohort.labels / "2019").symlink_to(archive)
    (archive / "up").symlink_to(cohort.labels)
    assert cohort.prepare().notes == ("1 annotation file without a scan: 2019/nobody.json",)
    shutil.rmtree(cohort.out)
    (archive / "nobody.json").rename(archive / "notes.csv")
    assert problems(cohort.prepare()) == {("2019/notes.csv", "unread-table")}
    (archive / "notes.csv").unlink()
    result = cohort.prepare()
    assert result.rejected == () and result.records[0].metastatic_pixels == 121


@pytest.mark.parametrize("of_files", ["NFC", "NFD"])
@pytest.mark.parametrize("of_table", ["NFC", "NFD"])
def test_accents_may_be_composed_or_not(cohort, of_files, of_table):
    name, other = "M\u00fcller", "\u00c5ngstr\u00f6m"
    cohort.positive(unicodedata.normalize(of_files, name), 1)
    cohort.scan(unicodedata.normalize(of_files, other), 2)
    cohort.declare(
        unicodedata.normalize(of_table, f"{name},J\u00fcrgen,breast,yes"), f"{other},J\u00fcrgen,prostate,no"
    )
    result = cohort.prepare()
    assert result.rejected == ()
    assert sorted(record.cancer for record in result.records) == ["breast", "prostate"]
    assert len({record.patient for record in result.records}) == 1


@pytest.mark.parametrize("suffix", ["Posterior", "POSTERIOR"])
def test_capitals_in_the_view_do_not_lose_an_annotation(cohort, suffix):
    cohort.positive("a", 1)
    (cohort.labels / "a_posterior.json").unlink()
    cohort.label(f"a_{suffix}", (100, 300), (140, 300))
    result = cohort.prepare(skip_invalid=True)
    assert result.rejected == () and result.records[0].warnings == ()
    labels = open_shards(cohort.out).labels(0)
    assert [int((half == 2).sum()) for half in (labels[:, :256], labels[:, 256:])] == [121, 242]


def test_a_view_in_the_name_of_a_scan_stays_a_part_of_it(cohort):
    cohort.one_view_files(1, "x_Anterior.dcm", "x_Posterior.dcm")
    cohort.label("x_Anterior", (120, 400))
    cohort.label("x_Posterior", (100, 300), (140, 300))
    result = cohort.prepare()
    assert result.rejected == ()
    labels = open_shards(cohort.out).labels(0)
    assert [int((half == 2).sum()) for half in (labels[:, :256], labels[:, 256:])] == [121, 242]


def test_the_picture_beside_its_annotation_is_not_taken_for_a_mask(cohort):
    cohort.positive("a", 1)
    Image.fromarray(np.full((1024, 256), 77, np.uint8)).save(cohort.labels / "a_anterior.png")
    [problem] = cohort.prepare().rejected
    assert (problem.path, problem.reason) == ("a.dcm", "label-ambiguous")
    assert problem.message.startswith("a_anterior.png: ") and "on which a_anterior.json was drawn" in problem.message
    assert "move it out of the labels folder" in problem.message


def test_one_name_in_two_folders_is_told_apart_by_the_folder(cohort):
    below(cohort, "p1", "p2/deep")
    for number, folder in enumerate(("p1", "p2/deep"), start=1):
        cohort.positive(f"{folder}/IM0001", number)
    cohort.label("p2/deep/IM0001_posterior", (100, 300), (140, 300))
    cohort.declare("p1/IM0001,Ann,breast,yes", "p2/deep/IM0001,Ben,prostate,yes")
    result = cohort.prepare()
    assert result.rejected == ()
    first, second = result.records
    assert (first.cancer, first.metastatic_pixels) == ("breast", 121)
    assert (second.cancer, second.metastatic_pixels) == ("prostate", 121 + 242)


@pytest.mark.parametrize("trouble", ["annotation", "line", "other folder"])
def test_a_name_that_does_not_say_which_is_refused_and_the_longer_one_named(cohort, trouble):
    below(cohort, "p1", "p2", "p3")
    for number, folder in enumerate(("p1", "p2"), start=1):
        cohort.positive(f"{folder}/IM0001", number)
    if trouble == "annotation":
        (cohort.labels / "p1" / "IM0001_anterior.json").rename(cohort.labels / "IM0001_anterior.json")
    elif trouble == "line":
        cohort.declare("IM0001,,breast,yes")
    else:
        (cohort.labels / "p1" / "IM0001_anterior.json").rename(cohort.labels / "p3" / "IM0001_anterior.json")
    result = cohort.prepare()
    assert problems(result) == {(f"p{number}/IM0001.dcm", "ambiguous-name") for number in (1, 2)}
    assert "call it p1/IM0001 in patients.csv" in result.rejected[0].message
    assert "folder p1 of the labels folder" in result.rejected[0].message


def test_two_files_of_one_name_in_one_folder_have_no_longer_name(cohort):
    below(cohort, "p1")
    cohort.positive("p1/a", 1)
    cohort.dataset(2).save_as(cohort.scans / "p1" / "a.ima", enforce_file_format=True)
    for row in ("a,,breast,yes", "p1/a,,breast,yes"):
        cohort.rows = []
        cohort.declare(row)
        result = cohort.prepare()
        assert problems(result) == {("p1/a.dcm", "ambiguous-name"), ("p1/a.ima", "ambiguous-name")}
        assert all("rename it" in problem.message for problem in result.rejected)


@pytest.mark.parametrize("name", ["IM0001", "ant/IM0001", "post/IM0001"])
def test_two_files_of_one_scan_may_have_one_name(cohort, name):
    cohort.one_view_files(1, "ant/IM0001", "post/IM0001")
    cohort.label("IM0001_anterior", (120, 400))
    cohort.label("IM0001_posterior", (100, 300), (140, 300))
    cohort.declare(f"{name},Ann,prostate,yes")
    result = cohort.prepare()
    assert result.rejected == () and result.records[0].cancer == "prostate"
    labels = open_shards(cohort.out).labels(0)
    assert [int((half == 2).sum()) for half in (labels[:, :256], labels[:, 256:])] == [121, 242]


def test_of_two_files_of_one_name_an_annotation_must_say_the_view(cohort):
    cohort.one_view_files(1, "ant/IM0001", "post/IM0001")
    cohort.label("IM0001", (120, 400))
    [problem] = cohort.prepare().rejected
    assert problem.reason == "label-frame" and "IM0001_posterior.json" in problem.message


def test_lines_of_one_scan_must_say_the_same(cohort):
    below(cohort, "p1")
    cohort.positive("p1/a", 1)
    cohort.declare("a,Ann,breast,yes", "p1/a,Ben,breast,yes")
    with pytest.raises(DatasetError, match="'a' and 'p1/a' are one scan"):
        cohort.prepare()


def test_a_line_for_a_scan_that_was_refused_is_no_problem_of_its_own(cohort):
    below(cohort, "p1")
    cohort.positive("a", 1)
    (cohort.scans / "p1" / "b.dcm").write_text("not DICOM")
    cohort.declare("p1/b,,breast,yes")
    assert problems(cohort.prepare()) == {("p1/b.dcm", "not-dicom")}


@pytest.mark.parametrize("folder", ["p1", "p3"])
def test_the_annotation_of_a_refused_scan_does_not_go_to_another_of_its_name(cohort, folder):
    below(cohort, "p1", "p2", "p3")
    cohort.scan("p1/IM0001", 1)
    (cohort.scans / "p2" / "IM0001.dcm").write_text("not DICOM")
    cohort.label("p2/IM0001_anterior", (120, 400))
    cohort.label(f"{folder}/IM0001_posterior", (100, 300), (140, 300))
    result = cohort.prepare(skip_invalid=True)
    assert problems(result) == {("p2/IM0001.dcm", "not-dicom")}
    # Of one scan that is left of its name the annotation may still lie in any other folder.
    assert result.records[0].metastatic_pixels == 242
