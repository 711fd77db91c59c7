"""Lesions instead of pixels: connected components of truth and prediction, and which of them belong together.

The paper counts pixels only; all of this is decided here. A lesion is a connected component of metastatic pixels of one
view, pixels touching at an edge or a corner (8-connectivity, as one draws them). The two views are taken apart first:
what touches across the middle of the merged image is not one lesion.

Overlap rule: a true lesion is found, and a predicted lesion is right, when both share at least one pixel and their
overlap reaches `overlap`. The overlap of a lesion is its intersection over union with everything of the other side that
touches it, where pixels that lie in another lesion of its own side do not count against it. So a lesion that was
predicted in two pieces is found, and two lesions that were predicted as one are both found. The default, 0, asks for
one common pixel.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from doubleunet_bs.connected_components import Components, find_components
from doubleunet_bs.constants import VIEWS
from doubleunet_bs.errors import SettingsError
from doubleunet_bs.preparation.records import CaseRecord

MM2, PIXELS = "mm2", "pixels"
SIZE_EDGES = {MM2: (150.0, 300.0, 600.0), PIXELS: (25.0, 50.0, 100.0)}
"""Limits of the size classes (decided here): a focus of 14 mm, of 20 mm and of 28 mm across; at a spacing of 2.4 mm the
limits in pixels are about the same lesions. A lesion belongs to the class whose lower limit it reaches."""


@dataclasses.dataclass(frozen=True)
class AreaUnit:
    """How areas are given for a set of cases.

    Attributes:
        name: "mm2", or "pixels" (of the camera) when the spacing of any of the cases is unknown.
        bin: rows and columns of camera pixels in a pixel of the prepared image.
    """

    name: str
    bin: int

    def of_a_pixel(self, record: CaseRecord) -> float:
        """The area of one pixel of the prepared image of a case."""
        if self.name == PIXELS:
            return float(self.bin**2)
        rows, columns = record.pixel_spacing_mm
        return rows * columns * self.bin**2


def area_unit(records: Iterable[CaseRecord], bin: int) -> AreaUnit:
    """mm2 when every case has a usable pixel spacing, else pixels: figures of both kinds cannot be put together."""
    known = all(
        record.pixel_spacing_mm is not None
        and all(math.isfinite(length) and length > 0 for length in record.pixel_spacing_mm)
        for record in records
    )
    return AreaUnit(MM2 if known else PIXELS, bin)


def size_class(area: float, unit: str) -> int:
    """0 for the smallest class, up to `len(SIZE_EDGES[unit])`."""
    return sum(area >= edge for edge in SIZE_EDGES[unit])


def size_class_names(unit: str) -> tuple[str, ...]:
    """What the classes are called: "under 150 mm2", "150 to 300 mm2" and so on."""
    edges = [f"{edge:g}" for edge in SIZE_EDGES[unit]]
    between = [f"{low} to {high} {unit}" for low, high in itertools.pairwise(edges)]
    return (f"under {edges[0]} {unit}", *between, f"{edges[-1]} {unit} and more")


@dataclasses.dataclass(frozen=True)
class Lesion:
    """One connected component of the truth or of a prediction.

    Attributes:
        view: "anterior" or "posterior".
        pixels: of the prepared image.
        area: in the unit that the scores name.
        row, column: centroid in the prepared image, counted from 0.
        common: pixels it shares with the other side.
        overlap: see the module, 0 to 1.
        matched: a true lesion was found; a predicted lesion is right.
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
        content = dataclasses.asdict(self)
        return content if self.probability is not None else {k: v for k, v in content.items() if v is not None}


