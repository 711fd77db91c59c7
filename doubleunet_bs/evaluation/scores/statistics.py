"""How sure the figures are, and whether two models differ. The paper has none of these.

- `bootstrap_means`: 95 % intervals of the means over folds by percentile bootstrap. Patients are drawn, not scans,
  with replacement within each fold, so every fold keeps its size and its own model. An interval shows how much the
  figures depend on the patients tested, not on the training run.
- `distribution`: the Dice of the scans.
- `compare_scans`: two models on the same scans, by the two-sided Wilcoxon signed-rank test.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import rankdata, wilcoxon

from doubleunet_bs.evaluation.scores.scan_scores import ScanScore

RESAMPLES = 2000
SEED = 0
PERCENTILES = (2.5, 97.5)
Interval = tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class Intervals:
    """95 % intervals (lower, upper) of the means over folds, see `summary.Mean`, and how they were drawn.

    None where a mean is undefined, or no fold has two patients to draw from.
    """

    precision: Interval
    sensitivity: Interval
    f1_of_means: Interval
    f1_mean: Interval
    resamples: int
    seed: int
    patients: int


def bootstrap_means(folds: Sequence[Sequence[ScanScore]], resamples: int = RESAMPLES, seed: int = SEED) -> Intervals:
    """95 % intervals of the means over folds.

    Args:
        folds: the test scans of each fold.
        resamples, seed: number of draws; the same seed gives the same interval.

    Returns:
        Undefined figures of a drawn fold are left out of the mean of that draw, as in the table.
    """
    rng = np.random.default_rng(seed)
    tables = [_patients(scans) for scans in folds]
    patients = sum(map(len, tables))
    if max(map(len, tables), default=0) < 2:
        return Intervals(None, None, None, None, resamples, seed, patients)
    # For each fold (resamples, 3): the counts of as many patients as there are, drawn with replacement.
    sizes = [(table, len(table)) for table in tables if len(table)]
    drawn = np.stack([rng.multinomial(n, np.full(n, 1 / n), resamples) @ table for table, n in sizes])
    tp, fp, fn = np.moveaxis(drawn, 2, 0).astype(np.float64)
    precision, sensitivity, f1 = (
        _mean(_ratio(above, below)) for above, below in ((tp, tp + fp), (tp, tp + fn), (2 * tp, 2 * tp + fp + fn))
    )
    total = precision + sensitivity
    of_means = np.where(sensitivity == 0, 0.0, _ratio(2 * precision * sensitivity, total))
    return Intervals(
        _interval(precision), _interval(sensitivity), _interval(of_means), _interval(f1), resamples, seed, patients
    )


def _patients(scans: Sequence[ScanScore]) -> np.ndarray:
    """(patients, 3) int64: tp, fp and fn of each patient."""
    table: dict[str, np.ndarray] = {}
    for scan in scans:
        counts = scan.counts
        table[scan.patient] = table.get(scan.patient, 0) + np.array((counts.tp, counts.fp, counts.fn), np.int64)
    return np.array(list(table.values()), np.int64).reshape(-1, 3)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def _mean(figures: np.ndarray) -> np.ndarray:
    """Mean over the folds where the figure is defined; NaN where it is nowhere."""
    defined = ~np.isnan(figures)
    return _ratio(np.where(defined, figures, 0).sum(axis=0), defined.sum(axis=0).astype(np.float64))


def _interval(figures: np.ndarray) -> Interval:
    defined = figures[~np.isnan(figures)]
    if not defined.size:
        return None
    lower, upper = np.percentile(defined, PERCENTILES)
    return float(lower), float(upper)


@dataclasses.dataclass(frozen=True)
class Distribution:
    """The distribution of a figure, defined for `scans` and undefined for others. `sd` is that of a sample (n - 1)."""

    scans: int
    undefined: int
    mean: float | None = None
    sd: float | None = None
    minimum: float | None = None
    lower_quartile: float | None = None
    median: float | None = None
    upper_quartile: float | None = None
    maximum: float | None = None


def distribution(figures: Sequence[float | None]) -> Distribution:
    """The distribution of one figure per scan; where none is defined, all of it is None."""
    values = np.array([figure for figure in figures if figure is not None], np.float64)
    undefined = len(figures) - len(values)
    if not len(values):
        return Distribution(0, undefined)
    quartiles = map(float, np.percentile(values, (0, 25, 50, 75, 100)))
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    return Distribution(len(values), undefined, float(values.mean()), sd, *quartiles)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The second of two models against the first.

    Attributes:
        first, second: their names.
        scans, undefined: where both have a Dice coefficient; where one has none.
        ties: scans without a difference.
        median_difference, interval: of the Dice, second minus first; its 95 % interval, None without two patients.
        p, p_holm: two-sided; after Holm's correction. None without a scan that differs.
        rank_biserial: effect size, -1 to 1; None likewise.
    """

    first: str
    second: str
    scans: int
    undefined: int
    ties: int
    median_difference: float | None
    interval: Interval
    p: float | None
    p_holm: float | None
    rank_biserial: float | None


def compare_scans(
    first: str, second: str, scans: Sequence[ScanScore], others: Sequence[ScanScore], resamples: int = RESAMPLES
) -> Comparison:
    """Compare two models on the same cases, in any order; `p_holm` is None until `holm_corrected` is called."""
    partner: Mapping[str, ScanScore] = {scan.case: scan for scan in others}
    pairs = [(scan, partner[scan.case]) for scan in scans]
    # Rounded to where equal fractions are equal: 2/3 from other counts is no difference.
    usable = [(a.patient, round(b.dice - a.dice, 12)) for a, b in pairs if a.dice is not None and b.dice is not None]
    differences = np.array([difference for _, difference in usable])
    ties = int(np.count_nonzero(differences == 0))
    p = effect = None
    if len(differences) > ties:
        different = differences[differences != 0]
        # Ties are dropped here: SciPy, dropping them itself, would take the normal approximation.
        p = float(wilcoxon(different).pvalue)
        ranks = rankdata(np.abs(different))
        effect = float(ranks @ np.sign(different) / ranks.sum())
    median = float(np.median(differences)) if len(differences) else None
    interval = _median_interval(differences, [patient for patient, _ in usable], resamples)
    return Comparison(first, second, len(usable), len(pairs) - len(usable), ties, median, interval, p, None, effect)


def holm_corrected(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Holm's correction over all comparisons that have a p; with one comparison p stays what it is."""
    tested = sorted((c.p, place) for place, c in enumerate(comparisons) if c.p is not None)
    corrected: dict[int, float] = {}
    largest = 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        corrected[place] = largest
    return tuple(dataclasses.replace(c, p_holm=corrected.get(place)) for place, c in enumerate(comparisons))


def _median_interval(differences: np.ndarray, patients: Sequence[str], resamples: int) -> Interval:
    """Draw patients with replacement; every draw is the median over the scans of those drawn."""
    names = list(dict.fromkeys(patients))
    if len(names) < 2:
        return None
    number = np.array([names.index(patient) for patient in patients])
    rng = np.random.default_rng(SEED)
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), resamples)[:, number]
    order = np.argsort(differences, kind="stable")
    values, weights = differences[order], times[:, order]
    # The weighted median: a scan counts as often as its patient was drawn.
    total = weights.cumsum(axis=1)
    scans = total[:, -1]
    lower = values[np.argmax(total >= ((scans + 1) // 2)[:, None], axis=1)]
    upper = values[np.argmax(total >= (scans // 2 + 1)[:, None], axis=1)]
    return _interval((lower + upper) / 2)
