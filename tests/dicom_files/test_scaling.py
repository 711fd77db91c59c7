"""Scale factors outside of Rescale Slope, units, padding, and numbers in unusual forms."""

import numpy as np
import pytest
from dicom_headers import FRAMES, image, plain, put_pixels, write
from one_file import assert_exact, read
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans import read_scan

TOTAL = int(FRAMES.sum())
SLOPE = FRAMES.max() / 65_535
STRETCHED = np.rint(FRAMES / SLOPE)


def refused(tmp_path, dataset) -> str:
    with pytest.raises(ScanError) as caught:
        read(tmp_path, dataset)
    assert caught.value.reason == "fractional-counts"
    return str(caught.value)


def mapping(slope: float, unit: str = "{counts}", intercept: float = 0.0) -> Dataset:
    code, item = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = unit, "UCUM", unit
    item.MeasurementUnitsCodeSequence = [code]
    item.RealWorldValueIntercept, item.RealWorldValueSlope = intercept, slope
    return item


def test_a_real_world_value_slope_of_counts_is_applied(tmp_path):
    dataset = plain(STRETCHED)
    dataset.RealWorldValueMappingSequence = [mapping(SLOPE)]
    assert_exact(read(tmp_path, dataset))
    # A mapping to the same values says nothing new, and one beside it to another unit is not asked for.
    dataset.RescaleSlope = f"{SLOPE:.14f}"
    dataset.RealWorldValueMappingSequence = [mapping(float(dataset.RescaleSlope))]
    assert_exact(read(tmp_path, dataset))


@pytest.mark.parametrize("unit", ["Bq/ml", "1", "g/ml"])
def test_a_mapping_to_another_unit_is_refused_unless_the_sum_of_counts_decides(tmp_path, unit):
    dataset = plain(FRAMES)
    dataset.RealWorldValueMappingSequence = [mapping(2.5, unit)]
    assert "Real World Value Mapping" in refused(tmp_path, dataset)
    dataset.CountsAccumulated = TOTAL
    assert_exact(read(tmp_path, dataset))
    dataset = plain(STRETCHED)
    dataset.RealWorldValueMappingSequence = [mapping(SLOPE, unit)]
    dataset.CountsAccumulated = TOTAL
    assert_exact(read(tmp_path, dataset))


def test_scales_that_contradict_each_other_are_refused(tmp_path):
    dataset = plain(FRAMES)
    dataset.RealWorldValueMappingSequence = [mapping(2), mapping(3)]
    assert "contradict each other" in refused(tmp_path, dataset)
    dataset.RealWorldValueMappingSequence = [mapping(2)]
    dataset.RescaleSlope = "3"
    assert "Rescale Slope, Real World Value Mapping" in refused(tmp_path, dataset)


@pytest.mark.parametrize("holder", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_a_rescale_slope_in_functional_groups(tmp_path, holder):
    dataset = plain(STRETCHED)
    group, item = Dataset(), Dataset()
    item.RescaleSlope, item.RescaleIntercept, item.RescaleType = f"{SLOPE:.14f}", "0", "US"
    group.PixelValueTransformationSequence = Sequence([item])
    setattr(dataset, holder, Sequence([group, group]))
    assert_exact(read(tmp_path, dataset))
    other, second = Dataset(), Dataset()
    other.RescaleSlope, other.RescaleIntercept = "2", "0"
    second.PixelValueTransformationSequence = Sequence([other])
    setattr(dataset, holder, Sequence([group, second]))
    assert "contradict" in refused(tmp_path, dataset)


@pytest.mark.parametrize(
    ("group", "creator", "element", "vr"),
    [(0x57, "SIEMENS MED NM", 7, "FL"), (0x7053, "Philips PET Private Group", 9, "DS"), (0x55, "PMOD_1", 5, "FD")],
)
def test_private_scale_factors(tmp_path, group, creator, element, vr):
    dataset = plain(FRAMES)
    block = dataset.private_block(group, creator, create=True)
    block.add_new(element, vr, 1.0)
    assert_exact(read(tmp_path, dataset))
    block[element].value = 2.5
    assert "private scale factor" in refused(tmp_path, dataset)
    dataset.CountsAccumulated = TOTAL
    assert_exact(read(tmp_path, dataset))


@pytest.mark.parametrize("keyword", ["Units", "RescaleType"])
def test_units_other_than_counts(tmp_path, keyword):
    dataset = plain(FRAMES)
    setattr(dataset, keyword, "BQML")
    assert "another unit than counts" in refused(tmp_path, dataset)
    dataset.CountsAccumulated = TOTAL
    assert_exact(read(tmp_path, dataset))


@pytest.mark.parametrize(("padding", "signed"), [(65_535, False), (-1, True), (65_535, True), (-32_768, True)])
def test_padding_is_no_count(tmp_path, padding, signed):
    values = FRAMES.astype(np.int64)
    values[:, :40] = (padding + 32_768) % 65_536 - 32_768 if signed else padding
    dataset = image(np.zeros((2, 4, 4)))
    put_pixels(dataset, values, signed=signed)
    dataset.add_new("PixelPaddingValue", "SS" if padding < 0 else "US", padding)
    scan = read(tmp_path, dataset)
    expected = FRAMES.copy()
    expected[:, :40] = 0
    assert np.array_equal(scan.anterior, expected[0]) and np.array_equal(scan.posterior, expected[1])
    assert f"{2 * 40 * 256:,} pixels with the Pixel Padding Value were set to 0" in scan.warnings


def test_a_range_of_padding_values_is_no_count(tmp_path):
    values = FRAMES.astype(np.int64)
    values[:, :20], values[:, 20:40] = 60_000, 65_000
    dataset = image(np.zeros((2, 4, 4)))
    put_pixels(dataset, values, signed=False)
    dataset.add_new("PixelPaddingValue", "US", 60_000)
    dataset.add_new("PixelPaddingRangeLimit", "US", 65_000)
    scan = read(tmp_path, dataset)
    assert not scan.anterior[:40].any() and np.array_equal(scan.anterior[40:], FRAMES[0, 40:])


def test_a_padding_value_among_the_counts_is_kept(tmp_path):
    dataset = plain(FRAMES)
    value = int(FRAMES[FRAMES > 0].min())
    dataset.add_new("PixelPaddingValue", "US", value)
    number = np.count_nonzero(value == FRAMES)
    warning = f"{number:,} pixels have the Pixel Padding Value and were kept as counts: compare with the image"
    assert_exact(read(tmp_path, dataset), (warning,))
    dataset.PixelPaddingValue = 0
    assert_exact(read(tmp_path, dataset))


def test_a_palette_is_for_the_display(tmp_path):
    dataset = plain(FRAMES)
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    for colour in ("Red", "Green", "Blue"):
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, 16])
        dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", bytes(512))
    assert_exact(read(tmp_path, dataset))


