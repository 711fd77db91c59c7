"""The report page: figures, contours that can be switched off, nothing of the patient, nothing from outside."""

import dataclasses
import html.parser
import io
import re

import numpy as np
import pydicom
import pytest
from handmade_prediction import make_prediction
from PIL import Image

from doubleunet_bs.inference.model_description import INTENDED_USE
from doubleunet_bs.results.lesion_list import SPACING_WARNING
from doubleunet_bs.results.previous_scan import read_result
from doubleunet_bs.results.result_files import JobSettings
from doubleunet_bs.results.result_folder import write_prediction
from doubleunet_bs.scans import read_scan
from doubleunet_bs.scans.views import MIRRORED_WARNING

CONTOUR = np.array((225, 87, 0))


class Page(html.parser.HTMLParser):
    """Checks that elements are closed in order; collects text, ids and links."""

    VOID = {"meta", "link", "input", "image", "path", "br"}

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
        assert tag in self.VOID
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
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
        return re.findall(r'<text class="hint" x="\d+" y="17"[^>]*>(.)</text>', page_of(result))

    def glyphs(result):
        picture = np.asarray(Image.open(result.folder / "overlay.png").convert("L"))
        top = picture.shape[0] - 92 - 2048
        corners = [(top + 9, left + column) for left in (30, 566) for column in (4, 486)]
        dark = [picture[row : row + 20, column : column + 22] < 128 for row, column in corners]
        assert all(one.any() for one in dark)
        return [one[np.ix_(one.any(axis=1), one.any(axis=0))] for one in dark]

    def orientations(result):
        paths = [result.folder / f"segmentation_{view}.dcm" for view in ("anterior", "posterior")]
        return [pydicom.dcmread(path).PatientOrientation for path in paths]

    assert letters(written) == ["R", "L", "L", "R"]
    assert letters(mirrored) == ["?"] * 4
    sure, doubtful = glyphs(written), glyphs(mirrored)
    assert np.array_equal(sure[0], sure[3]) and np.array_equal(sure[1], sure[2])
    assert not np.array_equal(sure[0], sure[1])
    assert all(np.array_equal(doubtful[0], other) for other in doubtful[1:])
    assert not any(np.array_equal(doubtful[0], other) for other in sure)
    assert orientations(written) == [["L", "F"], ["R", "F"]]
    assert not any(orientations(mirrored))


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
    # What may be said of diagnosis is that this is not for it.
    rest = page.text.replace(INTENDED_USE, "").replace("Not for diagnosis.", "")
    assert not re.search("diagnos|progress|respon|therap|treat", rest, re.IGNORECASE)


def test_needs_nothing_from_outside(written):
    text = page_of(written)
    inside = {f"#{name}" for name in Page(text).ids}
    for link in Page(text).links:
        assert link in inside | {"data:,"} or link.startswith("data:image/png;base64,")
    assert not re.search(r"<script|javascript:|https?:|@import|url\(", text)


def test_previous_scan_stands_beside_it(scan, earlier, tmp_path):
    previous = read_result(earlier.folder)
    both = write_prediction(JobSettings(tmp_path), scan, make_prediction(scan), previous=previous)
    page = Page(page_of(both))
    assert both.result["previous"] == previous.result["case"]
    assert previous.result["case"] in page.text
    assert {f"earlier-{lesion['number']}" for lesion in previous.result["lesions"]} < set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    for result in (both.result, previous.result):
        assert f"{result['lesion_area']['lesion_pixels']:,} " in page.text
    assert "are not registered to each other" in page.text
    assert "different models" not in page.text
    other = dataclasses.replace(
        previous, result={**previous.result, "model": {**previous.result["model"], "weights_sha256": "cd" * 32}}
    )
    settings = JobSettings(tmp_path, overwrite=True)
    page = Page(page_of(write_prediction(settings, scan, make_prediction(scan), previous=other)))
    assert "segmented by different models" in page.text


def test_nothing_predicted_and_a_missing_view_and_no_spacing(scan, tmp_path):
    nothing = write_prediction(JobSettings(tmp_path / "a"), scan, make_prediction(scan, {}))
    assert "No area is predicted to be metastatic." in Page(page_of(nothing)).text
    half = dataclasses.replace(
        scan,
        posterior=np.zeros_like(scan.posterior),
        missing_views=("posterior",),
        pixel_spacing_mm=None,
        warnings=("<b>a & b</b>",),
        phantom=False,
    )
    page = Page(page_of(write_prediction(JobSettings(tmp_path / "b"), half, make_prediction(half))))
    assert page.text.count("view missing") == 2
    assert "phantom" not in page.text
    assert "pixel spacing unknown" in page.text and "areas in mm2 cannot be given" in page.text
    assert "<b>a & b</b>" in page.text


def orange_pixels(page) -> int:
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")).astype(int)
    return int((np.abs(picture - CONTOUR).max(axis=2) < 12).sum())


def test_in_a_browser(show, written):
    """A click on "contours" hides them, another shows them again; nothing is loaded, nothing complained of."""
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


def test_on_a_phone_and_on_paper(show, written):
    page = show(written.folder / "report.html", 390, 844, phone=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.emulate_media(media="print")
    assert not page.locator(".switches").is_visible() and page.locator("svg").first.is_visible()
    assert orange_pixels(page) > 0
