"""Boxes to masks: against an independent writing of the published rule with scikit-image."""

import numpy as np
import pytest
from scipy import ndimage
from skimage import filters, measure, morphology

from doubleunet_bs.preparation.public_labels import PATHS, Box, hot_spot, masks_of_boxes, rectangles_of_boxes

DISK = np.array(
    [[0, 0, 0, 1, 0, 0, 0], [0, 1, 1, 1, 1, 1, 0], [1] * 7, [1] * 7, [1] * 7, [0, 1, 1, 1, 1, 1, 0],
     [0, 0, 0, 1, 0, 0, 0]], bool,
)  # fmt: skip


def largest(mask):
    labels = measure.label(mask, connectivity=2)
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]) if mask.any() else mask


def rule(grey):
    """The rule as it is published, in scikit-image: mask and number of the path."""
    mask = grey > filters.threshold_otsu(grey)
    for step in (morphology.dilation, morphology.dilation, morphology.erosion, morphology.erosion):
        mask = step(mask, DISK, mode="ignore")
    mask = morphology.dilation(morphology.erosion(mask, DISK, mode="ignore"), DISK, mode="ignore")
    mask = largest(mask)
    rim = np.ones(grey.shape, bool)
    rim[1:-1, 1:-1] = False
    if mask.any() and mask.mean() <= 0.85 and mask[rim].mean() <= 0.65:
        return mask, 0
    smooth = filters.gaussian(grey.astype(float), 1.5, mode="mirror", truncate=4)
    mask = largest(smooth >= np.percentile(smooth, 75))
    mask = ndimage.binary_fill_holes(mask)
    square = np.ones((3, 3), bool)
    return morphology.erosion(morphology.dilation(mask, square, mode="ignore"), square, mode="ignore"), 1


def boxes_of_noise(number):
    """A box with a blurred spot in noise, now small and sharp, now larger than the box."""
    random = np.random.default_rng(number)
    rows, columns = random.integers(6, 60, 2)
    row, column = random.uniform(0, rows), random.uniform(0, columns)
    distance = ((np.arange(rows)[:, None] - row) ** 2 + (np.arange(columns) - column) ** 2) ** 0.5
    mean = 20 + 150 * np.exp(-((distance / random.uniform(2, 25)) ** 2))
    return np.minimum(random.poisson(mean), 255).astype(np.uint8)


def test_the_rule_agrees_with_an_independent_writing_of_it():
    paths = []
    for number in range(120):
        grey = boxes_of_noise(number)
        (found, path), (expected, expected_path) = hot_spot(grey), rule(grey)
        assert path == expected_path, number
        np.testing.assert_array_equal(found, expected, str(number))
        paths.append(path)
    assert 10 < paths.count(0) < 110


@pytest.mark.parametrize(
    ("shape", "rows"),
    [
        ((1, 1), ["#"]),
        ((2, 3), ["...", ".#."]),
        ((8, 4), ["....", "....", "..#.", "..#.", ".###", "..#.", "..#.", "...."]),
        ((5, 12), ["............", ".....###....", "...#######..", ".....###....", "............"]),
    ],
)
def test_a_flat_box_gets_an_ellipse_in_its_middle(shape, rows):
    """Half as high and wide as the box: drawn by hand."""
    mask, path = hot_spot(np.full(shape, 40, np.uint8))
    assert PATHS[path] == "ellipse" and ["".join(".#"[one] for one in row) for row in mask.astype(int)] == rows


@pytest.mark.parametrize("order", [1, -1])
def test_where_boxes_overlap_the_nearer_centre_holds(order):
    grey = np.full((40, 60), 10, np.uint8)
    grey[10:30, 10:50] = 200
    boxes = [Box(0, 0, 35, 40, 1), Box(25, 0, 60, 40, 2)][::order]
    mask, taken = masks_of_boxes(grey, boxes)
    assert sum(taken) == 2 and mask[20, 28] == 1 and mask[20, 32] == 2
    assert mask[20, 12] == 1 and mask[20, 48] == 2 and mask[2, 2] == 0


def test_rectangles_are_the_boxes_and_malignant_holds():
    mask = rectangles_of_boxes((10, 10), [Box(1, 2, 5, 6, 2), Box(4, 5, 8, 9, 1)])
    assert np.count_nonzero(mask == 2) == 16 and np.count_nonzero(mask == 1) == 15 and mask[5, 4] == 2
