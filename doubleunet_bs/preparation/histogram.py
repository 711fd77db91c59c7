"""The histogram of counts, on which body range and brightness rest."""

import cv2
import numpy as np


def count_values(image: np.ndarray) -> np.ndarray:
    """How many pixels of a uint16 image have the value 0, 1, 2, ... up to its largest: int64 array. Fast."""
    size = int(image.max(initial=0)) + 1
    # Numbers come as float32, which is exact up to 16 million pixels.
    numbers = cv2.calcHist([np.atleast_2d(image)], [0], None, [size], [0, size]) if image.size else np.zeros(size)
    return numbers.ravel().astype(np.int64)
