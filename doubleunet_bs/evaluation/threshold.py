"""The best single intensity threshold: what a model has to beat (decided here, the paper has no such baseline).

A pixel is called metastatic when its prepared 8-bit grey level is at least the threshold. Since there are 256 grey
levels, all thresholds are tried; the one with the best pooled F1 on the validation scans is scored on the test scans.
"""

from collections.abc import Sequence

import numpy as np

from doubleunet_bs.constants import METASTATIC
from doubleunet_bs.evaluation.pixel_counts import PixelCounts, count_pixels
from doubleunet_bs.preparation.shards import ShardedDataset

LEVELS = 256


def grey_histograms(dataset: ShardedDataset, cases: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """How often each grey level occurs in metastatic pixels and in all others.

    Args:
        dataset: opened shards.
        cases: indices into it; without any the histograms are zero.

    Returns:
        Two int64 arrays of shape (256,).
    """
    lesion, other = np.zeros(LEVELS, np.int64), np.zeros(LEVELS, np.int64)
    for index in cases:
        grey, metastatic = dataset.grey(index), dataset.labels(index) == METASTATIC
        lesion += np.bincount(grey[metastatic], minlength=LEVELS)
        other += np.bincount(grey[~metastatic], minlength=LEVELS)
    return lesion, other


def best_threshold(lesion: np.ndarray, other: np.ndarray) -> tuple[int | None, PixelCounts]:
    """The grey level with the best F1 when everything from it upwards is called metastatic.

    Args:
        lesion, other: histograms of shape (256,), see `grey_histograms`.

    Returns:
        The threshold, 0-255, and its counts on these pixels. Of thresholds with the same F1 the highest, which calls
        the fewest pixels metastatic. Without a lesion pixel no threshold is better than another: None and zero
        counts.
    """
    found = np.cumsum(np.asarray(lesion, np.int64)[::-1])[::-1]
    wrong = np.cumsum(np.asarray(other, np.int64)[::-1])[::-1]
    lesions = int(found[0])
    if not lesions:
        return None, PixelCounts()
    # 2 tp / (2 tp + fp + fn) with fn = lesions - tp.
    f1 = 2 * found / (found + wrong + lesions)
    value = int(LEVELS - 1 - np.argmax(f1[::-1]))
    return value, PixelCounts(int(found[value]), int(wrong[value]), int(lesions - found[value]))


def threshold_counts(grey: np.ndarray, labels: np.ndarray, value: int) -> PixelCounts:
    """The counts of one image when grey levels of at least `value` are called metastatic.

    Args:
        grey: (rows, columns) uint8 prepared image.
        labels: (rows, columns) uint8 classes.
        value: 0-255.
    """
    return count_pixels(labels, grey >= value)
