"""What the annotations of a cohort say of each other, of the table and of the scans they were drawn on."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from doubleunet_bs.errors import LabelError
from doubleunet_bs.preparation.annotations import OTHER_PICTURE, SAME_OUTLINES, read_annotation
from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort

CLASSES = {"metastasis": 2, "non-metastatic": 1}


def prepare(cohort, **others):
    return prepare_cohort(CohortJob(cohort.scans, cohort.labels, cohort.out, **others))


def warnings_of(cohort):
    result = prepare(cohort)
    assert result.rejected == ()
    return [record.warnings for record in result.records]


def picture_warnings(lines):
    return [line for line in lines if "picture" in line]


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        ("S_posterior.png", True), ("..\\\\export\\\\S_POST.png", True), ("/a/posterior.jpg", True), ("S-pa.png", True),
        ("S_anterior.png", False), ("S_ant.png", False), ("IM0001.png", False), ("ant_post.png", False), ("", False),
        ("S_compost.png", False),
    ],
)  # fmt: skip
def test_a_picture_of_the_other_view_is_said(cohort, picture, expected):
    cohort.scan("S", 1)
    cohort.label("S_anterior", (120, 400), imagePath=picture.replace("\\\\", "\\"))
    cohort.label("S_posterior", imagePath="S_posterior.png")
    [lines] = warnings_of(cohort)
    said = ["the annotation of the anterior view was drawn on a picture of the posterior view"] if expected else []
    assert picture_warnings(lines) == said


def test_a_view_in_the_name_of_the_scan_says_nothing_of_its_picture(cohort):
    cohort.scan("post_op", 1)
    cohort.label("post_op_anterior", (120, 400), imagePath="post_op.png")
    cohort.label("post_op_posterior", imagePath="post_op_posterior.png")
    [lines] = warnings_of(cohort)
    assert picture_warnings(lines) == []


def embedded(array, form="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.slow
@pytest.mark.parametrize("display", ["window", "inverted", "JPEG"])
@pytest.mark.parametrize("exchanged", [False, True])
def test_the_picture_inside_shows_which_view_was_annotated(cohort, display, exchanged):
    cohort.scan("S", 1)
    views = cohort.views(1)
    shown = {}
    for view, counts in views.items():
        grey = np.minimum(counts * (255 / np.quantile(counts, 0.99)), 255).astype(np.uint8)
        shown[view] = embedded(255 - grey if display == "inverted" else grey, "JPEG" if display == "JPEG" else "PNG")
    one, other = ("posterior", "anterior") if exchanged else ("anterior", "posterior")
    cohort.label("S_anterior", (120, 400), imageData=shown[one])
    cohort.label("S_posterior", imageData=shown[other])
    [lines] = warnings_of(cohort)
    said = [
        "the picture inside the annotation of the anterior view shows the posterior view",
        "the picture inside the annotation of the posterior view shows the anterior view",
    ]
    assert picture_warnings(lines) == (said if exchanged else [])


@pytest.mark.parametrize(
    "data", ["", "AAAA", "?", 3, embedded(np.zeros((1024, 256), np.uint8)), embedded(np.eye(9, dtype=np.uint8))]
)
def test_a_picture_inside_that_says_nothing_is_left_alone(cohort, data):
    cohort.scan("S", 1)
    cohort.label("S_anterior", (120, 400), imageData=data)
    cohort.label("S_posterior", imageData=None)
    assert picture_warnings(warnings_of(cohort)[0]) == []


def test_a_picture_of_another_scan_is_said(cohort):
    for number, name in enumerate(("wb1", "wb10", "wb2")):
        cohort.scan(name, number)
        cohort.label(f"{name}_anterior", (100 + number, 400), imagePath=f"{name}_anterior.png")
        cohort.label(f"{name}_posterior", imagePath="elsewhere.png")
    cohort.label("wb10_anterior", (101, 400), imagePath="wb2_anterior.png")
    assert [picture_warnings(lines) for lines in warnings_of(cohort)] == [[], [OTHER_PICTURE], []]


def test_the_outlines_of_another_scan_are_said(cohort):
    for number, name in enumerate("abcd"):
        cohort.scan(name, number)
        cohort.label(f"{name}_anterior", (100 + number % 3, 400))
        cohort.label(f"{name}_posterior")
    assert [SAME_OUTLINES in lines for lines in warnings_of(cohort)] == [True, False, False, True]


def test_one_annotation_for_both_views_is_said(cohort):
    cohort.scan("a", 1)
    for view in ("anterior", "posterior"):
        cohort.label(f"a_{view}", (120, 400))
    [lines] = warnings_of(cohort)
    assert "both views have the same outlines: was one annotation copied?" in lines and SAME_OUTLINES not in lines


def png(cohort, stem, value):
    mask = np.zeros((1024, 256), np.uint8)
    mask[400:410, 120:130] = value
    Image.fromarray(mask).save(cohort.labels / f"{stem}.png")


def test_a_png_that_contradicts_the_table_or_the_json_beside_it(cohort):
    cohort.scan("a", 1)
    png(cohort, "a_anterior", 1)
    [problem] = prepare(cohort).rejected
    assert problem.reason == "label-missing" and '--classes with {"1": "metastatic"}' in problem.message
    cohort.declare("a,A,breast,yes")
    [problem] = prepare(cohort).rejected
    assert problem.reason == "label-contradiction" and "PNG mask has only class 1" in problem.message
    cohort.label("a_posterior", (120, 400))
    [lines] = warnings_of(cohort)
    assert [line for line in lines if "PNG mask has only class 1" in line]


def test_class_1_alone_is_right_for_a_normal_scan(cohort):
    cohort.normal("a", 1)
    png(cohort, "a_anterior", 1)
    assert prepare(cohort).written


def test_all_files_that_cannot_be_read_are_named(tmp_path):
    files = [tmp_path / f"S_{view}.json" for view in ("anterior", "posterior")]
    for path in files:
        path.write_bytes(
            json.dumps({"version": "4.2.10", "shapes": [], "imagePath": "张"}, ensure_ascii=False).encode("gbk")
        )
    with pytest.raises(LabelError) as caught:
        read_annotation(["S"], files, CLASSES)
    assert all(f"{path}: is not UTF-8 text" in str(caught.value) for path in files)
    assert caught.value.reason == "label-file"
