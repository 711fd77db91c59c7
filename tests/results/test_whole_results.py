"""Results appear whole or not at all: failed writes, other processes, signals."""

import dataclasses
import os
import pydoc
import signal
import subprocess
import sys
import time

import pydicom
import pytest
from handmade_prediction import make_prediction

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.errors import RunError
from doubleunet_bs.files import read_json
from doubleunet_bs.results import result_folder
from doubleunet_bs.results.result_files import JobSettings


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "failing_call", "named"),
    [
        ("results.result_folder.write_json", 1, "case-"),
        ("results.labelme_output.create_file", 1, "phantom_0001_anterior.json"),
    ],
)
def test_nothing_is_left_of_a_failed_write(command, phantoms, tmp_path, monkeypatch, function, failing_call, named):
    """Neither a result nor annotations: the next run finds nothing in its way."""
    module, name = function.rsplit(".", 1)
    owner = pydoc.locate(f"doubleunet_bs.{module}")
    real, calls = getattr(owner, name), []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == failing_call:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    arguments = (phantoms / "phantom_0001.dcm", "--labelme", tmp_path / "labels", "--outputs", "masks")
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        code, _, err = command(*arguments)
    assert code == 1 and named in err and "cannot be written" in err and "(No space left on device)" in err
    assert not list(command.out.glob("case-*")) and not list(tmp_path.glob("labels/*"))
    assert command(*arguments)[0] == 0
    assert len(list((tmp_path / "labels").iterdir())) == 2


@pytest.mark.parametrize(
    ("function", "failing_call"), [("doubleunet_bs.results.labelme_output.create_file", 2), ("os.rename", 1)]
)
def test_annotations_go_when_the_rest_cannot_be_written(scan, tmp_path, monkeypatch, function, failing_call):
    """The second view, or the folder: one view alone would be half a truth for `prepare`."""
    real, calls = pydoc.locate(function), []

    def fail(*arguments):
        calls.append(list(tmp_path.glob("labels/*.json")))
        if len(calls) == failing_call:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    paths = {view: tmp_path / "labels" / f"S_{view}.json" for view in VIEWS}
    arguments = JobSettings(tmp_path / "out", ("masks",)), scan, make_prediction(scan), None, paths
    with monkeypatch.context() as patch:
        patch.setattr(function, fail)
        with pytest.raises(RunError, match="No space left on device"):
            result_folder.write_prediction(*arguments)
    # Something was there to be removed.
    assert len(calls) == failing_call and calls[-1]
    assert os.listdir(tmp_path / "labels") == os.listdir(tmp_path / "out") == []
    result_folder.write_prediction(*arguments)
    assert len(os.listdir(tmp_path / "labels")) == 2


def test_an_annotation_of_another_process_is_not_overwritten(command, phantoms, tmp_path, monkeypatch):
    """It appears after this process has looked whether it is there."""
    from doubleunet_bs.results import labelme_output

    labels, real = tmp_path / "labels", labelme_output.labelme_file

    def meanwhile(annotation, shape, image_path, *embedded):
        if image_path == "phantom_0001_posterior.png":
            (labels / "phantom_0001_posterior.json").write_text("corrected")
        return real(annotation, shape, image_path, *embedded)

    monkeypatch.setattr(labelme_output, "labelme_file", meanwhile)
    code, _, err = command(phantoms / "phantom_0001.dcm", "--labelme", labels, "--outputs", "none")
    assert code == 1 and "phantom_0001_posterior.json: exists already and may hold corrections" in err
    assert (labels / "phantom_0001_posterior.json").read_text() == "corrected"
    assert list(command.out.glob("case-*")) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_result_of_another_process_is_replaced_only_with_overwrite(scan, tmp_path, monkeypatch, overwrite):
    """It is finished while this process writes, after it has looked whether one is there."""
    prediction, real = make_prediction(scan), result_folder.report_page

    def meanwhile(*arguments):
        monkeypatch.setattr(result_folder, "report_page", real)
        first = dataclasses.replace(prediction, engine="first")
        result_folder.write_prediction(JobSettings(tmp_path, ("masks",)), scan, first)
        return real(*arguments)

    monkeypatch.setattr(result_folder, "report_page", meanwhile)
    second = dataclasses.replace(prediction, engine="second")
    settings = JobSettings(tmp_path, ("report",), overwrite=overwrite)
    if overwrite:
        result_folder.write_prediction(settings, scan, second)
    else:
        with pytest.raises(RunError, match="exists already: give "):
            result_folder.write_prediction(settings, scan, second)
    assert os.listdir(tmp_path) == [scan.case]
    assert read_json(tmp_path / scan.case / "result.json")["engine"] == ("second" if overwrite else "first")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_leaves_whole_results_only(phantoms, trained_run, tmp_path, number):
    """Ctrl-C or SIGTERM in the middle of a folder: exit code 130, every result complete, nothing hidden beside them."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for count in range(40):
        dataset = pydicom.dcmread(phantoms / "phantom_0001.dcm")
        frames = dataset.pixel_array.copy()
        frames[0, 500, 128] += count
        dataset.PixelData = frames.tobytes()
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{count + 1}"
        dataset.save_as(folder / f"{count:02d}.dcm")
    arguments = ["predict", folder, "--model", trained_run / "fold_01", "--out", tmp_path / "out"]
    arguments += ["--log", tmp_path / "log.txt"]
    process = subprocess.Popen(
        [sys.executable, "-m", "doubleunet_bs", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    deadline = time.monotonic() + 90
    while len(list((tmp_path / "out").glob("case-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err and "Traceback" not in err
    results = list((tmp_path / "out").glob("case-*"))
    assert 2 <= len(results) < 40
    # What is there has been printed and logged.
    log = (tmp_path / "log.txt").read_text()
    assert all(f"  {result}\n" in out and f" {result.name}: " in log for result in results)
    assert log.endswith(" stopped: KeyboardInterrupt\n")
    for result in results:
        assert result.name.startswith("case-")
        assert {"result.json", "report.html", "overlay.dcm"} <= {path.name for path in result.iterdir()}
