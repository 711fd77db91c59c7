"""A coarser matrix, as a gamma camera would acquire it: blocks of pixels are one pixel (decided here).

The paper's matrix is binning 1. Binning 2 or 4 makes the network 4 or 16 times cheaper for demonstrations and tests.
"""

import numpy as np

from doubleunet_bs.constants import METASTATIC, NON_METASTATIC


def bin_counts(counts: np.ndarray, bin: int) -> np.ndarray:
    """Sum over blocks of bin x bin pixels.

    Args:
        counts: uint16 array of shape (rows, columns); zeros are appended where rows or columns are no multiple of
            `bin`.

    Returns:
        uint32 array, or `counts` itself when `bin` is 1. No sum wraps: 16 x 65,535 is far below 2**32.
    """
    if bin == 1:
        return counts
    return _blocks(counts, bin).sum(axis=(1, 3), dtype=np.uint32)


def bin_labels(labels: np.ndarray, bin: int) -> np.ndarray:
    """A block is metastatic when at least half of its pixels are, else non-metastatic when at least half of its
    pixels are.

    Args:
        labels: uint8 array of shape (rows, columns) of classes.

    Returns:
        uint8 array, or `labels` itself when `bin` is 1.
    """
    if bin == 1:
        return labels
    half = bin * bin / 2
    blocks = _blocks(labels, bin)
    coarse = np.zeros(blocks.shape[::2], np.uint8)
    coarse[(blocks == NON_METASTATIC).sum(axis=(1, 3)) >= half] = NON_METASTATIC
    coarse[(blocks == METASTATIC).sum(axis=(1, 3)) >= half] = METASTATIC
    return coarse


def _blocks(image: np.ndarray, bin: int) -> np.ndarray:
    rows, columns = image.shape
    short = (-rows % bin, -columns % bin)
    if any(short):
        image = np.pad(image, ((0, short[0]), (0, short[1])))
    return image.reshape(image.shape[0] // bin, bin, image.shape[1] // bin, bin)
