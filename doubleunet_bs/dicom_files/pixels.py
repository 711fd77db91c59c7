"""Pixel data -> counts: whole numbers from 0 to 65,535, exactly as the camera stored them.

Counts Accumulated, where the header has it, decides which scale is meant: the one whose sum it is. Otherwise a scale is
applied when it says that its unit is counts, and the scan is refused when it does not.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from pydicom.datadict import private_dictionary_description
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from doubleunet_bs.dicom_files.decoders import DECODERS, NATIVE_SYNTAXES, Codestream, decode, split_frames
from doubleunet_bs.dicom_files.dicom_file import DicomFile, PixelElement
from doubleunet_bs.dicom_files.header_values import read_identifier, read_integer, read_items, read_numbers, read_text
from doubleunet_bs.dicom_files.layout import Layout
from doubleunet_bs.dicom_files.sources import MAX_PIXEL_BYTES, MEBIBYTE
from doubleunet_bs.errors import ScanError

HIGHEST_COUNT = 65_535

# Correction programs leave some pixels below zero: up to this share of all counts they are set to zero.
NEGATIVE_TRACE = 0.001

# Of the pixels that are not zero, this share has no bits in the lower byte only where the two bytes were exchanged.
EXCHANGED_BYTES = 0.9

# More pixels than this with the highest value that the bits can hold were cut off there, such as a bladder in 8 bits.
MOST_HIGHEST = 3

# Cameras count a few events outside of the matrix: up to this share, a sum may differ from Counts Accumulated.
COUNT_TOLERANCE = 0.01

_HOLDERS = (
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "DetectorInformationSequence",
    "EnergyWindowInformationSequence",
)  # fmt: skip
# Names in pydicom's dictionary of private elements.
_PRIVATE_SLOPES = {
    "Rescale Slope", "Frame Rescale Slope Vector", "SUV Scale Factor", "Activity Concentration Scale Factor"
}  # fmt: skip
# Values of Units and Rescale Type that are counts or say nothing.
_COUNT_UNITS = {"", "US", "CNTS", "COUNTS", "PROPCNTS", "NONE", "UNSPECIFIED"}


def read_counts(file: DicomFile, layout: Layout) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decode the pixel data of an accepted file into counts.

    Args:
        file: parsed with its pixel data.
        layout: what `doubleunet_bs.dicom_files.layout` says of it.

    Returns:
        uint16 counts of shape (frames, rows, columns), not yet binned, and warnings for a technician.

    Raises:
        ScanError: `truncated`, `damaged-pixels`, `pixel-layout`, `decompression-bomb`, `missing-decoder`, `colour`,
            `fractional-counts`, `negative-counts`, `counts-over-65535`, `inverted` or `blank`.
    """
    dataset, syntax = file.dataset, file.transfer_syntax
    if file.pixels is None or not file.pixels.value:
        raise ScanError("has no pixel data", "no-pixel-data")
    warnings: list[str] = []
    values = _stored_values(file, file.pixels, layout, warnings)
    was_lossy = read_text(dataset, "LossyImageCompression") in ("01", "1")
    lossy = was_lossy or (syntax in DECODERS and DECODERS[syntax].lossy)
    if lossy:
        warnings.append("the pixel data went through lossy compression: the counts are not exactly the acquired ones")
    bits, signed = read_integer(dataset, "BitsStored", values.itemsize * 8), values.dtype.kind == "i"
    padded, trouble = find_padding(values, dataset, bits, signed)
    warnings += trouble
    top = (1 << (bits - signed)) - 1
    if values.max() == top:
        highest = np.count_nonzero((values == top) if padded is None else (values == top) & ~padded)
        if highest > MOST_HIGHEST:
            warnings.append(f"{highest:,} pixels have the highest value of {bits} bits: counts above it are lost")
    accumulated = _accumulated(dataset, warnings)
    values = scale_to_counts(values if padded is None else np.where(padded, 0, values), dataset, accumulated)
    values = values if padded is None else np.where(padded, 0, values)
    total = int(values.sum(axis=-1, dtype=np.uint32 if values.dtype == np.uint16 else None).sum())
    if accumulated and abs(total - accumulated) > COUNT_TOLERANCE * accumulated:
        warnings.append(f"the pixels sum to {total:,} counts, the header says {int(accumulated):,} were accumulated")
    values, negative = _without_negatives(values, lossy)
    warnings += negative
    return _check_counts(values), tuple(warnings)


