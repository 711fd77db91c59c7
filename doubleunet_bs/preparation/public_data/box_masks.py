"""Boxes around hot spots -> masks, by the rule that was published with the masks for BS-80K, or as rectangles."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

ELLIPSE = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
MOST_COVERED, MOST_BORDER = 0.85, 0.65
"""Parts of a box and of its border; a mask that has more of one has not found the hot spot."""
SIGMA, PERCENTILE = 1.5, 75
PATHS = ("Otsu's threshold", "75th percentile", "ellipse")
"""How a mask came about; the first that gives one holds."""


class Box(NamedTuple):
    """A box: columns `left` to `right` and rows `top` to `bottom`, the last ones not in it, and its class, 1 or 2."""

    left: int
    top: int
    right: int
    bottom: int
    number: int

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def masks_of_boxes(grey: np.ndarray, boxes: Sequence[Box]) -> tuple[np.ndarray, list[int]]:
    """The hot spot in each box; where two overlap, a pixel goes to the box whose centre is nearer.

    Args:
        grey: uint8 picture of one view.
        boxes: within the picture, none empty.

    Returns:
        uint8 mask of classes of the shape of `grey`, and how many boxes took each of `PATHS`.
    """
    nearest = np.full(grey.shape, np.inf)
    mask = np.zeros(grey.shape, np.uint8)
    taken = [0] * len(PATHS)
    for box in boxes:
        found, path = hot_spot(grey[box.place])
        taken[path] += 1
        rows, columns = np.mgrid[box.place]
        distance = np.hypot(rows - (box.top + box.bottom - 1) / 2, columns - (box.left + box.right - 1) / 2)
        nearer = found & (distance < nearest[box.place])
        nearest[box.place][nearer] = distance[nearer]
        mask[box.place][nearer] = box.number
    return mask, taken


def rectangles_of_boxes(shape: tuple[int, int], boxes: Sequence[Box]) -> np.ndarray:
    """The boxes themselves as a uint8 mask of classes; malignant holds over benign."""
    mask = np.zeros(shape, np.uint8)
    for box in boxes:
        mask[box.place] = np.maximum(mask[box.place], box.number)
    return mask


def hot_spot(grey: np.ndarray) -> tuple[np.ndarray, int]:
    """The one hot spot inside a box.

    Args:
        grey: uint8 pixels of the box.

    Returns:
        bool mask of the same shape, one component, and the number of its path in `PATHS`.
    """
    _, bright = cv2.threshold(np.ascontiguousarray(grey), 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    bright = cv2.morphologyEx(bright, cv2.MORPH_CLOSE, ELLIPSE, iterations=2)
    bright = cv2.morphologyEx(bright, cv2.MORPH_OPEN, ELLIPSE)
    found = _largest(bright)
    border = np.concatenate([found[0], found[-1], found[1:-1, 0], found[1:-1, -1]])
    if found.any() and found.mean() <= MOST_COVERED and border.mean() <= MOST_BORDER:
        return found, 0
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), SIGMA)
    if smooth.min() < smooth.max():
        kept = _fill_holes(_largest((smooth >= np.percentile(smooth, PERCENTILE)).astype(np.uint8)))
        return cv2.morphologyEx(kept.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0, 1
    # Every pixel is the peak: an ellipse in the middle, half as wide and high as the box.
    rows, columns = np.mgrid[: grey.shape[0], : grey.shape[1]]
    top, left = (side // 2 for side in grey.shape)
    height, width = (max(side / 4, 0.5) for side in grey.shape)
    return ((rows - top) / height) ** 2 + ((columns - left) / width) ** 2 <= 1, 2


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest component, corners connect; nothing of nothing."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if len(stats) == 1:
        return np.zeros(mask.shape, bool)
    return labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))


def _fill_holes(mask: np.ndarray) -> np.ndarray:
    outside = np.pad((~mask).astype(np.uint8), 1, constant_values=1)
    _, labels = cv2.connectedComponents(outside, connectivity=4)
    return (labels != labels[0, 0])[1:-1, 1:-1]
