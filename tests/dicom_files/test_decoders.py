"""A codec may crash, hang or ask for memory on a damaged file: the reader refuses that file and reads the next."""

import shutil
import sys
from pathlib import Path

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


def replace_process(monkeypatch, code: str, seconds: float = 5) -> None:
    """Let this code stand for the decoding process."""
    monkeypatch.setattr(decoders, "DECODER_SECONDS", seconds)
    monkeypatch.setattr(decoders, "_COMMAND", (sys.executable, "-c", code))


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import time; time.sleep(60)", marks=pytest.mark.slow),
        "import os; os.abort()",
        "import sys; sys.stdin.buffer.read(); sys.exit(3)",
        "import sys; sys.stdout.buffer.write(bytes(1024 * 256 * 2)); sys.stdout.flush(); sys.exit(3)",
        "print('too little')",
        "print('x' * 9_999_999)",
    ],
)
def test_a_codec_that_hangs_aborts_or_writes_nonsense_is_a_damaged_file(monkeypatch, code):
    replace_process(monkeypatch, f"print('ready', flush=True); {code}", seconds=3 if "sleep" in code else 5)
    assert reason(FRAME) == "damaged-pixels"


@pytest.mark.parametrize(
    "code",
    [
        "import no_such_module",
        "import sys; sys.stdin.buffer.read(); sys.exit(3)",
        "import time; time.sleep(60)",
        "import os; os.abort()",
        "import sys; sys.stdout.buffer.write(bytes(1024 * 256 * 2))",
        "pass",
    ],
)
def test_a_process_that_fails_before_its_decoder_is_loaded_is_no_damaged_file(monkeypatch, code):
    replace_process(monkeypatch, code, seconds=0.5 if "sleep" in code else 5)
    # What was killed or too slow may do better the next time.
    assert reason(FRAME) == ("decoder" if "sleep" in code or "abort" in code else "missing-decoder")


@pytest.mark.parametrize("module", ["pydicom", "gdcm"])
def test_a_library_that_does_not_load_is_no_damaged_file(monkeypatch, tmp_path, module):
    (tmp_path / f"{module}.py").write_text("raise ImportError('broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ScanError, match="cannot run: reinstall python-gdcm") as caught:
        decode_one(FRAME)
    assert caught.value.reason == "missing-decoder"


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
