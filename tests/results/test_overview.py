"""The page and the table of a folder of results, and what is checked before it stands in them."""

import csv
import dataclasses
import html
import multiprocessing
import os
import shutil
import stat
import tracemalloc

import numpy as np
import pytest
from handmade_prediction import make_prediction

from doubleunet_bs.__main__ import main
from doubleunet_bs.bsi.regions import REGIONS, region_number
from doubleunet_bs.constants import VIEWS
from doubleunet_bs.dicom_files.views import MIRRORED_WARNING
from doubleunet_bs.errors import RunError
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.findings.skeleton_result import find_index
from doubleunet_bs.results.overview import COLUMNS, _cell, cohort_line, write_cohort_table, write_overview
from doubleunet_bs.results.result_files import JobSettings
from doubleunet_bs.results.result_folder import write_prediction
from doubleunet_bs.results.stored_result import load_result
from doubleunet_bs.scans.pseudonyms import load_file_table, save_file_table


def spots(*boxes):
    mask = np.zeros((1024, 256), bool)
    for rows, columns in boxes:
        mask[rows, columns] = True
    return mask


INDEX = {
    "value": 1.25, "views": {"anterior": 1.0}, "table": "icrp110-male", "estimator": "pooled",
    "table_reason": "chosen", "note": "",
    "warnings": [], "regions": [{"name": "ribs", "weight": 8.0, "index": 1.25, "fraction": None}],
    "model": {"name": "bones", "quality": "unknown", "weights_sha256": "0" * 64},
}  # fmt: skip


@pytest.fixture(scope="module")
def result(scan, tmp_path_factory):
    """Three areas, of which one of each view is the same spot: columns 100 to 102 are 153 to 155 from behind."""
    masks = {
        "anterior": spots((slice(300, 303), slice(100, 103)), (slice(200, 202), slice(120, 122))),
        "posterior": spots((slice(301, 304), slice(153, 156))),
    }
    settings = JobSettings(tmp_path_factory.mktemp("results"), ())
    return write_prediction(settings, scan, make_prediction(scan, masks))


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_one_line_a_scan(result, scan, tmp_path, capsys):
    assert main(["collect", str(result.folder.parent), "--out", str(tmp_path / "table.csv")]) == 0
    assert capsys.readouterr().out == f"1 scan in {tmp_path / 'table.csv'}\n"
    (line,) = read(tmp_path / "table.csv")
    assert (len(line), list(line)[-1]) == (54, "areas_posterior_no_region")
    area = scan.pixel_spacing_mm[0] * scan.pixel_spacing_mm[1]
    expected = {
        "case": scan.case, "phantom": "yes", "foci": 2, "foci_in_both_views": 1, "areas_anterior": 2,
        "areas_posterior": 1, "pixels_anterior": 13, "pixels_posterior": 9, "area_mm2": f"{22 * area:.6g}",
        "area_mm2_anterior": f"{13 * area:.6g}", "counts_anterior": scan.anterior.sum(),
        "lesion_counts_posterior": scan.posterior[301:304, 153:156].sum(), "threshold": "", "weights": "ab" * 6,
        "highest_probability_anterior": "0.9",
    }  # fmt: skip
    assert {name: line[name] for name in expected} == {name: str(value) for name, value in expected.items()}


def test_a_useless_model_is_among_the_warnings_of_each_scan(result):
    poor = "This model found no metastasis on its own validation scans (fold 1: F1 0.0 %). Do not rely on its results."
    changed = result.result | {
        "model": result.result["model"] | {"quality_warning": poor},
        "warnings": ["the sides are in doubt"],
    }
    assert cohort_line(changed)["warnings"] == f"{poor}; the sides are in doubt"


def test_the_column_names_are_there_without_a_line(result, tmp_path):
    assert tuple(cohort_line(result.result)) == COLUMNS
    broken = tmp_path / "out" / "case-broken"
    broken.mkdir(parents=True)
    (broken / "result.json").write_text("{")
    assert len(write_overview(tmp_path / "out")) == 1
    assert (tmp_path / "out" / "cohort.csv").read_text(encoding="utf-8") == ",".join(COLUMNS) + "\n"


