"""The paper's own fold rows give the paper's own means, in every form the table is printed in."""

import csv
import dataclasses
import io
import re
import types

import pytest
from score_makers import fold, fold_of, lesion, scan

from doubleunet_bs.evaluation.paper_tables import PAPER_ROWS, Provenance, provenance
from doubleunet_bs.evaluation.scores.fold_scores import Postprocessed
from doubleunet_bs.evaluation.scores.scan_scores import MinimumSize
from doubleunet_bs.evaluation.scores.statistics import bootstrap_means
from doubleunet_bs.evaluation.summary import Summary, mean_of_folds
from doubleunet_bs.evaluation.tables import (
    Table,
    dice_sentence,
    lesion_table,
    patient_table,
    pixel_table,
    summary_text,
    table_text,
)
from doubleunet_bs.evaluation.write_summary import summary_csv, summary_tex
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
    table, tex = {row[0]: row[2:5] for row in pixel_table(summary).rows}, summary_tex(summary)
    for number, row in enumerate(rows, 1):
        # F1 follows from rounded figures: the paper's own may differ in the last digit.
        assert [float(cell) for cell in table[f"fold {number}"]] == pytest.approx(row, abs=0.0101)
        assert f"{number} & {row[0]:.2f} & {row[1]:.2f} & " in tex
    printed = PAPER_ROWS[name]
    expected = (printed.precision, printed.sensitivity, printed.f1)
    assert [float(cell) for cell in table["mean [1]"]] == pytest.approx(expected, abs=0.0101)
    assert float(table["mean of F1 [2]"][2]) == pytest.approx(f1_mean, abs=0.0101)
    cells = next(row for row in csv.reader(io.StringIO(summary_csv(summary))) if row[1] == "mean")
    assert [100 * float(cell) for cell in cells[3:6]] == pytest.approx(expected, abs=0.0101)


def test_table_2_is_consistent_with_itself():
    for row in PAPER_ROWS.values():
        harmonic = 2 * row.precision * row.sensitivity / (row.precision + row.sensitivity)
        assert row.f1 == pytest.approx(harmonic, abs=0.0101)


def test_the_table_of_lesions_says_when_two_match():
    for overlap, rule in ((0.0, "share a pixel"), (0.25, "overlap by 0.25 (intersection over union)")):
        table = lesion_table(Summary("dice", {}, 10, (fold(1, scan(0, 1), overlap=overlap),)))
        assert f"Two match when they {rule}." in table.about[0]


def test_means_over_folds_by_hand():
    mean = mean_of_folds([(0.2, 0.5, 0.3), (0.4, 0.5, 0.5)])
    # The standard deviation is that of a sample.
    assert (mean.precision_sd, mean.sensitivity_sd, mean.f1_sd) == pytest.approx((0.02**0.5, 0.0, 0.02**0.5))
    # Undefined folds are left out and counted.
    mean = mean_of_folds([(None, 0.0, 0.0), (0.6, 0.4, 0.48)])
    assert (mean.precision, mean.sensitivity, mean.f1_mean) == pytest.approx((0.6, 0.2, 0.24))
    assert mean.folds == {"precision": 1, "sensitivity": 2, "f1": 2}
    assert mean.precision_sd is None and mean.f1_of_means == pytest.approx(0.3)
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
    table = pixel_table(two_folds())
    assert table.rows[:3] == [
        ["fold 1", "1", "25.00", "50.00", "33.33", "50.00", "–"],
        ["fold 2", "1", "–", "0.00", "0.00", "–", "–"],
        ["mean [1]", "", "25.00", "25.00", "25.00", "50.00", "–"],
    ]
    assert table.rows[3][:5] == ["mean of F1 [2]", "", "", "", "16.67"] and table.strong == [2]
    assert any("precision (1)" in note for note in table.notes) and "2 of 10 folds are scored." in table.notes
    assert "95 %" not in summary_text(two_folds())  # one patient in each fold, too few to draw


