"""Brightness normalisation: one multiplication that brings the mean intensity into (7, 14) (paper, section 2.3).

A gain and no offset, since zero counts are black. The mean is that of min(gain x counts, 255) over the crops of 950
rows, before rows are dropped. A scan that lies inside the range keeps gain 1, any other gets the smallest change that
lands inside. A view that is missing does not count. Values saturate at 255, they never wrap.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from doubleunet_bs.errors import ScanError
from doubleunet_bs.preparation.settings import BRIGHTNESS_MARGIN, BRIGHTNESS_RANGE

WHITE = 255
GAIN_LIMIT = 2.0**14
"""All gains are below it: then no product with a count of 16 bits leaves the whole numbers of 32 bits, in which OpenCV
rounds. No scan needs more than 255."""
MANY_TIMES = 20.0
"""A larger gain is a warning: the noise of so few counts is all that is amplified."""


def find_gain(images: Sequence[np.ndarray]) -> tuple[float, float]:
    """The gain that brings the mean intensity of `images` together into the open range (7, 14), and that mean.

    Args:
        images: uint16 counts, one array or several of any shape; together at least one pixel.

    Returns:
        The gain, exact in float32: 1.0 when the mean of min(counts, 255) lies inside already, else the gain whose mean
            is a thousandth of a grey level inside the nearer end. And the mean intensity that it gives.

    Raises:
        ScanError: reason "too-dark": even fully saturated, too few pixels have counts to reach a mean of 7.

    Example:
        40 of 100 pixels have 5 counts, a mean of 2. A mean of 7.001 needs 3.5005 times as much.

        >>> gain, brightness = find_gain([np.array([5] * 40 + [0] * 60, np.uint16)])
        >>> round(gain, 4), round(brightness, 3)
        (3.5005, 7.001)
    """
    numbers = np.bincount(np.concatenate([image.ravel() for image in images]))
    histogram = _Histogram(np.arange(len(numbers)), numbers)
    low, high = BRIGHTNESS_RANGE
    mean = histogram.mean(1.0)
    if low < mean < high:
        return 1.0, mean
    target = low + BRIGHTNESS_MARGIN if mean <= low else high - BRIGHTNESS_MARGIN
    if histogram.brightest() <= target:
        message = f"too few pixels have counts ({histogram.filled():.2%}) to reach a mean brightness of {low:g}"
        raise ScanError(message, "too-dark")
    gain = float(np.float32(histogram.solve(target)))
    return gain, histogram.mean(gain)


def to_grey(counts: np.ndarray, gains: tuple[float, float]) -> np.ndarray:
    """Counts of a merged image -> 8-bit grey levels: rint(min(gain x counts, 255)) in float32, halves to even.

    Args:
        counts: uint16 array of shape (..., rows, columns); the left half of the columns is the anterior view.
        gains: of the anterior and the posterior half, each exactly representable in float32 and below `GAIN_LIMIT`.

    Returns:
        uint8 array of the same shape.

    Example:
        >>> to_grey(np.array([[1, 3, 100, 65535]], np.uint16), (0.5, 2.0))
        array([[  0,   2, 200, 255]], dtype=uint8)
    """
    # OpenCV does this ten times as fast as NumPy, and training does it for every image that it shows.
    image = np.ascontiguousarray(counts).reshape(-1, counts.shape[-1])
    half = image.shape[1] // 2
    if not image.size:
        return np.zeros(counts.shape, np.uint8)
    if gains[0] == gains[1]:
        return cv2.convertScaleAbs(image, alpha=gains[0]).reshape(counts.shape)
    parts = zip((image[:, :half], image[:, half:]), gains, strict=True)
    return np.hstack([cv2.convertScaleAbs(part, alpha=gain) for part, gain in parts]).reshape(counts.shape)


def find_scales(counts: np.ndarray, gains: tuple[float, float], ratios: Sequence[float]) -> list[float]:
    """The factors on the gains of a prepared image that multiply its mean intensity by `ratios`, saturation included.

    Args:
        counts, gains: as for `to_grey`; counts of shape (rows, columns), not all zero.
        ratios: above 0.

    Raises:
        ScanError: reason "too-dark": with every pixel that has counts saturated the image is not as bright as that.
    """
    half = counts.shape[1] // 2
    numbers = [np.bincount(view.ravel()) for view in (counts[:, :half], counts[:, half:])]
    values = np.concatenate([np.arange(len(part)) * gain for part, gain in zip(numbers, gains, strict=True)])
    order = np.argsort(values, kind="stable")
    histogram = _Histogram(values[order], np.concatenate(numbers)[order])
    mean, brightest = histogram.mean(1.0), histogram.brightest()
    scales = []
    for ratio in ratios:
        target = ratio * mean
        if ratio != 1.0 and not 0 < target < brightest:
            message = f"too few pixels have counts ({histogram.filled():.2%}) to make it {ratio:.2f} times as bright"
            raise ScanError(message, "too-dark")
        scales.append(1.0 if ratio == 1.0 else histogram.solve(target))
    return scales


class _Histogram:
    """How often (`numbers`) each of the ascending `values` occurs: all that the mean of a clipped multiple needs."""

    def __init__(self, values: np.ndarray, numbers: np.ndarray):
        self.size = float(numbers.sum())
        there = (values > 0) & (numbers > 0)
        self.values = values[there].astype(np.float64)
        self.numbers = numbers[there].astype(np.float64)

    def mean(self, gain: float) -> float:
        return float((np.minimum(self.values * gain, WHITE) * self.numbers).sum() / self.size)

    def filled(self) -> float:
        return float(self.numbers.sum() / self.size)

    def brightest(self) -> float:
        """Mean that no gain exceeds."""
        return self.filled() * WHITE

    def solve(self, target: float) -> float:
        """The gain with that mean; `target` must lie between 0 and `brightest`, both excluded."""
        # With the values[i:] saturated: mean = (gain * sum of the others + 255 * number saturated) / size.
        others = np.r_[0.0, np.cumsum(self.values * self.numbers)]
        saturated = np.r_[np.cumsum(self.numbers[::-1])[::-1], 0.0]
        # Largest gain at which values[i] and all below are not yet clipped, and the mean there: both fall with i.
        means = (others[1:] * (WHITE / self.values) + WHITE * saturated[1:]) / self.size
        first = int(np.searchsorted(-means, -target, side="right"))
        # values[:first] have means >= target: they are not clipped at the solution, the others are.
        return float((target * self.size - WHITE * saturated[first]) / others[first])