@dataclasses.dataclass(frozen=True)
class LesionCounts:
    """Lesions of one or several scans; they add up.

    Attributes:
        true: in the truth. found: of these, those that a prediction matches.
        predicted: in the prediction. right: of these, those that match the truth.
    """

    true: int = 0
    found: int = 0
    predicted: int = 0
    right: int = 0

    def __add__(self, other: "LesionCounts") -> "LesionCounts":
        return LesionCounts(
            *(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True))
        )

    @property
    def precision(self) -> float | None:
        """right / predicted, None without a predicted lesion."""
        return self.right / self.predicted if self.predicted else None

    @property
    def sensitivity(self) -> float | None:
        """found / true, None without a true lesion."""
        return self.found / self.true if self.true else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of the two: `found` and `right` may differ, so that there is no single number of hits.

        0 when both are 0, or when only one of them is defined (lesions, but none predicted; or the other way round);
        None when there is neither a true nor a predicted lesion.
        """
        if not self.true and not self.predicted:
            return None
        precision, sensitivity = self.precision or 0.0, self.sensitivity or 0.0
        total = precision + sensitivity
        return 2 * precision * sensitivity / total if total else 0.0

    @property
    def false_positives(self) -> int:
        """Predicted lesions that match nothing."""
        return self.predicted - self.right

    def to_json(self) -> dict[str, Any]:
        """The counts and the three figures."""
        figures = {"precision": self.precision, "sensitivity": self.sensitivity, "f1": self.f1}
        return {**dataclasses.asdict(self), **figures}


def count_lesions(true: tuple[Lesion, ...], predicted: tuple[Lesion, ...]) -> LesionCounts:
    """Count lesions of any scans."""
    return LesionCounts(
        len(true), sum(lesion.matched for lesion in true), len(predicted), sum(lesion.matched for lesion in predicted)
    )


def check_overlap(overlap: float) -> float:
    """Complain about an overlap that is not at least 0 and below 1."""
    if not 0 <= overlap < 1:
        raise SettingsError(f"lesion overlap {overlap}: at least 0 (one common pixel) and below 1")
    return overlap


def match_lesions(
    truth: np.ndarray,
    mask: np.ndarray,
    pixel_area: float,
    overlap: float = 0.0,
    probability: np.ndarray | None = None,
) -> tuple[tuple[Lesion, ...], tuple[Lesion, ...]]:
    """Find the lesions of one merged image on both sides and match them.

    Args:
        truth, mask: (rows, columns) bool, or 0 and 1; the anterior view is the left half.
        pixel_area: of one pixel, in whatever unit.
        overlap: least overlap of a match; 0 asks for one common pixel.
        probability: (rows, columns) metastatic probability, 0 to 1; None takes 1 everywhere.

    Returns:
        True and predicted lesions, anterior first, in the order in which a reader meets them. Empty masks have none.
    """
    half = truth.shape[1] // 2
    true: list[Lesion] = []
    predicted: list[Lesion] = []
    for view, left in zip(VIEWS, (0, half), strict=True):
        part = np.s_[:, left : left + half]
        a, b = (np.asarray(image[part]).astype(np.uint8) for image in (truth, mask))
        if not a.any() and not b.any():
            continue
        values = np.ones(b.shape, np.float32) if probability is None else np.asarray(probability[part], np.float32)
        found = _match_view(a, b, values, overlap)
        for lesions, rows in zip((true, predicted), found, strict=True):
            lesions += [
                Lesion(view, pixels, pixels * pixel_area, row, column + left, common, share, matched, mean, peak)
                for pixels, row, column, common, share, matched, mean, peak in rows
            ]
    return tuple(true), tuple(predicted)


def _match_view(truth: np.ndarray, mask: np.ndarray, probability: np.ndarray, overlap: float) -> tuple[list, list]:
    """Rows (pixels, row, column, common, overlap, matched, mean, peak) of the true and of the predicted lesions."""
    true, predicted = find_components(truth), find_components(mask)
    true_labels, labels = true.labels, predicted.labels
    # How many pixels lie in true lesion i and predicted lesion j at once; 0 stands for none.
    occupied = (true_labels > 0) | (labels > 0)
    shape = (len(true) + 1, len(predicted) + 1)
    pairs = true_labels[occupied].astype(np.int64) * shape[1] + labels[occupied]
    common = np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)
    inside = labels > 0
    which, values = labels[inside], probability[inside]
    sums = np.bincount(which, values, minlength=shape[1])[1:]
    peaks = np.zeros(shape[1])
    np.maximum.at(peaks, which, values)
    chances = (sums / np.maximum(predicted.pixels, 1), peaks[1:])
    return _rows(common, true, overlap, None), _rows(common.T, predicted, overlap, chances)


def _rows(common: np.ndarray, found: Components, overlap: float, chances: tuple[np.ndarray, np.ndarray] | None) -> list:
    both = common[1:, 1:]
    shared = both.sum(axis=1)
    # The union leaves out what lies in other lesions of the same side: only the other side's pixels in nothing count.
    union = found.pixels + (both > 0) @ common[0, 1:]
    share = shared / union
    matched = (shared > 0) & (share >= overlap)
    rows = []
    for index, (pixels, (row, column)) in enumerate(zip(found.pixels, found.centroids, strict=True)):
        mean, peak = (None, None) if chances is None else (float(chances[0][index]), float(chances[1][index]))
        rows.append(
            (
                int(pixels),
                float(row),
                float(column),
                int(shared[index]),
                float(share[index]),
                bool(matched[index]),
                mean,
                peak,
            )
        )
    return rows
