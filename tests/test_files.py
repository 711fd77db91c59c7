"""A folder that takes the place of an older one: whatever stops it, one of the two is there in the end."""

import os
import types

import pytest

from doubleunet_bs import files as module
from doubleunet_bs.errors import BoneScanError, RunError, os_reason
from doubleunet_bs.files import create_file, new_folder, replace_file, replaced_folder, write_text


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
    with pytest.raises(RunError, match=r"model: exists already: give --overwrite"):
        write_new(folder, replace=False)
    assert content(folder) == {"old": "yesterday"}
    assert os.listdir(tmp_path) == ["model"]
    write_new(tmp_path / "other", replace=False)
    assert content(tmp_path / "other") == {"new": "today"}


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path, monkeypatch):
    def write(_):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError) as caught:
        replace_file(tmp_path / "picture.png", write)
    assert caught.value.filename == str(tmp_path / "picture.png") and not os.listdir(tmp_path)
    with pytest.raises(OSError) as caught, new_folder(tmp_path / "shards"):
        write(None)
    assert caught.value.filename == str(tmp_path / "shards") and not os.listdir(tmp_path)
    with pytest.raises(OSError) as caught, new_folder(tmp_path / "shards") as folder:
        replace_file(folder / "grey.npy", write)
    assert caught.value.filename == str(tmp_path / "shards") and not os.listdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught, new_folder(tmp_path / "shards"):
        (tmp_path / "scans.csv").read_text()
    assert caught.value.filename == str(tmp_path / "scans.csv") and not os.listdir(tmp_path)
    with pytest.raises(OSError) as caught, replaced_folder(tmp_path / "saved_model") as folder:
        raise OSError(28, "No space left on device", str(folder / "variables"))
    assert caught.value.filename == str(tmp_path / "saved_model") and not os.listdir(tmp_path)
    with monkeypatch.context() as broken, pytest.raises(OSError) as caught:
        broken.setattr(module.os, "fsync", write)
        create_file(tmp_path / "folds.json", "x")
    assert caught.value.filename == str(tmp_path / "folds.json") and not os.listdir(tmp_path)


@pytest.mark.parametrize("write", [write_text, create_file])
def test_an_error_names_the_file_where_nothing_can_be_written(tmp_path, monkeypatch, write):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="a file is in the way") as caught:
        write(tmp_path / "file" / "new.json", "")
    assert caught.value.filename == str(tmp_path / "file" / "new.json")
    # Permissions do not bind every user.
    monkeypatch.setattr("tempfile.mkstemp", lambda **_: os.open(tmp_path / "gone" / "new-x7.json", os.O_RDONLY))
    with pytest.raises(FileNotFoundError) as caught:
        write(tmp_path / "new.json", "")
    assert caught.value.filename == str(tmp_path / "new.json")


def test_a_reason_in_the_text_alone_is_kept(tmp_path):
    """NumPy's error of a full disk has neither number nor reason."""
    with pytest.raises(OSError, match=r"No space left on device: .*shards") as caught, new_folder(tmp_path / "shards"):
        raise OSError("262144 requested and 36736 written")
    assert os_reason(caught.value) == "No space left on device"


def test_hdf5_that_cannot_close_its_file_is_an_error_of_the_disk(tmp_path):
    """As seen on a full disk. Other RuntimeErrors stay what they are."""

    def write(_):
        raise RuntimeError(
            f"Disable slist on flush dest failure failed (time = Fri\n, error message = '{os.strerror(28)}')"
        )

    with pytest.raises(OSError, match=r"^\[Errno 28\] No space left on device: .*best\.weights\.h5'$"):
        replace_file(tmp_path / "best.weights.h5", write)

    def fail(_):
        raise RuntimeError("another") from KeyError("its cause")

    with pytest.raises(RuntimeError, match="another") as caught:
        replace_file(tmp_path / "best.weights.h5", fail)
    assert isinstance(caught.value.__cause__, KeyError)
    assert not os.listdir(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(
            BoneScanError, match=r"file/out: the folder cannot be made \(a file is in the way\): choose another place"
        ),
        new_folder(tmp_path / "file" / "out"),
    ):
        pass
