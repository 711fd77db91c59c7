"""What a physician sees: results stored in Orthanc by DCMTK and opened in OHIF, for every layout of a scan.

The pixels that OHIF paints are compared with the mask, so that a wrong frame, a shift and a mirrored view are found.
OHIF_DIST names the built viewer: `npm pack @ohif/app@3.13.2`, unpacked, then `package/dist`.
"""

import io

import numpy as np
import pydicom
import pytest
from dicom_variants import VIEWS, write_variant
from handmade_prediction import make_prediction, reported
from ohif import serving_ohif, viewer_folder
from orthanc import running_orthanc
from PIL import Image

from doubleunet_bs.dicom_files.sources import Source
from doubleunet_bs.dicom_results.make_results import dicom_results
from doubleunet_bs.dicom_results.segmentation import map_to_frame
from doubleunet_bs.dicom_results.source_study import read_source_study
from doubleunet_bs.scans import read_scan

pytestmark = pytest.mark.slow
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
PATIENCE = 120_000
"""Milliseconds, for machines that do other things as well."""


@pytest.fixture(scope="module")
def peers(tmp_path_factory):
    """Orthanc, and the address of OHIF before it."""
    viewer = viewer_folder()
    if viewer is None:
        pytest.skip("OHIF is not there: name package/dist of `npm pack @ohif/app@3.13.2` in OHIF_DIST")
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as orthanc, serving_ohif(viewer, orthanc.url) as address:
        yield orthanc, address


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        try:
            opened = started.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        except playwright.Error:
            pytest.skip("Chromium is not installed (apt-get install chromium)")
        yield opened
        opened.close()


def marks(view: str) -> np.ndarray:
    """Two blocks and a bar, nowhere symmetric, in other places in each view."""
    mask = np.zeros((1024, 256), np.uint8)
    shift = 0 if view == "anterior" else 90
    mask[250 + shift : 300 + shift, 50:90] = mask[420 + shift : 430 + shift, 40:160] = 1
    mask[640 + shift : 700 + shift, 180:200] = 1
    return mask


def write_layout(phantom, layout: str, folder) -> list:
    """The files of a scan in one of the layouts that `read_scan` takes, as a study and patient of its own."""
    kind = layout if layout in ("posterior-first", "side-by-side", "finer-matrix") else "two-frames"
    kind = "two-files" if layout.startswith("two-files") else kind
    files = write_variant(phantom, kind, folder)
    for number, path in enumerate(files):
        dataset = pydicom.dcmread(path)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(dataset, keyword, f"2.25.{1 + sum(map(ord, layout + keyword))}")
        dataset.SOPInstanceUID += f".{number}"
        if layout.startswith("two-files-two-series"):
            dataset.SeriesInstanceUID += f".{number}"
        if layout.endswith("without-place"):
            del dataset.FrameOfReferenceUID
        dataset.PatientID, dataset.InstanceNumber = layout, number + 1
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        if layout == "filled-orientation":
            first, second = dataset.DetectorInformationSequence
            first.ImageOrientationPatient, first.ImagePositionPatient = [1, 0, 0, 0, 0, -1], [-300, -200, 900]
            second.ImageOrientationPatient, second.ImagePositionPatient = [-1, 0, 0, 0, 0, -1], [300, 200, 900]
            dataset.FrameOfReferenceUID = dataset.StudyInstanceUID + ".9"
        dataset.save_as(path)
    return files


def store(orthanc, phantom, layout: str, folder):
    """Predict the marks, store scan and results; returns study UID and the mask of each source frame."""
    files = write_layout(phantom, layout, folder)
    scan = read_scan(files)
    prediction = make_prediction(scan, {view: marks(view) for view in VIEWS})
    study = None if layout == "without-identity" else read_source_study([Source(str(path)) for path in files])
    picture = np.full((20, 10, 3), 128, np.uint8)
    results = []
    for name, content in dicom_results(scan, prediction, picture, reported(scan, prediction), study).items():
        results.append(folder / name)
        results[-1].write_bytes(content)
    sent = orthanc.store([*(files if study else ()), *results], "-R", "-xr")
    assert sent.returncode == 0, sent.stderr
    for path in results:
        written, stored = pydicom.dcmread(path), pydicom.dcmread(io.BytesIO(orthanc.file(_uid(path))))
        assert {element.tag: element.value for element in written} == {element.tag: element.value for element in stored}
    frames = {} if study is None else study.frames
    masks = [map_to_frame(marks(view), frames[view]) if frames else marks(view) for view in VIEWS]
    if layout == "side-by-side":
        masks = [masks[0] | masks[1]]
    return _uid(folder / "segmentation.dcm", "StudyInstanceUID"), masks[::-1] if layout == "posterior-first" else masks


