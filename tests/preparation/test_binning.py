"""A coarser matrix."""

import numpy as np

from doubleunet_bs.preparation.geometry import bin_counts, bin_labels


def test_counts_of_a_block_are_added():
    counts = np.arange(16, dtype=np.uint16).reshape(4, 4)
    assert bin_counts(counts, 2).tolist() == [[10, 18], [42, 50]]
    assert bin_counts(counts, 4).tolist() == [[120]]
    assert bin_counts(counts, 1) is counts


def test_no_sum_wraps():
    assert bin_counts(np.full((4, 4), 65535, np.uint16), 4).tolist() == [[16 * 65535]]


def test_rows_that_do_not_divide_are_filled_up_with_zeros():
    counts = np.ones((950, 256), np.uint16)
    coarse = bin_counts(counts, 4)
    assert coarse.shape == (238, 64)
    assert (coarse[:237] == 16).all() and (coarse[237] == 8).all()


def test_half_of_a_block_decides_and_metastatic_goes_first():
    labels = np.array(
        [
            [2, 2, 2, 0, 2, 2, 1, 0],
            [0, 0, 0, 0, 1, 1, 1, 2],
        ],
        np.uint8,
    )
    # Two of four metastatic; one of four; two metastatic and two not; two non-metastatic and one metastatic.
    assert bin_labels(labels, 2).tolist() == [[2, 0, 2, 1]]