def _accumulated(dataset: Dataset, warnings: list[str]) -> float | None:
    """Counts Accumulated, None when it is absent, zero or unreadable."""
    with contextlib.suppress(ScanError):
        found = read_numbers(dataset, "CountsAccumulated")
        if not found or found == (0,):
            return None
        if len(found) == 1 and found[0] > 0 and found[0] == int(found[0]):
            return found[0]
    warnings.append("Counts Accumulated is unreadable: the sum of the pixels was not compared with it")
    return None


def bin_counts(counts: np.ndarray, block: int) -> np.ndarray:
    """Sum uint16 counts over blocks of `block` x `block` pixels: uint16 array of shape (rows / block, columns / block).

    Raises:
        ScanError: `counts-over-65535` when a sum does not fit.
    """
    if block == 1:
        return counts
    rows, columns = counts.shape
    sums = counts.reshape(rows // block, block, columns // block, block).sum(axis=(1, 3), dtype=np.int64)
    if sums.max() > HIGHEST_COUNT:
        raise _too_high(int(sums.max()))
    return sums.astype(np.uint16)


def pixel_hash(anterior: np.ndarray, posterior: np.ndarray) -> str:
    """SHA-256 of the counts of both views: the same for the same counts, whatever the file."""
    digest = hashlib.sha256()
    for view in (anterior, posterior):
        digest.update(repr(view.shape).encode())
        digest.update(np.ascontiguousarray(view, dtype="<u2").data)
    return digest.hexdigest()


def _stored_values(file: DicomFile, pixels: PixelElement, layout: Layout, warnings: list[str]) -> np.ndarray:
    """The stored values: integers of shape (frames, rows, columns)."""
    dataset, uid = file.dataset, file.transfer_syntax
    shape = (layout.frames, layout.rows, layout.columns)
    order = ">" if uid == ExplicitVRBigEndian else "<"
    if pixels.encapsulated != (uid not in NATIVE_SYNTAXES):
        raise ScanError("has pixel data that are not in the transfer syntax the header names", "pixel-layout")
    if pixels.keyword != "PixelData":
        raise ScanError("has floating-point pixels, which are no counts", "fractional-counts")
    allocated = read_integer(dataset, "BitsAllocated")
    stored = read_integer(dataset, "BitsStored", allocated)
    signed = read_integer(dataset, "PixelRepresentation", 0)
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or signed not in (0, 1):
        raise ScanError(f"stores {stored} of {allocated} bits per pixel: 8, 16 or 32 are read", "pixel-layout")
    if allocated == 8 and order == ">":
        raise ScanError("stores 8-bit pixels in big endian, which is not read", "pixel-layout")
    if read_integer(dataset, "HighBit", stored - 1) != stored - 1:
        raise ScanError("stores its pixels shifted within their words, which is not read", "pixel-layout")
    size = layout.frames * layout.rows * layout.columns * allocated // 8
    if size > MAX_PIXEL_BYTES:
        raise ScanError("unpacks to more than a whole-body scan does", "decompression-bomb")
    if pixels.encapsulated:
        if len(pixels.value) > 2 * size + MEBIBYTE:
            raise ScanError("has compressed pixel data larger than uncompressed ones", "decompression-bomb")
        frames, trouble = split_frames(pixels.value, layout.frames, uid)
        warnings += trouble
        words, stream = decode(frames, uid, shape, allocated)
        if stream is not None:
            return _compressed_values(words, stream, uid, stored, bool(signed))
    else:
        words = _native_array(pixels.value, f"{order}u{allocated // 8}", shape, warnings)
    if words.itemsize == 2:
        counted = np.count_nonzero(words)
        zeros = words.size - counted
        if np.count_nonzero(words & 255 == 0) - zeros > EXCHANGED_BYTES * counted:
            raise ScanError("has pixels whose bytes are exchanged: export the file in little endian", "pixel-layout")
    cut = _pixels_with_more_bits(words, stored, allocated, bool(signed))
    if cut:
        warnings.append(
            f"{cut:,} pixels have bits set above the {stored} that the header gives; these bits were ignored: "
            "an overlay, or counts that have lost their highest part"
        )
    # Unsigned counts stay in the type in which they are stored: that is an eighth of the memory to go through.
    return _lowest_bits(words.astype(np.int64) if signed else words, stored, bool(signed))


def _compressed_values(words: np.ndarray, stream: Codestream, uid: str, stored: int, signed: bool) -> np.ndarray:
    # JPEG-LS and JPEG 2000 know their own depth. Other JPEG streams may be deeper or shallower than their samples.
    bits = max(stored, stream.precision) if DECODERS[uid].plugin == "gdcm" else stream.precision
    # Where a JPEG 2000 stream is signed and the header is not, the values come out as they were encoded.
    values = _lowest_bits(words.astype(np.int64), bits, signed or stream.signed)
    if stream.precision > stored and values.max() >= 1 << stored:
        raise ScanError(f"has pixel values of more than the {stored} bits its header gives", "pixel-layout")
    return values


def _native_array(data: bytes, dtype: str, shape: tuple[int, int, int], warnings: list[str]) -> np.ndarray:
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    excess = len(data) - expected
    if excess < 0:
        raise ScanError(f"is cut off: {len(data):,} of {expected:,} bytes of pixel data are there", "truncated")
    if excess >= expected // shape[0]:
        # A whole frame that the header does not mention: leaving it out might drop a view.
        raise ScanError(f"has {len(data):,} bytes of pixel data, its header describes {expected:,}", "pixel-layout")
    if excess > 1:
        warnings.append(f"{excess:,} bytes behind the pixels were ignored")
    return np.frombuffer(data, dtype=dtype, count=int(np.prod(shape))).reshape(shape)


def _pixels_with_more_bits(words: np.ndarray, stored: int, allocated: int, signed: bool) -> int:
    """The number of unsigned words with bits above the stored ones, other than a sign repeated in all of them."""
    if stored == allocated or words.max() < 1 << stored:
        return 0
    above = words >> stored
    more = above != 0
    if signed:
        more &= (above != (1 << (allocated - stored)) - 1) | (words >> (stored - 1) & 1 == 0)
    return int(np.count_nonzero(more))


def _lowest_bits(values: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    """The lowest `bits` of each value, as two's complement when `signed`, in the byte order of this machine."""
    values = values & ((1 << bits) - 1)
    return np.where(values >= 1 << (bits - 1), values - (1 << bits), values) if signed else values


def _without_negatives(values: np.ndarray, lossy: bool) -> tuple[np.ndarray, list[str]]:
    if values.dtype.kind == "u":
        return values, []
    below = values < 0
    pixels = int(below.sum())
    if not pixels:
        return values, []
    positive, negative = int(values[~below].sum()), -int(values[below].sum())
    if not lossy and negative > NEGATIVE_TRACE * positive:
        message = f"has {pixels:,} negative pixels, {negative:,} counts together: export the raw counts"
        raise ScanError(message, "negative-counts")
    return np.where(below, 0, values), [f"{pixels:,} negative pixels ({negative:,} counts together) were set to 0"]


def _check_counts(values: np.ndarray) -> np.ndarray:
    highest = int(values.max())
    if highest > HIGHEST_COUNT:
        raise _too_high(highest)
    if highest == 0:
        raise ScanError("is blank: all pixels are zero", "blank")
    # Most of a scan is air. When most pixels are in the upper half, dark and bright were exchanged.
    if np.count_nonzero(values > highest // 2) > values.size / 2:
        raise ScanError("is inverted, air has more counts than the body: export the raw counts", "inverted")
    return values.astype(np.uint16, copy=False)


def _too_high(highest: int) -> ScanError:
    return ScanError(
        f"has pixels of up to {highest:,}: a bone scan has at most {HIGHEST_COUNT:,} counts per pixel",
        "counts-over-65535",
    )


class _Scale(NamedTuple):
    """value * slope + intercept; `counts` when the header says that the result is counts; slope NaN for a table."""

    name: str
    factors: tuple[float, float]
    counts: bool


_AS_STORED = _Scale("the stored values", (1.0, 0.0), True)


def scale_to_counts(values: np.ndarray, dataset: Dataset, accumulated: float | None) -> np.ndarray:
    """Apply the scale that the header means to stored integers, and insist on whole numbers.

    `accumulated` is Counts Accumulated, or None. `ScanError`: `damaged-header`, or `fractional-counts` when the result
    is no whole numbers or no counts.
    """
    if "ModalityLUTSequence" in dataset:
        raise ScanError("has pixel values behind a look-up table, which are no counts", "fractional-counts")
    own = _rescale(dataset, "Rescale Slope")
    others = {scale.factors: scale for scale in _other_scales(dataset) if scale.factors not in ((1, 0), own.factors)}
    foreign = not own.counts or read_text(dataset, "Units") not in _COUNT_UNITS
    if not others and not foreign:
        return _apply(values, own)
    if accumulated:
        total, size = float(values.sum(dtype=np.float64)), values.size
        for scale in (own, *others.values(), _AS_STORED):
            slope, intercept = scale.factors
            if abs(total * slope + size * intercept - accumulated) <= COUNT_TOLERANCE * accumulated:
                return _apply(values, scale)
    if foreign:
        raise ScanError("has pixel values in another unit than counts: export the raw counts", "fractional-counts")
    first, *more = others.values()
    if own.factors != (1, 0) or more:
        name = own.name if own.factors != (1, 0) else more[0].name
        message = f"has scale factors that contradict each other ({name}, {first.name}): export the raw counts"
        raise ScanError(message, "fractional-counts")
    if not first.counts:
        message = f"has a scale factor that may be no scale of counts ({first.name}): export the raw counts"
        raise ScanError(message, "fractional-counts")
    return _apply(values, first)


def find_padding(values: np.ndarray, dataset: Dataset, bits: int, signed: bool) -> tuple[np.ndarray | None, list[str]]:
    """Which stored values are the Pixel Padding Value and no counts, None for none, and warnings.

    A padding value among the counts of other pixels may be a count: such pixels are kept, with a warning.
    """
    found = [read_numbers(dataset, keyword)[:1] for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if not found[0]:
        return None, []
    limits = [*found[0], *(found[1] or found[0])]
    # The same bits may be written as a signed or an unsigned number.
    if signed:
        limits = [value - (1 << bits) if value >= 1 << (bits - 1) else value for value in limits]
    else:
        limits = [value + (1 << bits) if value < 0 else value for value in limits]
    padded = (values >= min(limits)) & (values <= max(limits)) & (values != 0)
    number = int(np.count_nonzero(padded))
    if not number:
        return None, []
    highest = int(np.where(padded, 0, values).max())
    if max(limits) < 0 or min(limits) > 2 * highest:
        return padded, [f"{number:,} pixels with the Pixel Padding Value were set to 0"]
    return None, [f"{number:,} pixels have the Pixel Padding Value and were kept as counts: compare with the image"]


def _other_scales(dataset: Dataset) -> Iterator[_Scale]:
    """The scales that stand outside of Rescale Slope."""
    places = [dataset, *(item for keyword in _HOLDERS for item in read_items(dataset, keyword))]
    for place in places:
        for item in read_items(place, "RealWorldValueMappingSequence"):
            unit = " ".join(
                read_text(code, keyword)
                for code in read_items(item, "MeasurementUnitsCodeSequence")
                for keyword in ("CodeValue", "CodeMeaning")
            )
            slope = float("nan") if "RealWorldValueLUTData" in item else _one_number(item, "RealWorldValueSlope", 1.0)
            intercept = _one_number(item, "RealWorldValueIntercept", 0.0)
            yield _Scale("Real World Value Mapping", (slope, intercept), "COUNT" in unit or "CNT" in unit)
        nested = read_items(place, "PixelValueTransformationSequence")
        for item in (*nested, *([place] if place is not dataset else [])):
            yield _rescale(item, "Rescale Slope in a sequence")
    private = [tag for tag in list(dataset.keys()) if tag.is_private]
    creators = {int(tag): read_identifier(dataset, int(tag)) for tag in private if tag.is_private_creator}
    for tag in private:
        creator = creators.get((tag.group << 16) + (tag.element >> 8), "")
        with contextlib.suppress(KeyError):
            if private_dictionary_description(tag, creator) in _PRIVATE_SLOPES:
                for slope in read_numbers(dataset, int(tag)):
                    yield _Scale("a private scale factor", (slope, 0.0), False)


def _rescale(dataset: Dataset, name: str) -> _Scale:
    factors = _one_number(dataset, "RescaleSlope", 1.0), _one_number(dataset, "RescaleIntercept", 0.0)
    return _Scale(name, factors, read_text(dataset, "RescaleType") in _COUNT_UNITS)


def _apply(values: np.ndarray, scale: _Scale) -> np.ndarray:
    slope, intercept = scale.factors
    if slope == 1 and intercept == int(intercept) and values.dtype.kind in "iu" and abs(intercept) < 2**40:
        return values.astype(np.int64) + int(intercept) if intercept else values
    with np.errstate(all="ignore"):
        scaled = values * slope + intercept
        whole = np.rint(scaled)
        # Slopes are decimal strings of few digits: what they were meant to make whole is whole to this precision.
        # Counts that were stretched to all the bits are whole to half a step.
        allowed = np.clip(1e-4 * np.abs(scaled), 1e-6, 0.1)
        if abs(slope) <= 0.1:
            allowed = np.maximum(allowed, 0.51 * abs(slope))
        fits = np.abs(scaled - whole) <= allowed
    if slope == 0 or not np.isfinite(scaled).all() or not fits.all() or np.abs(whole).max() > 2**40:
        raise ScanError("has pixel values that are not whole counts", "fractional-counts")
    return whole.astype(np.int64)


def _one_number(dataset: Dataset, keyword: str, default: float) -> float:
    found = read_numbers(dataset, keyword)
    if not found:
        return default
    if len(found) != 1:
        raise ScanError("has an unreadable rescale slope or intercept", "damaged-header")
    return found[0]
