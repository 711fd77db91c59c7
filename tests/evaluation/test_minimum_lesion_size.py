"""The minimum lesion size, and figures by view and by size."""

import types

import numpy as np
import pytest
from score_makers import Scan, fold, lesion, scan

from doubleunet_bs.evaluation.scores.lesions import area_unit, pixel_area, size_class, size_class_names
from doubleunet_bs.evaluation.scores.scan_scores import MinimumSize, drop_small_lesions, learn_minimum_size, score_scan
from doubleunet_bs.evaluation.summary import Summary, by_size, by_view
from doubleunet_bs.pixel_counts import count_pixels


def test_small_false_positives_go():
    # True positives of 20 pixels, false positives of 3 and 5.
    scans = [
        scan(0, tp=18, fp=10, fn=2, lesions=[lesion(20, 18), lesion(3, 0), lesion(5, 0)]),
        scan(1, tp=20, fp=5, fn=10, lesions=[lesion(20, 20), lesion(5, 0)]),
    ]
    learnt = learn_minimum_size(scans, "pixels")
    assert learnt == MinimumSize(20.0, "pixels", 2 * 38 / (2 * 38 + 2 + 12), 2 * 38 / (2 * 38 + 15 + 12))


def test_a_minimum_that_does_not_help_is_not_kept():
    scans = [scan(0, tp=8, fp=30, fn=2, lesions=[lesion(4, 4), lesion(4, 4), lesion(30, 0)])]
    learnt = learn_minimum_size(scans, "mm2")
    assert learnt.smallest is None
    assert learnt.validation_f1 == learnt.validation_f1_raw == 16 / 48


def test_of_equally_good_minima_the_one_that_drops_less():
    # From 2: 6 / 14. From 4, without the first lesion: 6 / 12. From 9, without the second as well: 4 / 8, the same.
    scans = [scan(0, tp=3, fp=5, fn=3, lesions=[lesion(2, 0), lesion(4, 1), lesion(4, 2, area=9)])]
    learnt = learn_minimum_size(scans, "pixels")
    assert (learnt.smallest, learnt.validation_f1, learnt.validation_f1_raw) == (4.0, 0.5, 6 / 14)


@pytest.mark.parametrize(
    "scans", [[], [scan(0, fn=5)], [scan(0)], [scan(0, fp=4, lesions=[lesion(4, 0)], group="negative")]]
)
def test_nothing_to_learn_from(scans):
    assert learn_minimum_size(scans, "mm2").smallest is None


def test_dropping_is_what_was_learnt():
    """On images: pixel counts with the minimum are those that the learning computed from lesion sizes."""
    rng = np.random.default_rng(4)
    labels = np.zeros((30, 40), np.uint8)
    for row, column in ((2, 3), (12, 10), (20, 30)):
        labels[row : row + 5, column : column + 5] = 2
    mask = (rng.random((30, 40)) < 0.05) | ((labels == 2) & (rng.random((30, 40)) < 0.8))
    found = score_scan(Scan(), labels, mask, pixel_area=5.76)
    learnt = learn_minimum_size([found], "mm2")
    assert learnt.smallest is not None
    kept = drop_small_lesions(mask, 5.76, learnt.smallest)
    assert count_pixels(labels, kept).f1 == pytest.approx(learnt.validation_f1)
    assert not kept[~mask].any()
    # Two pixels in each view, four in a row: the views are separate.
    row = np.arange(32).reshape(4, 8) // 8 == 1
    row[:, [0, 1, 6, 7]] = False
    assert not drop_small_lesions(row, 1.0, 3.0).any() and (drop_small_lesions(row, 1.0, 2.0) == row).all()
    for area in sorted({one.area for one in found.predicted_lesions}):
        assert count_pixels(labels, drop_small_lesions(mask, 5.76, area)).f1 <= learnt.validation_f1 + 1e-12


def records(*spacings):
    return [types.SimpleNamespace(pixel_spacing_mm=spacing) for spacing in spacings]


def test_areas_are_in_mm2_where_every_spacing_is_known():
    cases = records((2.4, 2.2), (2.26, 2.26))
    assert area_unit(cases) == "mm2"
    assert pixel_area(cases[0], "mm2", 2) == pytest.approx(2.4 * 2.2 * 4)
    assert pixel_area(cases[0], "pixels", 4) == 16.0
    for unknown in (None, (0.0, 2.4), (float("nan"), 2.4)):
        assert area_unit([*cases, *records(unknown)]) == "pixels"


def test_size_classes():
    assert [size_class(area, "mm2") for area in (0, 149.9, 150, 299, 300, 600, 1e6)] == [0, 0, 1, 1, 2, 3, 3]
    assert size_class_names("pixels") == (
        "under 25 pixels",
        "25 to 50 pixels",
        "50 to 100 pixels",
        "100 pixels and more",
    )


def test_breakdowns():
    scans = [
        scan(
            0,
            tp=5,
            fp=2,
            fn=1,
            true=[lesion(area=100, common=5), lesion(area=400), lesion(area=500, common=1, view="posterior")],
            lesions=[lesion(area=160, common=5, probability=0.5), lesion(area=700, probability=0.5, view="posterior")],
        )
    ]
    (pixels, anterior), (others, posterior) = by_view(scans).values()
    assert (pixels.tp, anterior.true, anterior.found, anterior.right) == (5, 2, 1, 1)
    assert (others.tp, posterior.true, posterior.found) == (0, 1, 1)
    assert (posterior.predicted, posterior.right) == (1, 0)
    sizes = by_size(scans, "mm2").values()
    assert [(lesions.true, lesions.found) for lesions in sizes] == [(1, 1), (0, 0), (2, 1), (0, 0)]
    assert [(lesions.predicted, lesions.right) for lesions in sizes] == [(0, 0), (1, 1), (0, 0), (1, 0)]
    assert Summary("dice", {}, 1, (fold(1, *scans, unit="mm2"),)).to_json()["sizes"][2] == {
        "size": "300 to 600 mm2",
        "true": 2,
        "found": 1,
        "predicted": 0,
        "right": 0,
        "precision": None,
        "sensitivity": 0.5,
    }
