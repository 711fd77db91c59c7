"""A codec may crash, hang or ask for memory on a damaged file: the reader refuses that file and reads the next."""

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom.data
import pytest
from dicom_headers import FRAMES, encode_jpeg_lossless, encode_rle
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from doubleunet_bs.dicom_files import decoders
from doubleunet_bs.dicom_files.decoders import DECODERS, Codestream, decode, describe_frame
from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans import read_scan

FRONT = FRAMES[0].astype(np.uint16)
FRAME = encode_jpeg_lossless(FRONT)


def decode_one(frame: bytes, uid: str = JPEGLosslessSV1, shape=(1024, 256), allocated: int = 16):
    array, stream = decode([frame], uid, (1, *shape), allocated)
    return array[0], stream


def reason(frame: bytes, *rest) -> str:
    with pytest.raises(ScanError) as caught:
        decode_one(frame, *rest)
    return caught.value.reason


def test_a_frame_is_decoded_and_described():
    array, stream = decode_one(FRAME)
    assert np.array_equal(array, FRONT)
    assert stream == Codestream(1024, 256, 1, 16)


def test_rle_round_trip():
    array, stream = decode_one(encode_rle(FRONT), RLELossless)
    assert np.array_equal(array, FRONT) and stream is None


@pytest.mark.slow
def test_rle_by_hand():
    # One segment: three literal bytes, then five times 7.
    header = np.zeros(16, "<u4")
    header[:2] = 1, 64
    frame = header.tobytes() + bytes([2, 1, 2, 3, 252, 7])
    assert decode_one(frame, RLELossless, (2, 4), 8)[0].tolist() == [[1, 2, 3, 7], [7, 7, 7, 7]]
    # A run longer than the image ends with the image.
    assert decode_one(header.tobytes() + bytes([129, 9]), RLELossless, (2, 4), 8)[0].tolist() == [[9] * 4] * 2
    for damaged in (frame[:-2], frame[:60]):
        assert reason(damaged, RLELossless, (2, 4), 8) == "damaged-pixels"


@pytest.mark.slow
def test_after_a_crash_the_next_frame_is_decoded():
    # Bytes that made versions of GDCM abort or read beyond its buffer.
    random = np.random.default_rng(0)
    for _ in range(4):
        damaged = bytearray(FRAME)
        for at in random.integers(25, len(FRAME), 8):
            damaged[at] = random.integers(256)
        try:
            decode_one(bytes(damaged))
        except ScanError as error:
            assert error.reason in ("damaged-pixels", "decompression-bomb", "colour")
    assert np.array_equal(decode_one(FRAME)[0], FRONT)


@pytest.fixture
def fresh_process():
    """Whatever the test changes about the process: it starts a new one, and leaves none."""
    decoders._process.end()
    yield
    decoders._process.end()


# The head of a JPEG 2000 stream of 1024 x 256 pixels with 16 bits.
JPEG2000_FRAME = struct.pack(">4sxxxx6I8xHB", b"\xff\x4f\xff\x51", 256, 1024, 0, 0, 0, 0, 1, 15)


