"""The report page: figures, outlines that can be switched off, window and level, nothing of the patient, nothing from
outside."""

import base64
import dataclasses
import datetime
import hashlib
import html.parser
import io
import re
import shutil
import zlib

import numpy as np
import pydicom
import pytest
from handmade_prediction import make_prediction
from PIL import Image

from doubleunet_bs.bsi.regions import region_number
from doubleunet_bs.constants import MIRRORED_WARNING, VIEWS
from doubleunet_bs.display import clinical_display
from doubleunet_bs.findings.lesion_changes import match_earlier
from doubleunet_bs.findings.lesion_list import SPACING_WARNING
from doubleunet_bs.findings.skeleton_result import find_index
from doubleunet_bs.inference.model_description import INTENDED_USE
from doubleunet_bs.results.patient_report import report_page
from doubleunet_bs.results.previous_scan import read_result
from doubleunet_bs.results.result_files import JobSettings
from doubleunet_bs.results.result_folder import report_scan, write_prediction
from doubleunet_bs.scans import read_scan

CONTOUR = np.array((225, 87, 0))


class Page(html.parser.HTMLParser):
    """Checks that elements are closed in order; collects text, ids and links."""

    VOID = {"meta", "link", "input", "image", "br"}

    def __init__(self, text: str):
        super().__init__()
        self.open, self.ids, self.links, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes[key] for key in ("href", "src") if key in attributes]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in {"path", *self.VOID}
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def written(scan, tmp_path_factory):
    return write_prediction(JobSettings(tmp_path_factory.mktemp("report")), scan, make_prediction(scan))


@pytest.fixture(scope="module")
def earlier(phantoms, tmp_path_factory):
    scan = read_scan(phantoms / "phantom_0002.dcm")
    return write_prediction(JobSettings(tmp_path_factory.mktemp("earlier")), scan, make_prediction(scan))


@pytest.fixture(scope="module")
def mirrored(phantoms, tmp_path_factory):
    """A scan whose posterior view is stored as if seen from the front."""
    folder = tmp_path_factory.mktemp("mirrored")
    dataset = pydicom.dcmread(phantoms / "phantom_0001.dcm")
    frames = dataset.pixel_array.copy()
    frames[1] = frames[1][:, ::-1]
    dataset.PixelData = frames.tobytes()
    del dataset.PixelSpacing
    dataset.save_as(folder / "scan.dcm")
    scan = read_scan(folder / "scan.dcm")
    assert MIRRORED_WARNING in scan.warnings and scan.pixel_spacing_mm is None
    return write_prediction(JobSettings(folder / "out"), scan, make_prediction(scan))


def test_no_side_is_stated_where_it_is_in_doubt(written, mirrored):
    """Report, overlay and segmentations; sure ones have their letters."""

    def letters(result):
        return re.findall(r'<text class="hint side" x="\d+" y="17"[^>]*>(.)</text>', page_of(result))

    def glyphs(result):
        picture = np.asarray(Image.open(result.folder / "overlay.png").convert("L"))
        top, width = 150 + 22 * max(len(result.result["warnings"]) - 1, 0), (picture.shape[1] - 60 - 24) // 2
        corners = [(top + 9, left + column) for left in (30, 54 + width) for column in (4, width - 26)]
        dark = [picture[row : row + 20, column : column + 22] < 128 for row, column in corners]
        assert all(one.any() for one in dark)
        return [one[np.ix_(one.any(axis=1), one.any(axis=0))] for one in dark]

    def view_codes(result):
        detectors = pydicom.dcmread(result.folder / "scan.dcm").DetectorInformationSequence
        return ["ViewCodeSequence" in detector for detector in detectors]

    assert letters(written) == ["R", "L", "L", "R"]
    assert letters(mirrored) == ["?"] * 4
    sure, doubtful = glyphs(written), glyphs(mirrored)
    assert np.array_equal(sure[0], sure[3]) and np.array_equal(sure[1], sure[2])
    assert not np.array_equal(sure[0], sure[1])
    assert all(np.array_equal(doubtful[0], other) for other in doubtful[1:])
    assert not any(np.array_equal(doubtful[0], other) for other in sure)
    assert all(view_codes(written))
    assert not any(view_codes(mirrored))


