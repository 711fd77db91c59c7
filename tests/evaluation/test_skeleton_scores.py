"""Figures of regions by hand: two scans, of which only the first has ribs."""

import numpy as np
import pytest

from doubleunet_bs.evaluation.skeleton import SkeletonScores, draw_regions

COUNTS = np.zeros((2, 2, 12, 3), np.int64)
COUNTS[0, :, 0] = (3, 1, 0), (1, 0, 2)
COUNTS[1, 0, 0] = 0, 0, 4
COUNTS[0, 0, 3] = 5, 0, 0


def test_dice_is_pooled_and_of_each_scan():
    scores = SkeletonScores(("case-a", "case-b"), COUNTS)
    skull = scores.pixels(0)
    assert [(one.tp, one.fp, one.fn) for one in skull.values()] == [(4, 1, 6), (3, 1, 4), (1, 0, 2)]
    assert scores.dice_per_scan(0) == [pytest.approx(8 / 11), 0.0] and scores.dice_per_scan(3) == [1.0, None]
    # Regions that are neither there nor predicted have no part in the mean.
    assert scores.mean_dice == pytest.approx((8 / 15 + 1) / 2)
    rows = scores.table().rows
    assert list(rows[0]) == ["skull", "53.33", "80.00", "40.00", "54.55", "50.00", "36.36"]
    assert list(rows[3]) == ["ribs", "100.00", "100.00", "100.00", "100.00", "-", "100.00"]
    assert list(rows[1]) == ["cervical spine", *"------"]


def test_each_mask_is_drawn_beside_the_image():
    mask = np.zeros((640, 8), np.uint8)
    mask[100:200, 2:4] = 4
    plain, *drawn = np.hsplit(draw_regions(np.full(mask.shape, 50, np.uint8), mask, 0 * mask), 3)
    assert plain.shape == (640, 8, 3) and (plain == plain[..., :1]).all()
    for picture, regions in zip(drawn, (mask, 0 * mask), strict=True):
        np.testing.assert_array_equal((picture != plain).any(axis=2), regions > 0)
