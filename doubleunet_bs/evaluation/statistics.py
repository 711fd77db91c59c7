"""95 % intervals by bootstrap over patients (decided here; the paper gives none).

Patients, not scans and not pixels, are drawn: what belongs to one patient is not independent. Within each fold as many
patients are drawn with replacement as it tests, so that every fold keeps its size and its own model; folds and then
means are computed from the draws as from the data. The interval is between the 2.5 and the 97.5 percentile. It tells
what other patients would have done to the figures, not what other training runs would have.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from doubleunet_bs.evaluation.scan_score import ScanScore

RESAMPLES = 2000
SEED = 0
PERCENTILES = (2.5, 97.5)
Interval = tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class Intervals:
    """95 % intervals of the means over folds; None where a mean is undefined or no fold has two patients to draw from.

    Attributes:
        precision, sensitivity, f1_of_means, f1_mean: (lower, upper), of the figures of `evaluation.summary.Mean`.
        resamples, seed: how they were drawn.
        patients: how many there are.
    """

    precision: Interval
    sensitivity: Interval
    f1_of_means: Interval
    f1_mean: Interval
    resamples: int
    seed: int
    patients: int


def bootstrap_means(folds: Sequence[Sequence[ScanScore]], resamples: int = RESAMPLES, seed: int = SEED) -> Intervals:
    """Intervals of the means over folds.

    Args:
        folds: the test scans of each fold.
        resamples: number of draws. seed: of the draws; the same seed gives the same interval.

    Returns:
        Undefined figures of a drawn fold are left out of the mean of that draw, as in the table.
    """
    rng = np.random.default_rng(seed)
    tables = [_patients(scans) for scans in folds]
    patients = sum(map(len, tables))
    nothing = Intervals(None, None, None, None, resamples, seed, patients)
    if max(map(len, tables), default=0) < 2:
        return nothing
    drawn = np.stack([_draw(table, resamples, rng) for table in tables if len(table)])
    tp, fp, fn = np.moveaxis(drawn, 2, 0).astype(np.float64)
    precision, sensitivity, f1 = (
        _mean(_ratio(above, below)) for above, below in ((tp, tp + fp), (tp, tp + fn), (2 * tp, 2 * tp + fp + fn))
    )
    total = precision + sensitivity
    of_means = np.where(sensitivity == 0, 0.0, _ratio(2 * precision * sensitivity, total))
    return Intervals(*map(_interval, (precision, sensitivity, of_means, f1)), resamples, seed, patients)


def _patients(scans: Sequence[ScanScore]) -> np.ndarray:
    """(patients, 3) int64: tp, fp and fn of each patient."""
    table: dict[str, np.ndarray] = {}
    for scan in scans:
        counts = scan.counts
        table[scan.patient] = table.get(scan.patient, 0) + np.array((counts.tp, counts.fp, counts.fn), np.int64)
    return np.array(list(table.values()), np.int64).reshape(-1, 3)


def _draw(table: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """(resamples, 3): the counts of as many patients as there are, drawn with replacement."""
    times = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), resamples)
    return times @ table


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def _mean(figures: np.ndarray) -> np.ndarray:
    """Mean over the folds where the figure is defined; NaN where it is nowhere."""
    defined = ~np.isnan(figures)
    return _ratio(np.where(defined, figures, 0).sum(axis=0), defined.sum(axis=0).astype(np.float64))


def _interval(figures: np.ndarray) -> Interval:
    defined = figures[~np.isnan(figures)]
    return tuple(map(float, np.percentile(defined, PERCENTILES))) if defined.size else None
