"""Background removal: which pixels are uptake and which are air (paper, section 2.4)."""

import cv2
import numpy as np

SMALLEST_USUAL_FRACTION = 0.05
"""A smaller kept fraction is a warning: a hot injection site can push Otsu's threshold above everything else. On real
scans Otsu keeps 7-27 % of the raw image, the logarithm 23-41 %."""


def find_uptake(
    grey: np.ndarray, counts: np.ndarray, background: str, left_out: np.ndarray | None = None
) -> np.ndarray:
    """Pixels above Otsu's threshold.

    Args:
        grey: uint8 array of shape (rows, columns), the prepared image.
        counts: unsigned array of the same shape, its counts.
        background: "otsu" thresholds `grey`; "log" thresholds log(1 + counts) in 256 steps up to the largest value;
            "none" finds nothing.
        left_out: bool array of the same shape, pixels that the histogram leaves out (in the paper the metastases).
            The threshold applies to them all the same. None: every pixel is in the histogram.

    Returns:
        bool array of the same shape. An image of zeros, or one of which every pixel is left out, has no uptake.

    Example:
        >>> grey = np.array([[10, 12, 11, 200, 210]], np.uint8)
        >>> find_uptake(grey, grey, "otsu")
        array([[False, False, False,  True,  True]])
    """
    if background == "none":
        return np.zeros(grey.shape, bool)
    if background == "log":
        logarithm = np.log1p(counts, dtype=np.float32)
        grey = np.rint(logarithm * (255 / max(float(logarithm.max(initial=0)), 1e-6))).astype(np.uint8)
    histogram = grey if left_out is None else grey[~left_out]
    if not histogram.size:
        return np.zeros(grey.shape, bool)
    # cv2 returns the threshold and the image; pixels strictly above the threshold are uptake.
    threshold, _ = cv2.threshold(np.ascontiguousarray(histogram), 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return grey > threshold
