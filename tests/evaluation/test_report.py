"""report.html: what is in it, and what a browser makes of it."""

import dataclasses
import html
import json
import re
import shutil

import pytest
from intensity_run import make_run, make_shards
from score_makers import fold, lesion, scan

from doubleunet_bs.errors import BoneScanError
from doubleunet_bs.evaluation.evaluate import evaluate_run
from doubleunet_bs.evaluation.evaluate_ensemble import evaluate_ensemble
from doubleunet_bs.evaluation.report import PACKAGE, head
from doubleunet_bs.evaluation.scorer import EvaluationSettings
from doubleunet_bs.evaluation.summary import Summary
from doubleunet_bs.evaluation.tables import pixel_table, summary_text
from doubleunet_bs.runs.run_folder import open_run
from doubleunet_bs.templates import render_page


@pytest.fixture(scope="module")
def report(tmp_path_factory, tensorflow):
    """Of two folds on phantoms; normal scans are tested as well."""
    folder = tmp_path_factory.mktemp("report")
    shards = make_shards(folder / "shards", phantom=True)
    run = make_run(folder / "run", shards, experiment="dice")
    summary = evaluate_run(run, pictures=False, show_progress=False)
    return run / "report.html", summary


def cells(page):
    """The rows of all tables of a page, as lists of text."""
    rows = re.findall(r"<tr.*?>(.*?)</tr>", page)
    return [[html.unescape(cell) for cell in re.findall(r"<t[dh]>(.*?)</t[dh]>", row)] for row in rows]


def test_the_table_has_both_intervals_of_f1(report):
    path, summary = report
    rows = [row for row in cells(path.read_text(encoding="utf-8")) if row[0].startswith("95 %")]
    found = summary.intervals
    expected = [found.precision, found.sensitivity, found.f1_of_means, found.f1_mean]
    expected = [f"{100 * low:.1f} to {100 * high:.1f}" for low, high in expected]
    assert rows == [
        ["95 % interval [1] [3]", "", *expected[:3], "", ""],
        ["95 % interval [2] [3]", "", "", "", expected[3], "", ""],
    ]


@pytest.mark.parametrize("folds", [1, 2, 3])
def test_footnotes_begin_with_one_and_none_is_missing(folds):
    """Every number in the table has its note, in this order."""
    scans = [(scan(2 * number, 1, 2, 3), scan(2 * number + 1, 3, 2, 1)) for number in range(folds)]
    summary = Summary("dice", {}, 3, tuple(fold(number, *own) for number, own in enumerate(scans, start=1)))
    table = pixel_table(summary)
    noted = [int(number) for note in table.notes for number in re.findall(r"^\[(\d)\]", note)]
    used = {int(number) for row in table.rows for number in re.findall(r"\[(\d)\]", row[0])}
    assert noted == list(range(1, len(noted) + 1)) and used == set(noted)


def test_a_fold_that_found_nothing_is_said(report):
    """In a red box of the page and under the table; the star of the charts is spoken of where it is drawn only."""
    useless = fold(2, scan(2, 0, 0, 9), scan(3, 1, 50, 9))
    nothing = fold(3, scan(4, 0, 0, 0), scan(5, 0, 0, 0))
    summary = Summary("dice", {}, 3, (fold(1, scan(0, 5, 1, 1)), useless, nothing))
    said = "Model not usable: F1 on the test scans is too low (fold 2: F1 2.86 %). Do not rely on its results."
    assert summary_text(summary).splitlines()[-1] == f"Warning: {said}"
    assert head(summary, (160, 128), "")["quality_warning"] == said
    path, good = report
    assert head(good, (160, 128), "")["quality_warning"] == "" and "Warning" not in summary_text(good)
    page = path.read_text(encoding="utf-8")
    assert "One pair of lines per fold. The star marks the tested epoch.</p>" in page and "Of no use" not in page


def test_an_ensemble_has_no_fold_and_no_validation_scans():
    notes = " ".join(pixel_table(Summary("dice", {}, 1, (fold(0, scan(0, 10, 0, 0), scan(1, 0, 1, 1)),))).about)
    assert "pooled over the test scans." in notes and "of a fold" not in notes
    assert "An ensemble has no validation scans of its own" in notes and "chosen on the validation" not in notes


