"""The paper's own fold rows give the paper's own means."""

import pytest

from doubleunet_bs.evaluation.pixel_counts import PixelCounts
from doubleunet_bs.evaluation.scores import FoldScores, ScanScore, ThresholdScore
from doubleunet_bs.evaluation.summary import Summary, mean_of_folds
from doubleunet_bs.evaluation.tables import format_summary

TABLE_1 = """49.21 79.19 60.70  58.74 64.98 61.70  70.56 60.01 64.86  81.69 52.20 63.70  60.57 54.06 57.13
72.55 45.92 56.24  43.63 83.32 57.27  49.03 68.21 57.05  61.73 60.84 61.28  67.89 61.13 64.34"""
TABLE_3 = """65.69 72.10 68.75  67.51 66.55 67.03  69.10 69.82 69.46  82.94 61.02 70.31  60.18 61.69 60.93
77.22 53.48 63.19  58.39 70.78 63.99  51.06 71.14 59.45  61.93 65.56 63.69  59.15 80.25 68.10"""


def rows(table):
    values = [float(word) for word in table.split()]
    return list(zip(values[::3], values[1::3], values[2::3], strict=True))


@pytest.mark.parametrize(
    ("table", "printed", "f1_mean"), [(TABLE_1, (61.56, 62.99, 62.27), 60.43), (TABLE_3, (65.32, 67.24, 66.26), 65.49)]
)
def test_reproduces_the_means_of_the_paper(table, printed, f1_mean):
    mean = mean_of_folds(rows(table))
    # The rows are rounded to two digits, so the last one is not certain.
    assert (mean.precision, mean.sensitivity, mean.f1_of_means) == pytest.approx(printed, abs=0.0055)
    assert mean.f1_mean == pytest.approx(f1_mean, abs=0.0051)


def test_standard_deviation_is_that_of_a_sample():
    mean = mean_of_folds([(0.2, 0.5, 0.3), (0.4, 0.5, 0.5)])
    assert (mean.precision_sd, mean.sensitivity_sd, mean.f1_sd) == pytest.approx((0.02**0.5, 0.0, 0.02**0.5))


def test_undefined_folds_are_left_out_and_counted():
    mean = mean_of_folds([(None, 0.0, 0.0), (0.6, 0.4, 0.48)])
    assert (mean.precision, mean.sensitivity, mean.f1_mean) == pytest.approx((0.6, 0.2, 0.24))
    assert mean.folds == {"precision": 1, "sensitivity": 2, "f1": 2}
    assert mean.precision_sd is None
    assert mean.f1_of_means == pytest.approx(0.3)


def test_nothing_at_all():
    assert mean_of_folds([(0.0, 0.0, 0.0)]).f1_of_means == 0.0
    empty = mean_of_folds([])
    assert (empty.precision, empty.sensitivity, empty.f1_of_means, empty.f1_mean) == (None,) * 4


def fold(number, counts, value=100):
    threshold = ThresholdScore(value, None if value is None else PixelCounts(1, 1, 1), 0.5)
    return FoldScores(number, (ScanScore("case-0", "patient-0", counts),), threshold, {})


def test_table():
    text = format_summary(Summary("dice", {}, 10, (fold(1, PixelCounts(1, 3, 1)), fold(2, PixelCounts(0, 0, 4), None))))
    lines = text.splitlines()
    assert lines[3].split() == ["1", "1", "25.00", "50.00", "33.33", "100", "50.00", "50.00", "50.00"]
    assert lines[4].split() == ["2", "1", "-", "0.00", "0.00", "-", "-", "-", "-"]
    assert lines[6].split() == ["mean", "25.00", "25.00", "25.00", "50.00", "50.00", "50.00", "[1]"]
    assert lines[7].split() == ["mean", "of", "F1", "16.67", "50.00", "[2]"]
    assert "precision (1)" in text
    assert "2 of 10 folds are scored." in text


def test_table_of_one_fold_has_no_means():
    text = format_summary(Summary("dice", {}, 1, (fold(1, PixelCounts(1, 3, 1)),)))
    assert "mean" not in text
    assert "SD" not in text