def spacing(text: bytes, kind: bytes = b"DS", keyword: str = "PixelSpacing") -> bytes:
    """A scan with these bytes as Pixel Spacing, of a type with a length of two or four bytes."""
    dataset = plain(FRAMES)
    data = write(dataset)
    old = b"\x28\x00\x30\x00DS\x08\x002.4\\2.4 "
    assert data.count(old) == 1
    text += b" " * (len(text) % 2)
    size = b"\0\0" + len(text).to_bytes(4, "little") if kind == b"UT" else len(text).to_bytes(2, "little")
    return data.replace(old, b"\x28\x00\x30\x00" + kind + size + text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"2.4\\2.4", b"DS"), (b"2,4\\2,4", b"DS"), (b"2.4,2.4", b"DS"), (b"2.4\\2.4", b"UT"), (b"2,4\\2,4", b"LO"),
        (b" 2.4 \\ 2.4 ", b"DS"),
    ],
)  # fmt: skip
def test_forms_of_numbers(tmp_path, text, kind):
    assert read(tmp_path, spacing(text, kind)).pixel_spacing_mm == (2.4, 2.4)


@pytest.mark.parametrize("text", [b"2,0\\4,0", b"2.0\\4.0", b"2.0,4.0"])
def test_pixels_that_are_not_square_are_refused_in_every_form(tmp_path, text):
    with pytest.raises(ScanError, match="not square"):
        read(tmp_path, spacing(text))


@pytest.mark.parametrize("text", [b"2.4", b"2,4", b"a\\b", b"2.4\\", b"2,4,2,4", b"nan\\nan", b"1e999\\2"])
def test_a_spacing_that_cannot_be_read_is_not_taken_for_absent(tmp_path, text):
    with pytest.raises(ScanError, match="unreadable Pixel Spacing") as caught:
        read(tmp_path, spacing(text))
    assert caught.value.reason == "damaged-header"
    assert read(tmp_path, spacing(b"")).pixel_spacing_mm is None


def test_thousands_in_the_accumulated_counts(tmp_path):
    dataset = plain(FRAMES)
    dataset.CountsAccumulated = 7_654_321
    data = write(dataset)
    assert "header says 7,654,321" in read(tmp_path, data).warnings[0]
    old = b"\x18\x00\x70\x00IS\x08\x007654321 "
    assert old in data
    assert (
        "header says 7,654,321"
        in read(tmp_path, data.replace(old, b"\x18\x00\x70\x00IS\x0a\x007,654,321 ")).warnings[0]
    )
    unreadable = read(tmp_path, data.replace(b"7654321 ", b"7,654.21")).warnings
    assert unreadable == ("Counts Accumulated is unreadable: the sum of the pixels was not compared with it",)


@pytest.mark.parametrize("text", [b"813,086 ", b"813.086 ", b"813,000 ", b"813.000 "])
def test_one_group_of_thousands_in_the_accumulated_counts(tmp_path, text):
    dataset = plain(FRAMES)
    dataset.CountsAccumulated = 7_654_321
    warnings = read(tmp_path, write(dataset).replace(b"7654321 ", text)).warnings
    assert f"header says 813,{text[4:7].decode()}" in warnings[0]


def test_zero_frames_are_one_where_the_pixels_are(tmp_path):
    dataset = image(FRAMES[:1])
    data = write(dataset).replace(b"\x28\x00\x08\x00IS\x02\x001 ", b"\x28\x00\x08\x00IS\x02\x000 ")
    (tmp_path / "scan").write_bytes(data)
    scan = read_scan(tmp_path / "scan", allow_missing_view=True)
    assert np.array_equal(scan.anterior, FRAMES[0])
    with pytest.raises(ScanError, match="has 0 for Rows in its header"):
        read(tmp_path, write(dataset).replace(b"\x28\x00\x10\x00US\x02\x00\x00\x04", b"\x28\x00\x10\x00US\x02\x00\0\0"))
