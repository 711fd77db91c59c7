"""Histogram, clipping and sum of counts, on which body range and brightness rest.

OpenCV does in one pass what takes NumPy several, with the same whole numbers.
"""

import cv2
import numpy as np


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
