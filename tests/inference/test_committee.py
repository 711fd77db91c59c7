"""How sure folds are of a scan, computed by hand."""

import numpy as np
import pytest

from doubleunet_bs.inference.committee import Uncertainty, entropy

QUARTER = 0.8112781244591328
"""Entropy of 1/4 and 3/4: 2 - 3/4 log2(3), in bits."""


def test_entropy_in_bits():
    found = entropy(np.array([0, 0.25, 0.5, 0.75, 1, 1.000001], np.float32))
    assert found == pytest.approx([0, QUARTER, 1, QUARTER, 0, 0], abs=1e-12)


def image(*values):
    """2 x 4 pixels, of which the first ones have these probabilities and the others 0."""
    probability = np.zeros(8, np.float32)
    probability[: len(values)] = values
    return probability.reshape(2, 4)


def test_one_fold_has_no_disagreement():
    probability = image(0.5, 0.25)
    found = Uncertainty.of(probability[None], (probability > 0.4).astype(np.uint8)[None])
    assert found.entropy == pytest.approx((1 + QUARTER) / 8)
    assert found.disagreement is None
    assert found.mask.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]


def test_folds_that_contradict_each_other_disagree_and_unsure_folds_do_not():
    contradicting = np.stack([image(1), image(0)])
    found = Uncertainty.of(contradicting, contradicting.astype(np.uint8))
    assert (found.entropy, found.disagreement) == pytest.approx((1 / 8, 1 / 8))
    assert not found.mask.any()  # one of two folds is not more than half
    unsure = np.stack([image(0.5), image(0.5)])
    found = Uncertainty.of(unsure, np.ones_like(unsure, np.uint8))
    assert (found.entropy, found.disagreement) == pytest.approx((1 / 8, 0))
    assert found.mask.all()


def test_the_half_of_a_missing_view_does_not_count():
    probability = np.full((1, 2, 4), 0.5, np.float32)
    probability[:, :, :2] = 0.25
    masks = np.ones_like(probability, np.uint8)
    anterior = Uncertainty.of(probability, masks, ["posterior"])
    posterior = Uncertainty.of(probability, masks, ["anterior"])
    assert (anterior.entropy, posterior.entropy) == pytest.approx((QUARTER, 1))
    assert anterior.mask.tolist() == [[1, 1, 0, 0]] * 2
    assert posterior.mask.tolist() == [[0, 0, 1, 1]] * 2


def test_mask_of_a_model_with_benign_lesions():
    masks = np.array([[[1, 2, 2, 1]], [[1, 2, 0, 2]], [[1, 2, 0, 0]]], np.uint8)
    assert Uncertainty.of(np.zeros_like(masks, np.float32), masks).mask.tolist() == [[1, 2, 0, 0]]
