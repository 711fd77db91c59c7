"""The quick ways of the preparation give what the plain NumPy expressions give, to the last bit."""

import cv2
import numpy as np
import pytest
from bodies import person, scan_of
from hypothesis import given, settings
from hypothesis import strategies as st

from doubleunet_bs.preparation import prepare_scan
from doubleunet_bs.preparation.brightness import (
    LARGEST_FAST_GAIN,
    clip_counts,
    count_values,
    find_gain,
    gain_of_histograms,
    percentile,
    sum_counts,
    to_grey,
)
from doubleunet_bs.preparation.geometry import Placement, crop, crop_histogram, find_body

EVERY_COUNT = np.arange(65536, dtype=np.uint16).reshape(256, 256)


def plain_grey(counts, gain):
    return np.rint(np.minimum(counts.astype(np.float32) * np.float32(gain), np.float32(255))).astype(np.uint8)


@given(st.floats(2.0**-12, 300, width=32))
@settings(max_examples=300, deadline=None)
def test_grey_is_the_formula_for_every_count_and_gain(gain):
    np.testing.assert_array_equal(to_grey(EVERY_COUNT, (gain, gain)), plain_grey(EVERY_COUNT, gain))


def test_grey_of_read_only_strided_and_stacked_counts():
    counts = np.random.default_rng(0).integers(0, 400, (3, 20, 16), np.uint16)
    counts.setflags(write=False)
    expected = np.concatenate([plain_grey(counts[..., :8], 0.7), plain_grey(counts[..., 8:], 1.3)], axis=-1)
    gains = (float(np.float32(0.7)), float(np.float32(1.3)))
    np.testing.assert_array_equal(to_grey(counts, gains), expected)
    np.testing.assert_array_equal(to_grey(counts[:, ::2], gains), expected[:, ::2])
    np.testing.assert_array_equal(to_grey(counts.astype(np.uint32), gains), expected)
    assert to_grey(counts[:0], gains).shape == (0, 20, 16)


def test_a_gain_beyond_all_scans_saturates_as_well():
    # In OpenCV's 32-bit numbers the product with the largest count would turn negative, and so black.
    gain = 2.0**16
    assert gain > LARGEST_FAST_GAIN and cv2.convertScaleAbs(EVERY_COUNT, alpha=gain)[-1, -1] == 0
    np.testing.assert_array_equal(to_grey(EVERY_COUNT, (gain, gain)), plain_grey(EVERY_COUNT, gain))
    below = float(np.nextafter(np.float32(LARGEST_FAST_GAIN), np.float32(0)))
    np.testing.assert_array_equal(to_grey(EVERY_COUNT, (below, below)), plain_grey(EVERY_COUNT, below))


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_clipping_and_sums(dtype):
    image = np.random.default_rng(1).integers(0, 65536, (40, 33)).astype(dtype)
    for view in (image, image[3:, ::2], image[:0], np.full_like(image, 65535)):
        clipped = clip_counts(view, 300)
        assert clipped.dtype == dtype
        np.testing.assert_array_equal(clipped, np.minimum(view, 300))
        assert sum_counts(view) == int(view.sum(dtype=np.int64))


@given(
    st.lists(st.floats(-1e6, 1e6) | st.integers(0, 5).map(float), min_size=1, max_size=40),
    st.floats(0, 100) | st.sampled_from([0.0, 5.0, 75.0, 100.0]),
)
@settings(max_examples=500, deadline=None)
def test_percentiles_are_those_of_numpy(values, percent):
    assert percentile(np.sort(np.array(values)), percent) == np.percentile(values, percent)


@given(st.integers(-1100, 1100), st.integers(-300, 300), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_histogram_of_a_window_from_that_of_the_view(top, left, seed):
    counts = np.random.default_rng(seed).poisson(3, (1024, 256)).astype(np.uint16)
    counts[5, 7] = 900
    found = crop_histogram(counts, Placement(top, left), count_values(counts))
    expected = count_values(crop(counts, Placement(top, left)))
    np.testing.assert_array_equal(found[: len(expected)], expected)
    assert not found[len(expected) :].any()
    assert gain_or_error([found]) == gain_or_error([expected])


def gain_or_error(histograms):
    try:
        return gain_of_histograms(histograms)
    except Exception as error:
        return str(error)


@pytest.mark.parametrize("brightness", ["per_scan", "per_view"])
@pytest.mark.parametrize("speed", [0.1, 1.0, 4.0])
def test_a_prepared_case_is_that_of_its_frames(brightness, speed):
    from doubleunet_bs.preparation import PreparationSettings

    views = {"anterior": person(1, speed), "posterior": person(2, speed)}
    case = prepare_scan(scan_of(**views), settings=PreparationSettings(brightness=brightness))
    assert case.bodies == find_body(views)[0]
    frames = [crop(views[name], case.placements[name]) for name in views]
    found = [find_gain([frame]) for frame in frames] if brightness == "per_view" else [find_gain(frames)] * 2
    assert case.gains == tuple(gain for gain, _ in found)
    assert case.brightness == np.mean([mean for _, mean in found])
    assert case.sum_counts == sum(int(view.sum(dtype=np.int64)) for view in views.values())
