"""Scores as other publications give them: Dice of images, the FROC curve, areas under the ROC curve.

An image is one view of a scan. It is positive where it has a true metastatic pixel.

All figures are of the test scans and of the normal scans that the model has not been trained on.

- Dice: of the metastatic pixels, pooled over the images, and as the mean over images. An image without true and
  predicted pixels has no Dice and is left out of the mean. One without true but with predicted pixels has 0.
- FROC (free-response ROC): sensitivity for lesions against false positives per scan. A point of the curve is the share
  of the lesions whose best candidate has a score of at least t, and the number of false positives of at least t per
  scan, for every t that occurs. Straight lines join the points, from 0 and 0 on, as in an ROC curve: equal scores, of
  saturated probabilities for instance, are as good as in random order. Behind the last point the curve is flat. Its
  area is that of Bandos et al., Biometrics 2009;65:247, between 0 and `LIMIT` false positives per scan, divided by
  `LIMIT`: the mean sensitivity there, from 0 to 1.
- AUC: `sklearn.metrics.roc_auc_score` of the largest metastatic probability of an image, and of a patient over all
  images. It is undefined unless there are positive and negative ones. The AUC of `scan_scores.score_patients` ranks by
  predicted lesions instead.
"""

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.evaluation.scores.lesions import Candidate, LesionCounts
from doubleunet_bs.evaluation.scores.scan_scores import ScanScore
from doubleunet_bs.pixel_counts import PixelCounts
from doubleunet_bs.preparation.records import UNOUTLINED, WITH_METASTASES

LIMIT = 4.0
AT = (0.25, 0.5, 1.0, 2.0, 4.0)
"""False positives per scan at which the sensitivity is listed."""
BOTH = "both views"
ALL_VIEWS = (BOTH, *VIEWS)
MEANING = (
    "an image is one view of a scan; dice_mean: over images, without those that have no true and no predicted pixel; "
    "froc: candidates are components of probability of at least 0.1, scored by their peak, which has to lie in a true "
    "lesion; area: mean sensitivity from 0 to 4 false positives per scan; auc: by the largest probability; null where "
    "undefined"
)
NO_PROBABILITIES = "no probabilities: masks of another program"


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
        return float(np.interp(false_positives, (0.0, *self.false_positives), (0.0, *self.sensitivity)))

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


@dataclasses.dataclass(frozen=True)
class ComparableScores:
    """The scores of one model.

    Attributes:
        dice_pooled, dice_mean: for both views together and for each view; fractions, None where undefined.
        images: the same names -> images with a Dice.
        froc: None without a true lesion or without probabilities.
        image_auc: for both views together and for each view.
        patient_auc: by patients.
        undefined: name of what is None -> why.
    """

    dice_pooled: dict[str, float | None]
    dice_mean: dict[str, float | None]
    images: dict[str, int]
    froc: Froc | None
    image_auc: dict[str, float | None]
    patient_auc: float | None
    undefined: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "meaning": MEANING,
            **dataclasses.asdict(self),
            "froc": self.froc and self.froc.to_json(),
        }


def comparable_scores(scans: Sequence[ScanScore]) -> ComparableScores:
    """The scores of one model on all scans that it has not seen, test scans and normal scans alike.

    Scans with metastases that nobody outlined count for the AUC of patients alone.
    """
    undefined: dict[str, str] = {}
    everybody, scans = scans, [scan for scan in scans if scan.group != UNOUTLINED]
    if len(scans) < len(everybody) and not any(scan.group == "positive" for scan in scans):
        # The predictions in normal scans alone would give a Dice of 0.
        undefined["Dice, lesions and AUC of images"], scans = "no metastasis is outlined in these scans", []
    images = {
        name: [
            (scan.views[view], (scan.peaks or {}).get(view))
            for scan in scans
            for view in (VIEWS if name == BOTH else (name,))
        ]
        for name in ALL_VIEWS
    }
    dice = {name: [value for one, _ in own if (value := one.f1) is not None] for name, own in images.items()}
    curve = patient_auc = None
    image_auc: dict[str, float | None] = dict.fromkeys(ALL_VIEWS)
    if any(scan.candidates is None for scan in everybody):
        undefined["FROC and AUC"] = NO_PROBABILITIES
    elif scans:
        curve = froc([(len(scan.true_lesions), scan.candidates or ()) for scan in scans])
        if curve is None:
            undefined["FROC"] = "there is no true lesion"
        for name, own in images.items():
            # A missing view has no peak: it is no image.
            pairs = [(bool(one.tp + one.fn), peak) for one, peak in own if peak is not None]
            image_auc[name] = _auc(pairs, f"AUC of images, {name}", undefined)
    if everybody and "FROC and AUC" not in undefined:
        patients: dict[str, tuple[bool, float]] = {}
        for scan in everybody:
            ill, peak = patients.get(scan.patient, (False, 0.0))
            highest = max(peak, *(scan.peaks or {}).values())
            patients[scan.patient] = ill or scan.group in WITH_METASTASES, highest
        patient_auc = _auc(list(patients.values()), "AUC of patients", undefined)
    return ComparableScores(
        dice_pooled={name: sum((one for one, _ in own), PixelCounts()).f1 for name, own in images.items()},
        dice_mean={name: statistics.fmean(own) if own else None for name, own in dice.items()},
        images={name: len(own) for name, own in dice.items()},
        froc=curve,
        image_auc=image_auc,
        patient_auc=patient_auc,
        undefined=undefined,
    )


