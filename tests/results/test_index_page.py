"""The page and the table of a folder of results."""

import dataclasses
import html
import multiprocessing
import stat
import tracemalloc

from handmade_prediction import make_prediction

from doubleunet_bs.dicom_files.views import MIRRORED_WARNING
from doubleunet_bs.results.cohort_table import write_cohort_table
from doubleunet_bs.results.index_page import write_overview
from doubleunet_bs.results.result_files import JobSettings
from doubleunet_bs.results.result_folder import write_prediction
from doubleunet_bs.scans.pseudonyms import load_file_table, save_file_table


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
