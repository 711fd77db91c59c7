"""The decoder process may crash, hang or ask for memory: the reader gets an answer, and the next frame is decoded."""

import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from dicom_headers import body, encode_jpeg_lossless, encode_rle
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless

from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans import decoders, read_scan
from doubleunet_bs.scans.decoders import (
    DECODERS,
    Codestream,
    DecoderProcess,
    decode_frame,
    describe_jpeg,
    describe_jpeg2000,
)
from doubleunet_bs.scans.pixels import decode_rle

FRONT = body()[0].astype(np.uint16)
FRAME = encode_jpeg_lossless(FRONT)


def test_a_frame_is_decoded_and_described():
    array, stream = decode_frame(FRAME, JPEGLosslessSV1, 1024, 256)
    assert np.array_equal(array, FRONT)
    assert stream == Codestream(1024, 256, 1, 16)


def test_rle_round_trip():
    assert np.array_equal(decode_rle(encode_rle(FRONT), 1024, 256, 16), FRONT)


def test_after_a_crash_the_next_frame_is_decoded():
    # Bytes that make GDCM abort or read beyond its buffer; which of them do depends on its version.
    random = np.random.default_rng(0)
    for _ in range(12):
        damaged = bytearray(FRAME)
        for at in random.integers(25, len(FRAME), 8):
            damaged[at] = random.integers(256)
        try:
            decode_frame(bytes(damaged), JPEGLosslessSV1, 1024, 256)
        except ScanError as error:
            assert error.reason in ("damaged-pixels", "decompression-bomb", "colour")
    assert np.array_equal(decode_frame(FRAME, JPEGLosslessSV1, 1024, 256)[0], FRONT)


@pytest.mark.skipif(os.name != "posix", reason="signals are a matter of POSIX systems")
def test_a_killed_process_is_replaced():
    decode_frame(FRAME, JPEGLosslessSV1, 1024, 256)
    process = decoders._process._process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert np.array_equal(decode_frame(FRAME, JPEGLosslessSV1, 1024, 256)[0], FRONT)
    assert decoders._process._process.pid != process.pid


# Takes the request and its frame, so that the answer is what fails.
READ = "import json, sys; pipe = sys.stdin.buffer; pipe.read(json.loads(pipe.readline())['length']); "


def stand_in(tmp_path, monkeypatch, code: str) -> DecoderProcess:
    """A decoder process that runs `code` instead."""
    script = tmp_path / "stand_in.py"
    script.write_text(textwrap.dedent(code))
    start = subprocess.Popen
    monkeypatch.setattr(
        decoders.subprocess, "Popen", lambda command, **rest: start([sys.executable, str(script)], **rest)
    )
    process = DecoderProcess()
    monkeypatch.setattr(decoders, "_process", process)
    return process


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(60)",
        "import os; os._exit(3)",
        # Read everything, then answer nonsense.
        "import os; os.read(0, 100); os._exit(3)",
        READ + "print('{')",
        READ + "print('[]')",
        READ + "print('{\"length\": -1}')",
        READ + "print('{\"length\": 1e99}')",
        READ + 'print(\'{"length": "x"}\')',
        READ + "print('{\"length\": 99}x')",
        READ + "print('{\"length\": 99}'); print('x')",
    ],
)
def test_a_process_that_hangs_dies_or_babbles_is_an_error(tmp_path, monkeypatch, code):
    monkeypatch.setattr(decoders, "DECODER_SECONDS", 0.5)
    process = stand_in(tmp_path, monkeypatch, code)
    with pytest.raises(ScanError, match="cannot be decoded"):
        decode_frame(FRAME, JPEGLosslessSV1, 1024, 256)
    process.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited on Linux")
def test_the_process_has_bounded_memory():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import decoder_process as d\n"
        "d.limit_memory(1 << 30)\n"
        "try:\n bytearray(2 << 30)\nexcept MemoryError:\n print('bounded')"
    )
    folder = os.path.dirname(decoders.__file__)
    result = subprocess.run([sys.executable, "-P", "-c", program, folder], capture_output=True, text=True, check=True)
    assert result.stdout == "bounded\n"


def test_an_interrupted_frame_leaves_nothing_for_the_next(monkeypatch):
    decode_frame(FRAME, JPEGLosslessSV1, 1024, 256)

    def interrupt(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decoders.json, "loads", interrupt)
        with pytest.raises(KeyboardInterrupt):
            decode_frame(FRAME, JPEGLosslessSV1, 1024, 256)
    other = encode_jpeg_lossless(FRONT[:, ::-1])
    assert np.array_equal(decode_frame(other, JPEGLosslessSV1, 1024, 256)[0], FRONT[:, ::-1])


def test_threads_share_one_process():
    with ThreadPoolExecutor(4) as pool:
        for array, _ in pool.map(lambda _: decode_frame(FRAME, JPEGLosslessSV1, 1024, 256), range(8)):
            assert np.array_equal(array, FRONT)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_a_decoder_of_its_own():
    decode_frame(FRAME, JPEGLosslessSV1, 1024, 256)
    child = os.fork()
    if child == 0:
        same = np.array_equal(decode_frame(FRAME, JPEGLosslessSV1, 1024, 256)[0], FRONT)
        decoders._process.close()
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(decode_frame(FRAME, JPEGLosslessSV1, 1024, 256)[0], FRONT)


def test_the_decoders_print_nothing(capfd):
    path = Path(pydicom.data.__file__).parent / "test_files" / "JPGExtended.dcm"
    if not path.exists():
        pytest.skip("this pydicom does not bundle a 12-bit JPEG, which GDCM comments on")
    read_scan(path, allow_missing_view=True)
    assert capfd.readouterr() == ("", "")


def test_colour_and_odd_depths_are_refused_before_decoding(monkeypatch):
    monkeypatch.setattr(decoders._process, "decode", lambda *_: pytest.fail("the decoder was asked"))
    at = FRAME.index(b"\xff\xc3") + 4
    for offset, value, reason in ((5, 3, "colour"), (0, 1, "damaged-pixels"), (0, 40, "damaged-pixels")):
        changed = bytearray(FRAME)
        changed[at + offset] = value
        with pytest.raises(ScanError) as caught:
            decode_frame(bytes(changed), JPEGLosslessSV1, 1024, 256)
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xda\x00\x08",
        b"\xff\xd8" + b"\xff" * 50,
        b"\xff\xd8\xff\xe0\x00\x00",
        b"\xff\xd8\xff\xc3\x00\x0b\x10\x04",
        bytes(99),
    ],
)
def test_streams_without_a_frame_header(data):
    for describe in (describe_jpeg, describe_jpeg2000):
        with pytest.raises(ScanError) as caught:
            describe(data)
        assert caught.value.reason == "damaged-pixels"


def test_every_syntax_has_one_decoder_with_a_free_licence():
    assert {decoder.package for decoder in DECODERS.values()} == {
        "pydicom", "python-gdcm", "pyjpegls", "pylibjpeg-openjpeg"
    }  # fmt: skip
    assert not DECODERS[JPEGLSLossless].lossy and not DECODERS[JPEG2000Lossless].lossy


def test_an_installed_library_is_found_and_a_removed_one_is_not(monkeypatch):
    decoders.check_decoder(JPEGLosslessSV1)
    monkeypatch.setitem(sys.modules, "gdcm", None)
    with pytest.raises(ScanError) as caught:
        decoders.check_decoder(JPEGLosslessSV1)
    assert caught.value.reason == "missing-decoder"
