"""The free-response ROC curve: candidates, matching, points and area, by hand and by another computation."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import auc

from doubleunet_bs.evaluation.scores.comparable_scores import froc
from doubleunet_bs.evaluation.scores.lesions import Candidate, find_candidates


def candidate(peak, lesion=None):
    return Candidate("anterior", 0, 0, peak, lesion)


def test_candidates_by_hand():
    truth, probability = np.zeros((6, 12), bool), np.zeros((6, 12))
    truth[0:2, 0:2] = truth[4, 3:5] = truth[0:2, 8] = True  # two lesions in the anterior view, one in the posterior
    probability[0:2, 1:3] = (0.3, 0.2), (0.6, 0.1)  # its peak lies in the first lesion
    probability[4, 4], probability[5, 5] = 0.5, 0.7  # touches the second by a corner, but its peak lies outside
    probability[5, 6], probability[0, 8], probability[3, 10] = 0.2, 0.09, 0.1  # the view ends; below and at the limit
    found, peaks = find_candidates(truth, probability)
    assert found == (
        Candidate("anterior", 1, 1, 0.6, 0),
        Candidate("anterior", 5, 5, 0.7, None),
        Candidate("posterior", 3, 10, 0.1, None),
        Candidate("posterior", 5, 6, 0.2, None),
    )
    assert peaks == {"anterior": 0.7, "posterior": 0.2}


def test_lesions_are_numbered_over_both_views():
    truth = np.zeros((4, 8), bool)
    truth[0, 0] = truth[3, 3] = truth[2, 6] = True
    found, _ = find_candidates(truth, np.where(truth, 0.5, 0.0))
    assert [one.lesion for one in found] == [0, 1, 2]


def test_a_probability_everywhere_marks_one_lesion_at_most():
    truth = np.zeros((9, 18), bool)
    truth[0, 0] = truth[0, 8] = truth[8, 0] = truth[4, 13] = True
    found, _ = find_candidates(truth, np.full(truth.shape, 0.6))
    assert [(one.row, one.column, one.lesion) for one in found] == [(4, 4, None), (4, 13, 3)]
    assert find_candidates(truth, np.zeros(truth.shape))[0] == ()


def test_curve_by_hand():
    """Two scans with three lesions; one is detected at 0.9 and again at 0.4, one at 0.5, one never."""
    scans = [
        (2, [candidate(0.9, 0), candidate(0.8), candidate(0.5, 1), candidate(0.4, 0)]),
        (1, [candidate(0.8), candidate(0.3)]),
    ]
    curve = froc(scans)
    assert (curve.lesions, curve.scans) == (3, 2)
    assert curve.thresholds == (0.9, 0.8, 0.5, 0.4, 0.3)
    assert curve.false_positives == (0, 1, 1, 1, 1.5)
    assert curve.sensitivity == pytest.approx((1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3))
    assert [curve.sensitivity_at(x) for x in (0, 0.99, 1, 4)] == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    # 1/3 from 0 to 1, 2/3 from 1 to 4.
    assert curve.area == pytest.approx((1 / 3 + 3 * 2 / 3) / 4)
    content = curve.to_json()
    assert content["curve"][1] == [0.8, 1.0, 1 / 3] and content["sensitivity_at"]["1"] == curve.sensitivity_at(1)


def test_ends():
    assert froc([(0, [candidate(0.5)])]) is None
    silent = froc([(2, [])])
    assert (silent.area, silent.sensitivity_at(4.0)) == (0.0, 0.0)
    assert froc([(1, [candidate(0.2, 0)])]).area == 1.0
    # Every lesion lies behind five false positives a scan: beyond the limit of the area.
    late = froc([(1, [candidate(0.5)] * 5 + [candidate(0.4, 0)])])
    assert (late.area, late.sensitivity_at(5)) == (0.0, 1.0)


def short_froc(images, at, limit=4.0):
    """Sensitivities and area by the definition, threshold by threshold, with SciPy's components."""
    corners = np.ones((3, 3))
    false, best, lesions = [], [], 0
    for truth, probability in images:
        true, number = ndimage.label(truth, corners)
        scores = np.zeros(number + 1)
        areas, count = ndimage.label(probability >= 0.1, corners)
        for area in range(1, count + 1):
            place = ndimage.maximum_position(probability, areas, area)
            if true[place]:
                scores[true[place]] = max(scores[true[place]], probability[place])
            else:
                false.append(probability[place])
        best += list(scores[1:])
        lesions += number
    points = [
        (np.sum(np.array(false) >= t) / (len(images) / 2), np.sum(np.array(best) >= t) / lesions)
        for t in sorted({*false, *(one for one in best if one)}, reverse=True)
    ]

    # A hair apart, so that no two points have the same number of false positives.
    x = [0.0, *(x_of_point + 1e-9 * k for k, (x_of_point, _) in enumerate(points))]
    y = [0.0, *(y_of_point for _, y_of_point in points)]
    grid = np.unique([*(one for one in x if one < limit), limit])
    return np.interp(at, x, y), auc(grid, np.interp(grid, x, y)) / limit


def test_agrees_with_a_short_computation():
    rng = np.random.default_rng(3)
    scans, images = [], []
    for _ in range(6):
        noise = ndimage.gaussian_filter(rng.random((40, 40)), (1.5, 1.5))
        probability = np.clip(4 * (noise - noise.mean()), 0, 1) ** 0.5
        probability[:, 19:21] = 0
        truth = ndimage.gaussian_filter(rng.random((40, 40)), 1.5) + 0.5 * noise > 0.8
        truth[:, 19:21] = False
        candidates, _ = find_candidates(truth, probability)
        number = ndimage.label(truth, np.ones((3, 3)))[1]
        scans.append((number, candidates))
        images += [(truth[:, :20], probability[:, :20]), (truth[:, 20:], probability[:, 20:])]
    curve, at = froc(scans), (0.1, 0.25, 0.55, 1.1, 2.05, 3.9)
    expected, area = short_froc(images, at)
    assert 0.05 < area < 0.95 and len(set(expected)) > 2, "a comparison that proves something"
    assert [curve.sensitivity_at(x) for x in at] == pytest.approx(expected, abs=1e-6)
    assert curve.area == pytest.approx(area, abs=1e-6)


def test_equal_scores_count_as_in_random_order():
    curve = froc([(1, [candidate(1.0, 0), candidate(1.0)])])
    assert [curve.sensitivity_at(x) for x in (0, 0.5, 1, 3)] == [0.0, 0.5, 1.0, 1.0]
    assert curve.area == pytest.approx((0.5 + 3) / 4)
