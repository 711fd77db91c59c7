"""How counts are shown: the usual display of nuclear medicine. Needs NumPy only."""

import numpy as np

PHANTOM_NOTE = "synthetic phantom, not a patient"

UPPER_PERCENTILE = 99.0
"""Of the pixels above zero: shown in full black (decided here). An injection site or a full bladder is about one per
cent of them, so that it cannot turn the skeleton pale."""


def clinical_display(image: np.ndarray, upper: float | None = None) -> np.ndarray:
    """The usual display of nuclear medicine: uptake dark on white, everything above `upper` full black.

    Args:
        image: (rows, columns), grey levels or counts, not negative.
        upper: upper level of the window; None takes the 99th percentile of the pixels above zero, and 1 for an empty
            image.

    Returns:
        uint8 array of shape (rows, columns): 255 for no uptake.
    """
    if upper is None:
        upper = upper_level(image)
    return 255 - np.rint(np.minimum(image / float(upper), 1.0) * 255).astype(np.uint8)


def upper_level(image: np.ndarray) -> float:
    """The upper level that `clinical_display` takes: the 99th percentile of the pixels above zero, at least 1."""
    above = image[image > 0]
    return max(1.0, float(np.percentile(above, UPPER_PERCENTILE))) if above.size else 1.0
