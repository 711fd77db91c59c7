"""The user's class map, and masks as PNG."""

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from doubleunet_bs.errors import DatasetError, LabelError
from doubleunet_bs.scans.labels import fold_label, load_class_map, read_mask


def load(tmp_path, text):
    path = tmp_path / "map.json"
    path.write_text(text)
    return load_class_map(path)


def test_numbers_and_names(tmp_path):
    text = '{"Metastasis": "metastatic", "spur": "Non-Metastatic", "hole": 0, "255": 2}'
    known = {"metastasis": 2, "metastatic": 2, "non-metastatic": 1}
    assert load(tmp_path, text) == known | {"spur": 1, "hole": 0, "255": 2}
    assert load(tmp_path, '{"METASTASIS": 1, "spur": 1}') == known | {"metastasis": 1, "spur": 1}


def test_labels_are_the_same_whatever_their_width_and_case(tmp_path):
    assert load(tmp_path, '{"ＫＮＯＣＨＥＮ ①": 2}')["knochen 1"] == 2
    assert fold_label(" ＭＥＴＡＳＴＡＳＩＳ\u3000") == "metastasis" and fold_label("Cafe\u0301") == fold_label("CAFÉ")
    assert fold_label("骨转移") == "骨转移"


def test_the_encoding_of_a_map_is_named(tmp_path):
    (tmp_path / "map.json").write_bytes('{"骨转移": 2}'.encode("gbk"))
    with pytest.raises(DatasetError, match=r"map.json: is not UTF-8 text: convert it with iconv -f gb18030"):
        load_class_map(tmp_path / "map.json")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a readable class map"),
        ("{", "not a readable class map"),
        ("[" * 100_000, "not a readable class map"),
        ('{"a": ' + "1" * 5000 + "}", "not a readable class map"),
        ("[]", "is an object"),
        ("[1, 2]", "is an object"),
        ("{}", "is an object"),
        ("3", "is an object"),
        ('{"a": 3}', "class of 'a'"),
        ('{"a": true}', "class of 'a'"),
        ('{"a": 2.0}', "class of 'a'"),
        ('{"a": "lesion"}', "class of 'a'"),
        ('{"a": null}', "class of 'a'"),
        ('{"a": [["b", 2]]}', "class of 'a'"),
        ('{"a": 2, "a": 1}', "'a' is listed twice"),
        ('{"a": 2, " A ": 2}', "twice"),
    ],
)
def test_a_wrong_map_is_one_clear_line(tmp_path, text, reason):
    with pytest.raises(DatasetError) as caught:
        load(tmp_path, text)
    assert "map.json" in str(caught.value) and reason in str(caught.value) and "\n" not in str(caught.value)


def test_no_map(tmp_path):
    with pytest.raises(DatasetError, match="no such class map"):
        load_class_map(tmp_path / "map.json")


MASK = np.zeros((640, 512), np.uint8)
MASK[10:20, 30:40] = 2
MASK[50:60, 30:40] = 1


def save(tmp_path, image, **others):
    path = tmp_path / "scan.png"
    image.save(path, **others)
    return path


def test_without_numbers_in_the_map_values_are_classes(tmp_path):
    found = read_mask(save(tmp_path, Image.fromarray(MASK)), {"metastasis": 2})
    np.testing.assert_array_equal(found, MASK)


def test_a_palette_image_goes_by_index_whatever_its_colours(tmp_path):
    image = Image.fromarray(MASK)
    image.putpalette([0, 0, 0, 1, 2, 3, 255, 255, 255])
    np.testing.assert_array_equal(read_mask(save(tmp_path, image), {}), MASK)


def test_values_go_through_the_map(tmp_path):
    image = Image.fromarray(np.choose(MASK, [0, 128, 255]).astype(np.uint8))
    np.testing.assert_array_equal(read_mask(save(tmp_path, image), {"255": 2, "128": 1}), MASK)


def test_white_of_a_black_and_white_image_is_255(tmp_path):
    path = save(tmp_path, Image.fromarray(MASK == 2))
    np.testing.assert_array_equal(read_mask(path, {"255": 2}), np.where(MASK == 2, 2, 0))


def test_a_value_without_class_says_what_to_do(tmp_path):
    path = save(tmp_path, Image.fromarray(MASK * 100))
    with pytest.raises(LabelError, match='"100": "metastatic"') as caught:
        read_mask(path, {"metastasis": 2})
    assert caught.value.reason == "label-unknown"


def test_a_mask_with_smoothed_edges_is_called_so(tmp_path):
    path = save(tmp_path, Image.fromarray(np.uint8(MASK > 0) * 255).resize((200, 300)).resize((512, 640), 3))
    with pytest.raises(
        LabelError, match="pixel values have no class: move pictures .*, or export masks without smoothed edges"
    ):
        read_mask(path, {"255": 2})


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (512, 640)),
        Image.new("RGBA", (512, 640)),
        Image.new("LA", (512, 640)),
        Image.fromarray(np.zeros((640, 512), np.uint16)),
    ],
)
def test_colours_and_16_bits_are_refused(tmp_path, image):
    with pytest.raises(LabelError, match="mode"):
        read_mask(save(tmp_path, image), {})


def test_another_size_is_refused(tmp_path):
    with pytest.raises(LabelError) as caught:
        read_mask(save(tmp_path, Image.new("L", (640, 512))), {})
    assert caught.value.reason == "label-frame"


def test_another_format_under_the_name_is_refused(tmp_path):
    path = save(tmp_path, Image.fromarray(MASK), format="BMP")
    with pytest.raises(LabelError, match="not a readable PNG"):
        read_mask(path, {})
    with pytest.raises(LabelError, match="no such mask"):
        read_mask(tmp_path / "other.png", {})


def test_text_in_the_file_has_no_influence(tmp_path):
    text = PngInfo()
    text.add_text("Author", "SECRET")
    np.testing.assert_array_equal(read_mask(save(tmp_path, Image.fromarray(MASK), pnginfo=text), {}), MASK)
