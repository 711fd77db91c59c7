"""Annotations: what those of a cohort say of each other, and those of the skeleton beside the lesions."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from doubleunet_bs.errors import DatasetError, LabelError, SettingsError
from doubleunet_bs.phantom import make_phantom
from doubleunet_bs.preparation import PreparationSettings, open_shards, prepare_scan
from doubleunet_bs.preparation.annotations import (
    OTHER_PICTURE,
    SAME_OUTLINES,
    prepare_regions,
    read_annotation,
    read_regions,
    warn_of_other_view,
)
from doubleunet_bs.scans import BoneScan

CLASSES = {"metastasis": 2, "non-metastatic": 1}


def warnings_of(cohort):
    result = cohort.prepare()
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


def test_pictures_side_by_side_and_alone_are_held_against_their_view():
    front, back = np.random.default_rng(1).integers(0, 256, (2, 40, 10)).astype(np.uint8)
    views = {"anterior": front.astype(np.uint16), "posterior": back.astype(np.uint16)}
    assert warn_of_other_view({"side_by_side": np.hstack([front, 255 - back])}, views) == []
    assert len(warn_of_other_view({"side_by_side": np.hstack([back, front])}, views)) == 2
    said = ["the picture inside the annotation of the posterior view shows the anterior view"]
    assert warn_of_other_view({"anterior": front, "posterior": front}, views) == said
    assert warn_of_other_view({"posterior": front}, {"posterior": views["posterior"]}) == []


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


def png_of(cohort, stem, value):
    mask = np.zeros((1024, 256), np.uint8)
    mask[400:410, 120:130] = value
    Image.fromarray(mask).save(cohort.labels / f"{stem}.png")


def test_a_png_that_contradicts_the_table_or_the_json_beside_it(cohort):
    cohort.scan("a", 1)
    png_of(cohort, "a_anterior", 1)
    [problem] = cohort.prepare().rejected
    assert problem.reason == "label-missing" and '--classes with {"1": "metastatic"}' in problem.message
    cohort.declare("a,A,breast,yes")
    [problem] = cohort.prepare().rejected
    assert problem.reason == "label-contradiction" and "PNG mask has only class 1" in problem.message
    cohort.label("a_posterior", (120, 400))
    [lines] = warnings_of(cohort)
    assert [line for line in lines if "PNG mask has only class 1" in line]


def test_class_1_alone_is_right_for_a_normal_scan(cohort):
    cohort.normal("a", 1)
    png_of(cohort, "a_anterior", 1)
    assert cohort.prepare().written


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


NAMES = ["S"]


def labelme(path, *shapes, size=(1024, 256)):
    """Rectangles: (label, x0, y0, x1, y1)."""
    content = {"version": "5.5.0", "imageData": None, "imageHeight": size[0], "imageWidth": size[1]}
    content["shapes"] = [
        {"label": label, "shape_type": "rectangle", "points": [[x0, y0], [x1, y1]]} for label, x0, y0, x1, y1 in shapes
    ]
    path.write_text(json.dumps(content))
    return path


def png(path, mask):
    Image.fromarray(np.asarray(mask, np.uint8)).save(path)
    return path


def drawn(value, shape=(1024, 256)):
    mask = np.zeros(shape, np.uint8)
    mask[300:310, 100:110] = value
    return mask


def test_labelme_files_with_several_shapes_of_a_region(tmp_path):
    files = [
        labelme(tmp_path / "S_anterior.json", ("Skull", 10, 20, 12, 22), ("femur", 5, 5, 5, 5), ("femur", 7, 7, 7, 7),
                ("sternum", 11, 20, 11, 20)),
        labelme(tmp_path / "S_posterior.json", ("lumbar spine", 1, 1, 2, 1)),
    ]  # fmt: skip
    regions = read_regions(NAMES, files)
    anterior, posterior = regions["anterior"], regions["posterior"]
    assert anterior.shape == (1024, 256) and {n: int((anterior == n).sum()) for n in (1, 5, 12)} == {1: 8, 5: 1, 12: 2}
    assert (posterior == 9).sum() == 2 and posterior[1, 1] == 9 and not (posterior == 5).any()
    assert read_regions(NAMES, []) is None


def test_index_masks_of_both_views_side_by_side_or_of_the_prepared_image(tmp_path):
    both = np.hstack([drawn(12), drawn(11)])
    regions = read_regions(NAMES, [png(tmp_path / "S.png", both)])
    assert set(np.unique(regions["anterior"])) == {0, 12} and set(np.unique(regions["posterior"])) == {0, 11}
    crops = read_regions(NAMES, [png(tmp_path / "S.png", both[:640])])
    assert crops["posterior"].shape == (640, 256) and crops["posterior"][300, 100] == 11


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: labelme(path / "S_anterior.json", ("tail", 1, 1, 2, 2)), "label 'tail', which is no region"),
        (lambda path: png(path / "S_anterior.png", drawn(13)), "pixel value 13, which is no region"),
        (lambda path: png(path / "S_posterior.png", drawn(5)), "not seen from behind"),
        (lambda path: png(path / "S_anterior.png", drawn(0)), "anterior view has no regions: draw both"),
        (lambda path: png(path / "S_anterior.png", drawn(1)[:1000]), "drawn on 1000 x 256 pixels"),
    ],
)
def test_what_is_refused(tmp_path, make, message):
    wrong = make(tmp_path)
    other = "posterior" if "anterior" in wrong.name else "anterior"
    with pytest.raises(LabelError, match=message) as refused:
        read_regions(NAMES, [wrong, png(tmp_path / f"S_{other}.png", drawn(1))])
    assert str(wrong) in str(refused.value)


def test_views_that_are_missing(tmp_path):
    anterior = png(tmp_path / "S_anterior.png", drawn(1))
    with pytest.raises(LabelError, match="posterior view has no regions"):
        read_regions(NAMES, [anterior])
    assert set(read_regions(NAMES, [anterior], ["posterior"])) == {"anterior"}
    with pytest.raises(LabelError, match="the scan lacks it"):
        read_regions(NAMES, [anterior, png(tmp_path / "S_posterior.png", drawn(1))], ["posterior"])


@pytest.mark.parametrize("bin", [1, 4])
def test_regions_lie_where_the_prepared_image_shows_them(bin):
    phantom = make_phantom(3, 1)
    scan = BoneScan(phantom.anterior, phantom.posterior, phantom.pixel_spacing_mm, case="case-000000000001")
    case = prepare_scan(scan, settings=PreparationSettings(bin=bin))
    regions = prepare_regions(case, phantom.regions())
    assert regions.shape == case.counts.shape and regions.dtype == np.uint8
    back = case.map_back(regions)
    for view, mask in phantom.regions().items():
        inside = case.map_back(np.ones_like(regions))[view] > 0
        agree = (back[view] == mask)[inside].mean()
        assert agree == 1 if bin == 1 else agree > 0.97
    # The most frequent number of a block, not the largest one.
    if bin == 4:
        block = {"anterior": np.zeros((640, 256), np.uint8)}
        block["anterior"][:4, :4] = 3
        block["anterior"][0, :3] = 12
        assert prepare_regions(case, block)[0, 0] == 3 and prepare_regions(case, block)[:, 64:].max() == 0


def test_scans_with_lesions_with_regions_and_with_both(cohort):
    """`A` has both, `B` lesions only, `C` regions only, `D` is normal with regions."""
    folder = cohort.root / "regions"
    folder.mkdir()
    cohort.positive("A", 1)
    cohort.positive("B", 2)
    cohort.scan("C", 3)
    cohort.normal("D", 4)
    for name in "ACD":
        for view in ("anterior", "posterior"):
            png(folder / f"{name}_{view}.png", drawn(3))
    result = cohort.prepare(settings=PreparationSettings(bin=4), regions=folder)
    assert not result.rejected
    dataset = open_shards(cohort.out, verify=True)
    assert [(case.group, case.has_regions) for case in dataset.cases] == [
        ("positive", True),
        ("positive", False),
        ("unknown", True),
        ("negative", True),
    ]
    assert set(np.unique(dataset.regions(0))) == {0, 3} and not dataset.regions(0).flags.writeable
    with pytest.raises(DatasetError, match="no annotated skeleton"):
        dataset.regions(1)
    # A shard that lost its regions is noticed, and so are changed ones.
    (cohort.out / "regions-00000.npy").rename(cohort.out / "away.npy")
    with pytest.raises(DatasetError, match="regions-00000.npy: missing"):
        open_shards(cohort.out)


def test_problems_of_region_files_are_listed_with_the_others(cohort):
    folder = cohort.root / "regions"
    folder.mkdir()
    cohort.positive("A", 1)
    png(folder / "A_anterior.png", drawn(13))
    png(folder / "A_posterior.png", drawn(1))
    png(folder / "Z_posterior.png", drawn(1))
    result = cohort.prepare(regions=folder)
    assert sorted((file.path, file.reason) for file in result.rejected) == [
        ("A.dcm", "region-unknown"),
        ("Z_posterior.png", "no-such-scan"),
    ]
    assert not cohort.out.exists()
    with pytest.raises(SettingsError, match="no such folder"):
        cohort.prepare(regions=cohort.root / "nowhere")
    with pytest.raises(SettingsError, match="lies inside"):
        cohort.prepare(out=folder / "shards", regions=folder)


def test_lesions_in_the_place_of_regions_are_said_once(cohort):
    cohort.positive("A", 1)
    cohort.positive("B", 2)
    with pytest.raises(SettingsError, match="A_anterior.json: holds lesions, .* are --labels and --regions swapped"):
        cohort.prepare(regions=cohort.labels)
    with pytest.raises(DatasetError, match="scans: no annotation is in it .* give --regions the folder of skeletons"):
        cohort.prepare(regions=cohort.scans)
    assert not cohort.out.exists()


def test_the_file_of_a_posterior_sternum_is_named(cohort):
    folder = cohort.root / "regions"
    folder.mkdir()
    cohort.positive("A", 1)
    for view, number in (("anterior", 5), ("posterior", 5)):
        png(folder / f"A_{view}.png", drawn(number))
    [file] = cohort.prepare(regions=folder).rejected
    assert (file.path, file.reason) == ("A.dcm", "region-sternum")
    assert "A_posterior.png: the posterior region mask has a sternum" in file.message
    png(folder / "A_posterior.png", drawn(0))
    [file] = cohort.prepare(regions=folder).rejected
    assert "A_posterior.png: the posterior view has no regions: draw both views" in file.message


def test_shards_without_regions_stay_as_they_were(cohort):
    cohort.positive("A", 1)
    cohort.prepare(settings=PreparationSettings(bin=4))
    content = json.loads((cohort.out / "dataset.json").read_text())
    assert not (cohort.out / "regions-00000.npy").exists() and set(content["shards"][0]) == {
        "cases",
        "counts_sha256",
        "labels_sha256",
    }
    assert open_shards(cohort.out).cases[0].has_regions is False
    # A case that claims regions which no shard holds.
    content["cases"][0]["has_regions"] = True
    (cohort.out / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="regions of shard 0 are missing"):
        open_shards(cohort.out)
