"""Compressed pixel data: lossless ones give the identical counts, lossy ones a warning, damaged ones an error."""

import io

import numpy as np
import pytest
from dicom_headers import (
    FRAMES,
    LOSSLESS,
    NATIVE,
    encode,
    encode_jpeg_lossless,
    encode_rle,
    ge_discovery,
    plain,
    put_pixels,
    write,
)
from one_file import assert_exact, read, reason
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSNearLossless, RLELossless

from doubleunet_bs.dicom_files.decoders import END_WARNING

FRONT, BACK = FRAMES


def compressed(frames: list[bytes], syntax: str, bits: int = 16):
    """A file with these compressed frames."""
    dataset = plain(bits=bits)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    return dataset


@pytest.mark.parametrize(
    "syntax",
    [*NATIVE, RLELossless, *(pytest.param(one, marks=pytest.mark.slow) for one in LOSSLESS if one != RLELossless)],
)
def test_lossless_transfer_syntaxes_give_identical_counts(tmp_path, syntax):
    dataset = ge_discovery()
    frames = FRAMES.copy()
    # Values that use all sixteen bits, at the corners where a wrong order or size would show.
    frames[0, 0, 0], frames[1, -1, -1], frames[0, 500, 100] = 65_535, 256, 40_000
    put_pixels(dataset, frames)
    dataset.CountsAccumulated = int(frames.sum())
    scan = read(tmp_path, encode(dataset, syntax))
    assert np.array_equal(scan.anterior, frames[0]) and np.array_equal(scan.posterior, frames[1])
    assert scan.warnings == ()


def test_lossy_is_accepted_with_a_warning(tmp_path):
    jpeg_ls = pytest.importorskip("jpeg_ls")
    dataset = plain()
    dataset.file_meta.TransferSyntaxUID = JPEGLSNearLossless
    frames = [bytes(jpeg_ls.encode_buffer(f.astype("<u2").tobytes(), *f.shape, 1, 16, lossy_error=2)) for f in FRAMES]
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    scan = read(tmp_path, dataset)
    assert "lossy" in scan.warnings[0]
    assert 0 < np.abs(scan.anterior.astype(int) - FRONT).max() <= 2


def test_a_scan_that_was_lossy_once_stays_lossy(tmp_path):
    dataset = plain()
    dataset.LossyImageCompression = "01"
    scan = read(tmp_path, dataset)
    assert np.array_equal(scan.anterior, FRONT) and "lossy" in scan.warnings[0]


def test_fragments_are_joined_and_counted(tmp_path):
    dataset = plain()
    dataset.file_meta.TransferSyntaxUID = RLELossless
    encoded = [encode_rle(frame) for frame in FRAMES]
    dataset["PixelData"].VR = "OB"
    dataset.PixelData = encapsulate(encoded, fragments_per_frame=3)
    assert_exact(read(tmp_path, dataset))
    dataset.PixelData = encapsulate(encoded, has_bot=False)
    assert_exact(read(tmp_path, dataset))
    dataset.PixelData = encapsulate(encoded[:1])
    assert reason(tmp_path, dataset) == "truncated"
    dataset.PixelData = encapsulate(encoded + encoded[:1])
    assert reason(tmp_path, dataset) in ("pixel-layout", "truncated")


@pytest.mark.parametrize("empty", [b"", bytes(2)])
@pytest.mark.parametrize(("syntax", "codec"), [(RLELossless, encode_rle), (JPEGLosslessSV1, encode_jpeg_lossless)])
def test_an_empty_frame_is_no_frame(tmp_path, syntax, codec, empty):
    item = b"\xfe\xff\x00\xe0"
    whole = write(compressed([codec(FRONT), codec(BACK)], syntax))
    last = whole.rindex(item + len(codec(BACK)).to_bytes(4, "little"))
    data = whole[:last] + item + len(empty).to_bytes(4, "little") + empty + b"\xfe\xff\xdd\xe0\0\0\0\0"
    assert reason(tmp_path, data) == "truncated"


def test_compressed_pixels_may_contain_the_bytes_of_an_end_mark_or_of_another_format(tmp_path):
    comment = b"\xff\xfe\x00\x0e\xfe\xff\xdd\xe0\0\0\0\0\xff\x4f\xff\x51"
    frames = [encode_jpeg_lossless(frame) for frame in FRAMES]
    frames = [frame[:2] + comment + frame[2:] for frame in frames]
    assert_exact(read(tmp_path, compressed(frames, JPEGLosslessSV1)))