def _uid(path, keyword: str = "SOPInstanceUID") -> str:
    return str(pydicom.dcmread(path, specific_tags=[keyword])[keyword].value)


@pytest.fixture
def opened(chromium):
    """Opens an address of OHIF; the page has a list of what it complained of."""
    contexts = []

    def page_of(address):
        contexts.append(chromium.new_context(viewport={"width": 1600, "height": 1000}))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.errors = []
        page.on("console", lambda said: said.type == "error" and page.errors.append(said.text))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.goto(address)
        page.wait_for_selector('[data-cy="study-browser-thumbnail"]')
        return page

    yield page_of
    for context in contexts:
        context.close()


def painted(page, shape, colour: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the first viewport shows one colour, and the (row, column) of the image at each of its pixels."""
    box = page.locator("canvas").first.bounding_box()
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB"), int)
    others = np.delete(picture, colour, axis=2).max(axis=2)
    scale = min(box["height"] / shape[0], box["width"] / shape[1])
    rows, columns = np.indices(picture.shape[:2])
    row = (rows + 0.5 - box["height"] / 2) / scale + shape[0] / 2
    column = (columns + 0.5 - box["width"] / 2) / scale + shape[1] / 2
    return picture[:, :, colour] - others > 60, np.floor([row, column]).astype(int)


def overlap(page, mask: np.ndarray) -> float:
    """Intersection over union of what is painted red in the first viewport and the mask, on the screen."""
    red, (row, column) = painted(page, mask.shape, 0)
    inside = (row >= 0) & (row < mask.shape[0]) & (column >= 0) & (column < mask.shape[1])
    expected = np.zeros(red.shape, bool)
    expected[inside] = mask[row[inside], column[inside]] == 1
    return (red & expected).sum() / max((red | expected).sum(), 1)


def best_overlap(page, mask: np.ndarray) -> float:
    """The same, waiting for the picture."""
    found = 0.0
    for _ in range(40):
        found = overlap(page, mask)
        if found > 0.9:
            break
        page.wait_for_timeout(500)
    return found


LAYOUTS = (
    "two-frames",
    "without-identity",
    "filled-orientation",
    "posterior-first",
    "two-files",
    "side-by-side",
    "finer-matrix",
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ohif_paints_the_mask_on_its_frame(layout, peers, opened, phantoms, tmp_path, record_property):
    orthanc, address = peers
    study, masks = store(orthanc, phantoms / "phantom_0001.dcm", layout, tmp_path)
    # On a busy machine OHIF may give up an image once. What is wrong with a file is wrong twice.
    for _ in range(2):
        page = opened(f"{address}/segmentation?StudyInstanceUIDs={study}")
        page.locator('[data-cy="study-browser-thumbnail-no-image"]').filter(has_text="segmentation").dblclick()
        page.get_by_text("LOAD", exact=True).first.click()
        page.get_by_text("metastasis", exact=True).first.wait_for()
        found = [best_overlap(page, masks[0])]
        for mask in masks[1:]:
            box = page.locator("canvas").first.bounding_box()
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            page.mouse.wheel(0, 100)
            found.append(best_overlap(page, mask))
        if not any("IMAGE_LOAD_ERROR" in one for one in page.errors):
            break
    record_property("note", f"OHIF, {layout}: overlap with the mask {', '.join(f'{one:.3f}' for one in found)}")
    page.screenshot(path=tmp_path / "ohif.png")
    assert min(found) > 0.9, (found, tmp_path)
    assert page.errors == []


@pytest.mark.parametrize("layout", ["two-files-two-series", "two-files-two-series-without-place"])
def test_ohif_paints_each_of_two_series(layout, peers, opened, phantoms, tmp_path, record_property):
    """The views are files of two series: a segmentation each, which opens on the image of its own series."""
    orthanc, address = peers
    study, masks = store(orthanc, phantoms / "phantom_0001.dcm", layout, tmp_path)
    page, found = opened(f"{address}/segmentation?StudyInstanceUIDs={study}"), []
    for number, mask in enumerate(masks, start=1):
        shown = page.locator('[data-cy="study-browser-thumbnail-no-image"]').filter(has_text=f"view {number} of 2")
        shown.dblclick()
        page.get_by_text("LOAD", exact=True).first.click()
        page.get_by_text("metastasis", exact=True).first.wait_for()
        found.append(best_overlap(page, mask))
        page.screenshot(path=tmp_path / f"ohif{number}.png")
    record_property("note", f"OHIF, {layout}: overlap with the mask {', '.join(f'{one:.3f}' for one in found)}")
    assert min(found) > 0.9, (found, tmp_path)
    assert page.errors == []
