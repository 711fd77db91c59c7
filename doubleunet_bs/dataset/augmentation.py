"""Brightness levels and mirror images of the training scans, made on the fly from the counts (paper, section 2.7).

The paper shows each scan at its own mean intensity m and at six others in (m - 5, m + 5), each of them also mirrored:
14 variants. Here the levels are evenly spaced with none on the open ends: m - 3.75, m - 2.5, ... m + 3.75. m is the
mean over the crops of 950 rows, as in the normalisation before it. The gain of a level is the one that multiplies the
mean of the prepared image by level / m, saturation included. A variant is computed from the counts with the changed
gain, not from grey levels: nothing is rounded or clipped twice.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from doubleunet_bs.errors import DatasetError, ScanError
from doubleunet_bs.preparation.brightness import find_scales, to_grey
from doubleunet_bs.preparation.shards import Dataset


def brightness_levels(mean: float, levels: int = 7, reach: float = 5.0) -> np.ndarray:
    """`levels` (odd) evenly spaced mean intensities in the open range (mean - reach, mean + reach) around `mean`.

    Example:
        >>> brightness_levels(10.0).tolist()
        [6.25, 7.5, 8.75, 10.0, 11.25, 12.5, 13.75]
    """
    steps = np.arange(levels) - levels // 2
    return mean + reach * steps / (levels // 2 + 1)


def mirror(image: np.ndarray, flip: str) -> np.ndarray:
    """Mirror a merged image left to right.

    Args:
        image: uint8 array of shape (rows, columns), an even number of columns; anterior view on the left.
        flip: "merged": as a whole, so that the mirrored posterior view lies on the left; "per_view": each half in its
            place; "none": `image` itself.
    """
    if flip == "none":
        return image
    if flip == "merged":
        return cv2.flip(image, 1)
    half = image.shape[1] // 2
    return np.hstack([cv2.flip(image[:, :half], 1), cv2.flip(image[:, half:], 1)])


class Augmentation:
    """The variants of some cases: 14 with seven levels and a flip.

    Variant number v of a case shows the level v // 2, in ascending order, mirrored when v is odd. Without a flip v is
    the number of the level. The counts of the cases (indices) are read once, for the gains of their levels.

    Raises:
        DatasetError: a case has too few pixels with counts to become as bright as its highest level.
    """

    def __init__(
        self, dataset: Dataset, cases: Sequence[int], levels: int = 7, reach: float = 5.0, flip: str = "merged"
    ):
        self._dataset, self._flip = dataset, flip
        self._flips = 1 if flip == "none" else 2
        self.variants = levels * self._flips
        self._places = dict.fromkeys(map(int, cases), 0)
        self._gains = np.empty((len(self._places), levels, 2))
        for place, index in enumerate(self._places):
            self._places[index] = place
            self._gains[place] = _gains(dataset, index, levels, reach)

    def gains(self, index: int, variant: int) -> tuple[float, float]:
        """Of the anterior and the posterior half of a case in a variant, before it is mirrored; exact in float32."""
        anterior, posterior = self._gains[self._places[index], variant // self._flips].tolist()
        return anterior, posterior

    def show(self, index: int, variant: int) -> tuple[np.ndarray, np.ndarray]:
        """Grey image and labels of a case in a variant, both uint8 of the dataset's image shape."""
        flip = self._flip if variant % self._flips else "none"
        grey = to_grey(self._dataset.counts(index), self.gains(index, variant))
        labels = np.asarray(self._dataset.labels(index))
        return mirror(grey, flip), mirror(labels, flip)


def _gains(dataset: Dataset, index: int, levels: int, reach: float) -> list[tuple[float, float]]:
    case = dataset.cases[index]
    if levels == 1:
        return [case.gains]
    ratios = (brightness_levels(case.brightness, levels, reach) / case.brightness).tolist()
    try:
        scales = find_scales(dataset.counts(index), case.gains, ratios)
    except ScanError as error:
        raise DatasetError(f"{case.case}: {error}: leave it out or train without brightness levels") from None
    anterior, posterior = case.gains
    return [(float(np.float32(anterior * scale)), float(np.float32(posterior * scale))) for scale in scales]
