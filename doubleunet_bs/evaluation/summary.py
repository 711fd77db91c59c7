"""`summary.json`: the folds of a run side by side and their means (paper, section 3, Tables 1 to 3).

The F1 in the papers' row "Mean" is the harmonic mean of the mean precision and the mean sensitivity, not the mean of
the folds' F1 (Table 1: 62.27 against 60.43). Both are given, each under a name that says which it is.
"""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from doubleunet_bs import __version__
from doubleunet_bs.evaluation.scores import FoldScores

FORMAT = 1
SUMMARY = "summary.json"
Figures = tuple[float | None, float | None, float | None]


@dataclasses.dataclass(frozen=True)
class Mean:
    """Means over folds; a fold whose figure is undefined is left out of that mean, `folds` says how many were in it.

    Attributes:
        precision, sensitivity: arithmetic means over the folds.
        f1_of_means: harmonic mean of the two, as the papers aggregate it; 0 when both are 0.
        f1_mean: arithmetic mean of the folds' F1.
        precision_sd, sensitivity_sd, f1_sd: sample standard deviations over the folds (n - 1); None for one.
        folds: {"precision", "sensitivity", "f1"}: number of folds in each mean.
    """

    precision: float | None
    sensitivity: float | None
    f1_of_means: float | None
    f1_mean: float | None
    precision_sd: float | None
    sensitivity_sd: float | None
    f1_sd: float | None
    folds: dict[str, int]


def mean_of_folds(rows: Sequence[Figures]) -> Mean:
    """Aggregate (precision, sensitivity, F1) of folds, in fractions or in per cent alike.

    Without a row, or where every fold is undefined, a mean is None.
    """
    columns = [[row[place] for row in rows if row[place] is not None] for place in range(3)]
    means = [statistics.fmean(column) if column else None for column in columns]
    deviations = [statistics.stdev(column) if len(column) > 1 else None for column in columns]
    precision, sensitivity, f1 = means
    combined = None
    if precision is not None and sensitivity is not None:
        total = precision + sensitivity
        combined = 2 * precision * sensitivity / total if total else 0.0
    return Mean(
        precision=precision,
        sensitivity=sensitivity,
        f1_of_means=combined,
        f1_mean=f1,
        precision_sd=deviations[0],
        sensitivity_sd=deviations[1],
        f1_sd=deviations[2],
        folds=dict(zip(("precision", "sensitivity", "f1"), map(len, columns), strict=True)),
    )


@dataclasses.dataclass(frozen=True)
class Summary:
    """The scored folds of a run.

    Attributes:
        experiment: its name.
        changed_settings: what differs from the paper's row of that name; empty for an unchanged row.
        total_folds: number of folds of the cross-validation, scored or not.
        folds: scores in the order of the folds.
    """

    experiment: str
    changed_settings: dict[str, Any]
    total_folds: int
    folds: tuple[FoldScores, ...]

    @property
    def mean(self) -> Mean:
        """Of the model."""
        return mean_of_folds([figures(fold) for fold in self.folds])

    @property
    def threshold_mean(self) -> Mean:
        """Of the intensity threshold on the same folds."""
        return mean_of_folds([threshold_figures(fold) for fold in self.folds])

    def to_json(self) -> dict[str, Any]:
        """A JSON object with one row per fold and the means."""
        return {
            "format": FORMAT,
            "version": __version__,
            "experiment": self.experiment,
            "changed_settings": self.changed_settings,
            "cross_validation_folds": self.total_folds,
            "f1_of_means": "harmonic mean of mean precision and mean sensitivity, as in the paper's tables",
            "f1_mean": "mean of the folds' own F1, with the sample standard deviation f1_sd",
            "folds": [
                {
                    "fold": fold.fold,
                    "scans": len(fold.scans),
                    **fold.pooled.to_json(),
                    "threshold": {key: value for key, value in fold.threshold.to_json().items() if key != "meaning"},
                }
                for fold in self.folds
            ],
            "mean": dataclasses.asdict(self.mean),
            "threshold_mean": dataclasses.asdict(self.threshold_mean),
        }


def figures(fold: FoldScores) -> Figures:
    """(precision, sensitivity, F1) of the model, pooled over the fold's test scans."""
    pooled = fold.pooled
    return pooled.precision, pooled.sensitivity, pooled.f1


def threshold_figures(fold: FoldScores) -> Figures:
    """(precision, sensitivity, F1) of the intensity threshold; (None, None, None) without one."""
    counts = fold.threshold.counts
    return (None, None, None) if counts is None else (counts.precision, counts.sensitivity, counts.f1)