def test_the_overlay_says_what_is_wrong(written, mirrored):
    """In an archive nothing else does: every warning of result.json, in words."""
    warnings = mirrored.result["warnings"]
    assert len(warnings) > 1 and SPACING_WARNING in warnings
    capture = pydicom.dcmread(mirrored.folder / "overlay.dcm")
    assert all(warning in capture.DerivationDescription for warning in warnings)
    assert len(capture.DerivationDescription) <= 1024
    assert "arning" not in pydicom.dcmread(written.folder / "overlay.dcm").DerivationDescription
    picture = np.asarray(Image.open(mirrored.folder / "overlay.png").convert("L"))
    # One line for each, above the views, which have moved down for them.
    written_rows = (picture[80 : 80 + 22 * len(warnings) + 14] < 128).any(axis=1).astype(int)
    assert (np.diff(written_rows) == 1).sum() >= len(warnings)
    assert picture.shape[0] == Image.open(written.folder / "overlay.png").height + 22 * (len(warnings) - 1)


def page_of(written) -> str:
    return (written.folder / "report.html").read_text(encoding="utf-8")


def test_says_what_it_must_and_nothing_else(written, scan):
    text = page_of(written)
    page = Page(text)
    assert scan.case in page.text
    assert page.text.count(INTENDED_USE) == 2
    lesions = written.result["lesions"]
    assert {f"lesion-{lesion['number']}" for lesion in lesions} < set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    for lesion in lesions:
        assert f"{lesion['pixels']:,} " in page.text and f"{lesion['sum_counts']:,} " in page.text
    assert f"{written.result['lesion_area']['lesion_area_mm2']:,.0f} mm²" in page.text
    assert "not a bone scan index" in page.text
    assert "A synthetic phantom, not a patient." in page.text
    assert f"computed on {datetime.date.today().isoformat()}" in page.text
    assert text.count("synthetic phantom</text>") == 2
    # What may be said of diagnosis is that this is not for it.
    rest = page.text.replace(INTENDED_USE, "").replace("Not for diagnosis.", "")
    assert not re.search("diagnos|progress|respon|therap|treat", rest, re.IGNORECASE)


def test_needs_nothing_from_outside(written):
    """Its policy allows pictures inside, its style, and the script with the hash that it names."""
    text = page_of(written)
    inside = {f"#{name}" for name in Page(text).ids}
    for link in Page(text).links:
        assert link in inside | {"data:,"} or link.startswith("data:image/png;base64,")
    # Without the pictures and counts in base64, whose letters may spell anything.
    words = re.sub(r"[A-Za-z0-9+/=]{200,}", "", text)
    assert not re.search(r"javascript:|https?:|@import|url\(|fetch|XMLHttp|eval|\son\w+=", words)
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'\">" in text


def test_previous_scan_stands_beside_it(scan, earlier, tmp_path):
    previous = read_result(earlier.folder)
    both = write_prediction(JobSettings(tmp_path), scan, make_prediction(scan), previous=previous)
    page = Page(page_of(both))
    assert both.result["previous"] == previous.result["case"]
    # The structured report follows the same lesions.
    before = {lesion["number"]: lesion["tracking_uid"] for lesion in previous.result["lesions"]}
    uids = {lesion["number"]: lesion["tracking_uid"] for lesion in both.result["lesions"]}
    matched = match_earlier(both.result, previous.result)
    assert matched and all(uids[number] == before[other] for number, other in matched.items())
    report = (both.folder / "lesions.dcm").read_bytes()
    assert all(uid.encode() in report for uid in uids.values())
    assert previous.result["case"] in page.text
    assert {f"earlier-{lesion['number']}" for lesion in previous.result["lesions"]} < set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    for result in (both.result, previous.result):
        assert f"{result['lesion_area']['lesion_pixels']:,} " in page.text
    assert "are not registered to each other" in page.text
    assert "All views have one grey scale, in counts." in page.text
    assert len(set(re.findall(r'data-upper="([^"]+)"', page_of(both)))) == 1
    assert "different models" not in page.text
    other = dataclasses.replace(
        previous, result={**previous.result, "model": {**previous.result["model"], "weights_sha256": "cd" * 32}}
    )
    settings = JobSettings(tmp_path, overwrite=True)
    page = Page(page_of(write_prediction(settings, scan, make_prediction(scan), previous=other)))
    assert "segmented by different models" in page.text
    stricter = dataclasses.replace(make_prediction(scan), threshold=0.7)
    page = Page(page_of(write_prediction(settings, scan, stricter, previous=previous)))
    assert "different thresholds: probability of metastatic at least 0.7 here, metastatic is the most" in page.text


@pytest.fixture(scope="module")
def with_bones(scan, tmp_path_factory):
    """Thoracic spine above row 400 in the anterior view, ribs above it in the posterior one, no bone below."""
    regions = {view: np.zeros(scan.anterior.shape, np.uint8) for view in VIEWS}
    regions["anterior"][:400], regions["posterior"][:400] = region_number("thoracic spine"), region_number("ribs")
    prediction = make_prediction(scan)
    index = find_index(scan, prediction, make_prediction(scan, regions), "icrp110-female")
    return write_prediction(JobSettings(tmp_path_factory.mktemp("bones")), scan, prediction, skeleton=index)


