import numpy as np
from sklearn.metrics import f1_score

from doubleunet_bs.evaluation.scorer import grey_histograms
from doubleunet_bs.evaluation.scores.scan_scores import best_threshold
from doubleunet_bs.pixel_counts import PixelCounts, count_pixels
from doubleunet_bs.preparation.shards import open_shards


def histogram(**levels):
    values = np.zeros(256, np.int64)
    for level, number in levels.items():
        values[int(level[1:])] = number
    return values


def test_by_hand():
    # At least 200: 10 found, 2 wrong, 5 missed: F1 20/27. At least 100: 15 found, 6 wrong: F1 30/36, the best. At
    # least 10: 30/130.
    lesion, other = histogram(g200=10, g100=5), histogram(g220=2, g150=4, g10=94)
    assert best_threshold(lesion, other) == (100, PixelCounts(15, 6, 0))


def test_equal_thresholds_give_the_highest():
    # Everything between 41 and 90 does the same.
    assert best_threshold(histogram(g90=3), histogram(g40=7)) == (90, PixelCounts(3, 0, 0))


def test_ends_of_the_scale():
    assert best_threshold(histogram(g255=1), histogram(g254=9)) == (255, PixelCounts(1, 0, 0))
    assert best_threshold(histogram(g0=9), histogram(g1=1)) == (0, PixelCounts(9, 1, 0))


def test_without_a_lesion_there_is_no_threshold():
    assert best_threshold(histogram(), histogram(g3=10)) == (None, PixelCounts())
    assert best_threshold(histogram(), histogram()) == (None, PixelCounts())


def test_is_the_best_of_all_256():
    rng = np.random.default_rng(0)
    truth = rng.random(3000) < 0.15
    grey = np.clip(rng.normal(90 + 50 * truth, 40), 0, 255).astype(np.uint8)
    lesion, other = (np.bincount(grey[part], minlength=256) for part in (truth, ~truth))
    value, counts = best_threshold(lesion, other)
    scores = [f1_score(truth, grey >= level) for level in range(256)]
    assert counts.f1 == max(scores) == scores[value]


def test_histograms_and_counts_of_shards(shards):
    dataset = open_shards(shards)
    lesion, other = grey_histograms(dataset, [0, 1])
    assert (lesion[200], lesion[100], lesion.sum()) == (32, 16, 48)
    assert (other[220], other[10], other.sum()) == (4 + 8, 2 * 160 * 128 - 48 - 12, 2 * 160 * 128 - 48)
    assert count_pixels(dataset.labels(0), dataset.grey(0) >= 201) == PixelCounts(0, 4, 24)
    assert count_pixels(dataset.labels(0), dataset.grey(0) >= 200) == PixelCounts(16, 4, 8)
