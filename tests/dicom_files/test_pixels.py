"""Pixel data of every kind become the counts that were stored, or an error; nothing is changed without a word."""

import numpy as np
import pytest
from dicom_headers import FRAMES, encode, ge_discovery, ge_names, image, plain, strip, write
from one_file import assert_exact, read, reason
from pydicom.uid import ExplicitVRBigEndian, JPEGLSLossless, RLELossless

from doubleunet_bs.dicom_files.pixels import bin_counts, pixel_hash
from doubleunet_bs.errors import ScanError

FRONT, BACK = FRAMES


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("signed", [False, True])
def test_bits_and_signs(tmp_path, bits, signed):
    assert FRAMES.max() < 128
    assert_exact(read(tmp_path, plain(bits=bits, signed=signed)))


@pytest.mark.parametrize(("bits", "kind"), [(8, "OB"), (16, "OW"), (32, "OW")])
def test_big_endian(tmp_path, bits, kind):
    dataset = plain(bits=bits)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    array = FRAMES.astype(f">u{bits // 8}")
    dataset.PixelData = array.tobytes()
    dataset["PixelData"].VR = kind
    if bits == 8:
        assert reason(tmp_path, dataset) == "pixel-layout"
    else:
        assert_exact(read(tmp_path, dataset))


@pytest.mark.parametrize("syntax", ["native", RLELossless])
def test_bits_above_the_stored_ones_are_ignored_with_a_warning(tmp_path, syntax):
    # An overlay in the bits above, or a count of 4,097 in a file of 12 bits: the pixels do not say which.
    frames = FRAMES.copy()
    frames[0, 5, 5] |= 0x1000
    frames[1, 6, 6:8] |= 0x2000
    dataset = plain(frames)
    dataset.BitsStored, dataset.HighBit = 12, 11
    warning = (
        "3 pixels have bits set above the 12 that the header gives; these bits were ignored: "
        "an overlay, or counts that have lost their highest part"
    )
    assert_exact(read(tmp_path, dataset if syntax == "native" else encode(dataset, syntax)), (warning,))
    dataset.HighBit = 15
    assert reason(tmp_path, dataset) == "pixel-layout"


@pytest.mark.parametrize("above", [0x0FFF, 0xFFFF])
def test_signed_values_of_few_bits(tmp_path, above):
    """With the bits above the stored ones zero, and with the sign repeated in them; neither loses anything."""
    frames = FRAMES.copy()
    frames[0, 0, :4] = -1
    dataset = plain(frames & above)
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 1
    trace = "4 negative pixels (4 counts together) were set to 0"
    scan = read(tmp_path, dataset)
    assert scan.warnings == (trace,)
    assert np.array_equal(scan.anterior, FRONT)
    words = frames & above
    words[0, 5, 5] |= 0x1000
    # All bits above set, but the value is positive: no repeated sign.
    words[0, 6, 6] |= 0xF000
    dataset.PixelData = words.astype("<u2").tobytes()
    first, last = read(tmp_path, dataset).warnings
    assert first.startswith("2 pixels have bits set above the 12") and last == trace


@pytest.mark.parametrize(("keyword", "kind"), [("FloatPixelData", "<f4"), ("DoubleFloatPixelData", "<f8")])
def test_floating_point_pixels_are_refused(tmp_path, keyword, kind):
    dataset = plain()
    del dataset.PixelData
    strip(dataset, "BitsStored", "HighBit", "PixelRepresentation")
    dataset.BitsAllocated = 32 if kind == "<f4" else 64
    setattr(dataset, keyword, FRAMES.astype(kind).tobytes())
    assert reason(tmp_path, dataset) == "fractional-counts"


