"""The report page in a browser: outlines that can be switched off, window and level, larger views, a phone."""

import base64
import io
import re
import zlib

import numpy as np
import pytest
from handmade_prediction import make_prediction
from PIL import Image
from report_page import Page, page_of

from doubleunet_bs.bsi.regions import region_number
from doubleunet_bs.constants import VIEWS
from doubleunet_bs.display import clinical_display
from doubleunet_bs.findings.skeleton_result import find_index
from doubleunet_bs.results.patient_report import report_page
from doubleunet_bs.results.result_files import JobSettings
from doubleunet_bs.results.result_folder import write_prediction
from doubleunet_bs.results.stored_result import read_result

CONTOUR = np.array((225, 87, 0))


@pytest.fixture(scope="module")
def with_bones(scan, tmp_path_factory):
    """Thoracic spine above row 400 in the anterior view, ribs above it in the posterior one, no bone below."""
    regions = {view: np.zeros(scan.anterior.shape, np.uint8) for view in VIEWS}
    regions["anterior"][:400], regions["posterior"][:400] = region_number("thoracic spine"), region_number("ribs")
    prediction = make_prediction(scan)
    index = find_index(scan, prediction, make_prediction(scan, regions), "icrp110-female")
    return write_prediction(JobSettings(tmp_path_factory.mktemp("bones")), scan, prediction, skeleton=index)


def test_the_table_names_bones(with_bones, whole_result):
    """Every focus and every area, where a skeleton was predicted; without one there is no such column."""
    text = page_of(with_bones)
    Page(text)
    text, _, _ = text.partition("Bone Scan Index by region")
    cells = [cell.replace("–", "None") for cell in re.findall(r'<td class="word">(.*?)</td>', text)]
    lesions = with_bones.result["lesions"]
    found = {str(lesion["focus"]): lesion["region"] for lesion in reversed(lesions) if lesion["region"]}
    foci = re.findall(r'<td><a href="#lesion-\d+">(\d+)</a></td>', text)[: len(with_bones.result["foci"])]
    assert cells[: len(foci)] == [str(found.get(focus)) for focus in foci]
    assert cells[len(foci) :] == [str(lesion["region"]) for lesion in lesions]
    assert {"thoracic spine", "ribs", "None"} <= set(cells)
    assert 'class="word"' not in page_of(whole_result)


def test_the_table_of_bones_sorts_and_fits_a_phone(show, with_bones):
    page = show(with_bones.folder / "report.html", 390, 844, phone=True)
    page.wait_for_selector("body.scripted")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.click("th button >> nth=0")
    rows = page.locator(".lesions >> nth=0").locator("tbody tr")
    cells = [text.replace(",", "") for text in rows.locator("td:nth-child(3)").all_inner_texts()]
    sizes = [int(text) for text in cells if text]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) > 1


def test_regions_are_thin_lines_that_can_be_switched_off(show, with_bones, whole_result, tmp_path):
    """Of this scan and of the previous one, with their names; without a skeleton nothing of it is on the page."""
    earlier = read_result(with_bones.folder)
    assert {view: mask.tolist() for view, mask in earlier.regions.items()} == {
        view: np.load(with_bones.folder / f"regions_{view}.npy").tolist() for view in VIEWS
    }
    (tmp_path / "both.html").write_text(report_page(read_result(whole_result.folder), earlier))
    for path, number in ((with_bones.folder / "report.html", 2), (tmp_path / "both.html", 2)):
        page = show(path, 390, 844, phone=True)
        page.wait_for_selector("body.scripted")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        lines = page.locator(".regions path")
        assert sorted(lines.locator("title").evaluate_all("all => all.map(one => one.textContent)")) == [
            "ribs",
            "thoracic spine",
        ]
        assert page.locator(".names span").all_inner_texts() == ["thoracic spine", "ribs"] and lines.count() == number
        width = "all => Math.max(...all.map(one => parseFloat(getComputedStyle(one).strokeWidth)))"
        assert lines.evaluate_all(width) <= page.locator(".contours path").evaluate_all(width) / 2
        # What is drawn last lies above: outlines of lesions, then their numbers.
        assert page.evaluate("[...document.querySelectorAll('svg > g')].map(one => one.className.baseVal)")[-3:] == [
            "regions",
            "contours",
            "numbers",
        ]
        page.click('label[for="regions"]')
        assert not page.locator(".regions").first.is_visible() and not page.locator(".names").is_visible()
        assert page.locator(".contours").first.is_visible() and not page.complaints
    assert "regions" not in page_of(whole_result).split("</style>")[1]


def counts_of(page_text) -> list[np.ndarray]:
    """The counts that the page carries for its script."""
    found = re.findall(r'<canvas width="(\d+)" height="(\d+)" [^>]*data-counts="([^"]+)"', page_text)
    return [
        np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u2").reshape(int(rows), int(columns))
        for columns, rows, text in found
    ]


def test_no_uptake_is_cut_off_with_the_air(scan, whole_result):
    """Two of a thousand counts at most are left out, and both views show the same rows and columns."""
    anterior, posterior = counts_of(page_of(whole_result))
    assert anterior.shape == posterior.shape < (1024, 256)
    for shown, whole in ((anterior, scan.anterior), (posterior, scan.posterior)):
        assert 0.998 * whole.sum(dtype=int) < shown.sum(dtype=int) <= whole.sum(dtype=int)
        assert shown.max() == whole.max()