@pytest.mark.parametrize("bits", [8, 16])
def test_baseline_jpeg_of_eight_bits(tmp_path, bits):
    frames, expected = [], []
    for view in FRAMES:
        buffer = io.BytesIO()
        Image.fromarray(view.astype(np.uint8)).save(buffer, "JPEG", quality=90)
        frames.append(buffer.getvalue())
        expected.append(np.asarray(Image.open(buffer), dtype=int))
    scan = read(tmp_path, compressed(frames, JPEGBaseline8Bit, bits))
    # Two decoders may round the cosine transform differently.
    assert np.abs(scan.anterior - expected[0]).max() <= 1 and np.abs(scan.posterior - expected[1]).max() <= 1
    assert len(scan.warnings) == 1 and "lossy" in scan.warnings[0]


@pytest.mark.slow
def test_a_stream_deeper_than_the_header_says(tmp_path):
    dataset = compressed([encode_jpeg_lossless(frame) for frame in FRAMES], JPEGLosslessSV1)
    dataset.BitsStored, dataset.HighBit = 12, 11
    assert_exact(read(tmp_path, dataset))
    dataset = compressed([encode_jpeg_lossless(frame * 60) for frame in FRAMES], JPEGLosslessSV1)
    dataset.BitsStored, dataset.HighBit = 12, 11
    assert reason(tmp_path, dataset) == "pixel-layout"


def test_compressed_data_larger_than_the_pixels(tmp_path):
    frame = encode_rle(FRAMES[0])
    assert reason(tmp_path, compressed([frame + bytes(4 << 20), frame], RLELossless)) == "decompression-bomb"


def test_pixels_that_are_not_in_the_named_transfer_syntax(tmp_path):
    native, packed = write(ge_discovery()), encode(ge_discovery(), RLELossless)
    syntaxes = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"
    assert reason(tmp_path, native.replace(*syntaxes)) == "pixel-layout"
    assert reason(tmp_path, packed.replace(*reversed(syntaxes))) == "pixel-layout"


def items(*fragments: bytes) -> bytes:
    """Fragments as items, without end mark."""
    return b"".join(b"\xfe\xff\x00\xe0" + len(part).to_bytes(4, "little") + part for part in fragments)


def halves(frame: bytes) -> list[bytes]:
    middle = len(frame) // 4 * 2
    return [frame[:middle], frame[middle:]]


END = b"\xfe\xff\xdd\xe0\0\0\0\0"


def frames_of(syntax: str) -> list[bytes]:
    encoded = map(encode_rle if syntax == RLELossless else encode_jpeg_lossless, FRAMES)
    return [frame + bytes(len(frame) % 2) for frame in encoded]


@pytest.mark.slow
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLosslessSV1])
@pytest.mark.parametrize(
    ("shape", "warned"),
    [
        ("whole", False),
        ("no mark", True),
        ("zeros for a mark", True),
        ("many zeros", True),
        ("padding item", False),
        ("fragments", False),
        ("fragments without mark", True),
        ("no table", False),
        ("table of zeros", False),
        ("table between the fragments", False),
    ],
)
def test_all_frames_are_there_whatever_surrounds_them(tmp_path, syntax, shape, warned):
    first, second = frames_of(syntax)
    data = {
        "no mark": items(b"", first, second),
        "zeros for a mark": items(b"", first, second) + bytes(8),
        "many zeros": items(b"", first, second) + bytes(2048),
        "padding item": items(b"", first, second, bytes(64)) + END,
        "fragments": items(b"", *halves(first), *halves(second)) + END,
        "fragments without mark": items(b"", *halves(first), *halves(second)),
        "no table": items(first, second) + END,
        "table of zeros": items(bytes(8), *halves(first), *halves(second)) + END,
        "table between the fragments": items(b"\0\0\0\0\x07\0\0\0", *halves(first), *halves(second)) + END,
    }.get(shape, items(b"", first, second) + END)
    raw = write(compressed([first, second], syntax))
    begin = raw.rindex(b"\xff\xff\xff\xff\xfe\xff\x00\xe0") + 4
    scan = read(tmp_path, raw[:begin] + data)
    assert_exact(scan, (END_WARNING,) if warned else ())


@pytest.mark.parametrize("lost", [1, 9, 2000])
def test_a_lost_end_of_the_last_frame_is_no_lost_mark(tmp_path, lost):
    raw = write(compressed(frames_of(RLELossless), RLELossless))
    assert reason(tmp_path, raw[: -8 - lost]) == "truncated"
