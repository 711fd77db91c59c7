"""`preparation.brightness` once more, in TensorFlow operations for many scans at a time.

Equal to the NumPy code to the last bit; `graph_geometry` says how that is kept.
"""

import numpy as np
import tensorflow as tf

from doubleunet_bs.serving.preparation_graph import COUNT_VALUES, count_values
from doubleunet_bs.preparation.brightness import WHITE
from doubleunet_bs.preparation.settings import BRIGHTNESS_MARGIN, BRIGHTNESS_RANGE

_VALUES = np.arange(1.0, COUNT_VALUES)


def find_gains(frames: tf.Tensor, present: tf.Tensor, brightness: str) -> tuple[tf.Tensor, tf.Tensor]:
    """The gains that bring the mean intensity of each scan, or of each view, into the open range (7, 14).

    Args:
        frames: (n, 2, rows, columns) int32 counts, at most 65,535: the frames of 950 rows after binning.
        present: (n, 2) bool; a view that is not there does not count.
        brightness: "per_scan" or "per_view", see `preparation.settings`.

    Returns:
        Gains, (n, 2) float32; a missing view gets the gain of the other one. And (n,) bool: whether there are enough
        counts; the gains are 1 where not.
    """
    pixels = frames.shape[2] * frames.shape[3]
    numbers = count_values(tf.reshape(frames, (-1, 2, pixels)))[..., 1:]
    sizes = tf.where(present, pixels, 0)
    if brightness == "per_scan":
        numbers = tf.reduce_sum(tf.where(present[..., None], numbers, 0), axis=1, keepdims=True)
        gains, enough = _solve(numbers, tf.reduce_sum(sizes, axis=1, keepdims=True))
        return tf.repeat(gains, 2, axis=1), enough[:, 0]
    gains, enough = _solve(numbers, sizes)
    enough = tf.reduce_all(enough | ~present, axis=1)
    gains = tf.where(enough[:, None], gains, 1.0)
    return tf.where(present, gains, gains[:, ::-1]), enough


def to_grey(counts: tf.Tensor, gains: tf.Tensor) -> tf.Tensor:
    """Counts (n, 2, rows, columns) int32 and gains (n, 2) float32 -> uint8: rint(min(gain x counts, 255))."""
    grey = tf.cast(counts, tf.float32) * gains[..., None, None]
    return tf.cast(tf.math.rint(tf.minimum(grey, tf.constant(WHITE, tf.float32))), tf.uint8)


def _solve(numbers: tf.Tensor, sizes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Gains and whether there are enough counts, each (n, k).

    Args:
        numbers: (n, k, 65,535) int32: pixels with 1, 2, ... counts.
        sizes: (n, k) int32: pixels in all.
    """
    low, high = BRIGHTNESS_RANGE
    values = tf.constant(_VALUES)
    numbers, sizes = tf.cast(numbers, tf.float64), tf.cast(sizes, tf.float64)
    white = tf.constant(WHITE, tf.float64)
    mean = tf.math.divide_no_nan(tf.reduce_sum(tf.minimum(values, white) * numbers, axis=-1), sizes)
    target = tf.where(
        mean <= low, tf.constant(low + BRIGHTNESS_MARGIN, tf.float64), tf.constant(high - BRIGHTNESS_MARGIN, tf.float64)
    )
    inside = (mean > low) & (mean < high)
    filled = tf.reduce_sum(numbers, axis=-1)
    enough = inside | (tf.math.divide_no_nan(filled, sizes) * white > target)

    # Mean at the gain that brings a value just to white: smaller values are not clipped there, larger ones are.
    weights = values * numbers
    saturated = filled[..., None] - tf.cumsum(numbers, axis=-1)
    means = tf.cumsum(weights, axis=-1) * tf.constant(WHITE / _VALUES) + white * saturated
    means = tf.math.divide_no_nan(means, sizes[..., None])
    unclipped = means >= target[..., None]
    others = tf.reduce_sum(tf.where(unclipped, weights, 0.0), axis=-1)
    saturated = filled - tf.reduce_sum(tf.where(unclipped, numbers, 0.0), axis=-1)
    gains = tf.cast(tf.math.divide_no_nan(target * sizes - white * saturated, others), tf.float32)
    return tf.where(inside | ~enough, 1.0, gains), enough
