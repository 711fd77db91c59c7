"""Scores made from counts, without images."""

from typing import NamedTuple

from doubleunet_bs.evaluation.scores.fold_scores import FoldScores, ThresholdScore
from doubleunet_bs.evaluation.scores.lesions import ScoredLesion
from doubleunet_bs.evaluation.scores.scan_scores import ScanScore
from doubleunet_bs.pixel_counts import PixelCounts


def scan(number, tp=0, fp=0, fn=0, patient=None, group="positive", lesions=(), true=()):
    """A scan whose pixels all lie in the anterior view."""
    views = {"anterior": PixelCounts(tp, fp, fn), "posterior": PixelCounts()}
    name = number if patient is None else patient
    return ScanScore(f"case-{number:03d}", f"patient-{name:03d}", group, views, tuple(true), tuple(lesions))


def lesion(pixels=10, common=0, area=None, view="anterior", probability=None, matched=None):
    """A predicted lesion when it has a probability, a true one otherwise."""
    return ScoredLesion(
        view=view,
        pixels=pixels,
        area=float(pixels if area is None else area),
        row=1.0,
        column=1.0,
        common=common,
        overlap=common / pixels,
        matched=common > 0 if matched is None else matched,
        probability=probability,
        peak=probability,
    )


ONE_OF_EACH = PixelCounts(1, 1, 1)


def fold(number, *scans, value=100, counts=ONE_OF_EACH, **others):
    """A fold; its intensity threshold has the given counts, or none when `value` is None."""
    threshold = ThresholdScore(value, None if value is None else counts, 0.5)
    return FoldScores(number, tuple(scans), threshold, {}, **others)


def fold_of(number, precision, sensitivity, **others):
    """A fold of one scan with exactly this precision and sensitivity, given in % with two digits."""
    p, s = round(100 * precision), round(100 * sensitivity)
    return fold(number, scan(number, tp=p * s, fp=s * (10000 - p), fn=p * (10000 - s)), **others)


class Scan(NamedTuple):
    """Whose scan it is, for `score_scan`."""

    case: str = "case-0"
    patient: str = "patient-0"
    group: str = "positive"
