"""Uptake or air."""

import numpy as np
import pytest
from bodies import person
from skimage.filters import threshold_otsu

from doubleunet_bs.preparation.case import find_uptake


def test_two_levels_are_told_apart():
    grey = np.array([[0, 0, 0, 10, 10, 200, 210]], np.uint8)
    assert find_uptake(grey, grey.astype(np.uint16), "otsu").tolist() == [[False] * 5 + [True] * 2]


def test_otsu_agrees_with_another_implementation():
    grey = np.minimum(person(), 255).astype(np.uint8)
    np.testing.assert_array_equal(find_uptake(grey, grey, "otsu"), grey > threshold_otsu(grey))


def test_the_logarithm_keeps_the_outline_that_otsu_loses():
    # Air 0-1, soft tissue 8, bone 100: plain Otsu cuts above the soft tissue, the logarithm below it.
    counts = np.repeat(np.array([0, 1, 8, 100], np.uint16), (300, 300, 250, 150)).reshape(10, 100)
    grey = counts.astype(np.uint8)
    np.testing.assert_array_equal(find_uptake(grey, counts, "otsu"), counts == 100)
    np.testing.assert_array_equal(find_uptake(grey, counts, "log"), counts >= 8)


def test_what_is_left_out_does_not_move_the_threshold_but_is_thresholded():
    # With the lesion of 200 the best split is between 40 and 200, without it between 10 and 40.
    grey = np.repeat(np.array([0, 10, 40, 200], np.uint8), (10, 10, 10, 12))[None]
    counts = grey.astype(np.uint16)
    np.testing.assert_array_equal(find_uptake(grey, counts, "otsu"), grey > 40)
    np.testing.assert_array_equal(find_uptake(grey, counts, "otsu", left_out=grey == 200), grey > 10)
    np.testing.assert_array_equal(find_uptake(grey, counts, "otsu", left_out=grey == 10), grey > 40)
    assert threshold_otsu(grey[grey < 200]) == 10
    assert not find_uptake(grey, counts, "otsu", left_out=np.ones(grey.shape, bool)).any()


def test_none_keeps_nothing():
    grey = np.full((4, 4), 90, np.uint8)
    assert not find_uptake(grey, grey.astype(np.uint16), "none").any()


@pytest.mark.parametrize("background", ["otsu", "log"])
def test_a_blank_image_has_no_uptake(background):
    blank = np.zeros((4, 4), np.uint8)
    assert not find_uptake(blank, blank.astype(np.uint16), background).any()
