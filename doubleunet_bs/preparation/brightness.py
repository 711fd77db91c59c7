"""Brightness normalisation: one multiplication that brings the mean intensity into (7, 14) (paper, section 2.3).

Decided here: a gain and no offset, since zero counts are black; the mean is that of min(gain x counts, 255) over the
frames of 950 rows, before rows are dropped; a scan that lies inside keeps gain 1, any other gets the smallest change that lands
inside. A view that is missing does not count. Values saturate at 255, they never wrap.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from doubleunet_bs.errors import ScanError
from doubleunet_bs.preparation.settings import BRIGHTNESS_MARGIN, BRIGHTNESS_RANGE


def count_values(image: np.ndarray) -> np.ndarray:
    """How many pixels of a uint16 image have the value 0, 1, 2, ... up to its largest: int64 array. Fast."""
    size = int(image.max(initial=0)) + 1
    # Numbers come as float32, which is exact up to 16 million pixels.
    numbers = cv2.calcHist([np.atleast_2d(image)], [0], None, [size], [0, size]) if image.size else np.zeros(size)
    return numbers.ravel().astype(np.int64)


def clip_counts(image: np.ndarray, highest: int) -> np.ndarray:
    """min(image, highest) of a 2-dimensional uint16 or uint32 image. A new array of the same type."""
    if image.dtype != np.uint16 or not image.size:
        return np.minimum(image, image.dtype.type(highest))
    return cv2.threshold(image, highest, 0, cv2.THRESH_TRUNC)[1]


def sum_counts(image: np.ndarray) -> int:
    """The sum of a 2-dimensional array of unsigned counts."""
    if image.dtype != np.uint16 or not image.size:
        return int(image.sum(dtype=np.int64))
    # A float64, which is exact far beyond 2**16 counts in each pixel.
    return int(cv2.sumElems(image)[0])


def percentile(ordered: np.ndarray, percent: float) -> float:
    """`np.percentile` of float64 values in ascending order, to the last bit, without its many steps for every case.

    Args:
        ordered: at least one value.
        percent: 0 to 100.
    """
    place = (len(ordered) - 1) * (percent / 100)
    below = int(place)
    low, high = float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
    part = place - below
    # From the nearer of the two, as NumPy does.
    return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)


WHITE = 255
LARGEST_FAST_GAIN = 2.0**14
"""Below it no product with a count of 16 bits leaves the whole numbers of 32 bits, in which OpenCV rounds. No scan needs
more than 255."""
MANY_TIMES = 20.0
"""A larger gain is a warning: the noise of so few counts is all that is amplified."""


def find_gain(frames: Sequence[np.ndarray]) -> tuple[float, float]:
    """The gain that brings the mean intensity of `frames` into the open range (7, 14).

    The mean is a piecewise linear function of the gain, so the solution is exact and not searched for.

    Args:
        frames: uint16 counts, one array or several of any shape; together at least one pixel.

    Returns:
        The gain, exactly representable in float32: 1.0 when the mean of min(counts, 255) lies inside already, else the
            gain whose mean is a thousandth of a grey level inside the nearer end. And the mean intensity that it gives.

    Raises:
        ScanError: reason "too-dark": even fully saturated, too few pixels have counts to reach a mean of 7.
    """
    return gain_of_histograms([count_values(frame) for frame in frames])


def gain_of_histograms(numbers: Sequence[np.ndarray]) -> tuple[float, float]:
    """`find_gain` for frames of which the histograms are known.

    Args:
        numbers: how many pixels of each frame have the value 0, 1, 2, ... (`histogram.count_values`).
    """
    histogram = _Histogram.of_all(numbers)
    low, high = BRIGHTNESS_RANGE
    mean = histogram.mean(1.0)
    if low < mean < high:
        return 1.0, mean
    target = low + BRIGHTNESS_MARGIN if mean <= low else high - BRIGHTNESS_MARGIN
    if histogram.brightest() <= target:
        raise ScanError(
            f"too few pixels have counts ({histogram.filled():.2%} of the frame) to reach a mean brightness of {low:g}",
            "too-dark",
        )
    gain = float(np.float32(histogram.solve(target)))
    mean = histogram.mean(gain)
    if not low < mean < high:
        raise AssertionError("the rounded gain leaves the range")
    return gain, mean


def to_grey(counts: np.ndarray, gains: tuple[float, float]) -> np.ndarray:
    """Counts of a merged image -> 8-bit grey levels: rint(min(gain x counts, 255)) in float32, halves to even.

    Args:
        counts: array of shape (..., rows, columns), unsigned; the left half of the columns is the anterior view.
        gains: of the anterior and the posterior half, each exactly representable in float32.

    Returns:
        uint8 array of the same shape.
    """
    if counts.dtype == np.uint16 and counts.size and max(gains) < LARGEST_FAST_GAIN:
        image = np.ascontiguousarray(counts).reshape(-1, counts.shape[-1])
        half = image.shape[1] // 2
        if gains[0] == gains[1]:
            grey = cv2.convertScaleAbs(image, alpha=gains[0])
        else:
            parts = zip((image[:, :half], image[:, half:]), gains, strict=True)
            grey = np.hstack([cv2.convertScaleAbs(part, alpha=gain) for part, gain in parts])
        return grey.reshape(counts.shape)
    grey = counts.astype(np.float32)
    half = counts.shape[-1] // 2
    grey[..., :half] *= np.float32(gains[0])
    grey[..., half:] *= np.float32(gains[1])
    np.minimum(grey, np.float32(WHITE), out=grey)
    return np.rint(grey, out=grey).astype(np.uint8)


def find_scale(counts: np.ndarray, gains: tuple[float, float], ratio: float) -> float:
    """The factor on the gains of a prepared image that multiplies its mean intensity by `ratio`.

    Saturation makes this another number than `ratio`: white pixels do not become whiter. The solution is exact for
    min(gain x counts, 255) over this image, before grey levels are rounded.

    Args:
        counts: uint16 counts of shape (rows, columns) as for `to_grey`, not all zero.
        gains: of the anterior and the posterior half.
        ratio: above 0.

    Raises:
        ScanError: reason "too-dark": with every pixel that has counts saturated the image is not as bright as that.
    """
    return find_scales(counts, gains, [ratio])[0]


def find_scales(counts: np.ndarray, gains: tuple[float, float], ratios: Sequence[float]) -> list[float]:
    """`find_scale` for several ratios; the pixels are looked at once."""
    half = counts.shape[1] // 2
    numbers = [count_values(view) for view in (counts[:, :half], counts[:, half:])]
    values = np.concatenate([np.arange(len(part)) * gain for part, gain in zip(numbers, gains, strict=True)])
    order = np.argsort(values, kind="stable")
    histogram = _Histogram(values[order], np.concatenate(numbers)[order])
    mean, brightest = histogram.mean(1.0), histogram.brightest()
    scales = []
    for ratio in ratios:
        target = ratio * mean
        if ratio != 1.0 and not 0 < target < brightest:
            raise ScanError(
                f"too few pixels have counts ({histogram.filled():.2%} of the image) to make it {ratio:.2f} times as "
                "bright",
                "too-dark",
            )
        scales.append(1.0 if ratio == 1.0 else histogram.solve(target))
    return scales


class _Histogram:
    """How often each value occurs: all that the mean of a clipped multiple depends on.

    Args:
        values: not negative, in ascending order.
        numbers: whole numbers, one for each value.
    """

    def __init__(self, values: np.ndarray, numbers: np.ndarray):
        self.size = float(numbers.sum())
        there = (values > 0) & (numbers > 0)
        self.values = values[there].astype(np.float64)
        self.numbers = numbers[there].astype(np.float64)

    @classmethod
    def of_all(cls, each: Sequence[np.ndarray]) -> "_Histogram":
        numbers = np.zeros(max(map(len, each)), np.int64)
        for part in each:
            numbers[: len(part)] += part
        return cls(np.arange(len(numbers)), numbers)

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
