"""How many lesions a scan has, for folds in which every part has scans of few and of many (paper, section 2.8)."""

import cv2
import numpy as np

from doubleunet_bs.constants import METASTATIC
from doubleunet_bs.preparation.shards import ShardedDataset


def count_lesions(labels: np.ndarray) -> int:
    """Number of connected areas of metastatic pixels, corners included, in each view by itself (decided here).

    Args:
        labels: (rows, columns) uint8 classes; anterior view on the left.
    """
    metastatic = (np.asarray(labels) == METASTATIC).astype(np.uint8)
    half = metastatic.shape[1] // 2
    # The background counts as one.
    return sum(
        cv2.connectedComponents(view, connectivity=8)[0] - 1 for view in (metastatic[:, :half], metastatic[:, half:])
    )


def lesions_of_cases(dataset: ShardedDataset) -> dict[str, int]:
    """Case -> number of its lesions, 0 for scans without metastases."""
    return {
        case.case: count_lesions(dataset.labels(index)) if case.metastatic_pixels else 0
        for index, case in enumerate(dataset.cases)
    }
