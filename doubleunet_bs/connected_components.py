"""Connected components of a mask: the one rule of what is one lesion, in scores and in results alike."""

import dataclasses

import cv2
import numpy as np

CONNECTIVITY = 8
"""Pixels belong together when they touch at an edge or at a corner."""


@dataclasses.dataclass(frozen=True)
class Components:
    """The connected components of a mask, numbered from 1.

    Attributes:
        labels: (rows, columns) int32, the number of the component of each pixel; 0 is background.
        pixels: (n,) int, the pixels of each component.
        boxes: (n, 4) int, first row, last row, first column and last column, inclusive.
        centroids: (n, 2) float64, row and column, counted from 0.
    """

    labels: np.ndarray
    pixels: np.ndarray
    boxes: np.ndarray
    centroids: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)


def find_components(mask: np.ndarray) -> Components:
    """Find the connected components of a mask of one view.

    Args:
        mask: (rows, columns), bool or 0 and 1. An empty mask has no component.

    Example:
        >>> found = find_components(np.eye(3, 5))  # a diagonal hangs together
        >>> len(found), found.pixels.tolist(), found.boxes.tolist(), found.centroids.tolist()
        (1, [3], [[0, 2, 0, 2]], [[1.0, 1.0]])
    """
    image = np.ascontiguousarray(mask, np.uint8)
    _, labels, statistics, centroids = cv2.connectedComponentsWithStats(image, connectivity=CONNECTIVITY)
    left, top, width, height, pixels = statistics[1:].T
    boxes = np.stack([top, top + height - 1, left, left + width - 1], axis=1)
    return Components(labels, pixels, boxes, centroids[1:, ::-1])
