"""`scores.json`: what one model reached on scans it has not seen (paper, section 3).

The figures are computed from the counts each time; the file has both.
"""

import dataclasses
import functools
import os
from collections.abc import Iterable
from typing import Any

from doubleunet_bs.errors import RunError
from doubleunet_bs.evaluation.scores.comparable_scores import (
    BenignScores,
    ComparableScores,
    benign_scores,
    comparable_scores,
)
from doubleunet_bs.evaluation.scores.lesions import LesionCounts
from doubleunet_bs.evaluation.scores.scan_scores import (
    Detection,
    MinimumSize,
    ScanScore,
    counts_from_json,
    scan_from_json,
    score_patients,
)
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.pixel_counts import Figures, PixelCounts

FORMAT = 3
SCORES = "scores.json"
MEANING = (
    "pixels of the metastatic class on the fold's test scans: tp true positives, fp false positives, fn false "
    "negatives; precision, sensitivity and f1 are fractions between 0 and 1, null where undefined"
)
THRESHOLD_MEANING = (
    "a pixel is called metastatic when its prepared grey level is at least `value`, which has the best F1 on the "
    "fold's validation scans; counted on the same test scans"
)
LESIONS_MEANING = (
    "connected components of metastatic pixels (8-connectivity) of each view: true lesions, found (detected) ones "
    "among them, predicted lesions, right (matching) ones among them; two match when they share a pixel and the "
    "overlap (intersection over union with all that touches, without pixels of other lesions of the same side) reaches "
    "lesion_overlap"
)
POSTPROCESSED_MEANING = (
    "the same predictions without lesions under filter.smallest, the minimum lesion size learnt on the validation "
    "scans; filter.smallest is null where no minimum helps there, and the figures are the raw ones then"
)


@dataclasses.dataclass(frozen=True)
class ThresholdScore:
    """The intensity threshold on the same scans.

    Attributes:
        value: grey level 0-255, None when the validation scans have no metastatic pixel to choose it by.
        counts: pooled over the test scans; None without a value.
        validation_f1: what it was chosen for.
    """

    value: int | None
    counts: PixelCounts | None
    validation_f1: float | None

    @property
    def figures(self) -> Figures:
        """Precision, sensitivity and F1; None where there is no threshold."""
        return self.counts.figures if self.counts else (None, None, None)

    def to_json(self) -> dict[str, Any]:
        """The counts as in `PixelCounts.to_json`, null where there is no threshold."""
        counts = self.counts.to_json() if self.counts else dict.fromkeys(PixelCounts().to_json())
        return {"value": self.value, **counts, "validation_f1": self.validation_f1, "meaning": THRESHOLD_MEANING}


class _Pooled:
    """Pixels and lesions summed over the test scans `scans`."""

    scans: tuple[ScanScore, ...]

    @property
    def pooled(self) -> PixelCounts:
        return sum((scan.counts for scan in self.scans), PixelCounts())

    @property
    def lesions(self) -> LesionCounts:
        return sum((scan.lesions for scan in self.scans), LesionCounts())


@dataclasses.dataclass(frozen=True)
class Postprocessed(_Pooled):
    """The same predictions with the minimum lesion size that was learnt; the raw scans when no minimum helps."""

    filter: MinimumSize
    scans: tuple[ScanScore, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "meaning": POSTPROCESSED_MEANING,
            "filter": dataclasses.asdict(self.filter),
            "pooled": self.pooled.to_json(),
            "lesions": self.lesions.to_json(),
            "scans": [scan.to_json() for scan in self.scans],
        }


