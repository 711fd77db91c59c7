"""The report page: figures and words, nothing of the patient, nothing from outside."""

import base64
import dataclasses
import datetime
import hashlib
import re
import shutil
import zlib

import numpy as np
import pydicom
import pytest
from handmade_prediction import make_prediction
from PIL import Image
from report_page import Page, page_of

from doubleunet_bs.constants import MIRRORED_WARNING
from doubleunet_bs.findings.lesion_list import SPACING_WARNING
from doubleunet_bs.findings.matching import match_earlier
from doubleunet_bs.inference.model_description import INTENDED_USE
from doubleunet_bs.results.patient_report import report_page
from doubleunet_bs.results.result_files import JobSettings
from doubleunet_bs.results.result_folder import report_scan, write_prediction
from doubleunet_bs.results.stored_result import read_result
from doubleunet_bs.scans import read_scan


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


def test_no_side_is_stated_where_it_is_in_doubt(whole_result, mirrored):
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

    assert letters(whole_result) == ["R", "L", "L", "R"]
    assert letters(mirrored) == ["?"] * 4
    sure, doubtful = glyphs(whole_result), glyphs(mirrored)
    assert np.array_equal(sure[0], sure[3]) and np.array_equal(sure[1], sure[2])
    assert sure[0].sum() > sure[1].sum(), "an R has more ink than an L"
    assert all(np.array_equal(doubtful[0], other) for other in doubtful[1:])
    assert not any(np.array_equal(doubtful[0], other) for other in sure)
    assert all(view_codes(whole_result))
    assert not any(view_codes(mirrored))


def test_the_overlay_says_what_is_wrong(whole_result, mirrored):
    """In an archive nothing else does: every warning of result.json, in words."""
    warnings = mirrored.result["warnings"]
    assert len(warnings) > 1 and SPACING_WARNING in warnings
    capture = pydicom.dcmread(mirrored.folder / "overlay.dcm")
    assert all(warning in capture.DerivationDescription for warning in warnings)
    assert len(capture.DerivationDescription) <= 1024
    assert "arning" not in pydicom.dcmread(whole_result.folder / "overlay.dcm").DerivationDescription
    picture = np.asarray(Image.open(mirrored.folder / "overlay.png").convert("L"))
    # One line for each, above the views, which have moved down for them.
    written_rows = (picture[80 : 80 + 22 * len(warnings) + 14] < 128).any(axis=1).astype(int)
    assert (np.diff(written_rows) == 1).sum() >= len(warnings)
    assert picture.shape[0] == Image.open(whole_result.folder / "overlay.png").height + 22 * (len(warnings) - 1)


def test_says_what_it_must_and_nothing_else(whole_result, scan):
    text = page_of(whole_result)
    page = Page(text)
    assert scan.case in page.text
    assert page.text.count(INTENDED_USE) == 2
    lesions = whole_result.result["lesions"]
    assert {f"lesion-{lesion['number']}" for lesion in lesions} < set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    for lesion in lesions:
        assert f"{lesion['pixels']:,} " in page.text and f"{lesion['sum_counts']:,} " in page.text
    assert f"{whole_result.result['lesion_area']['lesion_area_mm2']:,.0f} mm²" in page.text
    assert "not a bone scan index" in page.text
    assert "A synthetic phantom, not a patient." in page.text
    assert f"computed on {datetime.date.today().isoformat()}" in page.text
    assert text.count("synthetic phantom</text>") == 2
    # What may be said of diagnosis is that this is not for it.
    rest = page.text.replace(INTENDED_USE, "").replace("Not for diagnosis.", "")
    assert not re.search("diagnos|progress|respon|therap|treat", rest, re.IGNORECASE)


def test_needs_nothing_from_outside(whole_result):
    """Its policy allows pictures inside, its style, and the script with the hash that it names."""
    text = page_of(whole_result)
    inside = {f"#{name}" for name in Page(text).ids}
    for link in Page(text).links:
        assert link in inside | {"data:,"} or link.startswith("data:image/png;base64,")
    # Without the pictures and counts in base64, whose letters may spell anything.
    words = re.sub(r"[A-Za-z0-9+/=]{200,}", "", text)
    assert not re.search(r"javascript:|https?:|@import|url\(|fetch|XMLHttp|eval|\son\w+=", words)
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'\">" in text


@pytest.mark.slow
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
    posterior = scan.posterior.copy()
    posterior[300, 100] = 60_000
    scan = dataclasses.replace(scan, posterior=posterior)
    content = report_scan(scan, make_prediction(scan, {"anterior": mask, "posterior": mask}))
    for lesion, number in zip(content.result["lesions"], (1, 2, 1, 3), strict=True):
        lesion["focus"] = number
    content.result["lesions"][0] |= {"mean_probability": 0.81, "peak_probability": 0.97}
    content.result["lesions"][3]["mean_probability"] = 0.95
    text = report_page(content)
    assert "Counted once where both views show it: 3 foci." in text
    assert re.findall(r'<td><a href="#(lesion-\d)">(\d)</a></td>\n<td data-sort="100">', text)[0] == ("lesion-1", "1")
    labels = re.findall(r'<text x="[^>]*>(\d)</text>', text)
    assert labels == ["1", "2", "1", "3"]
    rows = re.findall(r'<tr>\n<td><a href="#lesion-\d">(\d)</a></td>\n<td data-sort', text)
    assert rows == ["3", "1", "2"], "the most probable first, and equal ones by number"
    own = scan.anterior[300:310, 100:110]
    [figures] = re.findall(r"<td>1</td>\n<td>anterior</td>\n?<td>.*</td>\n((?:<td>.*</td>\n)+)", text)
    assert re.findall("<td>(.*)</td>", figures) == [
        *("0.81", "0.97", "100", f"{own.sum():,}", f"{own.max():,}", "304.5", "104.5")
    ]
    # The outlines lie on the counts that the page shows, whatever air was left out.
    [(width, counts)] = re.findall(r'<canvas width="(\d+)".*?data-counts="([^"]+)"', text)[1:]
    brightest = np.frombuffer(zlib.decompress(base64.b64decode(counts)), "<u2").argmax()
    row, column = divmod(int(brightest), int(width))
    places = re.findall(r'<path id="lesion-\d" transform="translate\((\d+) (\d+)\)" d="([^"]+)"/>', text)
    square = "M0 0h10M0 10h10M0 0v10M10 0v10"
    first, second = (str(column), str(row), square), (str(column + 20), str(row + 200), square)
    assert places == [first, second] * 2


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
