"""Labelme files -> masks: pixel for pixel as Labelme, or refused with file, index and reason."""

import base64
import gzip
import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from doubleunet_bs.errors import LabelError
from doubleunet_bs.scans.labelme import draw_shapes, rasterize

CLASSES = {"metastasis": 2, "degenerative": 1, "hole": 0}
FIXTURE = json.loads((Path(__file__).parent / "data" / "labelme_shapes.json").read_text())


def square(label="metastasis", x=10, y=20, size=4, **others):
    """A polygon of (size + 1) x (size + 1) pixels: edges are inclusive."""
    corners = [[x, y], [x + size, y], [x + size, y + size], [x, y + size]]
    return {"label": label, "points": corners, "shape_type": "polygon", "group_id": None, "flags": {}} | others


def content(*shapes, **others):
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": "scan.png",
        "imageData": None,
        "imageHeight": 1024,
        "imageWidth": 256,
    } | others


def encode(mask) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(mask, np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture
def draw(tmp_path):
    def draw(*shapes, **others):
        path = tmp_path / "scan_anterior.json"
        path.write_text(json.dumps(content(*shapes, **others)))
        return rasterize(path, CLASSES)

    return draw


@pytest.mark.parametrize("kind", ["polygon", "rectangle", "circle", "oriented_rectangle", "mask", None])
def test_the_frozen_masks_of_labelme_itself(kind):
    cases = [case for case in FIXTURE["cases"] if kind in [shape["shape_type"] for shape in case["shapes"]]]
    assert len(cases) > 15
    shape = FIXTURE["rows"], FIXTURE["columns"]
    for case in cases:
        expected = np.frombuffer(zlib.decompress(base64.b64decode(case["labels"])), np.uint8).reshape(shape)
        found = draw_shapes(Path("fixture"), case["shapes"], shape, {"a": 1, "b": 2})
        np.testing.assert_array_equal(found, expected, err_msg=json.dumps(case["shapes"]))


def test_edges_are_inclusive(draw):
    mask = draw(square(x=10, y=20, size=4))
    assert mask.shape == (1024, 256) and mask.dtype == np.uint8
    expected = np.zeros((1024, 256), np.uint8)
    expected[20:25, 10:15] = 2
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("corners", [[[3, 5], [8, 9]], [[8, 9], [3, 5]], [[8, 5], [3, 9]], [[3, 9], [8, 5]]])
def test_a_rectangle_s_corners_come_in_any_order(draw, corners):
    mask = draw({"label": "metastasis", "points": corners, "shape_type": "rectangle"})
    assert mask.sum() == 2 * 5 * 6 and (mask[5:10, 3:9] == 2).all()


def test_a_mask_lies_where_its_corner_says(draw):
    shape = {"label": "metastasis", "shape_type": "mask", "points": [[30.0, 40.0], [32.0, 41.0]]}
    mask = draw(shape | {"mask": encode([[1, 0, 1], [0, 255, 0]])})
    assert np.argwhere(mask).tolist() == [[40, 30], [40, 32], [41, 31]]


def test_a_mask_is_cut_at_the_image(draw):
    shape = {"label": "metastasis", "shape_type": "mask", "points": [[-2, -1], [0, 1]], "mask": encode(np.ones((3, 3)))}
    assert np.argwhere(draw(shape)).tolist() == [[0, 0], [1, 0]]


def test_what_lies_outside_is_cut_off(draw):
    mask = draw(square(x=253, y=1020, size=30))
    assert np.argwhere(mask).min(axis=0).tolist() == [1020, 253] and mask.sum() == 2 * 4 * 3


def test_later_shapes_win_and_class_0_erases(draw):
    mask = draw(square(size=9), square("degenerative", x=12, size=2), square("hole", x=16, size=1))
    assert [(mask == number).sum() for number in (1, 2)] == [9, 100 - 9 - 4]


def test_labels_are_compared_without_case_and_spaces(draw):
    assert draw(square(" Metastasis ")).max() == 2


def test_a_file_without_shapes_is_all_air(draw):
    assert not draw().any()


@pytest.mark.parametrize(
    "others",
    [
        {"version": "3.0.0", "lineColor": [0, 255, 0, 128], "fillColor": [255, 0, 0, 128]},
        {"version": "4.5.13"},
        {"version": "5.0.1"},
        {"version": "6.3.1"},
        {"version": "7.0.0"},
        {"imagePath": "C:\\scans\\SMITH^JOHN\\scan.png"},
        {"imageData": "A" * 100},
        {"flags": {"checked": True}},
        {"later": {"entries": [1, 2]}},
    ],
)
def test_what_has_no_influence(draw, others):
    assert draw(square(group_id=3, description="x", flags={"difficult": True}), **others).sum() == 50


def test_old_shapes_have_no_type(draw):
    old = square(line_color=None, fill_color=None)
    del old["shape_type"], old["group_id"], old["flags"]
    assert draw(old).sum() == 50


@pytest.mark.parametrize("size", [(1024, 256), (1024, 512), (640, 512)])
def test_the_three_frames(draw, size):
    assert draw(square(), imageHeight=size[0], imageWidth=size[1]).shape == size


@pytest.mark.parametrize("size", [(256, 1024), (512, 640), (950, 256), (10**9, 10**9)])
def test_another_frame_is_refused_and_never_resized(draw, size):
    with pytest.raises(LabelError) as caught:
        draw(square(), imageHeight=size[0], imageWidth=size[1])
    assert caught.value.reason == "label-frame"


SHAPES = {
    "point": ({"shape_type": "point", "points": [[1, 1]]}, "is a point"),
    "line": ({"shape_type": "line", "points": [[1, 1], [5, 5]]}, "is a line"),
    "linestrip": ({"shape_type": "linestrip", "points": [[1, 1], [5, 5], [9, 9]]}, "is a linestrip"),
    "a kind unknown": ({"shape_type": "ellipse"}, "kind 'ellipse'"),
    "a kind that is no word": ({"shape_type": [1]}, "kind"),
    "two points": ({"points": [[1, 1], [5, 5]]}, "2 points and needs 3 or more"),
    "a rectangle of four": (
        {"shape_type": "rectangle", "points": [[1, 1], [5, 1], [5, 6], [1, 5]]},
        "four points are not its corners",
    ),
    "an oriented rectangle of three": ({"shape_type": "oriented_rectangle", "points": [[1, 1]] * 3}, "needs exactly 4"),
    "no points": ({"points": None}, "no list of points"),
    "not a number": ({"points": [[float("nan"), 1], [2, 2], [3, 3]]}, "no pair of numbers"),
    "infinite": ({"points": [[float("inf"), 1], [2, 2], [3, 3]]}, "no pair of numbers"),
    "absurdly far": ({"points": [[1e300, 1], [2, 2], [3, 3]]}, "no pair of numbers"),
    "an endless whole number": ({"points": [[10**400, 1], [2, 2], [3, 3]]}, "no pair of numbers"),
    "true": ({"points": [[True, 1], [2, 2], [3, 3]]}, "no pair of numbers"),
    "three coordinates": ({"points": [[1, 1, 1], [2, 2, 2], [3, 3, 3]]}, "no pair of numbers"),
    "beside the image": ({"points": [[300, 1], [310, 1], [305, 9]]}, "not a single pixel"),
    "a circle of no size": ({"shape_type": "circle", "points": [[4.3, 4], [4.3, 4]]}, "not a single pixel"),
    "no picture": ({"shape_type": "mask", "points": [[1, 1], [2, 2]]}, "without its picture"),
    "no base64": ({"shape_type": "mask", "points": [[1, 1], [2, 2]], "mask": "?"}, "not readable"),
    "no PNG": ({"shape_type": "mask", "points": [[1, 1], [2, 2]], "mask": "AAAA"}, "not readable"),
    "corners wrong": ({"shape_type": "mask", "points": [[3, 3], [2, 2]], "mask": "AAAA"}, "before the first"),
    "another size": (
        {"shape_type": "mask", "points": [[1, 1], [2, 2]], "mask": encode(np.ones((3, 3)))},
        "another size than its corners",
    ),
    "empty": ({"shape_type": "mask", "points": [[1, 1], [2, 2]], "mask": encode(np.zeros((2, 2)))}, "not a single"),
    "in colour": (
        {"shape_type": "mask", "points": [[1, 1], [2, 2]], "mask": encode(np.ones((2, 2, 3)))},
        "in colour",
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_that_cannot_be_a_lesion_names_file_index_and_reason(draw, name):
    wrong, reason = SHAPES[name]
    with pytest.raises(LabelError) as caught:
        draw(square(), square() | wrong)
    text = str(caught.value)
    assert "scan_anterior.json: shape 1 " in text and reason in text and "\n" not in text and len(text) < 400
    assert caught.value.reason == "label-shape"


def test_an_unknown_label_names_file_index_label_and_the_option_that_adds_it(draw):
    with pytest.raises(LabelError, match=r"scan_anterior.json: shape 1 has the label 'oedema'.*--classes") as caught:
        draw(square(), square("oedema"))
    assert caught.value.reason == "label-unknown"


def test_a_label_of_any_length_and_any_characters_can_be_printed(draw):
    for label in ("x" * 10_000, "\ud800", "a\nb\x1b[31m", "骨转移"):
        with pytest.raises(LabelError) as caught:
            draw(square(label))
        text = str(caught.value)
        assert text.isprintable() and len(text) < 400
        assert label != "骨转移" or "'骨转移'" in text


@pytest.mark.parametrize(
    ("encoding", "cure"),
    [("gbk", "iconv -f gb18030"), ("cp932", "cp932"), ("cp1252", "cp1252"), ("utf-16", "iconv -f utf-16"),
     ("utf-16-le", "iconv -f utf-16"), ("utf-32", "UTF-32 text: .* iconv -f utf-32")],
)  # fmt: skip
def test_another_encoding_is_named_with_its_cure(tmp_path, encoding, cure):
    path = tmp_path / "a.json"
    text = json.dumps(content(square("Läsion" if encoding == "cp1252" else "転移")), ensure_ascii=False)
    path.write_bytes(text.encode(encoding))
    with pytest.raises(LabelError, match=cure) as caught:
        rasterize(path, CLASSES)
    assert "a.json: is " in str(caught.value) and caught.value.reason == "label-file"
    path.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(LabelError, match="is a gzip archive: unpack it first"):
        rasterize(path, CLASSES)


ANYLABELING = {"score": None, "difficult": False, "attributes": {}, "kie_linking": []}


@pytest.mark.parametrize("version", ["2.5.4", "3.3.1", "0.3.3"])
def test_files_of_anylabeling_are_read(draw, version):
    plain = draw(square(shape_type="rectangle", points=[[10, 20], [14, 26]]))
    corners = [[10, 20], [14, 20], [14, 26], [10, 26]]
    for kind in ("rectangle", "rotation", "quadrilateral", "polygon"):
        shape = square(shape_type=kind, points=corners) | ANYLABELING
        np.testing.assert_array_equal(draw(shape, version=version, imageHeight=1024.0), plain)


@pytest.mark.parametrize("shape_type", ["polygon", "rectangle", "circle"])
def test_parts_of_the_image_size_are_no_pixels(draw, shape_type):
    points = [[0.42, 0.31], [0.44, 0.33], [0.43, 0.34]][: 3 if shape_type == "polygon" else 2]
    with pytest.raises(LabelError, match="between 0 and 1: multiply x by 256 and y by 1024") as caught:
        draw(square(points=points, shape_type=shape_type), square(points=points, shape_type=shape_type))
    assert caught.value.reason == "label-frame"
    # One shape of a file in which the others are right.
    with pytest.raises(LabelError, match="between 0 and 1"):
        draw(square(), square(points=points, shape_type=shape_type))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not readable"),
        (b"{", "not readable"),
        (b"\xff\xfe", "is UTF-16 text: convert it with iconv"),
        (b"[" * 200_000, "not readable"),
        (b'{"version": ' + b"1" * 5000 + b"}", "not readable"),
        (b"[]", "not a Labelme file"),
        (b"{}", "not a Labelme file"),
        (json.dumps(content(version="2.9.0")).encode(), "version '2.9.0'"),
        (json.dumps(content(version="8.0.0")).encode(), "version '8.0.0'"),
        (json.dumps(content(version=5)).encode(), "version '5'"),
        (json.dumps(content(version=None)).encode(), "version"),
        (json.dumps(content(imageHeight=None)).encode(), "imageHeight"),
        (json.dumps(content(imageHeight="1024")).encode(), "imageHeight"),
        (json.dumps(content(imageWidth=256.5)).encode(), "imageHeight"),
        (json.dumps(content(imageWidth=-256)).encode(), "imageHeight"),
        (json.dumps(content("x")).encode(), "shape 0 has no label"),
        (json.dumps(content({"label": 3})).encode(), "shape 0 has no label"),
    ],
)
def test_a_file_that_is_none_of_labelme_s(tmp_path, text, reason):
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(LabelError) as caught:
        rasterize(path, CLASSES)
    assert str(path) in str(caught.value) and reason in str(caught.value) and "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(LabelError, match="no such Labelme annotation"):
        rasterize(tmp_path / "a.json", CLASSES)


def test_a_byte_order_mark_is_no_obstacle(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content(square())).encode())
    assert rasterize(path, CLASSES).sum() == 50


def test_too_many_points_are_refused_before_they_are_drawn(draw):
    with pytest.raises(LabelError, match="points are not read"):
        draw(square(points=[[1, 1], [2, 2]] * 30_000))


def blank_png(size: int) -> bytes:
    """The head of a PNG of size x size pixels, and next to no data."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * (size + 1), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [1025, 10_000, 16_000])
def test_a_mask_that_unfolds_is_refused_before_it_does(draw, size, recwarn):
    # 16,000 x 16,000 black pixels would be 256 MB.
    png = base64.b64encode(blank_png(size)).decode()
    shape = {"shape_type": "mask", "points": [[0, 0], [size - 1, size - 1]], "mask": png}
    with pytest.raises(LabelError, match="larger than the image|DecompressionBombError"):
        draw(square() | shape)
    assert not recwarn.list
