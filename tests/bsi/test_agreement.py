"""Agreement of two measurements, by hand and by SciPy."""

import numpy as np
import pytest
from scipy import stats

from doubleunet_bs.bsi.agreement import Agreement, agreement


def test_by_hand():
    """Differences 1, 0, 2 and 1: mean 1, variance 2 / 3. All values add up to 24."""
    found = agreement([1, 2, 3, 4], [2, 2, 5, 5])
    sd = (2 / 3) ** 0.5
    assert found.scans == 4 and found.bias == 1.0 and found.note == ""
    assert found.limits == pytest.approx((1 - 1.96 * sd, 1 + 1.96 * sd))
    assert found.variation == pytest.approx(sd / 2**0.5 / 3)
    # Sums of products about the means 2.5 and 3.5: 6; of squares: 5 and 9.
    assert found.pearson == pytest.approx(6 / 45**0.5)
    assert found.ratio == pytest.approx((1.25 + 5 / 3) / 2)


def test_agrees_with_scipy_whatever_the_order():
    rng = np.random.default_rng(2)
    first = rng.gamma(1, 3, 30)
    second = first * rng.normal(1.2, 0.3, 30)
    found = agreement(first, second)
    assert found.pearson == pytest.approx(stats.linregress(first, second).rvalue)
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    assert found.spearman == pytest.approx(np.corrcoef(*ranks)[0, 1])
    back = agreement(second, first)
    assert (back.bias, back.variation) == (pytest.approx(-found.bias), pytest.approx(found.variation))


def test_too_few_scans():
    assert agreement([1, 2], [1, 2]) == Agreement(2, note="2 of at least 3 scans: agreement is undefined")
    assert agreement([], []).scans == 0


def test_constant_values_have_no_correlation_but_limits():
    found = agreement([1, 1, 1], [1, 2, 3])
    assert (found.pearson, found.spearman, found.bias) == (None, None, 1.0)
    assert found.note == "no correlation: all reference values are equal"
    nothing = agreement([0, 0, 0], [0, 0, 0])
    assert nothing.note == "no correlation: all reference and all measured values are equal"
    assert (nothing.variation, nothing.ratio, nothing.limits) == (None, None, (0.0, 0.0))


def test_lists_of_different_length_are_a_mistake():
    with pytest.raises(ValueError, match="equal length"):
        agreement([1, 2, 3], [1, 2])
