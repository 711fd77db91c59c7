"""Shapes carry activity x volume, wherever their points fall; outlines become polygons and back."""

import numpy as np
import pytest

from doubleunet_bs.phantom.camera import ATTENUATION, Camera, project, scatter
from doubleunet_bs.phantom.patient import template_skeleton
from doubleunet_bs.phantom.scan import draw_polygons, mask_polygons, visible_outline
from doubleunet_bs.phantom.shapes import curve, ellipsoid, plate, quasi_random, tube
from doubleunet_bs.phantom.soft_tissue import Surfaces


def test_weights_add_up_to_activity_times_volume():
    assert tube([(0, 0, 0), (0, 10, 0)], 1.0, 2.0).weight.sum() == pytest.approx(2 * np.pi * 10, rel=0.01)
    assert ellipsoid((0, 0, 0), (1, 2, 3), 3.0).weight.sum() == pytest.approx(3 * 4 / 3 * np.pi * 6, rel=1e-4)
    assert ellipsoid((0, 0, 0), (2, 2, 2), 1.0, hollow=0.5).weight.sum() == pytest.approx(4 / 3 * np.pi * 7, rel=1e-4)


def test_bone_mass_is_the_volume_whatever_the_activity():
    assert tube([(0, 0, 0), (0, 10, 0)], 1.0, 2.0).mass.sum() == pytest.approx(np.pi * 10, rel=0.01)
    assert ellipsoid((0, 0, 0), (1, 2, 3), 3.0, bone=0.5).mass.sum() == pytest.approx(0.5 * 4 / 3 * np.pi * 6, rel=1e-4)
    square = plate([(0, 0), (4, 0), (4, 4), (0, 4)], lambda x, y: 0 * x, 0.5, activity=2.0)
    assert square.mass.sum() == pytest.approx(square.weight.sum() / 2, rel=1e-4)


def test_a_plate_fills_its_outline():
    cloud = plate([(0, 0), (4, 0), (4, 4), (0, 4)], lambda x, y: 0 * x + 5, 0.5)
    # The outline is smoothed: about the square's 16 cm^2, bulging a little.
    assert cloud.weight.sum() / 0.5 == pytest.approx(16, rel=0.35)
    assert abs(cloud.xyz[:, 2] - 5).max() <= 0.26


def test_curve_passes_through_its_knots():
    knots = np.array([(0.0, 0, 0), (1, 2, 0), (3, 2, 1)])
    assert np.allclose(curve(knots, np.array([0, 0.5, 1])), knots)


def test_quasi_random_points_are_even():
    points = quasi_random(1000, 2)
    assert points.min() >= 0 and points.max() < 1
    assert np.histogram2d(*points.T, bins=5, range=[[0, 1], [0, 1]])[0].min() > 30


def test_the_skeleton_is_complete_and_paired():
    bones = template_skeleton().bones
    assert [f"C{k}" in bones for k in range(1, 8)] == [True] * 7
    assert all(f"T{k}" in bones and f"rib_L{k}" in bones and f"rib_R{k}" in bones for k in range(1, 13))
    assert all(f"L{k}" in bones for k in range(1, 6))
    xyz = template_skeleton().cloud.xyz
    for name in bones:
        if name.startswith(("rib_L", "femur_L", "ilium_L")):
            left, right = xyz[bones[name]], xyz[bones[name.replace("_L", "_R")]]
            assert left[:, 0].mean() > 1 and np.allclose(left * (-1, 1, 1), right)
    for k in range(1, 12):  # every rib falls from back to front
        rib = xyz[bones[f"rib_L{k}"]]
        assert (
            rib[rib[:, 2] > np.percentile(rib[:, 2], 90), 1].mean()
            > rib[rib[:, 2] < np.percentile(rib[:, 2], 10), 1].mean() + 2
        )


def test_projection_attenuates_with_depth_and_keeps_counts():
    shape = (1024, 256)
    body = Surfaces(np.full(shape, 10, np.float32), np.full(shape, -10, np.float32), np.ones(shape, np.float32))
    camera = Camera(2.0, 100, 128, (0, 256), (0, 1024))
    patch = project(camera, body, np.array([[0, 50, 4.0]], np.float32), np.array([1.0]))
    # 1 cm^3 x activity in pixels of 0.04 cm^2: the sum over pixels is 25, times what 6 or 14 cm of tissue let through.
    anterior, posterior = patch.views
    assert anterior.sum() == pytest.approx(25 * np.exp(-ATTENUATION * 6), rel=1e-3)
    assert posterior.sum() == pytest.approx(25 * np.exp(-ATTENUATION * 14), rel=1e-3)
    row, column = np.unravel_index(anterior.argmax(), anterior.shape)
    assert (row + patch.box[0].start, column + patch.box[1].start) == (350, 128)
    assert anterior.max() > posterior.max()
    assert project(camera, body, np.array([[500, 50, 0]], np.float32), np.array([1.0])) is None


def test_scatter_is_a_broad_share():
    image = np.zeros((1024, 256), np.float32)
    image[512, 128] = 1000
    spread = scatter(image)
    assert spread.sum() == pytest.approx(135, rel=0.05) and spread.max() < 1


def blob(height, sigma=2.5):
    y, x = np.mgrid[-20:21, -20:21]
    return (height * np.exp(-(x**2 + y**2) / (2 * sigma**2))).astype(np.float32)


def test_outline_of_a_bright_round_lesion():
    outline = visible_outline(blob(50), np.full((41, 41), 20, np.float32))
    # Above 47 % of the maximum: a disc of radius 2.5 sqrt(2 ln(1/0.47)) = 3.07 pixels, 29 pixels.
    assert outline.sum() == 29 and outline[20, 20] and outline[20, 23] and not outline[20, 24]


@pytest.mark.parametrize("height, around", [(5, 20), (50, 200), (0.5, 0.2), (0, 0)])
def test_no_outline_where_nothing_is_seen(height, around):
    assert not visible_outline(blob(height), np.full((41, 41), around, np.float32)).any()


def test_outline_stops_at_something_hotter():
    around = np.full((41, 41), 20, np.float32)
    around[:, 22:] = 500
    outline = visible_outline(blob(50), around)
    assert outline[20, 18] and not outline[:, 22:].any()


@pytest.mark.parametrize(
    "pixels", [[(5, 5)], [(5, 5), (5, 6)], [(5, 5), (6, 5), (7, 5)], [(r, c) for r in range(3, 9) for c in range(2, 7)]]
)
def test_polygons_give_a_mask_back(pixels):
    mask = np.zeros((12, 10), np.uint8)
    for row, column in pixels:
        mask[row, column] = 2
    polygons = mask_polygons(mask)
    assert len(polygons) == 1 and len(polygons[0]) >= 3
    assert np.array_equal(draw_polygons(polygons, mask.shape), mask // 2)


def test_polygons_of_nothing_and_of_two_regions():
    mask = np.zeros((30, 30), np.uint8)
    assert mask_polygons(mask) == []
    mask[2:6, 2:6] = 2
    mask[20:29, 10:12] = 2
    polygons = mask_polygons(mask)
    assert len(polygons) == 2 and np.array_equal(draw_polygons(polygons, mask.shape) * 2, mask)
