"""The paper's own fold rows give the paper's own means, in every form the table is printed in."""

import csv
import dataclasses
import io
import re
import types

import pytest
from score_makers import fold, fold_of, lesion, scan

from doubleunet_bs.evaluation.paper_tables import PAPER_ROWS, Provenance, provenance
from doubleunet_bs.evaluation.report_sections import pixel_table
from doubleunet_bs.evaluation.scores.fold_scores import Postprocessed
from doubleunet_bs.evaluation.scores.scan_scores import MinimumSize
from doubleunet_bs.evaluation.scores.statistics import bootstrap_means
from doubleunet_bs.evaluation.summary import Summary, mean_of_folds
from doubleunet_bs.evaluation.tables import summary_csv, summary_tex
from doubleunet_bs.evaluation.terminal_text import format_details, format_summary
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.runs.experiments import paper_experiment

# Precision, sensitivity and F1 of each fold, as the paper printed them: the baseline, and with augmentation.
TABLE_1_FOLDS = (
    (49.21, 79.19, 60.70),
    (58.74, 64.98, 61.70),
    (70.56, 60.01, 64.86),
    (81.69, 52.20, 63.70),
    (60.57, 54.06, 57.13),
    (72.55, 45.92, 56.24),
    (43.63, 83.32, 57.27),
    (49.03, 68.21, 57.05),
    (61.73, 60.84, 61.28),
    (67.89, 61.13, 64.34),
)

TABLE_3_FOLDS = (
    (65.69, 72.10, 68.75),
    (67.51, 66.55, 67.03),
    (69.10, 69.82, 69.46),
    (82.94, 61.02, 70.31),
    (60.18, 61.69, 60.93),
    (77.22, 53.48, 63.19),
    (58.39, 70.78, 63.99),
    (51.06, 71.14, 59.45),
    (61.93, 65.56, 63.69),
    (59.15, 80.25, 68.10),
)

TABLES = [
    ("baseline", TABLE_1_FOLDS, 60.43),
    ("focal-tversky-otsu-transfer-augmented", TABLE_3_FOLDS, 65.49),
]


def of_paper(name, rows, **others):
    return Summary(name, {}, 10, tuple(fold_of(n, p, s) for n, (p, s, _) in enumerate(rows, 1)), **others)


@pytest.mark.parametrize(("name", "rows", "f1_mean"), TABLES)
def test_reproduces_the_means_of_the_paper(name, rows, f1_mean):
    printed = PAPER_ROWS[name]
    mean = mean_of_folds(rows)
    # The rows are rounded to two digits, so the last one is not certain.
    expected = (printed.precision, printed.sensitivity, printed.f1)
    assert (mean.precision, mean.sensitivity, mean.f1_of_means) == pytest.approx(expected, abs=0.0055)
    assert mean.f1_mean == pytest.approx(f1_mean, abs=0.0051)


@pytest.mark.parametrize(("name", "rows", "f1_mean"), TABLES)
def test_tables_from_pixel_counts_reproduce_the_paper(name, rows, f1_mean):
    """From counts of pixels with the paper's precision and sensitivity to the printed table."""
    summary = of_paper(name, rows)
    text = format_summary(summary).splitlines()
    tex = summary_tex(summary)
    for number, row in enumerate(rows, 1):
        own = [float(word) for word in text[2 + number].split()[2:5]]
        # F1 follows from rounded figures: the paper's own may differ in the last digit.
        assert own == pytest.approx(row, abs=0.0101)
        assert f"{number} & {row[0]:.2f} & {row[1]:.2f} & " in tex
    printed = PAPER_ROWS[name]
    expected = (printed.precision, printed.sensitivity, printed.f1)
    mean = next(line.split()[1:4] for line in text if line.split()[:1] == ["mean"])
    assert [float(word) for word in mean] == pytest.approx(expected, abs=0.0101)
    of_f1 = next(line.split() for line in text if line.split()[:3] == ["mean", "of", "F1"])
    assert float(of_f1[3]) == pytest.approx(f1_mean, abs=0.0101)
    cells = next(row for row in csv.reader(io.StringIO(summary_csv(summary))) if row[1] == "mean")
    assert [100 * float(cell) for cell in cells[3:6]] == pytest.approx(expected, abs=0.0101)


