"""Runs side by side: the paired test by hand and against SciPy, and what cannot be compared."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
from intensity_run import make_run, make_shards
from PIL import Image
from scipy.stats import wilcoxon
from score_makers import scan

from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.evaluation.charts import paired_chart
from doubleunet_bs.evaluation.compare_runs import compare_runs, format_comparison, write_comparison
from doubleunet_bs.evaluation.scorer import EvaluationSettings
from doubleunet_bs.evaluation.scores.fold_scores import write_scores
from doubleunet_bs.evaluation.scores.statistics import SEED, Comparison, compare_scans, holm_corrected
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.preparation.shards import open_shards
from doubleunet_bs.runs.experiments import PAPER_EXPERIMENTS
from doubleunet_bs.runs.run_folder import open_run

QUICK = EvaluationSettings(pictures=False, show_progress=False)


def with_dice(values, patients=None):
    """Scans with these Dice coefficients in %; None for an empty scan."""
    return [
        scan(
            number,
            *((0, 0, 0) if value is None else (value, 200 - 2 * value, 0)),
            patient=patients and patients[number],
        )
        for number, value in enumerate(values)
    ]


def test_by_hand():
    first, second = with_dice([50, 50, 50, 50, 50]), with_dice([60, 70, 45, 50, 80])
    assert first[0].dice == 0.5
    found = compare_scans("a", "b", first, second)
    assert (found.scans, found.ties, found.undefined) == (5, 1, 0)
    assert found.median_difference == pytest.approx(0.10)
    # Differences 10, 20, -5, 30 have the ranks 2, 3, 1, 4: (9 - 1) / 10.
    assert found.rank_biserial == pytest.approx(0.8)
    # Two of the sixteen signs of four ranks have a smaller rank sum of at most 1 on this side: 2 x 2 / 16.
    assert found.p == pytest.approx(0.25)


def test_an_equal_scan_leaves_the_test_exact():
    """Twenty scans differ, by 1 to 20 points, all but the smallest difference upwards; one is equal."""
    found = compare_scans("a", "b", with_dice([50] * 21), with_dice([50, 49, *range(52, 71)]))
    assert (found.scans, found.ties) == (21, 1)
    # Of the 2^20 signs of the ranks two have a sum of at most 1 on this side, and as many on the other.
    assert found.p == pytest.approx(4 / 2**20, rel=1e-9)


def test_zero_and_equal_differences_by_hand():
    found = compare_scans("a", "b", with_dice([50] * 6), with_dice([50, 60, 50, 40, 70, 50]))
    assert (found.scans, found.ties, found.median_difference) == (6, 3, 0.0)
    # Differences 10, -10, 20 share the ranks 1.5, 1.5, 3: (4.5 - 1.5) / 6.
    assert found.rank_biserial == pytest.approx(0.5)
    # Of the eight signs three have a rank sum of at least 4.5 on this side: 2 x 3 / 8.
    assert found.p == pytest.approx(0.75)


def test_agrees_with_scipy_and_turns_around():
    rng = np.random.default_rng(1)
    first, second = (with_dice([int(v) for v in rng.integers(10, 90, 30)]) for _ in range(2))
    there, back = compare_scans("a", "b", first, second), compare_scans("b", "a", second, first)
    # Rounded: a difference of 0.3 is the same from 0.9 - 0.6 and from 0.4 - 0.1.
    differences = [round(b.dice - a.dice, 9) for a, b in zip(first, second, strict=True)]
    assert there.p == pytest.approx(wilcoxon([d for d in differences if d]).pvalue)
    assert back.p == pytest.approx(there.p)
    assert back.rank_biserial == pytest.approx(-there.rank_biserial)
    assert back.median_difference == pytest.approx(-there.median_difference)
    assert there.interval[0] <= there.median_difference <= there.interval[1]
    # Paired by name, not by place.
    assert compare_scans("a", "b", first, second[::-1]) == there


def test_equal_and_undefined_scans_are_left_out():
    equal = compare_scans("a", "b", with_dice([30, 40, 50]), with_dice([30, 40, 50]))
    assert (equal.ties, equal.median_difference, equal.p, equal.rank_biserial) == (3, 0.0, None, None)
    found = compare_scans("a", "b", with_dice([None, 40, 50]), with_dice([30, None, 60]))
    assert (found.scans, found.undefined, found.median_difference) == (1, 2, pytest.approx(0.1))
    nothing = compare_scans("a", "b", with_dice([None]), with_dice([None]))
    assert (nothing.scans, nothing.median_difference, nothing.interval, nothing.p) == (0, None, None, None)
    assert compare_scans("a", "b", [], []).p is None


def test_interval_draws_patients():
    # One patient has all scans but one: these come and go together.
    values = [10, 10, 10, 10, 90]
    patients = [0, 0, 0, 0, 1]
    found = compare_scans("a", "b", with_dice([10] * 5, patients), with_dice(values, patients))
    assert found.interval == pytest.approx((0.0, 0.8))
    assert compare_scans("a", "b", with_dice([10], [0]), with_dice([20], [0])).interval is None


def test_median_interval_against_a_plain_loop():
    """The same draws: how often each patient is drawn."""
    rng = np.random.default_rng(2)
    patients = [int(number) for number in rng.integers(0, 12, 30)]
    first, second = (with_dice([int(v) for v in rng.integers(10, 90, 30)], patients) for _ in range(2))
    found = compare_scans("a", "b", first, second, resamples=500)
    by_patient = {}
    for a, b in zip(first, second, strict=True):
        by_patient.setdefault(a.patient, []).append(b.dice - a.dice)
    number = len(by_patient)
    draws = np.random.default_rng(SEED).multinomial(number, np.full(number, 1 / number), 500)
    medians = [
        np.median(np.concatenate([np.repeat(own, n) for own, n in zip(by_patient.values(), times, strict=True)]))
        for times in draws
    ]
    assert found.interval == pytest.approx(np.percentile(medians, (2.5, 97.5)), abs=1e-9)


def test_holm():
    def pair(name, p):
        return Comparison(name, "x", 9, 0, 0, 0.1, None, p, None, 0.5)

    found = holm_corrected([pair("a", 0.04), pair("b", 0.01), pair("c", None), pair("d", 0.03)])
    assert [one.p_holm for one in found] == pytest.approx([0.06, 0.03, None, 0.06])
    assert holm_corrected([pair("a", 0.04)])[0].p_holm == 0.04
    assert holm_corrected([pair("a", 0.9), pair("b", 0.8)])[0].p_holm == 1.0


@pytest.fixture(scope="module")
def runs(tmp_path_factory, shards, tensorflow):
    """Two runs on the same folds: the first finds 16 of 24 pixels, the second all of them."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        make_run(folder / "first", shards, folds=(1, 2)),
        make_run(folder / "second", shards, folds=(1, 2, 3), experiment="dice", level=50),
    ]


