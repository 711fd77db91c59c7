"""Intervals over patients and the spread over scans."""

import numpy as np
import pytest
from score_makers import scan

from doubleunet_bs.evaluation.scores.statistics import Distribution, bootstrap_means, distribution
from doubleunet_bs.evaluation.summary import mean_of_folds
from doubleunet_bs.pixel_counts import PixelCounts


def cohort(seed=0, patients=12):
    rng = np.random.default_rng(seed)
    return [scan(number, *map(int, rng.integers(1, 200, 3))) for number in range(patients)]


def test_equal_patients_leave_nothing_to_chance():
    found = bootstrap_means([[scan(number, 30, 10, 20) for number in range(5)]] * 2)
    for name, value in (("precision", 3 / 4), ("sensitivity", 3 / 5), ("f1_of_means", 2 / 3), ("f1_mean", 2 / 3)):
        assert getattr(found, name) == pytest.approx((value, value))
    assert found.patients == 10


def test_two_patients_by_hand():
    # Draws: twice the first, twice the second, one of each: with probabilities 1/4, 1/4, 1/2.
    found = bootstrap_means([[scan(0, 10, 0, 0), scan(1, 0, 10, 10)]])
    assert found.precision == (0.0, 1.0)
    assert found.f1_mean == (0.0, 1.0)


def test_against_a_plain_loop():
    """The same draws: how often each patient of a fold is drawn, fold by fold."""
    folds = [cohort(1), cohort(2, 9)]
    found = bootstrap_means(folds, resamples=500, seed=3)
    rng = np.random.default_rng(3)
    draws = [rng.multinomial(len(scans), np.full(len(scans), 1 / len(scans)), 500) for scans in folds]
    means = []
    for times_of_folds in zip(*draws, strict=True):
        rows = []
        for scans, times in zip(folds, times_of_folds, strict=True):
            drawn = [one.counts for one, number in zip(scans, times, strict=True) for _ in range(number)]
            pooled = sum(drawn, PixelCounts())
            rows.append((pooled.precision, pooled.sensitivity, pooled.f1))
        means.append(mean_of_folds(rows))
    for name in ("precision", "sensitivity", "f1_of_means", "f1_mean"):
        expected = np.percentile([getattr(mean, name) for mean in means], (2.5, 97.5))
        assert getattr(found, name) == pytest.approx(expected, abs=1e-9)
    assert found.f1_mean[1] - found.f1_mean[0] > 0.1


def test_scans_of_one_patient_are_drawn_together():
    one = [scan(0, 10, 5, 5, patient=0), scan(1, 20, 5, 5, patient=0)]
    found = bootstrap_means([one])
    assert (found.patients, found.precision) == (1, None)
    two = bootstrap_means([[*one, scan(2, 0, 30, 10, patient=1)]])
    assert two.precision == (0.0, 30 / 40)
    # A fold of one patient beside another fold always gives the same.
    assert bootstrap_means([one, [*one, scan(2, 0, 30, 10, patient=1)]]).precision == (30 / 80, 30 / 40)


def test_undefined_figures_are_left_out():
    # Nothing is ever predicted: no precision. Nothing at all: no figure.
    nothing = bootstrap_means([[scan(0, fn=10), scan(1, fn=5)]])
    assert (nothing.precision, nothing.sensitivity, nothing.f1_mean) == (None, (0.0, 0.0), (0.0, 0.0))
    empty = bootstrap_means([[scan(0), scan(1)]])
    assert (empty.precision, empty.sensitivity, empty.f1_of_means, empty.f1_mean) == (None,) * 4
    assert bootstrap_means([]).precision is None


def test_distribution():
    found = distribution([0.2, None, 0.4, 0.9, 0.5])
    assert (found.scans, found.undefined) == (4, 1)
    assert (found.mean, found.minimum, found.maximum) == pytest.approx((0.5, 0.2, 0.9))
    assert (found.lower_quartile, found.median, found.upper_quartile) == pytest.approx((0.35, 0.45, 0.6))
    assert found.sd == pytest.approx(np.std([0.2, 0.4, 0.9, 0.5], ddof=1))
    assert distribution([0.7]) == Distribution(1, 0, 0.7, None, 0.7, 0.7, 0.7, 0.7, 0.7)
    assert distribution([None, None]) == Distribution(0, 2)
