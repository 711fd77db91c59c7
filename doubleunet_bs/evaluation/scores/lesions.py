"""Lesions instead of pixels: connected components of truth and prediction in one view, and which of them match.

The paper counts pixels only. The views are separated first: what touches across the middle of the merged image is not
one lesion.

Matching: a lesion matches when it shares at least one pixel with the other side, and its overlap reaches a limit (by
default 0). The overlap is its intersection over union with everything of the other side that touches it. Pixels in
other lesions of its own side do not count in the union. So a lesion that was predicted in two parts is detected, and
two lesions that were predicted as one are both detected.

Candidates of the FROC curve are the components of a view where the metastatic probability is at least `CANDIDATE_FROM`.
The score of a candidate is its largest probability (its peak). It marks the true lesion in which its peak pixel lies.
If it lies in none, the candidate is a false positive. One common pixel does not suffice here: a candidate that covers
the whole body would mark all lesions.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from doubleunet_bs.connected_components import Components, find_components
from doubleunet_bs.constants import VIEWS
from doubleunet_bs.pixel_counts import Counts, Figures
from doubleunet_bs.preparation.records import CaseRecord

MM2, PIXELS = "mm2", "pixels"
SIZE_EDGES = {MM2: (150.0, 300.0, 600.0), PIXELS: (25.0, 50.0, 100.0)}
"""Limits of the size classes: a focus of 14, 20 and 28 mm across. At a spacing of 2.4 mm the limits in pixels are about
the same. A lesion belongs to the class whose lower limit it reaches."""


def view_parts(image: np.ndarray) -> list[tuple[str, tuple[slice, slice]]]:
    """Name of each view and its index in a merged image, whose left half is the anterior view."""
    half = image.shape[1] // 2
    return list(zip(VIEWS, (np.s_[:, :half], np.s_[:, half:]), strict=True))


def area_unit(records: Iterable[CaseRecord]) -> str:
    """ "mm2" when every case has a usable pixel spacing, else "pixels" of the camera: areas need one unit."""
    spacings = [record.pixel_spacing_mm for record in records]
    known = all(one is not None and all(math.isfinite(length) and length > 0 for length in one) for one in spacings)
    return MM2 if known else PIXELS


def pixel_area(record: CaseRecord, unit: str, bin: int) -> float:
    """The area of one pixel of the prepared image of a case, which is `bin` x `bin` pixels of the camera."""
    rows, columns = (unit == MM2 and record.pixel_spacing_mm) or (1.0, 1.0)
    return rows * columns * bin**2


def size_class(area: float, unit: str) -> int:
    """0 for the smallest class, up to `len(SIZE_EDGES[unit])`."""
    return sum(area >= edge for edge in SIZE_EDGES[unit])


def size_class_names(unit: str) -> tuple[str, ...]:
    """The names of the size classes.

    Example:
        >>> size_class_names("mm2")
        ('under 150 mm2', '150 to 300 mm2', '300 to 600 mm2', '600 mm2 and more')
    """
    edges = [f"{edge:g}" for edge in SIZE_EDGES[unit]]
    between = [f"{low} to {high} {unit}" for low, high in itertools.pairwise(edges)]
    return (f"under {edges[0]} {unit}", *between, f"{edges[-1]} {unit} and more")


@dataclasses.dataclass(frozen=True)
class ScoredLesion:
    """One connected component of the truth or of a prediction.

    Attributes:
        view: "anterior" or "posterior".
        pixels, row, column: of the prepared image; the centroid is counted from 0.
        area: in the unit that the scores name.
        common, overlap: pixels it shares with the other side; see the module, 0 to 1.
        matched: a true lesion was detected; a predicted lesion is a true positive.
        probability, peak: mean and largest metastatic probability in it, 0 to 1; None for a true lesion.
    """

    view: str
    pixels: int
    area: float
    row: float
    column: float
    common: int
    overlap: float
    matched: bool
    probability: float | None = None
    peak: float | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object; a true lesion has no probability."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclasses.dataclass(frozen=True)
class LesionCounts(Counts):
    """Lesions of one or several scans; they add up. The names are those of scores.json.

    Attributes:
        true, found: lesions in the truth; of these, the detected ones (true positives of the sensitivity).
        predicted, right: lesions in the prediction; of these, those that match (true positives of the precision).
    """

    true: int = 0
    found: int = 0
    predicted: int = 0
    right: int = 0

    @classmethod
    def of(cls, true: Sequence[ScoredLesion], predicted: Sequence[ScoredLesion]) -> "LesionCounts":
        """Count lesions of any scans."""
        return cls(len(true), sum(one.matched for one in true), len(predicted), sum(one.matched for one in predicted))

    @property
    def figures(self) -> Figures:
        """Right / predicted, found / true, and their harmonic mean, in which an undefined one counts as 0."""
        precision = self.right / self.predicted if self.predicted else None
        sensitivity = self.found / self.true if self.true else None
        if precision is None and sensitivity is None:
            return None, None, None
        total = (precision or 0.0) + (sensitivity or 0.0)
        f1 = 2 * (precision or 0.0) * (sensitivity or 0.0) / total if total else 0.0
        return precision, sensitivity, f1

    @property
    def false_negatives(self) -> int:
        """True lesions that were not detected."""
        return self.true - self.found

    @property
    def false_positives(self) -> int:
        """Predicted lesions that match no true one."""
        return self.predicted - self.right


Matches = tuple[list[ScoredLesion], list[ScoredLesion]]


def match_lesions(
    truth: np.ndarray, mask: np.ndarray, pixel_area: float, overlap: float = 0.0, probability: np.ndarray | None = None
) -> Matches:
    """Find the lesions of a merged image on both sides and match them.

    Args:
        truth, mask: (rows, columns), bool or 0 and 1; the anterior view is the left half.
        pixel_area: of one pixel, in any unit.
        overlap: least overlap of a match; 0 asks for one common pixel.
        probability: (rows, columns) metastatic probability, 0 to 1; None takes 1 everywhere.

    Returns:
        True and predicted lesions, anterior first. Empty masks have none.
    """
    found: Matches = ([], [])
    for view, part in view_parts(truth):
        values = None if probability is None else probability[part]
        left = part[1].start or 0
        for lesions, new in zip(
            found, match_view(truth[part], mask[part], pixel_area, overlap, values, view), strict=True
        ):
            lesions += [dataclasses.replace(lesion, column=lesion.column + left) for lesion in new]
    return found


def match_view(
    truth: np.ndarray,
    mask: np.ndarray,
    pixel_area: float = 1.0,
    overlap: float = 0.0,
    probability: np.ndarray | None = None,
    view: str = VIEWS[0],
) -> Matches:
    """`match_lesions` for two masks of one view; `view` is its name."""
    if not np.any(truth) and not np.any(mask):
        return [], []
    true, predicted = find_components(truth), find_components(mask)
    shape = (len(true) + 1, len(predicted) + 1)
    # How many pixels lie in true lesion i and in predicted lesion j; 0 is background.
    occupied = (true.labels > 0) | (predicted.labels > 0)
    pairs = true.labels[occupied].astype(np.int64) * shape[1] + predicted.labels[occupied]
    common = np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)
    inside = predicted.labels > 0
    which = predicted.labels[inside]
    values = np.ones(len(which), np.float32) if probability is None else np.float32(probability[inside])
    means = np.bincount(which, values, minlength=shape[1])[1:] / np.maximum(predicted.pixels, 1)
    peaks = np.zeros(shape[1])
    np.maximum.at(peaks, which, values)
    found = _lesions(view, true, common, pixel_area, overlap), _lesions(view, predicted, common.T, pixel_area, overlap)
    chances = zip(found[1], means.tolist(), peaks[1:].tolist(), strict=True)
    return found[0], [dataclasses.replace(lesion, probability=mean, peak=peak) for lesion, mean, peak in chances]


def _lesions(view: str, side: Components, common: np.ndarray, pixel_area: float, overlap: float) -> list[ScoredLesion]:
    """The lesions of one side; `common` is the table of common pixels with this side in its rows."""
    both = common[1:, 1:]
    shared = both.sum(axis=1)
    # The union leaves out other lesions of the same side: of the other side, only pixels in none of them count.
    union = side.pixels + (both > 0) @ common[0, 1:]
    share = shared / union
    matched = (shared > 0) & (share >= overlap)
    columns = (side.pixels, side.centroids, shared, share, matched)
    return [
        ScoredLesion(view, pixels, pixels * pixel_area, *centroid, *rest)
        for pixels, centroid, *rest in zip(*(column.tolist() for column in columns), strict=True)
    ]


CANDIDATE_FROM = 0.1
"""Least metastatic probability of a candidate of the FROC curve."""


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