def test_a_missing_view_and_an_unknown_spacing_are_empty_cells(scan, tmp_path):
    half = dataclasses.replace(
        scan, posterior=np.zeros_like(scan.posterior), missing_views=("posterior",), pixel_spacing_mm=None
    )
    write_prediction(JobSettings(tmp_path / "out", ()), half, make_prediction(half, {}))
    assert main(["collect", str(tmp_path / "out"), "--out", str(tmp_path / "table.csv")]) == 0
    (line,) = read(tmp_path / "table.csv")
    empty = {name for name, value in line.items() if value == "" and name.endswith("_posterior")}
    assert empty == {name for name in line if name.endswith("_posterior")}
    assert (line["areas_anterior"], line["foci"], line["area_mm2"]) == ("0", "0", "")


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@x", "'@x"),
        ("\t=1", "'=1"),
        ("a\r\n=b", "a =b"),
        (0.25, "0.25"),
        (-1, -1),
        (None, None),
    ],
)
def test_formulas_are_texts(value, cell):
    assert _cell(value) == cell


def test_what_cannot_be_believed_is_left_out(result, tmp_path, capsys):
    """Each of these folders but the first is named on standard error and is not in the table."""
    out = tmp_path / "out"
    shutil.copytree(result.folder, out / "case-good")

    def changed(name, **values):
        folder = shutil.copytree(result.folder, out / name)
        write_json(folder / "result.json", {**read_json(folder / "result.json"), **values})

    lesions = result.result["lesions"]
    focus = {"number": 1, "anterior": 99, "posterior": None}
    for number, values in enumerate(
        (
            {"case": "../../../victim"},
            {"case": "case-" + "x" * 99},
            {"format": 3},
            {"warnings": ["x" * 5000]},
            {"lesions": [{**lesions[0], "view": "=HYPERLINK"}, *lesions[1:]]},
            {"lesions": [{**lesions[0], "pixels": -5}, *lesions[1:]]},
            {"foci": [focus]},
            {"foci": 7},
            {"threshold": "0.5"},
            {"views": []},
            {"model": None},
            {"bone_scan_index": {}},
            {"bone_scan_index": {**INDEX, "value": None}},
            {"bone_scan_index": {**INDEX, "model": {}}},
            {"lesions": [{**lesions[0], "area_mm2": None}, *lesions[1:]]},
            {"lesions": [{**lesions[0], "region": "=ribs"}, *lesions[1:]]},
            {"dicom": None},
            {"dicom": {**result.result["dicom"], "patient_identity": "some"}},
        )
    ):
        changed(f"case-bad{number}", **values)
    (out / "case-text").mkdir()
    (out / "case-text" / "result.json").write_text('{"format": 2, "case": NaN')
    # A link leads out of the folder, and another name is no result.
    (out / "case-link").symlink_to(result.folder)
    shutil.copytree(result.folder, out / "somewhere")
    assert main(["collect", str(out), "--out", str(tmp_path / "table.csv")]) == 1
    printed = capsys.readouterr()
    assert len(read(tmp_path / "table.csv")) == 1 and printed.out.startswith("1 scan in ")
    named = [line.split(": ")[1] for line in printed.err.splitlines()]
    assert len(named) == 19 and all(name.startswith(str(out / "case-bad")) for name in named[:18])


def test_the_bone_scan_index_has_columns(result, tmp_path):
    folder = shutil.copytree(result.folder, tmp_path / "out" / "case-bones")
    write_json(folder / "result.json", {**result.result, "bone_scan_index": INDEX})
    shutil.copytree(result.folder, tmp_path / "out" / "case-none")
    assert main(["collect", str(tmp_path / "out"), "--out", str(tmp_path / "table.csv")]) == 0
    lines = read(tmp_path / "table.csv")
    assert [(line["bone_scan_index"], line["bsi_table"]) for line in lines] == [("1.25", "icrp110-male"), ("", "")]


def test_areas_are_counted_by_view_and_region(scan, result, tmp_path):
    """Ribs above row 250, nothing below it from the front, a pelvis from behind."""
    masks = {
        "anterior": spots((slice(300, 303), slice(100, 103)), (slice(200, 202), slice(120, 122))),
        "posterior": spots((slice(301, 304), slice(20, 23)), (slice(400, 402), slice(20, 22))),
    }
    regions = {view: np.zeros(scan.anterior.shape, np.uint8) for view in VIEWS}
    regions["anterior"][:250] = region_number("ribs")
    regions["posterior"][250:] = region_number("pelvis")
    prediction = make_prediction(scan, masks)
    index = find_index(scan, prediction, make_prediction(scan, regions), "icrp110-female")
    write_prediction(JobSettings(tmp_path / "out", ()), scan, prediction, skeleton=index)
    none = shutil.copytree(result.folder, tmp_path / "out" / "case-none")
    write_json(none / "result.json", {**result.result, "case": "case-none"})
    assert main(["collect", str(tmp_path / "out"), "--out", str(tmp_path / "table.csv")]) == 0
    lines = {line["case"]: line for line in read(tmp_path / "table.csv")}
    columns = [f"areas_{view}_{name.replace(' ', '_')}" for view in VIEWS for name in [*names(), "no region"]]
    assert len(columns) == 26 and "areas_anterior_thoracic_spine" in columns
    line = lines.pop(scan.case)
    figures = {column: line[column] for column in columns if line[column] != "0"}
    assert figures == {"areas_anterior_ribs": "1", "areas_anterior_no_region": "1", "areas_posterior_pelvis": "2"}
    assert all(other[column] == "" for other in lines.values() for column in columns) and len(lines) == 1


