"""`scores.json`: what one fold reached on its test scans (paper, section 3)."""

import dataclasses
import os
from typing import Any

from doubleunet_bs.errors import RunError
from doubleunet_bs.evaluation.pixel_counts import PixelCounts
from doubleunet_bs.files import read_json, write_json

FORMAT = 1
SCORES = "scores.json"
MEANING = (
    "pixels of the metastatic class on the fold's test scans: tp found, fp wrongly called metastatic, fn missed; "
    "precision, sensitivity and f1 are fractions between 0 and 1, null where undefined"
)
THRESHOLD_MEANING = (
    "a pixel is called metastatic when its prepared grey level is at least `value`, which has the best F1 on the "
    "fold's validation scans; counted on the same test scans"
)


@dataclasses.dataclass(frozen=True)
class ScanScore:
    """One test scan: pseudonyms and counts of the model."""

    case: str
    patient: str
    counts: PixelCounts


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

    def to_json(self) -> dict[str, Any]:
        """The counts as in `PixelCounts.to_json`, null where there is no threshold."""
        counts = self.counts.to_json() if self.counts else dict.fromkeys(PixelCounts().to_json())
        return {"value": self.value, **counts, "validation_f1": self.validation_f1, "meaning": THRESHOLD_MEANING}


@dataclasses.dataclass(frozen=True)
class FoldScores:
    """All of `scores.json`.

    Attributes:
        fold: its number, from 1.
        scans: the test scans in the order of the folds file.
        threshold: the intensity threshold beside the model.
        about: what the figures belong to: version, experiment, image size and binning, weights, data.
    """

    fold: int
    scans: tuple[ScanScore, ...]
    threshold: ThresholdScore
    about: dict[str, Any]

    @property
    def pooled(self) -> PixelCounts:
        """The counts summed over the test scans."""
        return sum((scan.counts for scan in self.scans), PixelCounts())

    def to_json(self) -> dict[str, Any]:
        """A JSON object; every figure follows from the counts in it."""
        return {
            "format": FORMAT,
            "meaning": MEANING,
            "fold": self.fold,
            **self.about,
            "pooled": self.pooled.to_json(),
            "threshold": self.threshold.to_json(),
            "scans": [{"case": scan.case, "patient": scan.patient, **scan.counts.to_json()} for scan in self.scans],
        }


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
        raise RunError(f"{path}: not a score file of format {FORMAT}; evaluate the fold again")
    try:
        threshold = content["threshold"]
        own = {"format", "meaning", "fold", "pooled", "threshold", "scans"}
        return FoldScores(
            fold=int(content["fold"]),
            scans=tuple(ScanScore(scan["case"], scan["patient"], _counts(scan)) for scan in content["scans"]),
            threshold=ThresholdScore(
                threshold["value"],
                None if threshold["value"] is None else _counts(threshold),
                threshold["validation_f1"],
            ),
            about={key: value for key, value in content.items() if key not in own},
        )
    except (KeyError, TypeError, ValueError) as cause:
        raise RunError(f"{path}: damaged ({type(cause).__name__}: {cause}); evaluate the fold again") from None


def _counts(content: dict[str, Any]) -> PixelCounts:
    counts = PixelCounts(*(content[name] for name in ("tp", "fp", "fn")))
    if not all(type(value) is int and value >= 0 for value in dataclasses.astuple(counts)):
        raise ValueError("counts must be whole numbers")
    return counts
