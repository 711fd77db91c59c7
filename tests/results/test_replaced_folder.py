"""A folder that takes the place of an older one: whatever stops it, one of the two is there in the end."""

import dataclasses
import os
import types

import pytest
from handmade_prediction import make_prediction

from doubleunet_bs import files as module
from doubleunet_bs.errors import RunError
from doubleunet_bs.files import read_json, replaced_folder
from doubleunet_bs.results import result_folder
from doubleunet_bs.results.result_files import JobSettings


def content(folder) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def interrupt_after(monkeypatch, *numbers: int) -> None:
    """Ctrl-C arrives when the given renames have been done."""
    done = []

    def rename(source, target):
        os.rename(source, target)
        done.append(target)
        if len(done) in numbers:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "os", types.SimpleNamespace(umask=os.umask, rename=rename))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("yesterday")
    return path


def write_new(folder, **settings) -> None:
    with replaced_folder(folder, **settings) as new:
        (new / "new").write_text("today")


def test_the_new_one_takes_the_place(folder, tmp_path):
    write_new(folder)
    assert content(folder) == {"new": "today"}
    assert os.listdir(tmp_path) == ["model"]


def test_an_interrupt_between_the_renames_loses_nothing(folder, tmp_path, monkeypatch):
    interrupt_after(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        write_new(folder)
    assert content(folder) == {"old": "yesterday"}
    assert os.listdir(tmp_path) == ["model"]


def test_an_interrupt_after_the_renames_keeps_the_new_one(folder, tmp_path, monkeypatch):
    interrupt_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        write_new(folder)
    assert content(folder) == {"new": "today"}
    assert os.listdir(tmp_path) == ["model"]


def test_an_old_folder_that_cannot_be_put_back_is_not_deleted(folder, tmp_path, monkeypatch):
    def rename(source, target):
        if source != folder:
            raise OSError(5, "Input/output error")
        os.rename(source, target)

    monkeypatch.setattr(module, "os", types.SimpleNamespace(umask=os.umask, rename=rename))
    with pytest.raises(OSError, match="Input/output error"):
        write_new(folder)
    (aside,) = tmp_path.iterdir()
    assert aside.name.startswith(".model-") and content(aside / "old") == {"old": "yesterday"}


def test_nothing_is_replaced_unless_asked(folder, tmp_path):
    with pytest.raises(RunError, match=r"model: exists already; give --overwrite"):
        write_new(folder, replace=False)
    assert content(folder) == {"old": "yesterday"}
    assert os.listdir(tmp_path) == ["model"]
    write_new(tmp_path / "other", replace=False)
    assert content(tmp_path / "other") == {"new": "today"}


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
        with pytest.raises(RunError, match="exists already; give --overwrite"):
            result_folder.write_prediction(settings, scan, second)
    assert os.listdir(tmp_path) == [scan.case]
    assert read_json(tmp_path / scan.case / "result.json")["engine"] == ("second" if overwrite else "first")