def test_two_runs(runs, tmp_path):
    found = compare_runs(runs, settings=QUICK)
    assert (found.names, found.folds, found.left_out) == (("first", "second"), (1, 2), (("second", 3),))
    pair = found.comparisons[0]
    assert (pair.scans, pair.ties) == (4, 0)
    # 8 pixels more are found on every scan: the second is better everywhere.
    assert pair.rank_biserial == 1.0
    assert pair.p == pytest.approx(2 / 16)
    assert found.means[1].sensitivity == 1.0

    text = format_comparison(found)
    lines = [line.split("  ")[0] for line in text.splitlines()[:4]]
    assert lines == ["run", "first", "second", ""] and text.splitlines()[0].endswith("SD of F1  fold 1  fold 2")
    assert "Differ in: loss focal-tversky / dice, negatives otsu / none." in text
    assert "first -> second: 4 scans, 0 equal" in text and "rank-biserial +1.00" in text
    assert "fold 3 of second" in text and "p = 0.125, rank" in text
    for line, mean, folds in zip(text.splitlines()[1:3], found.means, found.scores, strict=True):
        figures = [getattr(mean, name) for name in ("precision", "sensitivity", "f1_of_means", "f1_mean", "f1_sd")]
        assert line.split()[1:] == [f"{100 * value:.2f}" for value in (*figures, *(fold.pooled.f1 for fold in folds))]
    write_comparison(tmp_path / "out", found)
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert content["differences"]["loss"] == {"first": "focal-tversky", "second": "dice"}
    assert content["pairs"][0]["p"] == pair.p and content["runs"][1]["mean"]["sensitivity"] == 1.0
    rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").read_text().splitlines()))
    assert len(rows) == 4 and {row["scans_are"] for row in rows} == {"patients"}
    assert all(float(row["dice_second"]) > float(row["dice_first"]) for row in rows)
    assert "first" in (drawn := (tmp_path / "out" / "comparison.svg").read_text()) and "second" in drawn
    with Image.open(tmp_path / "out" / "comparison.png") as picture:
        assert picture.width > 1000
    assert (tmp_path / "out" / "comparison.txt").read_text() == text + "\n"