def test_the_table_names_bones(with_bones, written):
    """Every focus and every area, where a skeleton was predicted; without one there is no such column."""
    text = page_of(with_bones)
    Page(text)
    cells = [cell.replace("–", "None") for cell in re.findall(r'<td class="word">(.*?)</td>', text)]
    lesions = with_bones.result["lesions"]
    found = {str(lesion["focus"]): lesion["region"] for lesion in reversed(lesions) if lesion["region"]}
    foci = re.findall(r'<td><a href="#lesion-\d+">(\d+)</a></td>', text)[: len(with_bones.result["foci"])]
    assert cells[: len(foci)] == [str(found.get(focus)) for focus in foci]
    assert cells[len(foci) :] == [str(lesion["region"]) for lesion in lesions]
    assert {"thoracic spine", "ribs", "None"} <= set(cells)
    assert 'class="word"' not in page_of(written)


def test_the_table_of_bones_sorts_and_fits_a_phone(show, with_bones):
    page = show(with_bones.folder / "report.html", 390, 844, phone=True)
    page.wait_for_selector("body.scripted")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.click("th button >> nth=0")
    rows = page.locator(".lesions >> nth=0").locator("tbody tr")
    cells = [text.replace(",", "") for text in rows.locator("td:nth-child(3)").all_inner_texts()]
    sizes = [int(text) for text in cells if text]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) > 1


def test_regions_are_thin_lines_that_can_be_switched_off(show, with_bones, written, tmp_path):
    """Of this scan and of the previous one, with their names; without a skeleton nothing of it is on the page."""
    earlier = read_result(with_bones.folder)
    assert {view: mask.tolist() for view, mask in earlier.regions.items()} == {
        view: np.load(with_bones.folder / f"regions_{view}.npy").tolist() for view in VIEWS
    }
    (tmp_path / "both.html").write_text(report_page(read_result(written.folder), earlier))
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
    assert "regions" not in page_of(written).split("</style>")[1]


def test_nothing_predicted_and_a_missing_view_and_no_spacing(scan, tmp_path):
    nothing = write_prediction(JobSettings(tmp_path / "a", ("report",)), scan, make_prediction(scan, {}))
    assert "marks no area as suspicious for metastasis. This does not rule out" in Page(page_of(nothing)).text
    half = dataclasses.replace(
        scan,
        posterior=np.zeros_like(scan.posterior),
        missing_views=("posterior",),
        pixel_spacing_mm=None,
        warnings=("<b>a & b</b>",),
        phantom=False,
    )
    page = Page(page_of(write_prediction(JobSettings(tmp_path / "b", ("report",)), half, make_prediction(half))))
    assert page.text.count("view missing") == 1
    assert "phantom" not in page.text
    assert "pixel spacing unknown" in page.text and "areas in mm2 cannot be given" in page.text
    assert "<b>a & b</b>" in page.text


def test_a_kept_picture_has_a_grey_scale_of_its_own(scan, earlier, tmp_path):
    """With identity there is no copy of the scan in the results: its counts are not known."""
    folder = shutil.copytree(earlier.folder, tmp_path / "kept")
    counts = read_result(folder)
    (folder / "scan.dcm").unlink()
    picture = read_result(folder)
    assert counts.in_counts and not picture.in_counts
    page = page_of(
        write_prediction(JobSettings(tmp_path / "a", ("report",)), scan, make_prediction(scan), previous=picture)
    )
    assert "its grey scale is its own" in page
    assert len(set(re.findall(r'canvas [^>]*data-upper="([^"]+)"', page))) == 2


def test_what_changed_is_said(scan, tmp_path):
    """Three areas before, one of them gone; two new ones far from the others. The bodies are the same."""

    def mask(*places):
        found = np.zeros((1024, 256), np.uint8)
        for row, column in places:
            found[row : row + 8, column : column + 8] = 1
        return {"anterior": found}

    before = make_prediction(scan, mask((200, 100), (300, 100), (400, 100)))
    now = make_prediction(scan, mask((202, 101), (298, 100), (500, 100), (500, 160)))
    written = write_prediction(JobSettings(tmp_path, ("report",)), scan, now, previous=report_scan(scan, before))
    page = Page(page_of(written))
    assert "Against the previous scan: 2 matched, 2 new, 1 gone (no longer marked)." in page.text
    assert page.words.count("new") == 2 and page.words.count("gone") == 1 and page.words.count("matched") == 2
    assert [word for word in page.words if re.fullmatch(r"[+−]\d", word)] == ["+3", "+4", "−3"]


