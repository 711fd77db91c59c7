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
