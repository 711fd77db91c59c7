"""What every test needs: TensorFlow without its start-up messages, small shards, a trained run and its export, a scan,
a browser, and notes at the end. The model of the run calls grey levels above 150 metastatic (see `intensity_run`)."""

import gc
import os
import shutil
import socketserver

import cv2
import numpy as np
import pytest
from intensity_run import export_regions, intensity_model, make_run, make_shards
from synthetic_shards import SyntheticShards

from doubleunet_bs.tensorflow_setup import import_tensorflow

# Until the tests are collected, see `pytest_collection_finish`: a tenth of the time that takes.
gc.disable()
# HTTP and DICOM servers look that often whether they shall end; the default is half a second.
socketserver.BaseServer.serve_forever.__defaults__ = (0.02,)


@pytest.fixture(scope="session")
def tensorflow():
    return import_tensorflow()


@pytest.fixture
def synthetic_shards():
    """32 x 32 images with square lesions, quacking like `preparation.shards.ShardedDataset`."""
    return SyntheticShards()


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory, tensorflow):
    from doubleunet_bs.runs.run_folder import open_run
    from doubleunet_bs.serving.export import export_fold

    folder = tmp_path_factory.mktemp("trained")
    run = make_run(folder / "run", make_shards(folder / "shards"), folds=(1,))
    export_fold(open_run(run), 1)
    return run


@pytest.fixture(scope="session")
def exported_skeleton(tmp_path_factory, tensorflow):
    """A model of the skeleton that is prepared as that of `trained_run`; see `intensity_run.export_regions`."""
    return export_regions(tmp_path_factory.mktemp("bones") / "saved_model")


@pytest.fixture(scope="session")
def served_skeleton(trained_run, exported_skeleton):
    """A server with the models of `trained_run` and `exported_skeleton`."""
    pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is missing: pip install -e '.[serving]'")
    from model_server import LoopbackServer

    server = LoopbackServer(trained_run / "fold_01" / "saved_model", "focal-tversky-otsu-fold-01")
    server.load(exported_skeleton, "skeleton-fold-01")
    yield server
    server.close()


@pytest.fixture
def small_network(monkeypatch):
    """Trainings of this test use a network of one convolution: the rest is the same, in a hundredth of the time."""
    monkeypatch.setattr(
        "doubleunet_bs.training.build_network.double_unet", lambda shape, *args, **kwargs: intensity_model(*shape[:2])
    )


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    """A folder of two scans."""
    from doubleunet_bs.phantom import make_cohort

    return make_cohort(tmp_path_factory.mktemp("cohort") / "phantoms", 2, positive_fraction=1.0, seed=3) / "scans"


@pytest.fixture(scope="session")
def scan(phantoms):
    from doubleunet_bs.scans import read_scan

    scan = read_scan(phantoms / "phantom_0001.dcm")
    for view in (scan.anterior, scan.posterior):
        view.setflags(write=False)  # All tests have the same one.
    return scan


@pytest.fixture(scope="session")
def live_network(tensorflow, scan):
    """The real network at 160 x 128 pixels with random weights. It calls about a tenth of `scan` metastatic."""
    import keras

    from doubleunet_bs.network import double_unet
    from doubleunet_bs.network.metrics import network_input
    from doubleunet_bs.preparation import PreparationSettings, prepare_scan

    keras.utils.set_random_seed(0)
    model = double_unet((160, 128, 3))
    grey = prepare_scan(scan, settings=PreparationSettings(bin=4)).grey
    probability = np.asarray(model(network_input(grey[None]), training=False)["output2"])
    margin = np.log(probability[..., 2]) - np.log(probability[..., :2].max(axis=-1))
    bias = model.get_layer("output2_logits").bias
    bias.assign(bias + np.array([0, 0, -np.quantile(margin, 0.9)], np.float32))
    return model


@pytest.fixture(scope="session")
def exported_network(live_network, tmp_path_factory):
    """`live_network`, exported."""
    from intensity_run import description

    from doubleunet_bs.serving.export import write_saved_model

    folder = tmp_path_factory.mktemp("network")
    write_saved_model(folder, live_network, description((160, 128)))
    return folder


def pytest_configure(config):
    """In the quick tier each of the two processes has a core: the same tests take a seventh less processor time."""
    if config.option.markexpr == "not slow":
        cv2.setNumThreads(1)
        os.environ |= dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), "1")


def pytest_collection_finish():
    """Garbage is collected from here on, and not among what has been imported."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items):
    """What needs the real network or a browser is slow. Files with slow tests come first: no process ends alone with
    one."""
    for item in items:
        if {"live_network", "browser"} & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_terminal_summary(terminalreporter):
    """What tests noted by `record_property("note", text)`: figures and what stood in for what."""
    reports = terminalreporter.getreports("passed")
    notes = [text for report in reports for name, text in report.user_properties if name == "note"]
    if notes:
        terminalreporter.section("notes")
    for text in dict.fromkeys(notes):
        terminalreporter.line(text)


@pytest.fixture(scope="session")
def browser():
    """A Chromium that `show` opens pages in; without one the tests that look at a page are skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the page is not opened: playwright is missing")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("the page is not opened: no Chromium or Chrome is installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def show(browser):
    """Opens a file; the page has notes of what it complained of and what it asked for."""
    contexts = []

    def opened(path, width=1200, height=900, phone=False):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, is_mobile=phone))
        page = contexts[-1].new_page()
        page.complaints, page.requests = [], []
        page.on(
            "console", lambda said: said.type in ("error", "warning", "assert") and page.complaints.append(said.text)
        )
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(path.resolve().as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
