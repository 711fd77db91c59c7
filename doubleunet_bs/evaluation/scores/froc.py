"""The free-response ROC curve (FROC): sensitivity for lesions against false positives per scan, from probabilities.

Candidates are the 8-connected components of a view where the metastatic probability is at least `CANDIDATE_FROM`. The
score of a candidate is its largest probability (its peak). A candidate marks the true lesion in which its peak pixel
lies. If it lies in none, the candidate is a false positive. The score of a lesion is that of its best candidate;
further candidates of the same lesion count for nothing. One common pixel, the rule of `scores.lesions`, does not
suffice here: a candidate that covers the whole body would mark all lesions.

A point of the curve is the share of the lesions with a score of at least t, and the number of false positives of at
least t per scan, for every t that occurs. Straight lines join the points, from 0 and 0 on, as in an ROC curve: equal
scores, of saturated probabilities for instance, are as good as in random order. Behind the last point the curve is
flat. Its area is that of Bandos et al., Biometrics 2009;65:247, between 0 and `LIMIT` false positives per scan, divided
by `LIMIT`: the mean sensitivity there, from 0 to 1.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from doubleunet_bs.connected_components import find_components
from doubleunet_bs.evaluation.scores.lesions import view_parts

CANDIDATE_FROM = 0.1
LIMIT = 4.0
AT = (0.25, 0.5, 1.0, 2.0, 4.0)
"""False positives per scan at which the sensitivity is listed."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A place that may be a lesion.

    Attributes:
        view: "anterior" or "posterior".
        row, column: of its peak in the prepared image. Of several equal pixels the one nearest to their mean position.
        peak: largest metastatic probability, 0 to 1.
        lesion: place of the true lesion it marks among the true lesions of the scan, from 0; None: a false positive.
    """

    view: str
    row: int
    column: int
    peak: float
    lesion: int | None


def find_candidates(truth: np.ndarray, probability: np.ndarray) -> tuple[tuple[Candidate, ...], dict[str, float]]:
    """The candidates of a merged image, anterior first, and the largest probability of each view.

    Args:
        truth: (rows, columns), bool or 0 and 1; the anterior view is the left half.
        probability: (rows, columns) metastatic probability, 0 to 1.
    """
    lesions, peaks = 0, {}
    candidates: list[Candidate] = []
    for view, part in view_parts(truth):
        left, values, true = part[1].start or 0, probability[part], find_components(truth[part])
        peaks[view] = float(values.max(initial=0.0))
        for row, column in _peaks(values):
            number = int(true.labels[row, column])
            lesion = lesions + number - 1 if number else None
            candidates.append(Candidate(view, row, column + left, float(values[row, column]), lesion))
        lesions += len(true)
    return tuple(candidates), peaks


def _peaks(values: np.ndarray) -> list[tuple[int, int]]:
    """(row, column) of the peak of each candidate in one view."""
    labels = find_components(values >= CANDIDATE_FROM).labels
    rows, columns = np.nonzero(labels)
    if not len(rows):
        return []
    which, value = labels[rows, columns], values[rows, columns]
    highest = np.zeros(which.max() + 1, value.dtype)
    np.maximum.at(highest, which, value)
    top = value == highest[which]
    rows, columns, which = rows[top], columns[top], which[top]
    number = np.maximum(np.bincount(which), 1)
    away = [place - (np.bincount(which, place) / number)[which] for place in (rows, columns)]
    order = np.lexsort((columns, rows, np.hypot(*away).round(9), which))
    _, first = np.unique(which[order], return_index=True)
    return [(int(rows[one]), int(columns[one])) for one in order[first]]


@dataclasses.dataclass(frozen=True)
class Froc:
    """The curve of one model on some scans.

    Attributes:
        lesions, scans: true lesions; scans, each with both views.
        thresholds, false_positives, sensitivity: of each point, from the highest threshold to the lowest.
    """

    lesions: int
    scans: int
    thresholds: tuple[float, ...]
    false_positives: tuple[float, ...]
    sensitivity: tuple[float, ...]

    def sensitivity_at(self, false_positives: float) -> float:
        """The sensitivity at so many false positives per scan, at least 0."""
        x, y = (0.0, *self.false_positives), (0.0, *self.sensitivity)
        place = int(np.searchsorted(x, false_positives, side="right"))
        if place == len(x):
            return y[-1]
        share = (false_positives - x[place - 1]) / (x[place] - x[place - 1])
        return y[place - 1] + share * (y[place] - y[place - 1])

    @property
    def area(self) -> float:
        """Mean sensitivity between 0 and `LIMIT` false positives per scan."""
        inside = [point for point in zip(self.false_positives, self.sensitivity, strict=True) if point[0] <= LIMIT]
        x, y = zip((0.0, 0.0), *inside, (LIMIT, self.sensitivity_at(LIMIT)), strict=True)
        return float(np.trapezoid(y, x) / LIMIT)

    def to_json(self) -> dict[str, Any]:
        """Area, sensitivities and points."""
        return {
            "lesions": self.lesions,
            "scans": self.scans,
            "area": self.area,
            "sensitivity_at": {f"{at:g}": self.sensitivity_at(at) for at in AT},
            "curve_is": ["threshold", "false positives per scan", "sensitivity"],
            "curve": [
                list(point) for point in zip(self.thresholds, self.false_positives, self.sensitivity, strict=True)
            ],
        }


def froc(scans: Sequence[tuple[int, Iterable[Candidate]]]) -> Froc | None:
    """The curve of (number of true lesions, candidates) of each scan; None without a true lesion.

    Example:
        One scan, two lesions. The first is marked twice, the second not at all, and one mark is false.

        >>> marks = [Candidate("anterior", 0, 0, peak, lesion) for peak, lesion in ((0.9, 0), (0.8, None), (0.7, 0))]
        >>> curve = froc([(2, marks)])
        >>> curve.thresholds, curve.false_positives, curve.sensitivity
        ((0.9, 0.8, 0.7), (0.0, 1.0, 1.0), (0.5, 0.5, 0.5))
    """
    lesions = 0
    found: list[float] = []
    false: list[float] = []
    for number, candidates in scans:
        best: dict[int, float] = {}
        for one in candidates:
            if one.lesion is None:
                false.append(one.peak)
            else:
                best[one.lesion] = max(one.peak, best.get(one.lesion, 0.0))
        found += best.values()
        lesions += number
    if not lesions:
        return None
    peaks = {one.peak for _, candidates in scans for one in candidates}
    thresholds = np.array(sorted(peaks, reverse=True), np.float64)

    def reached(scores: list[float]) -> np.ndarray:
        return len(scores) - np.searchsorted(np.sort(scores), thresholds)

    return Froc(
        lesions,
        len(scans),
        tuple(thresholds.tolist()),
        tuple((reached(false) / len(scans)).tolist()),
        tuple((reached(found) / lesions).tolist()),
    )