def test_table_2_is_consistent_with_itself():
    for row in PAPER_ROWS.values():
        harmonic = 2 * row.precision * row.sensitivity / (row.precision + row.sensitivity)
        assert row.f1 == pytest.approx(harmonic, abs=0.0101)


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
    # Nothing was predicted, and something was there: the F1 of the means is that of the fold.
    silent = mean_of_folds([(None, 0.0, 0.0)])
    assert (silent.precision, silent.f1_of_means, silent.f1_mean) == (None, 0.0, 0.0)
    assert bootstrap_means([[scan(0, 0, 0, 10), scan(1, 0, 0, 5)]]).f1_of_means == (0.0, 0.0)
    empty = mean_of_folds([])
    assert (empty.precision, empty.sensitivity, empty.f1_of_means, empty.f1_mean) == (None,) * 4


def two_folds(**others):
    return Summary("dice", {}, 10, (fold(1, scan(0, 1, 3, 1)), fold(2, scan(1, 0, 0, 4), value=None)), **others)


def test_table():
    text = format_summary(two_folds())
    lines = text.splitlines()
    assert lines[3].split() == ["1", "1", "25.00", "50.00", "33.33", "100", "50.00", "50.00", "50.00"]
    assert lines[4].split() == ["2", "1", "-", "0.00", "0.00", "-", "-", "-", "-"]
    assert lines[6].split() == ["mean", "25.00", "25.00", "25.00", "50.00", "50.00", "50.00", "[1]"]
    assert lines[7].split() == ["mean", "of", "F1", "16.67", "50.00", "[2]"]
    assert "precision (1)" in text
    assert "2 of 10 folds are scored." in text
    assert "95 %" not in text  # one patient in each fold, too few to draw


def test_table_of_one_fold_has_no_means():
    text = format_summary(Summary("dice", {}, 1, (fold(1, scan(0, 1, 3, 1)),)))
    assert "mean" not in text
    assert "SD" not in text


def test_interval_stands_under_the_table():
    summary = Summary("dice", {}, 2, (fold(1, scan(0, 10, 0, 0), scan(1, 0, 10, 10)),))
    text = format_summary(summary)
    line = next(line for line in text.splitlines() if line.split()[:2] == ["95", "%"])
    assert re.findall(r"\d+\.\d to \d+\.\d", line) == ["0.0 to 100.0"] * 3
    assert "2000 bootstrap draws (seed 0) of 2 patients, within each fold" in text
    assert summary.to_json()["interval_95"]["precision"] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("scans", "says", "physicians"),
    [
        ("phantoms", "Phantom scans: a software check, not comparable with any figure of patients.", False),
        ("mixed", "Some of the scans are phantoms", False),
        ("unknown", "do not say whether their scans are phantoms", False),
        ("patients", "Scans of patients.", True),
    ],
)
def test_what_the_figures_can_be_compared_with(scans, says, physicians):
    summary = two_folds(provenance=Provenance(scans, {}, PAPER_ROWS["dice"]))
    text, table, tex = format_summary(summary), summary_csv(summary), summary_tex(summary)
    # The table for a spreadsheet has no line that would pass for a fold: a column says it.
    lines = list(csv.DictReader(io.StringIO(table)))
    assert {line["scans_are"] for line in lines if "paper" not in line["method"]} == {scans}
    assert all(line["precision"] or line["row"] for line in lines) and "#" not in table
    for form in (text, tex):
        assert says in form
        assert ("0.704" in form) is physicians
        left_out = "The paper's row is left out: these are not (or not known to be) scans of patients."
        assert (left_out in form) is not physicians
        assert ("the data differ" in form) is physicians
    for form in (text, table, tex):
        # The paper's row is of patients, and stands under figures of patients alone.
        assert ("67.63" in form or "0.6763" in form) is physicians
    paper = [line.split()[1:4] for line in text.splitlines() if line.split()[:1] == ["paper"]]
    assert paper == ([["67.63", "63.29", "65.39"]] if physicians else [])
    content = summary.to_json()["data"]
    assert (content["paper"] and content["paper"]["f1"]) == (65.39 if physicians else None)
    assert says in content["notes"][0]
    assert (content["physicians_dice"] is not None) is physicians