def test_rescale(tmp_path):
    dataset = plain(FRAMES * 10 + 30)
    dataset.RescaleSlope, dataset.RescaleIntercept = "0.1", "-3"
    assert_exact(read(tmp_path, dataset))
    dataset = plain(FRAMES // 2)
    dataset.RescaleSlope = "2"
    assert np.array_equal(read(tmp_path, dataset).anterior, FRONT // 2 * 2)
    dataset = plain(FRAMES + 7)
    dataset.RescaleIntercept = "-7"
    assert_exact(read(tmp_path, dataset))


@pytest.mark.parametrize(("slope", "intercept"), [("0.3", "0"), ("1", "0.5"), ("0", "0"), ("1e30", "0")])
def test_what_is_not_whole_counts_is_refused(tmp_path, slope, intercept):
    dataset = plain()
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    assert reason(tmp_path, dataset) == "fractional-counts"


def test_negative_values(tmp_path):
    trace = FRAMES.copy()
    trace[0, 0, :10] = -3
    scan = read(tmp_path, plain(trace, signed=True))
    assert_exact(scan, ("10 negative pixels (30 counts together) were set to 0",))
    many = FRAMES - 2
    assert reason(tmp_path, plain(many, signed=True)) == "negative-counts"
    dataset = plain(FRAMES)
    dataset.RescaleIntercept = "-2"
    assert reason(tmp_path, dataset) == "negative-counts"


def test_counts_against_the_header(tmp_path):
    total = int(FRAMES.sum())
    for accumulated, warns in (
        (total, False),
        (int(total * 1.005), False),
        (int(total * 1.02), True),
        (total // 2, True),
    ):
        dataset = ge_discovery()
        dataset.CountsAccumulated = accumulated
        warnings = read(tmp_path, dataset).warnings
        assert len(warnings) == warns
        if warns:
            assert f"{total:,}" in warnings[0] and f"{accumulated:,}" in warnings[0]


def test_more_than_16_bits_of_counts_are_refused(tmp_path):
    frames = FRAMES.copy()
    frames[1, 9, 9] = 65_535
    dataset = plain(frames, bits=32)
    assert read(tmp_path, dataset).posterior[9, 9] == 65_535
    frames[1, 9, 9] = 65_536
    with pytest.raises(ScanError, match="65,536") as caught:
        read(tmp_path, plain(frames, bits=32))
    assert caught.value.reason == "counts-over-65535"


def test_a_sum_over_pixels_that_does_not_fit_is_refused():
    block = np.zeros((4, 4), np.uint16)
    block[:2, :2] = 16_383
    assert bin_counts(block, 2)[0, 0] == 65_532
    block[0, 0] += 4
    with pytest.raises(ScanError):
        bin_counts(block, 2)


def test_exchanged_bytes_are_no_counts(tmp_path):
    """As a converter leaves it that wrote the bytes of a big-endian archive under a little-endian header."""
    dataset = plain()
    dataset.PixelData = FRAMES.astype(">u2").tobytes()
    with pytest.raises(ScanError, match="bytes are exchanged"):
        read(tmp_path, dataset)
    # Counts that happen to be 256 are counts.
    frames = FRAMES.copy()
    frames[:, 500:510, 110:130] = 256
    assert read(tmp_path, plain(frames)).warnings == ()


@pytest.mark.parametrize(("bits", "top"), [(8, 255), (16, 65_535), (16, 250)])
def test_counts_that_were_cut_off_at_the_highest_value_are_said(tmp_path, bits, top):
    """A bladder of more counts than the bits can hold; a highest value below that is an ordinary one."""
    front, back = FRONT.copy(), BACK.copy()
    front[500:503, 120] = top
    assert not any(
        "highest value" in line for line in read(tmp_path, plain(np.stack([front, back]), bits=bits)).warnings
    )
    front[500:504, 120] = top
    said = [
        line for line in read(tmp_path, plain(np.stack([front, back]), bits=bits)).warnings if "highest value" in line
    ]
    assert said == ([f"4 pixels have the highest value of {bits} bits: counts above it are lost"] if top != 250 else [])


def test_monochrome1_is_a_way_to_show_counts_not_to_store_them(tmp_path):
    dataset = plain()
    dataset.PhotometricInterpretation = "MONOCHROME1"
    assert_exact(read(tmp_path, dataset))


def test_bytes_behind_the_pixels_are_ignored_but_not_a_whole_frame(tmp_path):
    dataset = plain()
    dataset.PixelData += bytes(6)
    assert_exact(read(tmp_path, dataset), ("6 bytes behind the pixels were ignored",))
    dataset = plain(np.concatenate([FRAMES, FRAMES[:1]]))
    dataset.NumberOfFrames = 2
    assert reason(tmp_path, dataset) == "pixel-layout"


def test_what_lies_behind_the_pixel_data_is_not_looked_at(tmp_path):
    # Eight megabytes of zeros would be a million elements.
    assert_exact(read(tmp_path, write(ge_discovery()) + bytes(8 << 20)))
    assert_exact(read(tmp_path, encode(ge_discovery(), RLELossless) + b"\xfc\xff\xfc\xffOB\0\0\xff\xff\xff\xff"))


def test_the_pixel_hash_depends_on_counts_alone(tmp_path):
    one = read(tmp_path, encode(ge_discovery(), JPEGLSLossless))
    other = image(FRAMES, number=9)
    ge_names(other, ["ANT", "POST"])
    two = read(tmp_path, other)
    assert one.pixel_sha256 == two.pixel_sha256 and one.source_sha256 != two.source_sha256
    changed = one.anterior.copy()
    changed[0, 0] += 1
    assert pixel_hash(changed, one.posterior) != one.pixel_sha256
    assert pixel_hash(one.posterior, one.anterior) != one.pixel_sha256