def test_a_pre_training_whose_patients_could_not_be_compared_is_named(runs, shards, tmp_path):
    """Also where it is that of the second run."""
    copy = shutil.copytree(runs[1], tmp_path / "second")
    content = read_json(copy / "experiment.json")
    sentence = "The shards of the pre-training have pseudonyms of another key"
    for compared, said in ((True, False), (None, False), (False, True)):
        content["pretrain_data"] = {"path": "gone", "fingerprint": "other", "patients_compared": compared}
        write_json(copy / "experiment.json", content)
        text = format_comparison(compare_runs([runs[0], copy], settings=QUICK))
        assert (sentence in text) is said


def test_shards_are_opened_once_and_the_files_of_the_runs_left_alone(runs, shards, tmp_path, monkeypatch):
    """A left-out fold that was scored by another rule is none of the comparison's business."""
    from doubleunet_bs.evaluation import evaluate

    copies = [shutil.copytree(run, tmp_path / run.name) for run in runs]
    run, dataset = open_run(copies[1]), open_shards(shards)
    scores = evaluate.score_fold(run, dataset, run.folds(dataset), 3, dataclasses.replace(QUICK, overlap=0.5))
    write_scores(run.fold_path(3) / "scores.json", scores)
    evaluate.evaluate_run(copies[0], settings=QUICK, report=False)

    def files():
        found = (path for copy in copies for path in (*copy.glob("*"), *copy.glob("fold_*/*.json")))
        return {path: path.read_bytes() for path in found if path.is_file()}

    written = files()
    real, opened = evaluate.open_all_shards, []
    monkeypatch.setattr(
        evaluate, "open_all_shards", lambda *args, **kwargs: opened.append(args) or real(*args, **kwargs)
    )
    stricter = dataclasses.replace(QUICK, overlap=0.9, normals=False)
    found = compare_runs(copies, settings=stricter)
    assert (found.folds, found.left_out, len(opened)) == ((1, 2), (("second", 3),), 1)
    assert {score.overlap for folds in found.scores for score in folds} == {0.9}
    assert files() == written
    # What is not scored again still fits the run's other files, and nothing is predicted twice.
    assert len(evaluate.evaluate_run(copies[0], fold=1, settings=QUICK, report=False).folds) == 2
    assert (copies[1] / "fold_02" / "predictions" / "predictions.json").is_file()


def test_runs_of_another_precision_are_distinguished(runs, tmp_path):
    """Precision decides the figures as well."""
    float32, mixed = (shutil.copytree(runs[0], tmp_path / name) for name in ("float32", "mixed"))
    for run, precision in ((float32, "float32"), (mixed, "mixed_bfloat16")):
        environment = run / "fold_01" / "environment.json"
        write_json(environment, {**read_json(environment), "precision": precision})
    found = compare_runs([float32, mixed, runs[0]], fold=1, settings=QUICK)
    assert found.experiments == ("focal-tversky-otsu (changed)",) * 3
    assert found.differences == {"precision": ("float32", "mixed_bfloat16", "float32")}
    assert "Differ in: precision float32 / mixed_bfloat16 / float32." in format_comparison(found)
    same = compare_runs([runs[0], float32], fold=2, settings=QUICK)
    assert "The runs have the same settings." in format_comparison(same)


