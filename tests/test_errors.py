"""Reasons of the system in messages, and text from outside that a terminal may not be able to show."""

import errno
import io
import json
import os
import shutil
import sys

import numpy as np
import pytest

from doubleunet_bs.__main__ import main
from doubleunet_bs.errors import counted, one_line, os_reason
from doubleunet_bs.files import write_json
from doubleunet_bs.phantom import make_cohort

FULL = "No space left on device"


def test_the_reason_is_found_where_libraries_hide_it():
    assert os_reason(OSError(errno.ENOSPC, FULL)) == FULL
    assert os_reason(PermissionError(errno.EACCES, "Permission denied")) == "Permission denied"
    # pydicom puts the tag before the text and makes a new error of it.
    with pytest.raises(OSError) as caught:
        try:
            raise OSError(errno.ENOSPC, FULL)
        except OSError as cause:
            raise OSError(f"With tag 7FE00010 got exception: {cause}") from cause
    assert os_reason(caught.value) == FULL
    assert os_reason(FileExistsError(errno.EEXIST, "File exists")) == "a file is in the way"
    hdf5 = f"Can't close file (file write failed: time = Fri\n, errno = 28, error message = '{FULL}', buf = 0x55)"
    assert os_reason(OSError(errno.ENOSPC, hdf5)) == FULL
    assert os_reason(OSError("what nobody foresaw")) == "what nobody foresaw"
    assert os_reason(shutil.Error([("a", "b", f"[Errno 28] {FULL}: 'a' -> 'b'"), ("c", "d", "x")])) == FULL


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_numpy_does_not_say_that_the_disk_is_full():
    with pytest.raises(OSError) as caught, open("/dev/full", "wb") as file:
        np.zeros(100_000).tofile(file)
    assert caught.value.strerror is None and os_reason(caught.value) == FULL


def test_plurals():
    assert [counted(number, "copy") for number in (0, 1, 2)] == ["0 copies", "1 copy", "2 copies"]
    assert [counted(2, noun) for noun in ("recycle bin", "day", "array")] == ["2 recycle bins", "2 days", "2 arrays"]


def test_one_line():
    assert one_line("a\nb\x1b\ud800") == "a?b??" and one_line("骨转移 é") == "骨转移 é"


def test_a_file_name_that_is_not_utf8_comes_back_from_json(tmp_path):
    name = os.fsdecode(b"M\xfcller.dcm")
    write_json(tmp_path / "names.json", [name, "张三"])
    assert json.loads((tmp_path / "names.json").read_text()) == [name, "张三"]
    assert "张三" in (tmp_path / "names.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_name_that_the_terminal_cannot_show_stops_nothing(tmp_path, monkeypatch, encoding):
    folder = make_cohort(tmp_path / "cohort", patients=1) / "scans"
    (folder / "phantom_0001.dcm").rename(folder / "张三.dcm")
    printed = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", printed)
    arguments = ["prepare", "--scans", str(folder), "--labels", str(folder), "--out", str(tmp_path / "shards")]
    assert main(arguments) == 1
    printed.flush()
    text = printed.buffer.getvalue().decode(encoding)
    assert ("张三.dcm" if encoding == "utf-8" else r"\u5f20\u4e09.dcm") in text and "label-missing" in text
