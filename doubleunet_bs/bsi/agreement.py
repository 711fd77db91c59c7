"""How well two ways to measure the Bone Scan Index agree: correlation, Bland-Altman, coefficient of variation.

J. M. Bland, D. G. Altman: Statistical methods for assessing agreement between two methods of clinical measurement.
Lancet 1986;327:307.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

FEWEST = 3


REPEATABILITY_BELOW, REPEATABILITY, REPEATABILITY_FROM, REPEATABILITY_HIGHEST = 0.13, 0.30, 2.0, 13.0
"""Points that 95 % of the differences without a change of the disease stay below: 1.96 x their root mean square.

The first is for a mean of both indices below 2 %, the second from 2 %. Nothing is known above 13 %, the largest index
measured. Of phantoms scanned twice, with new noise and a little displaced, by `tests/benchmarks/bsi_protocol.py`
with lesions and regions of networks of 160 x 128 pixels: 35 pairs, 14 of them from 2 %. Over all it is 0.22. With drawn
lesions and regions it is 0.06: noise moves what a network marks, not what is drawn here."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Measured against reference values, in the unit of the values.

    Attributes:
        scans: number of pairs. Under `FEWEST` all of the figures are None.
        pearson, spearman: None where one side is constant.
        bias: mean of measured minus reference.
        limits: (lower, upper): bias -+ 1.96 standard deviations (n - 1) of the differences.
        variation: coefficient of variation of one measurement: standard deviation of the differences / sqrt(2), divided
            by the mean of all values. None where that mean is 0.
        ratio: median of measured / reference where the reference is above 0; None where it is nowhere.
        note: why figures are None; "" when none is.
    """

    scans: int
    pearson: float | None = None
    spearman: float | None = None
    bias: float | None = None
    limits: tuple[float, float] | None = None
    variation: float | None = None
    ratio: float | None = None
    note: str = ""


def agreement(reference: Sequence[float] | np.ndarray, measured: Sequence[float] | np.ndarray) -> Agreement:
    """Compare measured values with those of a reference, pair by pair.

    Example:
        >>> found = agreement([1.0, 2.0, 3.0], [2.0, 2.0, 5.0])
        >>> found.bias, round(found.limits[1], 2), round(found.pearson, 3), found.ratio
        (1.0, 2.96, 0.866, 1.6666666666666667)
    """
    first, second = np.asarray(reference, np.float64), np.asarray(measured, np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"values of shapes {first.shape} and {second.shape}: both must be one list of equal length")
    scans = len(first)
    if scans < FEWEST:
        return Agreement(scans, note=f"{scans} of at least {FEWEST} scans: agreement is undefined")
    difference = second - first
    sd, bias, level = float(difference.std(ddof=1)), float(difference.mean()), float(np.mean([first, second]))
    pearson = spearman = None
    constant = [name for name, own in (("reference", first), ("measured", second)) if np.ptp(own) == 0]
    note = ""
    if constant:
        note = f"no correlation: all {' and all '.join(constant)} values are equal"
    else:
        pearson, spearman = float(stats.pearsonr(first, second)[0]), float(stats.spearmanr(first, second)[0])
    above = first > 0
    return Agreement(
        scans,
        pearson,
        spearman,
        bias,
        (bias - 1.96 * sd, bias + 1.96 * sd),
        sd / 2**0.5 / level if level else None,
        float(np.median(second[above] / first[above])) if above.any() else None,
        note,
    )