def test_no_row_of_the_paper_beside_a_changed_run():
    summary = two_folds(provenance=Provenance("patients", {"bin": 4}, None))
    for form in (format_summary(summary), summary_csv(summary), summary_tex(summary)):
        assert "aper, Table" not in form and "67.63" not in form and "0.6763" not in form
    assert "The preparation is not the paper's (bin 4)." in format_summary(summary)


@pytest.mark.parametrize(
    ("cancers", "others"), [((None, "breast"), []), (("breast", "prostate", None), ["prostate"]), ((), [])]
)
def test_no_row_of_the_paper_beside_another_cancer(cancers, others):
    records = (types.SimpleNamespace(phantom=False, cancer=cancer, part=None) for cancer in cancers)
    found = provenance(paper_experiment("dice"), records, PreparationSettings())
    assert found.row == PAPER_ROWS["dice"] and found.to_json()["other_cancers"] == others
    shown = bool(cancers) and not others
    summary = two_folds(provenance=found)
    page = pixel_table(summary)
    shown_on_page = "\n".join([*(" ".join(row) for row in page.rows), *page.notes])
    for form in (format_summary(summary), summary_csv(summary), summary_tex(summary), shown_on_page):
        assert ("67.63" in form or "0.6763" in form) is shown
        says = (
            "The paper's row is left out: scans are recorded as of prostate cancer, the paper's are of breast cancer."
        )
        assert (says in form) is (bool(others) and not form.startswith("method,"))
    assert (found.to_json()["paper"] is not None) is shown


def test_what_phantoms_are_called_does_not_depend_on_their_cancer():
    notes = Provenance("phantoms", {}, PAPER_ROWS["dice"], ("prostate",)).notes
    assert "The paper's row is left out: these are not (or not known to be) scans of patients." in notes
    assert not any("prostate" in note for note in notes)


def test_an_ensemble_of_one_fold_is_called_so():
    one = two_folds().folds[0]
    for members in (1, 2):
        ensemble = dataclasses.replace(one, fold=0, about={**one.about, "ensemble": [{"fold": 1}] * members})
        summary = dataclasses.replace(two_folds(), folds=(ensemble,), total_folds=1)
        assert ("Only one fold is trained" in format_summary(summary)) is (members == 1)


def test_csv():
    rows = list(csv.DictReader(io.StringIO(summary_csv(two_folds()))))
    first = rows[0]
    assert (first["method"], first["row"], first["scans"]) == ("Double U-Net", "fold 1", "1")
    assert [float(first[name]) for name in ("precision", "sensitivity", "f1")] == [0.25, 0.5, 1 / 3]
    assert rows[1]["precision"] == ""
    means = [row for row in rows if row["row"].startswith("mean")]
    assert [row["f1_is"] for row in means] == ["of the means", "mean over folds"] * 2
    assert {row["method"] for row in means} == {"Double U-Net", "intensity threshold"}


def test_latex_is_whole():
    tex = summary_tex(two_folds())
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 1
    body = tex.partition(r"\begin{tabular}")[2]
    assert not re.search(r"(?<!\\)[%&_#](?![^\n]*\\\\)", body.replace(" & ", ""))
    for line in body.splitlines():
        if " & " in line:
            assert line.count(" & ") == 3 and line.endswith(r"\\")


