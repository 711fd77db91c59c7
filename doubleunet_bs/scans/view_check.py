"""A look at the pixels: do the two views show one patient from the front and from behind? (decided here)

A body is nearly symmetric, so that comparing the views directly says little. What tells the sides apart are the
differences between its left and right half: an injection site, a bladder to one side, a bent spine, the kidneys.
Seen from behind they change sides. On phantoms the left-right differences of the two views correlate with -0.73 to
-0.97; with the posterior view mirrored, or the anterior view twice, with +0.85 and more.
"""

import numpy as np

from doubleunet_bs.errors import ScanError

# Only a correlation that no true pair comes near is reported.
MIRRORED_ABOVE = 0.25
# Mean squared difference of two views in units of counting noise: 1 for two pictures of the same thing.
SAME_BELOW = 2.0

MIRRORED_WARNING = (
    "the posterior view seems to be stored mirrored, as if seen from the front: "
    "compare left and right with the anterior view"
)
SAME_WARNING = "both frames seem to show the same view, though the header names two: compare with the image"

_ROWS_PER_CELL, _COLUMNS_PER_CELL = 8, 2
_SMOOTHING = np.array([1, 2, 3, 2, 1]) / 9
# How far the middle of the body may be from the middle of the frame, in cells of two columns.
_FARTHEST_AXIS = 24


def check_views(anterior: np.ndarray, posterior: np.ndarray) -> list[str]:
    """Compare two views of a scan.

    Args:
        anterior: uint16 counts of shape (1024, 256).
        posterior: the same from behind, as the header says.

    Returns:
        No or one warning. Views without any left-right difference give none.

    Raises:
        ScanError: `same-view` when the two arrays are identical.
    """
    if np.array_equal(anterior, posterior):
        raise ScanError("has the same pixels in both views", "same-view")
    correlation = side_correlation(anterior, posterior)
    if correlation <= MIRRORED_ABOVE:
        return []
    front, back = _cells(anterior), _cells(posterior)
    counted = front + back > 0
    noise = np.mean((front - back)[counted] ** 2 / (front + back)[counted])
    return [SAME_WARNING if noise < SAME_BELOW else MIRRORED_WARNING]


def side_correlation(anterior: np.ndarray, posterior: np.ndarray) -> float:
    """The correlation of the left-right differences of two views, each about the middle of its own body.

    Returns:
        From -1 (one patient from the front and from behind) to 1 (twice from the same side); 0 when a view
        is symmetric or blank.
    """
    first, second = (_side_differences(view).ravel() for view in (anterior, posterior))
    # Plain sums: a matrix library would start threads for so little.
    scale = np.sqrt((first * first).sum() * (second * second).sum())
    return float((first * second).sum() / scale) if scale > 0 else 0.0


def _cells(view: np.ndarray) -> np.ndarray:
    """Counts summed over small blocks, float64."""
    rows, columns = view.shape[0] // _ROWS_PER_CELL, view.shape[1] // _COLUMNS_PER_CELL
    # Whole rows first, which lie next to each other in memory; whole numbers, of which none is too large.
    sums = view.reshape(rows, _ROWS_PER_CELL, columns * _COLUMNS_PER_CELL).sum(axis=1, dtype=np.uint32)
    return sum(sums[:, start::_COLUMNS_PER_CELL] for start in range(_COLUMNS_PER_CELL)).astype(np.float64)


def _with_margin(image: np.ndarray, columns: int) -> np.ndarray:
    """`image` with columns of zeros on both sides."""
    wide = np.zeros((image.shape[0], image.shape[1] + 2 * columns))
    wide[:, columns:-columns] = image
    return wide


def _side_differences(view: np.ndarray) -> np.ndarray:
    """Left minus mirrored right on a coarse grid, the middle of the body in the middle column; zero mean."""
    # The square root makes counting noise equal everywhere; the hottest spots are cut so that none decides alone.
    image = np.sqrt(_cells(view))
    columns = image.shape[1]
    padded = _with_margin(image, 2)
    image = sum(weight * padded[:, start : start + columns] for start, weight in enumerate(_SMOOTHING))
    image = np.minimum(image, np.percentile(image, 99.5))
    # Room on both sides: moving the body must not wrap it around.
    image = _with_margin(image, _FARTHEST_AXIS)
    mirrored = image[:, ::-1]
    # The agreement at each shift, all at once; the padding keeps the ends apart.
    spectrum = (np.fft.rfft(image, axis=1) * np.fft.rfft(mirrored, axis=1).conj()).sum(axis=0)
    agreement = np.fft.irfft(spectrum, image.shape[1])
    shift = max(range(-_FARTHEST_AXIS, _FARTHEST_AXIS + 1), key=lambda shift: agreement[shift])
    differences = image - np.roll(mirrored, shift, axis=1)
    centred = np.roll(differences, -round(shift / 2), axis=1)
    return centred - centred.mean()
