"""Counts and figures of the metastatic class."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from doubleunet_bs.network.double_unet import prior_head_bias
from doubleunet_bs.network.metrics import (
    confusion_counts,
    lesion_mask,
    metastatic_mask,
    metastatic_probability,
    network_input,
    region_counts,
    region_mask,
    region_probability,
    segments_skeleton,
)
from doubleunet_bs.pixel_counts import precision_sensitivity_f1


def test_counts_by_hand():
    labels = np.array([[[2, 2, 1], [0, 2, 0]], [[0, 0, 0], [0, 0, 2]]], np.uint8)
    mask = np.array([[[1, 0, 1], [0, 1, 1]], [[0, 0, 0], [0, 0, 0]]], bool)
    np.testing.assert_array_equal(confusion_counts(labels, mask), [[2, 2, 1], [0, 0, 1]])


def test_figures_agree_with_scikit_learn():
    rng = np.random.default_rng(3)
    labels, mask = rng.integers(0, 3, (4, 9, 7)), rng.random((4, 9, 7)) > 0.6
    tp, fp, fn = (int(value) for value in np.sum(confusion_counts(labels, mask), axis=0))
    expected = precision_recall_fscore_support((labels == 2).ravel(), mask.ravel(), average="binary")[:3]
    assert precision_sensitivity_f1(tp, fp, fn) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((0, 0, 0), (None, None, None)),
        ((0, 5, 0), (0.0, None, 0.0)),
        ((0, 0, 5), (None, 0.0, 0.0)),
        ((3, 1, 2), (0.75, 0.6, 2 / 3)),
    ],
)
def test_undefined_figures_are_none(counts, expected):
    assert precision_sensitivity_f1(*counts) == (pytest.approx(expected) if None not in expected else expected)


def test_mask_is_argmax_of_output_2():
    second = np.array([[[[0.2, 0.3, 0.5], [0.5, 0.0, 0.5], [0.1, 0.6, 0.3]]]], np.float32)
    first = second[..., ::-1]
    outputs = {"output1": first, "output2": second}
    np.testing.assert_array_equal(metastatic_mask(outputs), [[[True, False, False]]])  # a tie goes to air
    np.testing.assert_allclose(metastatic_probability(outputs), [[[0.5, 0.5, 0.3]]])


def test_a_benign_lesion_is_metastatic_only_where_that_is_as_probable():
    outputs = {"output2": np.array([[[[0.1, 0.2, 0.4, 0.3], [0.1, 0.2, 0.3, 0.4], [0, 0.2, 0.4, 0.4]]]], np.float32)}
    np.testing.assert_array_equal(metastatic_mask(outputs), [[[True, False, True]]])
    np.testing.assert_array_equal(lesion_mask(outputs), [[[1, 2, 1]]])
    assert not segments_skeleton(outputs)


def test_the_most_probable_region_is_taken_and_of_equal_ones_the_first():
    probabilities = np.eye(13, dtype=np.float32)[None, None]
    np.testing.assert_array_equal(region_mask({"output2": probabilities}), [[range(13)]])
    equal = {"output2": np.array([[[[0.1, 0.3, 0.2, 0.1, 0.3]]]], np.float32)}
    np.testing.assert_array_equal(region_mask(equal), [[[1]]])
    np.testing.assert_allclose(region_probability(equal), [[[0.3]]])
    assert segments_skeleton(equal)


def test_a_bone_pixel_in_the_wrong_region_counts_on_both_sides():
    labels = np.array([[[0, 0, 1, 1], [2, 5, 12, 0]]], np.uint8)
    mask = np.array([[[0, 3, 1, 2], [2, 0, 12, 4]]], np.uint8)
    np.testing.assert_array_equal(region_counts(labels, mask), [[3, 3, 2]])


def test_mask_of_the_sigmoid_network_is_its_second_channel():
    outputs = np.array([[[[0.9, 0.2], [0.1, 0.8], [0.9, 0.5]]]], np.float32)
    np.testing.assert_array_equal(metastatic_mask(outputs), [[[False, True, False]]])
    np.testing.assert_allclose(metastatic_probability(outputs), [[[0.2, 0.8, 0.5]]])


def test_network_input_is_grey_over_255_three_times():
    grey = np.array([[[0, 51, 255]]], np.uint8)
    image = np.asarray(network_input(grey))
    assert image.shape == (1, 1, 3, 3) and image.dtype == np.float32
    np.testing.assert_allclose(image[0, 0, :, 0], [0, 0.2, 1])
    assert (image == image[..., :1]).all()


def test_prior_head_bias_reproduces_the_frequencies():
    bias = np.array(prior_head_bias([800, 190, 10], 3))
    np.testing.assert_allclose(np.exp(bias) / np.exp(bias).sum(), [0.8, 0.19, 0.01])
    (logit,) = prior_head_bias([800, 190, 10], 1)
    assert 1 / (1 + np.exp(-logit)) == pytest.approx(0.01)
    assert np.isfinite(prior_head_bias([100, 0, 0], 3)).all()
