"""Precision, sensitivity and F1 from counts of pixels (paper, section 3). Needs NumPy only."""

import dataclasses
from typing import Any, Self

import numpy as np

from doubleunet_bs.constants import METASTATIC

Figures = tuple[float | None, float | None, float | None]
"""Precision, sensitivity and F1: fractions, or None where undefined."""


def precision_sensitivity_f1(tp: int, fp: int, fn: int) -> Figures:
    """Fractions between 0 and 1 from pixel counts.

    Precision is None when nothing was predicted, sensitivity when there is nothing to find, F1 without either.

    Example:
        >>> precision_sensitivity_f1(tp=3, fp=1, fn=3)
        (0.75, 0.5, 0.6)
        >>> precision_sensitivity_f1(tp=0, fp=0, fn=3)
        (None, 0.0, 0.0)
    """
    precision = tp / (tp + fp) if tp + fp else None
    sensitivity = tp / (tp + fn) if tp + fn else None
    f1 = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None
    return precision, sensitivity, f1


class Counts:
    """A frozen dataclass of whole numbers that add up over scans, and from which `figures` follow."""

    @property
    def figures(self) -> Figures:
        """Precision, sensitivity and F1."""
        raise NotImplementedError

    @property
    def precision(self) -> float | None:
        return self.figures[0]

    @property
    def sensitivity(self) -> float | None:
        return self.figures[1]

    @property
    def f1(self) -> float | None:
        return self.figures[2]

    def to_json(self) -> dict[str, Any]:
        """The counts, "precision", "sensitivity" and "f1"."""
        return vars(self) | {"precision": self.precision, "sensitivity": self.sensitivity, "f1": self.f1}

    def __add__(self, other: Self) -> Self:
        return type(self)(**{name: count + getattr(other, name) for name, count in vars(self).items()})


@dataclasses.dataclass(frozen=True)
class PixelCounts(Counts):
    """True positives, false positives and false negatives in pixels.

    Example:
        >>> (PixelCounts(3, 1, 0) + PixelCounts(0, 0, 4)).f1
        0.5454545454545454
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0

    @property
    def figures(self) -> Figures:
        """As of `precision_sensitivity_f1`."""
        return precision_sensitivity_f1(self.tp, self.fp, self.fn)


def count_pixels(labels: np.ndarray, mask: np.ndarray) -> PixelCounts:
    """Compare a predicted mask with the labels of one image, of which only class 2, metastatic, counts as true."""
    truth, predicted = np.asarray(labels) == METASTATIC, np.asarray(mask, bool)
    tp = int(np.count_nonzero(truth & predicted))
    return PixelCounts(tp, int(np.count_nonzero(predicted)) - tp, int(np.count_nonzero(truth)) - tp)