def test_three_runs_are_corrected_for_three_pairs(runs, tmp_path):
    third = shutil.copytree(runs[0], tmp_path / "third")
    found = compare_runs([*runs, third], settings=QUICK)
    assert [(pair.first, pair.second) for pair in found.comparisons] == [
        ("first", "second"),
        ("first", "third"),
        ("second", "third"),
    ]
    same = found.comparisons[1]
    assert (same.ties, same.p, same.p_holm) == (4, None, None)
    assert found.comparisons[0].p_holm == pytest.approx(2 * 2 / 16)
    text = format_comparison(found)
    assert "p = 0.125, corrected = 0.250, rank" in text and "no scan differs, so there is no test" in text


@pytest.mark.parametrize("names", [tuple(PAPER_EXPERIMENTS), sorted(PAPER_EXPERIMENTS, key=len)[-2:]])
def test_the_names_of_all_rows_fit_under_the_picture(names):
    figure = paired_chart(names, [[0.5] * len(names)])
    figure.draw_without_rendering()
    [axes] = figure.axes
    labels = axes.get_xticklabels()
    assert all(figure.bbox.fully_containsx(x) for label in labels for x in label.get_window_extent().intervalx)
    # Slanted lines of text are apart when their starts are.
    assert axes.bbox.width / len(labels) * np.sin(np.radians(labels[0].get_rotation())) > labels[0].get_fontsize()


def test_folds_that_predicted_nothing_are_named(runs, shards, tmp_path):
    silent = make_run(tmp_path / "silent", shards, folds=(1, 2), experiment="dice", level=255)
    text = format_comparison(compare_runs([runs[0], silent], settings=QUICK))
    assert "silent: mean precision and [1] without 2 folds that predicted nothing." in text
    assert "first: mean" not in text


def test_one_fold(runs):
    found = compare_runs(runs, fold=2, settings=QUICK)
    assert (found.folds, found.left_out) == ((2,), ())
    with pytest.raises(RunError, match="fold 3 is not trained in all runs .*first: 1, 2; second: 1, 2, 3"):
        compare_runs(runs, fold=3, settings=QUICK)


def test_other_folds_other_shards_and_too_few_runs_are_refused(runs, tmp_path):
    other, untrained = tmp_path / "other", tmp_path / "untrained"
    shutil.copytree(runs[0], other)
    shutil.copytree(runs[0], untrained, ignore=shutil.ignore_patterns("fold_*"))
    folds = read_json(other / "folds.json")
    parts = folds["parts"]
    write_json(other / "folds.json", {**folds, "parts": [parts[1], parts[0], parts[2]]})
    strange = make_run(tmp_path / "strange", make_shards(tmp_path / "elsewhere", first=100), folds=(1,))
    for second, message in (
        (other, r"other: its folds are not those of .*first: train .* --folds-file .*first/folds\.json"),
        (strange, "not the shards"),
        (untrained, "no fold that all runs have trained .*untrained: none"),
    ):
        with pytest.raises(RunError, match=message):
            compare_runs([runs[0], second], settings=QUICK)
    with pytest.raises(SettingsError, match="at least two"):
        compare_runs(runs[:1])
    with pytest.raises(SettingsError, match="named twice"):
        compare_runs([runs[0], runs[0]])


def test_runs_of_one_name_are_distinguished(runs, tmp_path):
    twin = shutil.copytree(runs[0], tmp_path / "first")
    assert compare_runs([runs[0], twin], fold=1, settings=QUICK).names == (str(runs[0]), str(twin))
