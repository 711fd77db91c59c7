"""The user's class map."""

import pytest

from doubleunet_bs.errors import DatasetError
from doubleunet_bs.scans.labels import load_class_map


def load(tmp_path, text):
    path = tmp_path / "map.json"
    path.write_text(text)
    return load_class_map(path)


def test_numbers_and_names(tmp_path):
    text = '{"Metastasis": "metastatic", "spur": "Non-Metastatic", "hole": 0, "255": 2}'
    assert load(tmp_path, text) == {"metastasis": 2, "spur": 1, "hole": 0, "255": 2}


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
        ('{"a": 1}', "no label is metastatic"),
    ],
)
def test_a_wrong_map_is_one_clear_line(tmp_path, text, reason):
    with pytest.raises(DatasetError) as caught:
        load(tmp_path, text)
    assert "map.json" in str(caught.value) and reason in str(caught.value) and "\n" not in str(caught.value)


def test_no_map(tmp_path):
    with pytest.raises(DatasetError, match="no such class map"):
        load_class_map(tmp_path / "map.json")
