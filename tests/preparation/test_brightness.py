"""The gain and the grey levels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doubleunet_bs.errors import ScanError
from doubleunet_bs.preparation.brightness import GAIN_LIMIT, find_gain, to_grey


def mean(frames, gain):
    pixels = np.concatenate([frame.ravel() for frame in frames]).astype(np.float64)
    return np.minimum(pixels * gain, 255).mean()


def test_a_dark_scan_comes_just_above_7():
    # 40 of 100 pixels with 5 counts: a mean of 2; 7.001 needs a gain of 3.5005.
    frame = np.array([5] * 40 + [0] * 60, np.uint16)
    gain, brightness = find_gain([frame])
    assert gain == np.float32(3.5005)
    assert brightness == pytest.approx(7.001, abs=1e-6)


def test_a_bright_scan_comes_just_below_14():
    # All pixels have 28 counts; 13.999 needs a gain of 0.499964...
    gain, _ = find_gain([np.full((10, 10), 28, np.uint16)])
    assert gain == np.float32(13.999 / 28)


def test_a_scan_inside_is_left_alone():
    assert find_gain([np.full((10, 10), 9, np.uint16)]) == (1.0, 9.0)


@pytest.mark.parametrize("level", [7, 14])
def test_the_range_is_open(level):
    gain, brightness = find_gain([np.full((10, 10), level, np.uint16)])
    assert gain != 1.0
    assert 7 < brightness < 14


def test_saturated_pixels_count_as_255():
    # One pixel in a hundred has 10,000 counts, ten have 4: min(10,000, 255) + 40 = 295, a mean of 2.95.
    # Above 7 with gain g: (255 + 40 g) / 100 = 7.001, g = 11.1275; 4 g = 44.5 is not saturated.
    frame = np.array([10_000] + [4] * 10 + [0] * 89, np.uint16)
    gain, _ = find_gain([frame])
    assert gain == pytest.approx(11.1275, rel=1e-6)


def test_the_mean_is_over_all_frames_together():
    # Means of 4 and 12 are 8 together: inside.
    frames = [np.full((5, 5), 4, np.uint16), np.full((5, 5), 12, np.uint16)]
    assert find_gain(frames) == (1.0, 8.0)


def test_a_nearly_blank_scan_is_refused():
    # 2 % of 255 is 5.1: no gain reaches 7.
    with pytest.raises(ScanError) as caught:
        find_gain([np.array([1, 1] + [0] * 98, np.uint16)])
    assert caught.value.reason == "too-dark"
    assert "2.00%" in str(caught.value)


@given(
    values=st.lists(st.integers(0, 400), min_size=1, max_size=30),
    hot=st.lists(st.integers(0, 65535), max_size=3),
    zeros=st.integers(0, 60),
)
@settings(max_examples=300, deadline=None)
def test_every_scan_lands_inside_by_the_smallest_change(values, hot, zeros):
    frame = np.array(values + hot + [0] * zeros, np.uint16)
    if np.count_nonzero(frame) * 255 <= 7.001 * frame.size:
        with pytest.raises(ScanError):
            find_gain([frame])
        return
    gain, brightness = find_gain([frame])
    assert np.float32(gain) == gain
    assert brightness == pytest.approx(mean([frame], gain), abs=1e-9)
    assert 7 < brightness < 14
    before = mean([frame], 1)
    if 7 < before < 14:
        assert gain == 1
    else:
        assert abs(brightness - (7 if before <= 7 else 14)) < 0.0011
        assert (gain > 1) == (before <= 7)


def test_grey_levels_saturate_and_halves_go_to_even():
    counts = np.array([[0, 1, 3, 5, 509, 510, 511, 65535]], np.uint16)
    #                   0 0.5 1.5 2.5 254.5 255 255.5 ...
    assert to_grey(counts, (0.5, 0.5)).tolist() == [[0, 0, 2, 2, 254, 255, 255, 255]]


def test_each_half_has_its_gain():
    counts = np.full((2, 4), 10, np.uint16)
    assert to_grey(counts, (1.0, 3.0)).tolist() == [[10, 10, 30, 30]] * 2


EVERY_COUNT = np.arange(65536, dtype=np.uint16).reshape(256, 256)


def plain_grey(counts, gain):
    return np.rint(np.minimum(counts.astype(np.float32) * np.float32(gain), np.float32(255))).astype(np.uint8)


@given(st.floats(2.0**-12, 300, width=32) | st.just(float(np.nextafter(np.float32(GAIN_LIMIT), np.float32(0)))))
@settings(max_examples=300, deadline=None)
def test_grey_is_the_float32_formula_for_every_count_and_gain(gain):
    np.testing.assert_array_equal(to_grey(EVERY_COUNT, (gain, gain)), plain_grey(EVERY_COUNT, gain))


def test_beyond_the_limit_of_gains_white_would_turn_black():
    assert to_grey(EVERY_COUNT, (2.0**16, 2.0**16))[-1, -1] == 0


def test_grey_of_read_only_strided_and_stacked_counts():
    counts = np.random.default_rng(0).integers(0, 400, (3, 20, 16), np.uint16)
    counts.setflags(write=False)
    expected = np.concatenate([plain_grey(counts[..., :8], 0.7), plain_grey(counts[..., 8:], 1.3)], axis=-1)
    gains = (float(np.float32(0.7)), float(np.float32(1.3)))
    np.testing.assert_array_equal(to_grey(counts, gains), expected)
    np.testing.assert_array_equal(to_grey(counts[:, ::2], gains), expected[:, ::2])
    assert to_grey(counts[:0], gains).shape == (0, 20, 16)