@dataclasses.dataclass(frozen=True)
class FoldScores(_Pooled):
    """All of `scores.json`.

    Attributes:
        fold: its number, from 1; 0 for the ensemble of all folds.
        scans: the test scans in the order of the folds file.
        threshold: the intensity threshold beside the model.
        about: what the figures belong to: version, experiment, image size and binning, weights, data.
        unit: of all areas, "mm2" or "pixels" (of the camera).
        overlap: least overlap of matching lesions, see `scores.lesions`.
        normals, normals_reason: normal scans that the model has not been trained on, or why there are none.
        postprocessed: with the minimum lesion size; None where there are no validation scans to learn it on.
        unoutlined: scans with metastases that nobody outlined, for figures by patient alone.
    """

    fold: int
    scans: tuple[ScanScore, ...]
    threshold: ThresholdScore
    about: dict[str, Any]
    unit: str = "pixels"
    overlap: float = 0.0
    normals: tuple[ScanScore, ...] = ()
    normals_reason: str | None = None
    postprocessed: Postprocessed | None = None
    unoutlined: tuple[ScanScore, ...] = ()

    @property
    def postprocessed_figures(self) -> Figures:
        """Precision, sensitivity and F1 with the minimum lesion size; None where there are no scans to learn it on."""
        return self.postprocessed.pooled.figures if self.postprocessed else (None, None, None)

    @property
    def detection(self) -> Detection:
        """Figures by patient."""
        return score_patients((*self.scans, *self.unoutlined), self.normals, self.normals_reason)

    @functools.cached_property
    def comparable(self) -> ComparableScores:
        """Figures as other publications give them, of the test scans and the normal scans."""
        return comparable_scores((*self.scans, *self.normals, *self.unoutlined))

    @functools.cached_property
    def benign(self) -> BenignScores | None:
        """Figures of benign lesions in the test scans and the normal scans; None of a model without that class."""
        return benign_scores([scan.benign for scan in (*self.scans, *self.normals) if scan.benign])

    @property
    def postprocessed_detection(self) -> Detection | None:
        """`detection` with the minimum lesion size; None where there are no scans to learn it on."""
        if self.postprocessed is None:
            return None
        smallest = self.postprocessed.filter.smallest or 0.0
        normals = [
            dataclasses.replace(
                scan, predicted_lesions=tuple(one for one in scan.predicted_lesions if one.area >= smallest)
            )
            for scan in self.normals
        ]
        return score_patients(self.postprocessed.scans, normals, self.normals_reason)

    def row(self) -> dict[str, Any]:
        """Its entry in `summary.json`."""
        after = self.postprocessed
        return {
            "fold": self.fold,
            "scans": len(self.scans),
            **self.pooled.to_json(),
            "threshold": {key: value for key, value in self.threshold.to_json().items() if key != "meaning"},
            "lesions": self.lesions.to_json(),
            "detection": self.detection.to_json(),
            "postprocessed": after and {"filter": dataclasses.asdict(after.filter), **after.pooled.to_json()},
        }

    def to_json(self) -> dict[str, Any]:
        """A JSON object; every figure follows from the counts in it."""
        after, after_detection = self.postprocessed, self.postprocessed_detection
        return {
            "format": FORMAT,
            "meaning": MEANING,
            "fold": self.fold,
            **self.about,
            "pooled": self.pooled.to_json(),
            "threshold": self.threshold.to_json(),
            "lesions_meaning": LESIONS_MEANING,
            "lesion_overlap": self.overlap,
            "area_unit": self.unit,
            "lesions": self.lesions.to_json(),
            "detection": self.detection.to_json(),
            "comparable": self.comparable.to_json(),
            **({"benign": dataclasses.asdict(self.benign)} if self.benign else {}),
            "postprocessed": {**after.to_json(), "detection": after_detection.to_json()}
            if after and after_detection
            else None,
            "scans": [scan.to_json() for scan in self.scans],
            "normals": {"reason": self.normals_reason, "scans": [scan.to_json() for scan in self.normals]},
            "unoutlined": [scan.to_json() for scan in self.unoutlined],
        }


def precision_entry(folds: Iterable[str | None]) -> dict[str, str]:
    """{"arithmetic": the precisions of several folds, joined}, the key of scores.json; empty when none is recorded."""
    known = list(dict.fromkeys(filter(None, folds)))
    return {"arithmetic": ", ".join(known)} if known else {}


def write_scores(path: str | os.PathLike, scores: FoldScores) -> None:
    """Write `scores.json` whole or not at all."""
    write_json(path, scores.to_json())


def read_scores(path: str | os.PathLike) -> FoldScores:
    """The inverse of `write_scores`; the figures are computed again from the counts.

    Raises:
        RunError: the file is missing, damaged or of another format.
    """
    content = read_json(path, RunError, "score file")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RunError(f"{path}: not a score file of format {FORMAT}: evaluate all folds again")
    own = FoldScores(0, (), ThresholdScore(None, None, None), {}).to_json()
    try:
        threshold, after = content["threshold"], content["postprocessed"]
        return FoldScores(
            fold=int(content["fold"]),
            scans=tuple(map(scan_from_json, content["scans"])),
            threshold=ThresholdScore(
                threshold["value"],
                None if threshold["value"] is None else counts_from_json(threshold),
                threshold["validation_f1"],
            ),
            about={key: value for key, value in content.items() if key not in own},
            unit=str(content["area_unit"]),
            overlap=float(content["lesion_overlap"]),
            normals=tuple(map(scan_from_json, content["normals"]["scans"])),
            normals_reason=content["normals"]["reason"],
            postprocessed=after
            and Postprocessed(MinimumSize(**after["filter"]), tuple(map(scan_from_json, after["scans"]))),
            unoutlined=tuple(map(scan_from_json, content.get("unoutlined", ()))),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as cause:
        raise RunError(f"{path}: damaged ({type(cause).__name__}: {cause}): evaluate the fold again") from None