@pytest.mark.parametrize("folds", [1, 2])
def test_latex_notes_do_not_widen_the_table_and_intervals_are_there(folds):
    rows = tuple(fold(n, scan(2 * n, 10, 0, 0), scan(2 * n + 1, 0, 10, 10)) for n in range(1, folds + 1))
    changed = {"labels": "a_b & 50 % \\\\ ~^<{}>#$"}
    summary = Summary("dice", {}, folds, rows, Provenance("patients", changed, PAPER_ROWS["dice"]))
    tex = summary_tex(summary)
    table, _, below = tex.partition(r"\end{tabular}")
    # A cell does not break: the widest row decides how wide the table is.
    assert max(map(len, table.partition(r"\toprule")[2].splitlines())) < 90
    assert r"\parbox{\linewidth}" in below
    for note in summary.provenance.notes:
        assert f"% {note}\n" in table
    said = (
        r"\textbackslash{}\textbackslash{} \textasciitilde{}\textasciicircum{}\textless{}\{\}"
        r"\textgreater{}\#\$"
    )
    assert r"a\_b \& 50 \% " + said in below
    assert f"95 \\% interval: 2000 bootstrap draws (seed 0) of {2 * folds} patients" in below
    spans = [
        re.findall(r"\d+\.\d to \d+\.\d", line) for line in table.splitlines() if "interval" in line and "&" in line
    ]
    found = summary.intervals
    expected = [found.precision, found.sensitivity, found.f1_of_means]
    expected = [[f"{100 * low:.1f} to {100 * high:.1f}" for low, high in expected]]
    if folds > 1:
        expected.append([f"{100 * found.f1_mean[0]:.1f} to {100 * found.f1_mean[1]:.1f}"])
    assert spans == expected


def test_latex_says_which_means_leave_folds_out():
    assert "Undefined in some folds, which are left out of that mean: precision (1)." in summary_tex(two_folds())
    assert "interval" not in summary_tex(two_folds())  # one patient in each fold, too few to draw


def test_details():
    after = Postprocessed(MinimumSize(120.0, "mm2", 0.6, 0.5), (scan(0, 6, 0, 4),))
    summary = Summary(
        "dice",
        {},
        2,
        (
            fold(
                1,
                scan(
                    0,
                    6,
                    4,
                    4,
                    true=[lesion(area=100, common=6)],
                    lesions=[lesion(area=100, common=6, probability=0.9), lesion(area=50, probability=0.4)],
                ),
                unit="mm2",
                normals=(scan(5, group="negative"),),
                postprocessed=after,
            ),
        ),
    )
    text = format_details(summary)
    assert "from 120 mm2" in text and "75.00" in text  # F1 with the minimum: 12 / 16
    row = next(line.split() for line in text.splitlines() if line.split()[:1] == ["all"])
    assert row == ["all", "1", "0", "2", "1", "50.00", "100.00", "66.67"]
    assert "sensitivity 100.00 (1 of 1), specificity 100.00 (1 of 1), AUC 1.000, false-positive lesions" in text
    assert "per normal scan 0.00 (0 in 1)" in text
    assert "Dice per scan, 1 scan: median 60.00" in text
    # The raw figures are what the table shows.
    assert summary.mean.f1_mean == 0.6 and summary.postprocessed_mean.f1_mean == 0.75