def fake_openjpeg(folder: Path, monkeypatch, code: str, seconds: float = 5) -> None:
    """Let this code stand for the library that decodes JPEG 2000."""
    (folder / "openjpeg").mkdir()
    (folder / "openjpeg" / "__init__.py").touch()
    (folder / "openjpeg" / "utils.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(decoders, "DECODER_SECONDS", seconds)


@pytest.mark.usefixtures("fresh_process")
@pytest.mark.parametrize(
    "work",
    [
        "import time; time.sleep(9999)",
        "import os; os.abort()",
        "raise SystemExit(0)",
        "import os; os._exit(0)",
        "return bytes(3)",
        "return bytes(9_999_999)",
        "print('x' * 9_999_999); return b''",
        "return bytearray(1 << 40)",
    ],
)
def test_a_codec_that_hangs_aborts_or_returns_nonsense_is_a_damaged_file(tmp_path, monkeypatch, work):
    code = f"def decode_pixel_data(frame, **options):\n    {work}\n"
    fake_openjpeg(tmp_path, monkeypatch, code, seconds=2 if "sleep" in work else 5)
    for _ in range(2):
        assert reason(JPEG2000_FRAME, JPEG2000Lossless) == "damaged-pixels"
    # What ended was a child: the process itself decodes the next file.
    process = decoders._process._started
    assert np.array_equal(decode_one(FRAME)[0], FRONT)
    assert decoders._process._started is process


@pytest.mark.usefixtures("fresh_process")
@pytest.mark.parametrize("code", ["import no_such_module", "raise SystemExit(3)", "import time; time.sleep(9999)",
                                  "import os; os.abort()", "pass"])  # fmt: skip
def test_a_library_that_fails_before_it_is_loaded_is_no_damaged_file(tmp_path, monkeypatch, code):
    fake_openjpeg(tmp_path, monkeypatch, code, seconds=0.5 if "sleep" in code else 5)
    # What was killed or too slow may do better the next time.
    expected = "decoder" if "sleep" in code or "abort" in code else "missing-decoder"
    assert reason(JPEG2000_FRAME, JPEG2000Lossless) == expected


@pytest.mark.usefixtures("fresh_process")
@pytest.mark.parametrize("module", ["pydicom", "gdcm"])
def test_a_library_that_does_not_load_is_no_damaged_file(monkeypatch, tmp_path, module):
    (tmp_path / f"{module}.py").write_text("raise ImportError('broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ScanError, match="cannot run: reinstall python-gdcm") as caught:
        decode_one(FRAME)
    assert caught.value.reason == "missing-decoder"


@pytest.mark.usefixtures("fresh_process")
def test_a_process_that_is_killed_is_started_again(monkeypatch):
    decode_one(FRAME)
    process = decoders._process._started
    process.kill()
    process.wait()
    assert np.array_equal(decode_one(FRAME)[0], FRONT)
    # During its work, and in the middle of its answer.
    for answer in ("", "print('[0, 100]\\nready', flush=True);"):
        code = f"import os, sys; sys.stdin.buffer.readline(); {answer} os.kill(os.getpid(), 9)"
        decoders._process.end()
        with monkeypatch.context() as patch:
            patch.setattr(decoders, "_COMMAND", (sys.executable, "-c", code))
            assert reason(FRAME) == "decoder"
    assert np.array_equal(decode_one(FRAME)[0], FRONT)


@pytest.mark.usefixtures("fresh_process")
def test_signals_that_stop_the_program_leave_its_decoder():
    """A stop lets the scan end that is being read: Ctrl-C reaches a session, a service manager sends SIGTERM to all."""
    decode_one(FRAME)
    process = decoders._process._started
    assert os.getsid(process.pid) != os.getsid(0)
    process.send_signal(signal.SIGTERM)
    assert np.array_equal(decode_one(FRAME)[0], FRONT) and decoders._process._started is process


@pytest.mark.usefixtures("fresh_process")
def test_an_interrupted_question_does_not_give_its_answer_to_the_next(monkeypatch):
    decode_one(FRAME)
    stdout = decoders._process._started.stdout
    answer = stdout.readline

    def interrupted():
        answer()
        raise KeyboardInterrupt

    monkeypatch.setattr(decoders._process._started, "stdout", SimpleNamespace(readline=interrupted, close=stdout.close))
    with pytest.raises(KeyboardInterrupt):
        decode_one(FRAME)
    other = FRONT[::-1].copy()
    assert np.array_equal(decode_one(encode_jpeg_lossless(other))[0], other)


@pytest.mark.usefixtures("fresh_process")
def test_a_fork_has_a_process_of_its_own():
    decode_one(FRAME)
    before, child = decoders._process._started.pid, os.fork()
    if child == 0:
        try:
            right = np.array_equal(decode_one(FRAME)[0], FRONT) and decoders._process._started.pid != before
            decoders._process.end()
            os._exit(0 if right else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(decode_one(FRAME)[0], FRONT) and decoders._process._started.pid == before


def is_running(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are listed on Linux")
def test_it_ends_with_the_program_even_when_that_is_killed(tmp_path):
    path = tmp_path / "frame"
    path.write_bytes(FRAME)
    code = (
        "import sys, os; from pathlib import Path; from doubleunet_bs.dicom_files import decoders;"
        "decoders.decode([Path(sys.argv[1]).read_bytes()], sys.argv[2], (1, 1024, 256), 16);"
        "print(decoders._process._started.pid, flush=True); sys.argv[3] == 'kill' and os.kill(os.getpid(), 9)"
    )
    for end in ("kill", "return"):
        command = [sys.executable, "-c", code, path, JPEGLosslessSV1, end]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        deadline = time.monotonic() + 10
        while is_running(int(done.stdout)):
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.usefixtures("fresh_process")
def test_a_process_that_does_not_start_is_no_damaged_file(monkeypatch):
    monkeypatch.setattr(decoders, "_COMMAND", ("/no/such/program",))
    assert reason(FRAME) == "decoder"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited on Linux")
def test_the_process_has_bounded_memory(monkeypatch):
    """Within 1 MiB no image of 8 MiB is decoded."""
    frame = encode_jpeg_lossless(np.zeros((2048, 2048), np.uint16))
    decode_one(frame, JPEGLosslessSV1, (2048, 2048))
    monkeypatch.setattr(decoders, "DECODER_BYTES", 1 << 20)
    assert reason(frame, JPEGLosslessSV1, (2048, 2048)) == "damaged-pixels"


@pytest.mark.usefixtures("fresh_process")
def test_files_beside_the_script_or_in_the_working_folder_replace_no_module(monkeypatch, tmp_path):
    """Scans may lie beside anything, and modules of this package have short names."""
    *options, script = decoders._COMMAND
    copy = shutil.copy(script, tmp_path)
    for name in ("json", "pydicom", "gdcm", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(decoders, "_COMMAND", (*options, copy))
    assert np.array_equal(decode_one(FRAME)[0], FRONT)


def test_the_decoders_print_nothing(capfd):
    path = Path(pydicom.data.__file__).parent / "test_files" / "JPGExtended.dcm"
    if not path.exists():
        pytest.skip("this pydicom does not bundle a 12-bit JPEG, which GDCM comments on")
    read_scan(path, allow_missing_view=True)
    assert capfd.readouterr() == ("", "")


def test_colour_sizes_and_odd_depths_are_refused_before_decoding(monkeypatch):
    monkeypatch.setattr(decoders, "_run", lambda *_: pytest.fail("the decoder was asked"))
    at = FRAME.index(b"\xff\xc3") + 4
    for offset, value, why in (
        (5, 3, "colour"), (0, 1, "damaged-pixels"), (0, 40, "damaged-pixels"), (1, 200, "decompression-bomb")
    ):  # fmt: skip
        changed = bytearray(FRAME)
        changed[at + offset] = value
        assert reason(bytes(changed)) == why
    # Two frames of one file have the same depth.
    changed = bytearray(FRAME)
    changed[at] = 12
    with pytest.raises(ScanError, match="depth"):
        decode([FRAME, bytes(changed)], JPEGLosslessSV1, (2, 1024, 256), 16)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xda\x00\x08",
        b"\xff\xd8" + b"\xff" * 50,
        b"\xff\xd8\xff\xe0\x00\x00",
        b"\xff\xd8\xff\xc3\x00\x0b\x10\x04",
        b"\xff\x4f\xff\x51" + bytes(9),
        bytes(99),
    ],
)
def test_streams_without_a_frame_header(data):
    with pytest.raises(ScanError) as caught:
        describe_frame(data)
    assert caught.value.reason == "damaged-pixels"


def test_every_syntax_has_one_decoder_with_a_free_licence():
    assert {decoder.package for decoder in DECODERS.values()} == {
        "pydicom", "python-gdcm", "pyjpegls", "pylibjpeg-openjpeg"
    }  # fmt: skip
    assert not DECODERS[JPEGLSLossless].lossy and not DECODERS[JPEG2000Lossless].lossy
