"""What a model reached, as pure functions: pixels and lesions of a scan, patients, and what they are compared with.

- `score_masks` and `score_scan`: pixels (paper, section 3) and lesions of one prediction.
- `score_patients`: sensitivity and specificity of patients, area under the ROC curve.
- `best_threshold`: the best single grey level, which a model has to beat.
- `learn_minimum_size`: the area under which predicted lesions are dropped, learnt on the validation scans of a fold.
  The paper has no such step, so its figures stand beside the raw ones.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score

from doubleunet_bs.connected_components import find_components
from doubleunet_bs.constants import BENIGN, CASE_NAME, METASTATIC, PATIENT_NAME, VIEWS
from doubleunet_bs.evaluation.scores.lesions import (
    Candidate,
    LesionCounts,
    ScoredLesion,
    find_candidates,
    match_lesions,
    match_view,
    view_parts,
)
from doubleunet_bs.pixel_counts import PixelCounts, count_pixels
from doubleunet_bs.preparation.records import WITH_METASTASES, CaseRecord

LEVELS = 256


class MaskScore(NamedTuple):
    """Pixels and lesions of two masks; both add up over views and scans."""

    pixels: PixelCounts
    lesions: LesionCounts


def score_masks(truth: np.ndarray, prediction: np.ndarray, overlap: float = 0.0) -> MaskScore:
    """Compare two masks of one view.

    Args:
        truth, prediction: (rows, columns), bool or 0 and 1.
        overlap: least intersection over union of two lesions that match, below 1; 0 asks for one common pixel.

    Returns:
        Pixels and lesions. Figures of them are None where they are undefined: of two empty masks, all.

    Raises:
        ValueError: different shapes, an overlap out of range, or values other than 0 and 1, as those of `rasterize` and
            of probabilities.

    Example:
        Two true lesions of 4 pixels. One of 4 is predicted, 2 pixels of which are right:

        >>> truth, prediction = np.zeros((2, 20, 10), bool)
        >>> truth[2:4, 2:4] = truth[10:12, 2:4] = prediction[3:5, 2:4] = True
        >>> pixels, lesions = score_masks(truth, prediction)
        >>> pixels, pixels.precision, pixels.sensitivity
        (PixelCounts(tp=2, fp=2, fn=6), 0.5, 0.25)
        >>> lesions, lesions.sensitivity
        (LesionCounts(true=2, found=1, predicted=1, right=1), 0.5)
        >>> score_masks(truth, prediction, overlap=0.5).lesions.sensitivity  # 2 common pixels, 6 in the union
        0.0
    """
    if not all(np.isin(mask, (0, 1)).all() for mask in (truth, prediction)):
        raise ValueError("a mask has values other than 0 and 1: choose a class, such as mask == 2")
    if not 0 <= overlap < 1:
        raise ValueError(f"an overlap of {overlap:g}: at least 0 and below 1")
    truth, prediction = np.asarray(truth, bool), np.asarray(prediction, bool)
    if truth.shape != prediction.shape or truth.ndim != 2:
        raise ValueError(f"masks of shapes {truth.shape} and {prediction.shape}: both must be (rows, columns)")
    pixels = count_pixels(np.where(truth, METASTATIC, 0), prediction)
    return MaskScore(pixels, LesionCounts.of(*match_view(truth, prediction, overlap=overlap)))


@dataclasses.dataclass(frozen=True)
class ScanScore:
    """One scan: pseudonyms, "positive" or "negative" as the cohort says, pixels of each view, lesions of both.

    `benign` is the same of benign lesions, of a model with that class; its counts are of their pixels.
    `candidates` (see `scores.lesions`) and `peaks`, the largest probability of each view, are None where probabilities
    are not known or not of interest.
    """

    case: str
    patient: str
    group: str
    views: dict[str, PixelCounts]
    true_lesions: tuple[ScoredLesion, ...] = ()
    predicted_lesions: tuple[ScoredLesion, ...] = ()
    candidates: tuple[Candidate, ...] | None = None
    peaks: dict[str, float] | None = None
    benign: "ScanScore | None" = None

    @property
    def counts(self) -> PixelCounts:
        """Pixels of both views."""
        return sum(self.views.values(), PixelCounts())

    @property
    def dice(self) -> float | None:
        """Dice coefficient, which is the F1 of the pixels; None without a true and a predicted pixel."""
        return self.counts.f1

    @property
    def lesions(self) -> LesionCounts:
        """Lesions of both views."""
        return LesionCounts.of(self.true_lesions, self.predicted_lesions)

    @property
    def probability(self) -> float:
        """Largest probability of the predicted lesions, each the mean over its pixels; 0 without a predicted lesion."""
        return max((lesion.probability or 0.0 for lesion in self.predicted_lesions), default=0.0)

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
            "candidates": None if self.candidates is None else [vars(one) for one in self.candidates],
            "peaks": self.peaks,
            **({"benign": self.benign.to_json()} if self.benign else {}),
        }


def score_scan(
    record: CaseRecord,
    labels: np.ndarray,
    mask: np.ndarray,
    probability: np.ndarray | None = None,
    pixel_area: float = 1.0,
    overlap: float = 0.0,
) -> ScanScore:
    """Compare a prediction with the labels of one scan.

    Args:
        record: whose case, patient and group are taken over.
        labels: (rows, columns) uint8 classes of the merged image; only class 2, metastatic, counts as true.
        mask: (rows, columns), bool or 0 and 1: where metastatic is predicted.
        probability: (rows, columns) metastatic probability, 0 to 1; None takes 1 everywhere.
        pixel_area, overlap: of one pixel, and the least overlap of a match, see `scores.lesions`.
    """
    labels, found = np.asarray(labels), np.asarray(mask, bool)
    truth = labels == METASTATIC
    views = {view: count_pixels(labels[part], found[part]) for view, part in view_parts(labels)}
    true, predicted = match_lesions(truth, found, pixel_area, overlap, probability)
    scan = ScanScore(record.case, record.patient, record.group, views, tuple(true), tuple(predicted))
    if probability is None:
        return scan
    candidates, peaks = find_candidates(truth, probability)
    return dataclasses.replace(scan, candidates=candidates, peaks=peaks)


def score_benign(
    record: CaseRecord, labels: np.ndarray, mask: np.ndarray, pixel_area: float = 1.0, overlap: float = 0.0
) -> ScanScore:
    """`score_scan` for benign lesions; `mask` is where they are predicted."""
    truth = np.where(np.asarray(labels) == BENIGN, METASTATIC, 0)
    return score_scan(record, truth, mask, None, pixel_area, overlap)


def scan_from_json(content: dict[str, Any]) -> ScanScore:
    """The inverse of `ScanScore.to_json`; KeyError, TypeError or ValueError where the content is damaged."""
    views = {name: counts_from_json(content["views"][name]) for name in VIEWS}
    true, predicted = (
        tuple(ScoredLesion(**entry) for entry in content[name]) for name in ("true_lesions", "predicted_lesions")
    )
    if not CASE_NAME.fullmatch(content["case"]) or not PATIENT_NAME.fullmatch(content["patient"]):
        raise ValueError("a case or a patient has no name of this package")
    candidates, peaks = content.get("candidates"), content.get("peaks")
    if candidates is not None:
        candidates = tuple(Candidate(**entry) for entry in candidates)
        peaks = {view: float(peak) for view, peak in content["peaks"].items()}
    benign = scan_from_json(content["benign"]) if content.get("benign") else None
    scan = ScanScore(
        content["case"], content["patient"], content["group"], views, true, predicted, candidates, peaks, benign
    )
    if scan.counts != counts_from_json(content):
        raise ValueError(f"the views of {scan.case} do not add up")
    return scan


def counts_from_json(content: dict[str, Any]) -> PixelCounts:
    """Counts of a JSON object with "tp", "fp" and "fn"; ValueError unless they are whole numbers from 0."""
    counts = PixelCounts(*(content[name] for name in ("tp", "fp", "fn")))
    if not all(type(value) is int and value >= 0 for value in dataclasses.astuple(counts)):
        raise ValueError("counts must be whole numbers")
    return counts


@dataclasses.dataclass(frozen=True)
class Detection:
    """Figures by patient, of one model on patients that it has not seen. The names are those of scores.json.

    Attributes:
        positives, detected: patients with metastases; of these, those with a predicted lesion (true positives).
        normals, cleared: patients without; of these, those without a predicted lesion (true negatives).
        normal_scans, false_positives: number of normal scans; false-positive lesions in them.
        auc: area under the ROC curve; None without both kinds of patients.
        reason: why figures that need normal patients are None; None when they are there.
    """

    positives: int
    detected: int
    normals: int
    cleared: int
    normal_scans: int
    false_positives: int
    auc: float | None
    reason: str | None

    @property
    def sensitivity(self) -> float | None:
        """detected / positives, None without positives."""
        return self.detected / self.positives if self.positives else None

    @property
    def specificity(self) -> float | None:
        """cleared / normals, None without normals."""
        return self.cleared / self.normals if self.normals else None

    @property
    def false_positives_per_normal_scan(self) -> float | None:
        """None without normal scans."""
        return self.false_positives / self.normal_scans if self.normal_scans else None

    def to_json(self) -> dict[str, Any]:
        """Numbers and figures."""
        return {
            **dataclasses.asdict(self),
            "sensitivity": self.sensitivity,
            "specificity": self.specificity,
            "false_positives_per_normal_scan": self.false_positives_per_normal_scan,
        }


def score_patients(scans: Sequence[ScanScore], normals: Sequence[ScanScore], reason: str | None = None) -> Detection:
    """Figures by patient. A patient with a positive scan is positive, whatever the other scans are.

    Args:
        scans: the test scans. normals: normal scans that the model has not been trained on.
        reason: why there are no normals, when there are none.
    """
    patients: dict[str, list[ScanScore]] = {}
    for scan in (*scans, *normals):
        patients.setdefault(scan.patient, []).append(scan)
    positive = [any(scan.group in WITH_METASTASES for scan in own) for own in patients.values()]
    called = [any(scan.predicted_lesions for scan in own) for own in patients.values()]
    probability = [max(scan.probability for scan in own) for own in patients.values()]
    normal = [scan for scan in (*scans, *normals) if scan.group == "negative"]
    sick = sum(positive)
    well = len(patients) - sick
    if normal:
        reason = "all normal scans are of patients with metastases"
    return Detection(
        positives=sick,
        detected=sum(found for found, ill in zip(called, positive, strict=True) if ill),
        normals=well,
        cleared=sum(not found for found, ill in zip(called, positive, strict=True) if not ill),
        normal_scans=len(normal),
        false_positives=sum(len(scan.predicted_lesions) for scan in normal),
        auc=float(roc_auc_score(positive, probability)) if sick and well else None,
        reason=None if well else reason or "no normal scan was scored",
    )


def best_threshold(lesion: np.ndarray, other: np.ndarray) -> tuple[int | None, PixelCounts]:
    """The grey level with the best F1 when everything from it upwards is called metastatic.

    Args:
        lesion, other: histograms of shape (256,), see `grey_histograms`.

    Returns:
        The threshold, 0-255, and its counts on these pixels. Of equally good thresholds the highest. Without a lesion
        pixel None and zero counts.
    """
    tp = np.cumsum(np.asarray(lesion, np.int64)[::-1])[::-1]
    fp = np.cumsum(np.asarray(other, np.int64)[::-1])[::-1]
    metastatic = int(tp[0])
    if not metastatic:
        return None, PixelCounts()
    # 2 tp / (2 tp + fp + fn) with fn = metastatic - tp.
    f1 = 2 * tp / (tp + fp + metastatic)
    value = int(LEVELS - 1 - np.argmax(f1[::-1]))
    return value, PixelCounts(int(tp[value]), int(fp[value]), int(metastatic - tp[value]))


@dataclasses.dataclass(frozen=True)
class MinimumSize:
    """The minimum lesion size of a fold. The names are those of scores.json.

    Attributes:
        smallest: predicted lesions of a smaller area are dropped; None when that never helps on the validation scans.
        unit: "mm2" or "pixels" (of the camera).
        validation_f1, validation_f1_raw: pooled F1 on the validation scans with and without it; None when undefined.
    """

    smallest: float | None
    unit: str
    validation_f1: float | None
    validation_f1_raw: float | None


def learn_minimum_size(validation: Sequence[ScanScore], unit: str) -> MinimumSize:
    """Find the minimum area with the best pooled pixel-wise F1 on the validation scans.

    Args:
        validation: scores of the validation scans, of positive and negative ones alike.
        unit: of the areas in them.

    Returns:
        Of equally good areas the smallest. None is kept unless its F1 is better than without it.
    """
    raw = sum((scan.counts for scan in validation), PixelCounts())
    lesions = [lesion for scan in validation for lesion in scan.predicted_lesions]
    nothing = MinimumSize(None, unit, raw.f1, raw.f1)
    if not lesions or raw.f1 is None:
        return nothing
    table = np.array([(lesion.area, lesion.common, lesion.pixels - lesion.common) for lesion in lesions])
    areas, place = np.unique(table[:, 0], return_inverse=True)
    # Pixels of the lesions below each area: what this minimum drops.
    dropped_tp = np.concatenate([[0], np.cumsum(np.bincount(place, table[:, 1]))[:-1]])
    dropped_fp = np.concatenate([[0], np.cumsum(np.bincount(place, table[:, 2]))[:-1]])
    tp, fp = raw.tp - dropped_tp, raw.fp - dropped_fp
    f1 = 2 * tp / (tp + fp + raw.tp + raw.fn)
    best = int(np.argmax(f1))
    if f1[best] <= raw.f1:
        return nothing
    return MinimumSize(float(areas[best]), unit, float(f1[best]), raw.f1)


def drop_small_lesions(mask: np.ndarray, pixel_area: float, smallest: float) -> np.ndarray:
    """A predicted mask without its lesions under a minimum area.

    Args:
        mask: (rows, columns), bool or 0 and 1; the anterior view is the left half, and the views are separated.
        pixel_area: of one pixel. smallest: the minimum area, in the same unit.

    Returns:
        (rows, columns) bool, a new array.
    """
    kept = np.zeros(mask.shape, bool)
    for _, part in view_parts(mask):
        found = find_components(mask[part])
        # The same product as where the area was learnt, so that a lesion of just that area stays.
        large = np.concatenate([[False], found.pixels * pixel_area >= smallest])
        kept[part] = large[found.labels]
    return kept
