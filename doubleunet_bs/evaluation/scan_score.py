"""What a model reached on one scan: pixels, per view, and lesions."""

import dataclasses
from typing import Any

import numpy as np

from doubleunet_bs.constants import METASTATIC, VIEWS
from doubleunet_bs.evaluation.lesions import Lesion, LesionCounts, count_lesions, match_lesions
from doubleunet_bs.pixel_counts import PixelCounts, count_pixels


@dataclasses.dataclass(frozen=True)
class ScanScore:
    """One scan.

    Attributes:
        case, patient: pseudonyms.
        group: "positive" or "negative", as the cohort says.
        views: counts of each view.
        true_lesions, predicted_lesions: see `evaluation.lesions`.
    """

    case: str
    patient: str
    group: str
    views: dict[str, PixelCounts]
    true_lesions: tuple[Lesion, ...] = ()
    predicted_lesions: tuple[Lesion, ...] = ()

    @property
    def counts(self) -> PixelCounts:
        """Pixels of both views."""
        return sum(self.views.values(), PixelCounts())

    @property
    def dice(self) -> float | None:
        """Dice coefficient of the scan, which is the F1 of its pixels; None without a true and a predicted pixel."""
        return self.counts.f1

    @property
    def lesions(self) -> LesionCounts:
        """Lesions of both views."""
        return count_lesions(self.true_lesions, self.predicted_lesions)

    @property
    def probability(self) -> float:
        """How sure the model is that there is a metastasis: the largest probability of its predicted lesions.

        The probability of a lesion is the mean over its pixels (decided here: a single hot pixel does not decide). 0
        without a predicted lesion.
        """
        return max((lesion.probability for lesion in self.predicted_lesions), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; the inverse is `scan_from_json`."""
        return {
            "case": self.case,
            "patient": self.patient,
            "group": self.group,
            **self.counts.to_json(),
            "views": {name: counts.to_json() for name, counts in self.views.items()},
            "lesions": self.lesions.to_json(),
            "largest_lesion_probability": self.probability,
            "true_lesions": [lesion.to_json() for lesion in self.true_lesions],
            "predicted_lesions": [lesion.to_json() for lesion in self.predicted_lesions],
        }


def score_scan(
    case: str,
    patient: str,
    group: str,
    labels: np.ndarray,
    mask: np.ndarray,
    probability: np.ndarray | None = None,
    pixel_area: float = 1.0,
    overlap: float = 0.0,
) -> ScanScore:
    """Compare a prediction with the labels of one scan.

    Args:
        case, patient, group: as in `ScanScore`.
        labels: (rows, columns) uint8 classes of the merged image; only class 2, metastatic, counts as true.
        mask: (rows, columns), bool or 0 and 1: where metastatic is predicted.
        probability: (rows, columns) metastatic probability, 0 to 1; None takes 1 everywhere.
        pixel_area: of one pixel, see `evaluation.areas`.
        overlap: least overlap of a match, see `evaluation.lesions`.
    """
    labels, found = np.asarray(labels), np.asarray(mask, bool)
    truth, half = labels == METASTATIC, labels.shape[1] // 2
    views = {
        name: count_pixels(labels[part], found[part])
        for name, part in zip(VIEWS, (np.s_[:, :half], np.s_[:, half:]), strict=True)
    }
    return ScanScore(case, patient, group, views, *match_lesions(truth, found, pixel_area, overlap, probability))


def scan_from_json(content: dict[str, Any]) -> ScanScore:
    """The inverse of `ScanScore.to_json`; the figures are computed again from the counts.

    Raises:
        KeyError, TypeError, ValueError: the content is damaged.
    """
    views = {name: counts_from_json(content["views"][name]) for name in VIEWS}
    lesions = (tuple(Lesion(**entry) for entry in content[name]) for name in ("true_lesions", "predicted_lesions"))
    scan = ScanScore(content["case"], content["patient"], content["group"], views, *lesions)
    if scan.counts != counts_from_json(content):
        raise ValueError(f"the views of {scan.case} do not add up")
    return scan


def counts_from_json(content: dict[str, Any]) -> PixelCounts:
    """Counts of a JSON object with "tp", "fp" and "fn"; ValueError unless they are whole numbers from 0."""
    counts = PixelCounts(*(content[name] for name in ("tp", "fp", "fn")))
    if not all(type(value) is int and value >= 0 for value in dataclasses.astuple(counts)):
        raise ValueError("counts must be whole numbers")
    return counts