def test_the_terminal_has_all_tables_without_what_a_plain_one_cannot_print():
    text = summary_text(two_folds())
    for title in ("pixels, %", "lesions, %", "pixels by view, %", "patients, mean in %", "all unseen scans"):
        assert f"\n{title} " in f"\n{text}"
    assert re.search(r"^fold 2 +1 +- +0\.00 +0\.00 +- +-$", text, re.MULTILINE) and text.isascii()
    lines = table_text(Table(["", "F1"], [["one", "5"], ["longer", "10.5"]], about=["page"], notes=["all"]), "name")
    assert lines.splitlines() == ["name      F1", "one        5", "longer  10.5", "all"]


def test_table_of_one_fold_has_an_interval_and_no_means():
    summary = Summary("dice", {}, 2, (fold(1, scan(0, 10, 0, 0), scan(1, 0, 10, 10)),))
    table = pixel_table(summary)
    assert [row[0] for row in table.rows] == ["fold 1", "95 % interval [1]"] and table.strong == []
    assert table.rows[1] == ["95 % interval [1]", "", *["0.0 to 100.0"] * 3, "", ""]
    assert "[1] 95 % interval: 2000 bootstrap draws (seed 0) of 2 patients." in table.notes
    assert summary.to_json()["interval_95"]["precision"] == (0.0, 1.0)


@pytest.mark.parametrize(
    ("scans", "says", "physicians"),
    [
        ("phantoms", "Phantom scans: a software check, not comparable with any figure of patients.", False),
        ("mixed", "Some of the scans are phantoms", False),
        ("patients", "Scans of patients.", True),
    ],
)
def test_what_the_figures_can_be_compared_with(scans, says, physicians):
    summary = two_folds(provenance=Provenance(scans, {}, PAPER_ROWS["dice"]))
    text, table, tex = summary_text(summary), summary_csv(summary), summary_tex(summary)
    # The table for a spreadsheet has no line that would pass for a fold: a column says it.
    lines = list(csv.DictReader(io.StringIO(table)))
    assert {line["scans_are"] for line in lines if "paper" not in line["method"]} == {scans}
    assert all(line["precision"] or line["row"] for line in lines) and "#" not in table
    for form in (text, tex):
        assert says in form
        assert ("0.704" in form) is physicians
        left_out = "The paper's row is left out: these are not scans of patients alone."
        assert (left_out in form) is not physicians
        assert ("the data differ" in form) is physicians
    for form in (text, table, tex):
        # The paper's row is of patients, and stands under figures of patients alone.
        assert ("67.63" in form or "0.6763" in form) is physicians
    paper = [row[2:5] for row in pixel_table(summary).rows if row[0].startswith("paper, Table 2")]
    assert paper == ([["67.63", "63.29", "65.39"]] if physicians else [])
    content = summary.to_json()["data"]
    assert (content["paper"] and content["paper"]["f1"]) == (65.39 if physicians else None)
    assert says in content["notes"][0]
    assert (content["physicians_dice"] is not None) is physicians


def test_no_row_of_the_paper_beside_a_changed_run():
    summary = two_folds(provenance=Provenance("patients", {"bin": 4}, None))
    for form in (summary_text(summary), summary_csv(summary), summary_tex(summary)):
        assert "aper, Table" not in form and "67.63" not in form and "0.6763" not in form
    assert "The preparation is not the paper's (bin 4)." in summary_text(summary)