@dataclasses.dataclass(frozen=True)
class BenignScores:
    """Figures of benign lesions of one model: Dice as in `ComparableScores`; lesions of both views of all scans.

    None where undefined.
    """

    dice_pooled: dict[str, float | None]
    dice_mean: dict[str, float | None]
    lesion_sensitivity: float | None
    false_positives_per_scan: float


def benign_scores(scans: Sequence[ScanScore]) -> BenignScores | None:
    """From the benign scores of the scans, at least one; None without any."""
    if not scans:
        return None
    found = comparable_scores(scans)
    lesions = sum((scan.lesions for scan in scans), LesionCounts())
    return BenignScores(found.dice_pooled, found.dice_mean, lesions.sensitivity, lesions.false_positives / len(scans))


_KIND = {True: "all have metastases", False: "none has metastases"}


def _auc(pairs: Sequence[tuple[bool, float]], what: str, undefined: dict[str, str]) -> float | None:
    """The area for (positive, score); where it is undefined, None and the reason in `undefined`."""
    positive = [one for one, _ in pairs]
    if len(set(positive)) == 2:
        return float(roc_auc_score(positive, [score for _, score in pairs]))
    undefined[what] = _KIND[positive[0]] if positive else "there are none"
    return None


@dataclasses.dataclass(frozen=True)
class ComparableFigure:
    """One row of the table of figures to compare.

    Attributes:
        name: of the figure. mean: over the folds that have it, None without.
        folds: their number. percent: whether tables give it in %, as they do for Dice and sensitivity.
    """

    name: str
    mean: float | None
    folds: int
    percent: bool = True


def comparable_figures(
    scores: Sequence[ComparableScores], benign: Sequence[BenignScores] = ()
) -> list[ComparableFigure]:
    """Means over the models of several folds. Their probabilities differ, so curves are never pooled.

    `benign` are the scores of benign lesions of models with that class.
    """
    columns: list[tuple[str, bool, list[float | None]]] = []
    for view in ALL_VIEWS:
        columns.append((f"Dice, {view}: pooled", True, [one.dice_pooled[view] for one in scores]))
        columns.append((f"Dice, {view}: mean over images", True, [one.dice_mean[view] for one in scores]))
    curves = [one.froc for one in scores]
    for at in AT:
        found = [None if curve is None else curve.sensitivity_at(at) for curve in curves]
        columns.append((f"Lesion sensitivity at {at:g} false positive{'' if at == 1 else 's'} per scan", True, found))
    areas = [None if curve is None else curve.area for curve in curves]
    columns.append((f"FROC area, 0 to {LIMIT:g} false positives", False, areas))
    columns += [(f"AUC of images, {view}", False, [one.image_auc[view] for one in scores]) for view in ALL_VIEWS]
    columns.append(("AUC of patients", False, [one.patient_auc for one in scores]))
    if benign:
        for view in ALL_VIEWS:
            columns.append((f"Benign Dice, {view}: pooled", True, [one.dice_pooled[view] for one in benign]))
            columns.append((f"Benign Dice, {view}: mean over images", True, [one.dice_mean[view] for one in benign]))
        columns.append(("Benign lesions: sensitivity", True, [one.lesion_sensitivity for one in benign]))
        wrong: list[float | None] = [one.false_positives_per_scan for one in benign]
        columns.append(("Benign lesions: false positives per scan", False, wrong))
    figures = []
    for name, percent, values in columns:
        defined = [value for value in values if value is not None]
        figures.append(ComparableFigure(name, statistics.fmean(defined) if defined else None, len(defined), percent))
    return figures