def test_areas_of_both_views_share_a_number_and_a_row(scan):
    """Where the result says that they are one place in the body."""
    mask = np.zeros((1024, 256), np.uint8)
    mask[300:310, 100:110] = 1
    mask[500:510, 120:130] = 1
    content = report_scan(scan, make_prediction(scan, {"anterior": mask, "posterior": mask}))
    for lesion, number in zip(content.result["lesions"], (1, 2, 1, 3), strict=True):
        lesion["focus"] = number
    text = report_page(content)
    assert "Counted once where both views show it: 3 foci." in text
    assert re.findall(r'<td><a href="#(lesion-\d)">(\d)</a></td>\n<td data-sort="100">', text)[0] == ("lesion-1", "1")
    labels = re.findall(r'<text x="[^>]*>(\d)</text>', text)
    assert labels == ["1", "2", "1", "3"]


@pytest.mark.parametrize("f1", [0.0, None, 0.6])
def test_the_quality_of_the_model_is_above_the_finding(scan, tmp_path, f1):
    prediction = make_prediction(scan)
    model = dataclasses.replace(prediction.model, validation_f1=f1, trained_on="phantoms")
    text = Page(
        page_of(
            write_prediction(JobSettings(tmp_path, ("report",)), scan, dataclasses.replace(prediction, model=model))
        )
    ).text
    assert prediction.model.validation_f1 and model.quality in text and model.training_summary in text
    warning = text.find("This model found no metastasis on its own validation scans")
    assert 0 < warning < text.find("The model marks") if not f1 else warning == -1


def test_warnings_are_above_the_finding(mirrored):
    text = Page(page_of(mirrored)).text
    assert 0 < text.find(MIRRORED_WARNING) < text.find("The model marks")


def counts_of(page_text) -> list[np.ndarray]:
    """The counts that the page carries for its script."""
    found = re.findall(r'<canvas width="(\d+)" height="(\d+)" [^>]*data-counts="([^"]+)"', page_text)
    return [
        np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u2").reshape(int(rows), int(columns))
        for columns, rows, text in found
    ]


def test_no_uptake_is_cut_off_with_the_air(scan, written):
    """Two of a thousand counts at most are left out, and both views show the same rows and columns."""
    anterior, posterior = counts_of(page_of(written))
    assert anterior.shape == posterior.shape < (1024, 256)
    for shown, whole in ((anterior, scan.anterior), (posterior, scan.posterior)):
        assert 0.998 * whole.sum(dtype=int) < shown.sum(dtype=int) <= whole.sum(dtype=int)
        assert shown.max() == whole.max()


def test_window_and_level(show, written):
    """The sliders change both views to what the formula gives, and "usual display" gives the first display back."""
    page = show(written.folder / "report.html")
    page.wait_for_selector("body.scripted")
    counts = [view[200:220] for view in counts_of(page_of(written))]
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
    assert page.inner_text("#window") == f"black from {2 * upper:.0f} counts, white up to {upper:.0f}"
    page.click("#usual")
    assert all(np.array_equal(one, other) for one, other in zip(greys(), at_start, strict=True))


def test_larger_views_sorting_and_links(show, written):
    page = show(written.folder / "report.html", 390, 844, phone=True)
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


def test_without_its_script(browser, written):
    """Everything but the sliders is there."""
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto((written.folder / "report.html").resolve().as_uri())
    assert page.locator("svg image").first.is_visible() and not page.locator("#black").is_visible()
    assert not page.locator(".enlarge").first.is_visible() and page.locator(".lesions").first.is_visible()
    assert orange_pixels(page) > 0
    page.context.close()


def orange_pixels(page) -> int:
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")).astype(int)
    return int((np.abs(picture - CONTOUR).max(axis=2) < 12).sum())


def test_in_a_browser(show, written):
    """A click on "outlines" hides them, another shows them again; nothing is loaded, nothing complained of."""
    page = show(written.folder / "report.html")
    at_start = orange_pixels(page)
    assert at_start > 10 * len(written.result["lesions"])
    page.click("label[for=contours]")
    assert orange_pixels(page) == 0
    page.click("label[for=contours]")
    assert orange_pixels(page) == at_start
    assert page.locator(".numbers text").count() == len(written.result["lesions"])
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


def test_on_a_phone_and_on_paper(show, written):
    page = show(written.folder / "report.html", 390, 844, phone=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.emulate_media(media="print")
    assert not page.locator(".switches").is_visible() and page.locator("svg").first.is_visible()
    assert orange_pixels(page) > 0
