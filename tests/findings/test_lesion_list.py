"""Lesions of hand-made masks, with figures that can be worked out on paper."""

import dataclasses

import numpy as np
import pytest
from handmade_prediction import lesions_of, make_prediction
from skimage.measure import label, regionprops

from doubleunet_bs.findings.lesion_list import area_mm2, body_mask, body_pixels, find_areas


def test_figures_by_hand(scan):
    anterior = np.zeros((1024, 256), np.uint8)
    anterior[300:302, 100:103] = 1  # 2 x 3 pixels
    anterior[302, 103] = 1  # touches its corner: belongs to it
    anterior[200, 50] = 1  # above it, hence the first
    posterior = np.zeros((1024, 256), np.uint8)
    posterior[250:254, 60] = 1
    prediction = make_prediction(scan, {"anterior": anterior, "posterior": posterior})
    prediction.probabilities["anterior"][300, 100] = 0.7
    first, second, third = lesions_of(scan, prediction)
    assert [(lesion.number, lesion.view, lesion.pixels) for lesion in (first, second, third)] == [
        (1, "anterior", 1),
        (2, "anterior", 7),
        (3, "posterior", 4),
    ]
    assert (first.row, first.column) == (200, 50)
    assert second.row == pytest.approx((3 * 300 + 3 * 301 + 302) / 7)
    assert second.column == pytest.approx((2 * (100 + 101 + 102) + 103) / 7)
    assert (second.first_row, second.last_row, second.first_column, second.last_column) == (300, 302, 100, 103)
    assert second.peak_probability == pytest.approx(0.9)
    assert second.mean_probability == pytest.approx((6 * 0.9 + 0.7) / 7)
    inside = scan.anterior[anterior == 1][1:]
    assert (second.sum_counts, second.max_counts) == (int(inside.sum()), int(inside.max()))
    row, column = scan.pixel_spacing_mm
    assert third.area_mm2 == pytest.approx(4 * row * column)
    assert (third.sum_counts, third.row) == (int(scan.posterior[250:254, 60].sum()), 251.5)


def test_without_pixel_spacing_and_without_lesions(scan):
    assert lesions_of(scan, make_prediction(scan, {})) == ()
    assert area_mm2(5, None) is None
    unknown = dataclasses.replace(scan, pixel_spacing_mm=None)
    mask = np.zeros((1024, 256), np.uint8)
    mask[300, 100] = 1
    (lesion,) = lesions_of(unknown, make_prediction(unknown, {"posterior": mask}))
    assert (lesion.area_mm2, lesion.pixels, lesion.view) == (None, 1, "posterior")


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_scikit_image(seed):
    rng = np.random.default_rng(seed)
    mask = (rng.random((60, 40)) > 0.7).astype(np.uint8)
    areas = find_areas(mask)
    regions = sorted(regionprops(label(mask, connectivity=2)), key=lambda region: region.bbox[:2])
    assert len(areas) == len(regions) > 5
    for area, region in zip(areas, regions, strict=True):
        first_row, first_column, end_row, end_column = region.bbox
        box = (area.first_row, area.last_row, area.first_column, area.last_column)
        assert box == (first_row, end_row - 1, first_column, end_column - 1)
        assert np.allclose((area.row, area.column), region.centroid)
        assert np.array_equal(area.inside, region.image)


def test_body_is_the_outline_of_the_patient(scan):
    prediction = make_prediction(scan, {})
    for view in ("anterior", "posterior"):
        counts = getattr(scan, view)
        body = body_mask(counts, prediction.prepared, view)
        top = prediction.prepared.placements[view].top
        assert not body[top + 640 :].any()
        rows = counts[: top + 640]
        # Nearly all counts are in the body, and the body is not the frame.
        assert rows[body[: top + 640]].sum() > 0.95 * rows.sum()
        assert 0.2 < body.mean() < 0.4
        assert not body[:, 0].all()
    assert body_pixels(scan, prediction)["anterior"] == body_mask(scan.anterior, prediction.prepared, "anterior").sum()


def test_a_spot_beside_the_body_and_what_lies_above_the_crop_are_no_body(scan):
    prediction = make_prediction(scan, {})
    top = prediction.prepared.placements["anterior"].top
    assert top > 20
    counts = np.zeros((1024, 256), np.uint16)
    counts[top - 20 : top + 400, 60:200] = 20
    counts[:15, 10:25] = counts[top + 20 : top + 30, 220:230] = 200
    body = body_mask(counts, prediction.prepared, "anterior")
    assert body[top : top + 395, 65:195].all()
    assert not body[:top].any() and not body[:, :50].any() and not body[:, 210:].any()


def test_body_of_a_blank_and_of_a_missing_view(scan):
    prediction = make_prediction(scan, {})
    assert not body_mask(np.zeros((1024, 256), np.uint16), prediction.prepared, "anterior").any()
    half = dataclasses.replace(scan, posterior=np.zeros_like(scan.posterior), missing_views=("posterior",))
    assert set(body_pixels(half, make_prediction(half, {}))) == {"anterior"}


def test_no_share_of_the_body_exceeds_one(scan):
    everything = {view: np.ones((1024, 256), np.uint8) for view in ("anterior", "posterior")}
    assert body_pixels(scan, make_prediction(scan, everything)) == {"anterior": 1024 * 256, "posterior": 1024 * 256}