def test_details_say_what_the_minimum_size_does_to_patients():
    """A normal scan whose only lesion is too small has no finding left, nor has a patient whose lesions all are."""
    small, large = lesion(area=50, probability=0.8), lesion(area=120, common=6, probability=0.7)
    raw = (scan(0, 6, 4, 4, lesions=[large, small]), scan(1, 1, 0, 9, lesions=[lesion(area=60, probability=0.9)]))
    after = (scan(0, 6, 2, 4, lesions=[large]), scan(1, 0, 0, 10))
    normals = (scan(5, group="negative", lesions=[small]), scan(6, group="negative", lesions=[small, large]))
    fitted = Postprocessed(MinimumSize(120.0, "mm2", 0.6, 0.5), after)
    first = fold(1, *raw, unit="mm2", normals=normals, postprocessed=fitted)
    text = format_details(Summary("dice", {}, 2, (first,)))
    assert (
        "sensitivity 100.00 (2 of 2), specificity 0.00 (0 of 2), AUC 0.750, "
        "false-positive lesions per normal scan 1.50 (3 in 2)"
    ) in text
    assert (
        "  with the minimum lesion size: sensitivity 50.00 (1 of 2), specificity 50.00 (1 of 2), AUC 0.500, "
        "false-positive lesions per normal scan 0.50 (1 in 2)"
    ) in text
    content = first.to_json()
    assert (content["detection"]["cleared"], content["postprocessed"]["detection"]["cleared"]) == (0, 1)
    # Nothing is said where no fold has a minimum.
    none = dataclasses.replace(first, postprocessed=Postprocessed(MinimumSize(None, "mm2", 0.5, 0.5), raw))
    summary = Summary("dice", {}, 2, (none,))
    assert "with the minimum lesion size:" not in format_details(summary)
    assert summary.to_json()["postprocessed_detection_mean"] == summary.to_json()["detection_mean"]


def test_details_say_why_figures_are_undefined():
    text = format_details(Summary("dice", {}, 2, (fold(1, scan(0, 6, 4, 4), normals_reason="they are training data"),)))
    assert "specificity -, AUC -" in text
    assert "Specificity, AUC and false positives are undefined: they are training data." in text
    assert "No minimum lesion size" in text


def test_details_call_nothing_undefined_that_is_given():
    """The only normal scan is of a patient with metastases: a rate of false-positive lesions, but no specificity."""
    normal = scan(7, patient=0, group="negative", lesions=[lesion(probability=0.4)])
    text = format_details(Summary("dice", {}, 1, (fold(1, scan(0, 6, 4, 4), normals=(normal,)),)))
    assert "specificity -, AUC -, false-positive lesions per normal scan 1.00" in text
    assert "Specificity and AUC are undefined: all normal scans are of patients with metastases." in text


def test_details_say_in_which_folds_figures_are_undefined():
    """Fold 1 tests a normal patient, folds 2 and 3 have none left for two reasons: every mean says of what it is."""
    found = [lesion(probability=0.9)]
    rows = (
        fold(1, scan(0, 6, 4, 4, lesions=found), normals=(scan(9, group="negative"),)),
        fold(2, scan(1, 6, 4, 4, lesions=found), normals_reason="they are training data"),
        fold(3, scan(2, 6, 4, 4), normals=(scan(8, patient=2, group="negative"),)),
    )
    lines = format_details(Summary("dice", {}, 3, rows)).splitlines()
    assert (
        "Patients, mean over the folds: sensitivity 66.67 (2 of 3), specificity 100.00 (1 of 1; mean of 1 of 3 folds), "
        "AUC 1.000 (mean of 1 of 3 folds), false-positive lesions per normal scan 0.00 (0 in 2; mean of 2 of 3 folds)"
    ) in lines
    assert "  Specificity, AUC and false positives are undefined in fold 2: they are training data." in lines
    assert "  Specificity and AUC are undefined in fold 3: all normal scans are of patients with metastases." in lines
    twice = format_details(Summary("dice", {}, 3, (rows[0], rows[1], rows[1])))
    assert "false positives are undefined in fold 2, 2: they" in twice
    # Undefined everywhere: no fold needs a name.
    everywhere = format_details(Summary("dice", {}, 2, (rows[1], rows[1])))
    assert "false positives are undefined: they are training data." in everywhere and "mean of" not in everywhere
