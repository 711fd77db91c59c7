"""How a figure spreads over scans."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Distribution:
    """Of a figure that may be undefined for some scans.

    Attributes:
        scans: where it is defined. undefined: where it is not.
        mean, sd: sd is that of a sample (n - 1), None for one scan.
        minimum, lower_quartile, median, upper_quartile, maximum: quartiles interpolated linearly.
    """

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
    """Of one figure per scan; without a defined one all of it is None."""
    values = np.array([figure for figure in figures if figure is not None], np.float64)
    undefined = len(figures) - len(values)
    if not len(values):
        return Distribution(0, undefined)
    quartiles = map(float, np.percentile(values, (0, 25, 50, 75, 100)))
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    return Distribution(len(values), undefined, float(values.mean()), sd, *quartiles)