def test_what_is_in_it(report):
    path, summary = report
    page = html.unescape(path.read_text(encoding="utf-8"))
    assert path.stat().st_size < 5_000_000
    assert f"Dice of {summary.dice.scans} scans: median {100 * summary.dice.median:.1f} %, interquartile range" in page
    assert "F1: the harmonic mean of the two, 2 TP / (2 TP + FP + FN). Dice: the same formula" in page
    assert "Precision (positive predictive value): share of the predicted pixels that are metastatic." in page
    assert "Phantom scans: a software check, not comparable with any figure of patients." in page
    assert "0.704" not in page and "aper, Table" not in page
    assert f"{100 * summary.mean.f1_of_means:.2f}" in page
    for scored in summary.folds:
        assert f"{100 * scored.pooled.f1:.2f}" in page
        for one in scored.scans:
            assert one.case in page
    assert "encoder_weights" in page and "Not for diagnosis." in page
    assert (
        f"shards of these scans {open_run(path.parent).data['fingerprint'][:16]}…; training precision float32</p>"
        in page
    )
    assert page.count("<figure>") == 4 and page.count('class="chart"') == 7  # four scans, five charts and two maps


@pytest.mark.slow
def test_no_folder_of_the_user_is_handed_on(tmp_path, tensorflow):
    """Weights from a file are named by the file, in the report, the summary and the scores, of folds and ensemble."""
    shards = make_shards(tmp_path / "shards", phantom=True)
    run = make_run(tmp_path / "run", shards, folds=(1,), encoder_weights="/home/somebody/vgg19.h5")
    evaluate_run(run, pictures=False, show_progress=False)
    others = make_shards(tmp_path / "others", first=100, phantom=True)
    evaluate_ensemble(run, others, EvaluationSettings(pictures=False, show_progress=False))
    for folder in (run, run / "ensemble" / "others"):
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert "vgg19.h5" in page and "somebody" not in page
        content = json.loads((folder / "summary.json").read_text())
        assert content["changed_settings"]["encoder_weights"] == "vgg19.h5"
    for folder in (run / "fold_01", run / "ensemble" / "others"):
        content = json.loads((folder / "scores.json").read_text())
        assert content["changed_settings"]["encoder_weights"] == "vgg19.h5"
    assert open_run(run).experiment.encoder_weights == "/home/somebody/vgg19.h5"


def shown_head(*args):
    """The head of the page as text without entities."""
    return html.unescape(render_page(PACKAGE, "head.html", **head(*args)))


def test_a_changed_preparation_and_phantoms_are_said(report):
    """The head names them, whatever the training settings are."""
    _, summary = report
    says = "Settings changed against the paper's row of that name: "
    assert "bone scans. 4 scans that the network had not seen, " in head(summary, (320, 256), "")["introduction"]
    for changes in (summary.changed_settings, {"preparation.bin": 2, "preparation.background": "log"}):
        page = shown_head(dataclasses.replace(summary, changed_settings=changes), (320, 256), "1 of 10 folds")
        assert f"{says}{', '.join(changes)}." in page and "All settings are those" not in page
    assert "preparation.bin" in summary.changed_settings
    patients = dataclasses.replace(summary, provenance=dataclasses.replace(summary.provenance, scans="patients"))
    warned, quiet = (head(one, (160, 128), "")["warning"] for one in (summary, patients))
    assert warned.startswith("Phantom scans: a software check") and quiet == ""


def test_detected_patients_do_not_stand_alone(report):
    """Beside the sensitivity stands the specificity, or why it is unknown."""
    found = [lesion(probability=0.9)]
    cleared = fold(1, scan(0, 6, 4, 4, lesions=found), normals=(scan(9, group="negative"),))
    called = fold(2, scan(1, 6, 4, 4, lesions=found), normals=(scan(8, group="negative", lesions=found),))
    untested = fold(3, scan(2, 6, 4, 4, lesions=found), normals_reason="they are <training> data")

    def tile(*folds):
        *_, patients, normals = head(Summary("dice", {}, len(folds), folds), (320, 256), "")["tiles"]
        assert patients[:2] == ("sensitivity (patients with metastases)", "100.0 %")
        assert patients[2].startswith(f"{len(folds)} of {len(folds)} patients")
        assert normals[0] == "specificity (normal patients without a finding)"
        return normals[1:]

    assert tile(cleared) == ("100.0 %", "1 of 1 normal patients")
    assert tile(cleared, called) == ("50.0 %", "1 of 2 normal patients; mean over folds")
    assert tile(cleared, called, untested) == ("50.0 %", "1 of 2 normal patients; mean of 2 of 3 folds")
    assert tile(untested, untested) == ("not tested", "they are <training> data")
    page = render_page(PACKAGE, "head.html", **head(Summary("dice", {}, 1, (untested,)), (320, 256), ""))
    assert "they are &lt;training&gt; data</span>" in page
    _, summary = report
    assert "specificity (normal patients without a finding)<b>" in report[0].read_text(encoding="utf-8")
    assert summary.detection_mean["specificity"] is not None


