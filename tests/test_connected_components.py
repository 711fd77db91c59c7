"""Connected components by hand: what hangs together, boxes, centroids."""

import numpy as np

from doubleunet_bs.connected_components import find_components


def test_corners_join_and_boxes_include_their_ends():
    mask = np.zeros((6, 8), np.uint8)
    mask[0, 0] = mask[1, 1] = 1  # joined by a corner
    mask[3:5, 4:7] = 1
    found = find_components(mask)
    assert found.pixels.tolist() == [2, 6]
    assert found.boxes.tolist() == [[0, 1, 0, 1], [3, 4, 4, 6]]
    assert found.centroids.tolist() == [[0.5, 0.5], [3.5, 5.0]]
    assert found.labels[1, 1] == 1 and found.labels[4, 6] == 2 and found.labels[0, 1] == 0


def test_an_empty_mask_and_a_part_of_an_image():
    assert len(find_components(np.zeros((3, 4), bool))) == 0
    image = np.eye(6, dtype=bool)
    # A part of an image is not contiguous in memory.
    assert find_components(image[:, ::2]).pixels.tolist() == [1, 1, 1]
