"""What pictures show, and outlines that lead back to exactly the pixels they came from."""

import io
import re

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from doubleunet_bs.constants import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE
from doubleunet_bs.display import (
    clinical_display,
    display_views,
    edge_path,
    exact_polygon,
    outline,
    paint_errors,
    png_bytes,
    shown_box,
    upper_level,
)
from doubleunet_bs.findings.lesion_list import find_areas


def test_display_is_inverse_and_saturates():
    image = np.array([[0, 50, 100, 1000]])
    assert clinical_display(image, upper=100).tolist() == [[255, 127, 0, 0]]
    assert clinical_display(np.zeros((2, 2), np.uint8)).tolist() == [[255, 255], [255, 255]]


def test_an_injection_site_does_not_make_the_skeleton_pale():
    image = np.full((100, 100), 100)
    image[:9, :10] = 20_000
    assert upper_level(image) == 100


def test_both_views_have_one_upper_level():
    """A missing view, all zeros, has no say."""
    views = display_views(
        {"anterior": np.full((1, 100), 200), "posterior": np.full((1, 100), 100), "none": np.zeros(9)}
    )
    assert [int(view.ravel()[0]) for view in views.values()] == [0, 127, 255]


def test_air_is_left_out_and_nothing_else():
    """Eight rows and columns around what is shown; a mask or box is shown wherever it lies."""
    grey = np.full((200, 100), 255, np.uint8)
    assert shown_box([grey]) == np.s_[0:200, 0:100]
    grey[100:120, 40:60] = 0
    rows, columns = shown_box([grey, np.full_like(grey, 255)])
    # Smoothing spreads the edge by 5 or 6 pixels.
    assert rows.start in range(84, 92) and columns.stop in range(68, 78)
    mask = np.zeros((200, 100), bool)
    mask[5, 5] = True
    assert shown_box([grey], [mask, np.s_[190:195, 40:50]]) == np.s_[0:200, 0 : columns.stop]


def test_outline_by_hand():
    mask = np.zeros((4, 5))
    mask[1, 1] = 1
    expected = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]])
    assert np.array_equal(outline(mask)[:3, :3], expected)
    assert not outline(mask)[3].any()
    assert outline(mask, scale=2).sum() == 6 * 6 - 2 * 2


def test_every_kind_of_error_has_its_colour():
    labels = np.array([[2, 2], [1, 0]], np.uint8)
    picture = paint_errors(np.full((2, 2), 200, np.uint8), labels, np.array([[1, 0], [1, 0]]))
    expected = [[TRUE_POSITIVE, FALSE_NEGATIVE], [FALSE_POSITIVE, (200, 200, 200)]]
    np.testing.assert_array_equal(picture, expected)


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3), (7, 5, 4)])
def test_a_png_gives_its_pixels_back_and_nothing_else(shape):
    picture = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    with Image.open(io.BytesIO(png_bytes(picture))) as image:
        assert np.array_equal(np.asarray(image), picture) and not image.info


def fill(path: str, shape) -> np.ndarray:
    """A pixel is inside when an odd number of vertical edges lie to its left."""
    edges = np.zeros((shape[0], shape[1] + 1), int)
    for x, y, length in re.findall(r"M(\d+) (\d+)v(\d+)", path):
        edges[int(y) : int(y) + int(length), int(x)] += 1
    return (np.cumsum(edges, axis=1)[:, :-1] % 2).astype(np.uint8)


def fill_down(path: str, shape) -> np.ndarray:
    """The same from the horizontal edges."""
    edges = np.zeros((shape[0] + 1, shape[1]), int)
    for x, y, length in re.findall(r"M(\d+) (\d+)h(\d+)", path):
        edges[int(y), int(x) : int(x) + int(length)] += 1
    return (np.cumsum(edges, axis=0)[:-1] % 2).astype(np.uint8)


def test_edges_of_one_pixel():
    assert edge_path(np.ones((1, 1))) == "M0 0h1M0 1h1M0 0v1M1 0v1"
    assert edge_path(np.zeros((3, 3))) == ""


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1)))
def test_edges_lead_back_to_any_mask(mask):
    path = edge_path(mask)
    assert np.array_equal(fill(path, mask.shape), mask)
    assert np.array_equal(fill_down(path, mask.shape), mask)


def test_polygons_of_small_areas():
    for area in (np.ones((1, 1), bool), np.ones((1, 7), bool), np.ones((5, 1), bool), np.eye(6, dtype=bool)):
        points = exact_polygon(area)
        assert points is not None and len(points) >= 3
    ring = np.ones((5, 5), bool)
    ring[2, 2] = False
    assert exact_polygon(ring) is None
    assert exact_polygon(np.zeros((4, 4), bool)) is None


@pytest.mark.parametrize("sigma", [1.5, 3, 6])
def test_nearly_every_area_has_its_polygon(sigma):
    """Blobs as ragged as thresholded noise: one in a hundred at most has no exact polygon, mostly for a hole."""
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.normal(size=(512, 256)).astype(np.float32), (0, 0), sigma)
    areas = find_areas((noise > 1.2 * noise.std()).astype(np.uint8))
    found = sum(exact_polygon(area.inside) is not None for area in areas)
    assert len(areas) > 20
    assert found >= 0.97 * len(areas)
