"""Damaged annotations and class maps: the project's own error or a mask, nothing else."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doubleunet_bs.errors import BoneScanError
from doubleunet_bs.scans.labelme import rasterize
from doubleunet_bs.scans.labels import load_class_map, read_mask

CLASSES = {"metastasis": 2}
GOOD = {
    "version": "5.5.0",
    "flags": {},
    "shapes": [
        {"label": "metastasis", "points": [[10.5, 20], [30, 22], [18, 60]], "shape_type": "polygon", "flags": {}},
        {"label": "metastasis", "points": [[60, 70], [66, 71]], "shape_type": "circle", "group_id": 1},
        {
            "label": "metastasis",
            "points": [[100, 100], [101, 101]],
            "shape_type": "mask",
            "mask": "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAAC0lEQVR4nGNgQAYAAA4AAf63cyUAAAAASUVORK5CYII=",
        },
    ],
    "imagePath": "a.png",
    "imageData": None,
    "imageHeight": 1024,
    "imageWidth": 256,
}
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just(1e308),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
quick = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def right_or_ours(work):
    try:
        mask = work()
    except BoneScanError as error:
        text = str(error)
        assert "\n" not in text and len(text) < 600
        text.encode("utf-8")
    else:
        assert mask.dtype == np.uint8 and mask.max(initial=0) <= 2


@given(changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6))
@settings(quick, max_examples=200)
def test_changed_bytes(place, changes):
    data = bytearray(json.dumps(GOOD).encode())
    for where, value in changes:
        data[int(where * (len(data) - 1))] = value
    path = place / "bytes.json"
    path.write_bytes(data)
    right_or_ours(lambda: rasterize(path, CLASSES))


@pytest.mark.slow
@given(data=st.data(), value=values)
@settings(quick, max_examples=200)
def test_any_value_in_any_place(place, data, value):
    content = json.loads(json.dumps(GOOD))
    spot, key = content, data.draw(st.sampled_from(sorted(content)))
    while isinstance(spot[key], dict | list) and spot[key] and data.draw(st.integers(0, 3)):
        spot = spot[key]
        key = data.draw(st.sampled_from(sorted(spot) if isinstance(spot, dict) else list(range(len(spot)))))
    spot[key] = value
    path = place / "values.json"
    path.write_text(json.dumps(content))
    right_or_ours(lambda: rasterize(path, CLASSES))


@given(
    kind=st.sampled_from(["polygon", "rectangle", "circle", "oriented_rectangle"]),
    points=st.lists(st.lists(st.floats(-20_000, 20_000), min_size=2, max_size=2), min_size=1, max_size=9),
)
@settings(quick, max_examples=200)
def test_points_anywhere(place, kind, points):
    content = GOOD | {"shapes": [{"label": "metastasis", "points": points, "shape_type": kind}]}
    path = place / "points.json"
    path.write_text(json.dumps(content))
    right_or_ours(lambda: rasterize(path, CLASSES))


@pytest.mark.slow
@given(content=st.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode()))
@settings(quick, max_examples=200)
def test_class_maps(place, content):
    path = place / "map.json"
    path.write_bytes(content)
    try:
        classes = load_class_map(path)
    except BoneScanError as error:
        assert "\n" not in str(error)
        str(error).encode("utf-8")
    else:
        assert 2 in classes.values() and set(classes.values()) <= {0, 1, 2}


@given(changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6), keep=st.floats(0, 1))
@settings(quick, max_examples=100)
def test_damaged_pngs(place, changes, keep):
    from PIL import Image

    good = place / "good.png"
    if not good.exists():
        Image.fromarray(np.random.default_rng(0).integers(0, 3, (640, 512), np.uint8)).save(good)
    data = bytearray(good.read_bytes())
    for where, value in changes:
        # Half of the changes hit the header.
        data[int(where * (60 if value % 2 else len(data) - 1))] = value
    path = place / "bad.png"
    path.write_bytes(data[: max(1, int(len(data) * min(1, keep * 2)))])
    right_or_ours(lambda: read_mask(path, {"metastasis": 2}))