def test_window_and_level(show, whole_result):
    """The sliders change both views to what the formula gives, and "usual display" gives the first display back."""
    page = show(whole_result.folder / "report.html")
    page.wait_for_selector("body.scripted")
    counts = [view[200:220] for view in counts_of(page_of(whole_result))]
    upper = float(page.get_attribute("canvas", "data-upper"))

    def greys():
        data = page.evaluate(
            "[...document.querySelectorAll('canvas')].map(canvas => Array.from("
            "canvas.getContext('2d').getImageData(0, 200, canvas.width, 20).data))"
        )
        return [np.array(one).reshape(20, -1, 4)[..., 0] for one in data]

    at_start = greys()
    for grey, view in zip(at_start, counts, strict=True):
        assert np.abs(grey - clinical_display(view, upper).astype(int)).max() <= 1
    page.locator("#black").fill("10")
    page.locator("#white").fill("50")
    for grey, view in zip(greys(), counts, strict=True):
        expected = 255 - 255 * np.clip((view - upper) / upper, 0, 1)
        assert np.abs(grey - expected).max() <= 1
    assert page.inner_text("#window") == f"black at {2 * upper:.0f} counts, white at {upper:.0f}"
    page.click("#usual")
    assert all(np.array_equal(one, other) for one, other in zip(greys(), at_start, strict=True))


def test_larger_views_sorting_and_links(show, whole_result):
    page = show(whole_result.folder / "report.html", 390, 844, phone=True)
    page.wait_for_selector("body.scripted")
    width = page.locator("figure").first.bounding_box()["width"]
    page.click(".picture >> nth=0")
    assert page.locator("figure").first.bounding_box()["width"] > 1.8 * width
    page.click(".enlarge >> nth=0")
    assert page.locator("figure").first.bounding_box()["width"] == width

    def areas():
        cells = page.locator("tbody tr td:nth-child(2)").all_inner_texts()[: page.locator(".lesions tbody tr").count()]
        return [int(text.replace(",", "")) for text in cells if text.replace(",", "").isdigit()]

    page.click("th button >> nth=0")
    assert areas() == sorted(areas(), reverse=True) and len(set(areas())) > 1
    page.click("th button >> nth=0")
    assert areas() == sorted(areas())
    page.click("td a >> nth=0")
    page.wait_for_timeout(100)
    box = page.locator(":target").bounding_box()
    assert 200 < box["y"] < 644
    assert not page.complaints


def test_without_its_script(browser, whole_result):
    """Everything but the sliders is there."""
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto((whole_result.folder / "report.html").resolve().as_uri())
    assert page.locator("svg image").first.is_visible() and not page.locator("#black").is_visible()
    assert not page.locator(".enlarge").first.is_visible() and page.locator(".lesions").first.is_visible()
    assert orange_pixels(page) > 0
    page.context.close()


def orange_pixels(page) -> int:
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")).astype(int)
    return int((np.abs(picture - CONTOUR).max(axis=2) < 12).sum())


def test_in_a_browser(show, whole_result):
    """A click on "outlines" hides them, another shows them again; nothing is loaded, nothing complained of."""
    page = show(whole_result.folder / "report.html")
    at_start = orange_pixels(page)
    assert at_start > 10 * len(whole_result.result["lesions"])
    page.click("label[for=contours]")
    assert orange_pixels(page) == 0
    page.click("label[for=contours]")
    assert orange_pixels(page) == at_start
    assert page.locator(".numbers text").count() == len(whole_result.result["lesions"])
    page.click("label[for=numbers]")
    assert not page.locator(".numbers").first.is_visible()
    assert not page.complaints and not [url for url in page.requests[1:] if not url.startswith("data:")]


def test_numbers_do_not_lie_on_each_other(show, scan, tmp_path):
    """Twelve small areas beside each other, on the narrowest screen."""
    masks = {view: np.zeros((1024, 256), np.uint8) for view in ("anterior", "posterior")}
    for mask in masks.values():
        for number in range(12):
            row, column = 300 + 9 * (number // 3), 110 + 8 * (number % 3) + (120 if number > 9 else 0)
            mask[row : row + 4, column : column + 4] = 1
    written = write_prediction(JobSettings(tmp_path / "out"), scan, make_prediction(scan, masks))
    page = show(written.folder / "report.html", 390, 844, phone=True)
    boxes = page.evaluate(
        "[...document.querySelectorAll('figure')].map(figure => [...figure.querySelectorAll('.numbers text')]"
        ".map(text => { const box = text.getBoundingClientRect(); return [box.left, box.right, box.bottom]; }))"
    )
    assert [len(view) for view in boxes] == [12, 12]
    # A box is as high as a line; the digits are lower.
    size = page.evaluate("parseFloat(getComputedStyle(document.querySelector('.numbers text')).fontSize)")
    scale = page.evaluate("document.querySelector('svg').getScreenCTM().a")
    for view in boxes:
        for place, (left, right, bottom) in enumerate(view):
            for other_left, other_right, other_bottom in view[:place]:
                apart = abs(bottom - other_bottom) > 0.72 * size * scale
                assert apart or right <= other_left or other_right <= left


def test_on_a_phone_and_on_paper(show, whole_result):
    page = show(whole_result.folder / "report.html", 390, 844, phone=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.emulate_media(media="print")
    assert not page.locator(".switches").is_visible() and page.locator("svg").first.is_visible()
    assert orange_pixels(page) > 0
