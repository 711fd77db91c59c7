import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from doubleunet_bs.pixel_counts import PixelCounts, count_pixels


def test_counts_by_hand():
    labels = np.array([[2, 2, 2], [1, 1, 0]], np.uint8)
    mask = np.array([[1, 0, 0], [1, 0, 1]], np.uint8)
    assert count_pixels(labels, mask) == PixelCounts(tp=1, fp=2, fn=2)
    assert count_pixels(labels, mask.astype(bool)) == PixelCounts(tp=1, fp=2, fn=2)


def test_pooling_adds_counts_before_dividing():
    pooled = PixelCounts(8, 2, 0) + PixelCounts(0, 0, 10)
    assert (pooled.precision, pooled.sensitivity) == (0.8, 8 / 18)
    assert pooled.f1 == pytest.approx(16 / 28)
    # The mean of the scans' F1 is something else.
    assert pooled.f1 != pytest.approx((PixelCounts(8, 2, 0).f1 + 0.0) / 2)


@pytest.mark.parametrize(
    ("counts", "figures"),
    [
        (PixelCounts(0, 0, 0), (None, None, None)),
        (PixelCounts(0, 0, 5), (None, 0.0, 0.0)),
        (PixelCounts(0, 5, 0), (0.0, None, 0.0)),
        (PixelCounts(5, 0, 0), (1.0, 1.0, 1.0)),
    ],
)
def test_undefined_figures_are_none(counts, figures):
    assert (counts.precision, counts.sensitivity, counts.f1) == figures
    assert counts.to_json() == {
        "tp": counts.tp,
        "fp": counts.fp,
        "fn": counts.fn,
        "precision": figures[0],
        "sensitivity": figures[1],
        "f1": figures[2],
    }


def test_agrees_with_scikit_learn():
    rng = np.random.default_rng(3)
    labels = rng.choice(3, (4, 40, 30), p=(0.6, 0.3, 0.1)).astype(np.uint8)
    masks = (rng.random(labels.shape) < 0.2) | ((labels == 2) & (rng.random(labels.shape) < 0.5))
    pooled = sum((count_pixels(label, mask) for label, mask in zip(labels, masks, strict=True)), PixelCounts())
    expected = precision_recall_fscore_support(labels.ravel() == 2, masks.ravel(), average="binary")[:3]
    assert (pooled.precision, pooled.sensitivity, pooled.f1) == pytest.approx(expected, abs=1e-15)