@pytest.mark.parametrize(("cancers", "others"), [((None, "breast"), []), (("breast", "prostate", None), ["prostate"])])
def test_no_row_of_the_paper_beside_another_cancer(cancers, others):
    records = (types.SimpleNamespace(phantom=False, cancer=cancer, part=None) for cancer in cancers)
    found = provenance(paper_experiment("dice"), records, PreparationSettings())
    assert found.row == PAPER_ROWS["dice"] and found.to_json()["other_cancers"] == others
    shown = not others
    summary = two_folds(provenance=found)
    for form in (summary_text(summary), summary_csv(summary), summary_tex(summary)):
        assert ("67.63" in form or "0.6763" in form) is shown
        says = (
            "The paper's row is left out: scans are recorded as of prostate cancer, the paper's are of breast cancer."
        )
        assert (says in form) is (bool(others) and not form.startswith("method,"))
    assert (found.to_json()["paper"] is not None) is shown
    # What phantoms are called does not depend on their cancer.
    assert not any("prostate" in note for note in dataclasses.replace(found, scans="phantoms").notes)


def test_an_ensemble_names_its_folds_and_one_of_one_fold_is_called_so():
    one = two_folds().folds[0]
    for members in (1, 2):
        ensemble = dataclasses.replace(one, fold=0, about={**one.about, "ensemble": [{"fold": 1}] * members})
        summary = dataclasses.replace(two_folds(), folds=(ensemble,), total_folds=1)
        for form in (summary_text(summary), summary_tex(summary)):
            assert ("Only one fold is trained" in form) is (members == 1)
            assert ("averages the probabilities of folds 1, 1." in form) is (members == 2)


def test_latex_names_unit_scans_and_folds_that_are_left_out():
    tex = summary_tex(dataclasses.replace(two_folds(), total_folds=3))
    assert r"Metastatic pixels in \%, pooled over the test scans of a fold (2 scans in all).\par" in tex
    assert r"2 of 3 folds are scored.\par" in tex


def test_latex_names_the_experiment_and_what_was_changed():
    changed = dataclasses.replace(two_folds(), changed_settings={"batch_size": 2, "loss_classes": (1, 2)})
    assert r"Experiment dice, changed: batch\_size 2; loss\_classes 1, 2.\par" in summary_tex(changed)
    assert "\n% Experiment dice.\n" in summary_tex(two_folds())


def test_csv():
    rows = list(csv.DictReader(io.StringIO(summary_csv(two_folds()))))
    first = rows[0]
    assert (first["method"], first["row"], first["scans"]) == ("Double U-Net", "fold 1", "1")
    assert [float(first[name]) for name in ("precision", "sensitivity", "f1")] == [0.25, 0.5, 1 / 3]
    assert rows[1]["precision"] == ""
    means = [row for row in rows if row["row"].startswith("mean")]
    assert [row["f1_is"] for row in means] == ["of the means", "mean over folds"] * 2
    assert {row["method"] for row in means} == {"Double U-Net", "intensity threshold"}


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


def test_latex_is_whole_and_says_which_means_leave_folds_out():
    tex = summary_tex(two_folds())
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 1
    body = tex.partition(r"\begin{tabular}")[2]
    assert not re.search(r"(?<!\\)[%&_#](?![^\n]*\\\\)", body.replace(" & ", ""))
    for line in body.splitlines():
        if " & " in line:
            assert line.count(" & ") == 3 and line.endswith(r"\\")
    assert "Undefined in some folds, which are left out of that mean: precision (1)." in tex
    assert "interval" not in tex  # one patient in each fold, too few to draw


def test_lesions_and_minimum_size():
    true = [lesion(area=100, common=6)]
    predicted = [lesion(area=100, common=6, probability=0.9), lesion(area=50, probability=0.4)]
    after = Postprocessed(MinimumSize(120.0, "mm2", 0.6, 0.5), (scan(0, 6, 0, 4),))
    one = fold(1, scan(0, 6, 4, 4, true=true, lesions=predicted), unit="mm2", postprocessed=after)
    summary = Summary("dice", {}, 2, (one,))
    assert lesion_table(summary).rows[0] == ["all", 1, 0, 2, 1, "50.0", "100.0", "66.7"]
    # The raw figures are the result; those with the minimum stand beside them, F1 12 / 16.
    assert pixel_table(summary).rows[0] == ["fold 1", "1", "60.00", "60.00", "60.00", "50.00", "75.00"]
    assert summary.mean.f1_mean == 0.6 and summary.postprocessed_mean.f1_mean == 0.75
    assert dice_sentence(summary.dice).startswith("Dice of 1 scan: median 60.0 %, ")