def names():
    return [region.name for region in REGIONS]


def test_wrong_arguments(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["collect", str(tmp_path / "empty"), "--out", str(tmp_path / "table.csv")]) == 1
    assert main(["collect", str(tmp_path / "gone"), "--out", str(tmp_path / "table.csv")]) == 2
    assert main(["collect", str(tmp_path / "empty"), "--out", str(tmp_path / "table.xlsx")]) == 2
    assert "the name must end in .csv" in capsys.readouterr().err
    with pytest.raises(RunError, match="larger than any result"):
        (tmp_path / "result.json").touch()
        os.truncate(tmp_path / "result.json", 20 << 20)
        load_result(tmp_path)


def _overview_again(out, table, number, times):
    for place in range(times):
        save_file_table(table, {f"case-{number}-{place}": (f"/scans/{number}",)})
        write_overview(out)


def test_several_processes_write_into_one_folder(reader, tmp_path):
    """No line of the table of files is lost, and no half-written page is ever seen."""
    out, table = reader.settings.out, tmp_path / "out.files.csv"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_overview_again, args=(out, table, number, 8)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert len(load_file_table(table)) == 32 and stat.S_IMODE(table.stat().st_mode) == 0o600
    assert (out / "index.html").read_text().rstrip().endswith("</html>")
    assert {path.name for path in out.iterdir()} == {reader.folder.name, "index.html", "cohort.csv"}


def test_the_index_in_a_browser(reader, show, scan, tmp_path):
    """Nothing but the pictures beside it is loaded; marks, warnings and links are there; no width scrolls sideways."""
    doubtful = dataclasses.replace(scan, case="case-doubt", warnings=(MIRRORED_WARNING,))
    write_prediction(JobSettings(reader.settings.out), doubtful, make_prediction(doubtful))
    (reader.settings.out / "case-bad").mkdir()
    (reader.settings.out / "case-bad" / "result.json").write_text("{}")
    assert len(write_overview(reader.settings.out)) == 1
    for width in (1280, 768, 390):
        page = show(reader.settings.out / "index.html", width=width, phone=width == 390)
        assert page.complaints == [] and all(url.startswith("file:") for url in page.requests)
        # Pictures may come after the page, on a busy machine.
        page.wait_for_function("[...document.images].every(image => image.naturalWidth)")
        assert page.evaluate("[...document.images].map(image => image.naturalWidth)") == [180, 180]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    # What is true of all is said once, at the top; the sides are in the pictures.
    assert page.locator(".phantom").count() == 0
    assert "Synthetic phantoms, not patients: all of these." in page.inner_text("header")
    assert not {"R", "L"} & set(page.inner_text("main ul.cards").split())
    assert MIRRORED_WARNING in page.locator("details li").all_text_contents()
    page.locator("h3 a").first.click()
    assert page.url.endswith("/report.html")


def test_the_index_says_what_is_true_of_some_scans_on_their_cards(reader, scan):
    out = reader.settings.out
    other = dataclasses.replace(scan, case="case-other", phantom=False)
    prediction = make_prediction(other)
    useless = dataclasses.replace(prediction, model=dataclasses.replace(prediction.model, validation_f1=0.0))
    write_prediction(JobSettings(out), other, useless)
    write_overview(out)
    page = (out / "index.html").read_text(encoding="utf-8")
    head, cards = page.split("</header>")
    assert "Synthetic phantoms, not patients: 1 of 2." in head and useless.model.quality_warning in html.unescape(head)
    assert cards.count('<p class="phantom">') == cards.count('<p class="warning">') == 1


def test_the_overview_of_results_is_small_in_memory(reader, tmp_path):
    """Two hundred results take hardly more memory than twenty: one result takes over 20 kB."""
    peaks = []
    for number in (20, 200):
        tracemalloc.start()
        write_cohort_table(tmp_path / "table.csv", [reader.folder] * number)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 201
    assert peaks[1] - peaks[0] < 100_000