def test_one_file_and_nothing_else(report):
    page = report[0].read_text(encoding="utf-8")
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for reference in re.findall(r' (?:href|src)="([^"]+)"', page):
        assert reference.startswith("data:"), reference[:80]
    assert set(re.findall(r' for="([^"]+)"', page)) <= set(ids)
    assert "<script" not in page and "@import" not in page and not re.findall(r"url\((?!#)", page)
    for tag in ("main", "div", "table", "tr", "td", "figure", "svg", "details", "ul", "li", "p", "h2", "h3"):
        assert len(re.findall(rf"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag


@pytest.mark.slow
def test_the_same_scores_give_the_same_page(report, tmp_path):
    path, _ = report
    before = path.read_bytes()
    evaluate_run(path.parent, pictures=False, show_progress=False)
    assert path.read_bytes() == before


@pytest.mark.slow
def test_names_cannot_become_markup(tmp_path, tensorflow):
    # In the name of the shards: names of cases have no such letters.
    shards = make_shards(tmp_path / "<b>&'shards")
    run = make_run(tmp_path / "run", shards, folds=(1,))
    evaluate_run(run, pictures=False, show_progress=False)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<b>&" not in page
    content = (shards / "dataset.json").read_text()
    (shards / "dataset.json").write_text(content.replace("case-", "<b>&'"))
    with pytest.raises(BoneScanError, match="impossible entry: case"):
        evaluate_run(run, pictures=False, show_progress=False, recompute=True)


@pytest.mark.slow
def test_figures_for_a_paper(report, tmp_path):
    """Each figure of the report as a file, with text as text and the mark of phantoms."""
    folder = shutil.copytree(report[0].parent, tmp_path / "run")
    evaluate_run(folder, pictures=False, show_progress=False, figures="svg")
    files = {path.name: path.read_text() for path in (folder / "figures").iterdir()}
    names = {name.removesuffix(".svg").partition("_case-")[0] for name in files}
    charts = {"loss", "f1", "dice", "lesion_sizes", "froc"}
    assert names == charts | {"best", "median", "worst", "false_positives", "false_negatives"} and len(files) == 11
    assert all("phantom" in content for content in files.values())
    assert "% of the scans (square-root scale)</text>" in files["false_positives.svg"]


def test_outlines_have_a_halo(report):
    """A white one below both, also where only one is shown."""
    page = report[0].read_text(encoding="utf-8")
    assert page.count('<path class="truth halo"') == page.count('<path class="truth"') > 0
    for figure in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        assert [name for name in re.findall(r'<path class="([^"]+)"', figure)] in (
            [],
            ["truth halo", "prediction halo", "truth", "prediction"],
        )
        assert "synthetic phantom, not a patient</text>" in figure


def shown(page, name):
    return page.locator(f".scans .{name}").first.evaluate("element => getComputedStyle(element).display != 'none'")


def test_layers_can_be_switched(show, report):
    page = show(report[0])
    for name, at_start in (("truth", True), ("prediction", True), ("probability", False)):
        others = [other for other in ("truth", "prediction", "probability") if other != name]
        before = [shown(page, other) for other in others]
        assert shown(page, name) is at_start
        page.click(f"label[for=show-{name}]")
        assert shown(page, name) is not at_start
        page.click(f"#show-{name}")
        assert shown(page, name) is at_start
        assert [shown(page, other) for other in others] == before


@pytest.mark.parametrize(("width", "height", "phone"), [(1200, 900, False), (360, 740, True)])
def test_it_fits_the_screen_without_a_complaint(show, report, width, height, phone):
    page = show(report[0], width, height, phone)
    assert page.title().startswith("Double U-Net")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Pictures are there: every one has pixels, and is as wide as its column.
    assert page.locator("svg.layers").count() == 4 and page.locator("img.chart").count() == 7
    pictures = "[...document.querySelectorAll('svg, img')]"
    widths = page.evaluate(f"{pictures}.map(picture => picture.getBoundingClientRect().width)")
    assert min(widths) > 200 and max(widths) <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") >= 16
    # The tables that are open at the start are not cut off.
    cut = "[...document.querySelectorAll('.wide')].filter(box => !box.closest('details') && "
    assert page.evaluate(cut + "box.scrollWidth > box.clientWidth).length") == 0
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.complaints == []
    assert [address for address in page.requests if not address.startswith("data:")] == [report[0].resolve().as_uri()]


def test_the_browser_does_report_complaints(show, tmp_path):
    """Or the test above would pass whatever is wrong."""
    path = tmp_path / "broken.html"
    path.write_text("<script>console.error('one'); missing();</script><img src='nowhere.png'>")
    assert len(show(path, 400, 400).complaints) >= 3