def test_what_the_minimum_size_does_to_patients():
    """A normal scan whose only lesion is too small has no finding left, nor has a patient whose lesions all are."""
    small, large = lesion(area=50, probability=0.8), lesion(area=120, common=6, probability=0.7)
    raw = (scan(0, 6, 4, 4, lesions=[large, small]), scan(1, 1, 0, 9, lesions=[lesion(area=60, probability=0.9)]))
    after = (scan(0, 6, 2, 4, lesions=[large]), scan(1, 0, 0, 10))
    normals = (scan(5, group="negative", lesions=[small]), scan(6, group="negative", lesions=[small, large]))
    fitted = Postprocessed(MinimumSize(120.0, "mm2", 0.6, 0.5), after)
    first = fold(1, *raw, unit="mm2", normals=normals, postprocessed=fitted)
    table = patient_table(Summary("dice", {}, 2, (first,)))
    assert table.rows == [["fold 1", "2 of 2", "0 of 2", "0.750", "1.50"]]
    assert table.notes == [
        "With the minimum lesion size: sensitivity 50.0 % (1 of 2), specificity 50.0 % (1 of 2), "
        "false-positive lesions per normal scan 0.50."
    ]
    content = first.to_json()
    assert (content["detection"]["cleared"], content["postprocessed"]["detection"]["cleared"]) == (0, 1)
    assert content["postprocessed"]["detection"]["auc"] == 0.5
    # Nothing is said where no fold has a minimum.
    none = dataclasses.replace(first, postprocessed=Postprocessed(MinimumSize(None, "mm2", 0.5, 0.5), raw))
    summary = Summary("dice", {}, 2, (none,))
    assert patient_table(summary).notes == []
    assert summary.to_json()["postprocessed_detection_mean"] == summary.to_json()["detection_mean"]


def test_why_figures_of_patients_are_undefined():
    """Fold 1 tests a normal patient, folds 2 and 3 have none left for two reasons: every mean says of what it is."""
    found = [lesion(probability=0.9)]
    rows = (
        fold(1, scan(0, 6, 4, 4, lesions=found), normals=(scan(9, group="negative"),)),
        fold(2, scan(1, 6, 4, 4, lesions=found), normals_reason="they are training data"),
        # The only normal scan is of a patient with metastases: a rate of false positives, but no specificity.
        fold(3, scan(2, 6, 4, 4), normals=(scan(8, patient=2, group="negative"),)),
    )

    def table_of(*folds):
        return patient_table(Summary("dice", {}, 3, folds))

    table = table_of(*rows)
    assert table.rows[1:] == [
        ["fold 2", "1 of 1", "–", "–", "–"],
        ["fold 3", "0 of 1", "–", "–", "0.00"],
        ["mean", "66.67", "100.00 (1 of 3 folds)", "1.000 (1 of 3 folds)", "0.00 (2 of 3 folds)"],
    ]
    assert table.notes == [
        "Specificity, AUC and false positives are undefined in fold 2: they are training data.",
        "Specificity and AUC are undefined in fold 3: all normal scans are of patients with metastases.",
    ]
    assert "false positives are undefined in fold 2, 2: they" in table_of(rows[0], rows[1], rows[1]).notes[0]
    # Undefined everywhere: no fold needs a name.
    everywhere = table_of(rows[1], rows[1])
    assert everywhere.notes == ["Specificity, AUC and false positives are undefined: they are training data."]
    assert everywhere.rows[-1] == ["mean", "100.00", "–", "–", "–"]
