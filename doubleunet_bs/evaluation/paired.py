"""Two models on the same scans: Wilcoxon's signed-rank test on the Dice per scan, and how large the difference is.

Decided here; the paper compares means only. Per pair of models:

- Differences second minus first, over the scans where both have a Dice coefficient.
- Two-sided Wilcoxon signed-rank test; scans without a difference are dropped (Wilcoxon's own way). Without a scan that
  differs there is no test: p is None.
- Effect size: the matched-pairs rank-biserial correlation, (W+ - W-) / (W+ + W-), from -1 (the first is better in every
  scan that differs) to 1 (the second is).
- Median difference with a 95 % percentile interval from bootstrap draws of patients.
- With several pairs, p is also given after Holm's correction for their number.

Scans of one patient are not independent and count as several; the interval, which draws patients, takes that into
account, the test does not. Neither sees what another training run would have given.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from doubleunet_bs.evaluation.statistics import PERCENTILES, RESAMPLES, SEED, Interval
from doubleunet_bs.evaluation.scan_score import ScanScore


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The second of two models against the first.

    Attributes:
        first, second: their names.
        scans: where both have a Dice coefficient. undefined: where one has none.
        ties: scans without a difference.
        median_difference: of the Dice, second minus first, as a fraction; None without scans.
        interval: 95 % interval of it; None without two patients.
        p: two-sided; p_holm: after Holm's correction. None without a scan that differs.
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
    """Compare two models scan by scan; `p_holm` is None until `correct` is called.

    Args:
        first, second: names. scans, others: scores of the same cases, in any order.
        resamples: bootstrap draws.
    """
    partner: Mapping[str, ScanScore] = {scan.case: scan for scan in others}
    pairs = [(scan, partner[scan.case]) for scan in scans]
    usable = [(a, b) for a, b in pairs if a.dice is not None and b.dice is not None]
    # Rounded to where equal fractions are equal: 2/3 from other counts is no difference.
    differences = np.array([round(b.dice - a.dice, 12) for a, b in usable])
    ties = int(np.count_nonzero(differences == 0))
    p = effect = None
    if len(differences) > ties:
        from scipy.stats import rankdata, wilcoxon

        apart = differences[differences != 0]
        # Dropped here and not by SciPy, which would take the normal approximation wherever there was one to drop.
        p = float(wilcoxon(apart).pvalue)
        ranks = rankdata(np.abs(apart))
        effect = float(ranks @ np.sign(apart) / ranks.sum())
    median = float(np.median(differences)) if len(differences) else None
    interval = _median_interval(differences, [a.patient for a, _ in usable], resamples)
    return Comparison(first, second, len(usable), len(pairs) - len(usable), ties, median, interval, p, None, effect)


def correct(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Holm's correction over all comparisons that have a p; with one comparison p stays what it is."""
    tested = sorted((c for c in comparisons if c.p is not None), key=lambda c: c.p)
    corrected: dict[tuple[str, str], float] = {}
    largest = 0.0
    for place, comparison in enumerate(tested):
        largest = max(largest, min(1.0, comparison.p * (len(tested) - place)))
        corrected[comparison.first, comparison.second] = largest
    return tuple(dataclasses.replace(c, p_holm=corrected.get((c.first, c.second))) for c in comparisons)


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
    return tuple(map(float, np.percentile((lower + upper) / 2, PERCENTILES)))
