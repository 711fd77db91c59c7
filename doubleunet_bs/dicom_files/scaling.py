"""Stored pixel values -> whole counts: Rescale Slope, the scale factors that stand elsewhere, units, padding.

Counts Accumulated, where the header has it, decides which scale is meant: the one whose sum it is. Otherwise a scale is
applied when it says that its unit is counts, and the scan is refused when it does not.
"""

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
from pydicom.datadict import private_dictionary_description
from pydicom.dataset import Dataset

from doubleunet_bs.dicom_files.header_values import (
    read_identifier,
    read_items,
    read_numbers,
    read_text,
)
from doubleunet_bs.errors import ScanError

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


@dataclasses.dataclass(frozen=True)
class _Scale:
    """value * slope + intercept; `counts` when the header says that the result is counts; slope NaN for a table."""

    name: str
    slope: float
    intercept: float
    counts: bool

    @property
    def factors(self) -> tuple[float, float]:
        return self.slope, self.intercept


_AS_STORED = _Scale("the stored values", 1.0, 0.0, True)


def scale_to_counts(values: np.ndarray, dataset: Dataset, accumulated: float | None) -> np.ndarray:
    """Apply the scale that the header means to stored integers, and insist on whole numbers.

    `accumulated` is Counts Accumulated, or None. `ScanError`: `damaged-header`, or `fractional-counts` when the result
    is no whole numbers or no counts.
    """
    if "ModalityLUTSequence" in dataset:
        raise ScanError("has pixel values behind a look-up table, which are no counts", "fractional-counts")
    slope, intercept = _one_number(dataset, "RescaleSlope", 1.0), _one_number(dataset, "RescaleIntercept", 0.0)
    own = _Scale("Rescale Slope", slope, intercept, read_text(dataset, "RescaleType") in _COUNT_UNITS)
    others = {scale.factors: scale for scale in _other_scales(dataset) if scale.factors not in ((1, 0), own.factors)}
    foreign = not own.counts or read_text(dataset, "Units") not in _COUNT_UNITS
    if not others and not foreign:
        return _apply(values, own)
    if accumulated:
        total, size = float(values.sum(dtype=np.float64)), values.size
        for scale in (own, *others.values(), _AS_STORED):
            found = total * scale.slope + size * scale.intercept
            if abs(found - accumulated) <= COUNT_TOLERANCE * accumulated:
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
            yield _Scale("Real World Value Mapping", slope, intercept, "COUNT" in unit or "CNT" in unit)
        nested = read_items(place, "PixelValueTransformationSequence")
        for item in (*nested, *([place] if place is not dataset else [])):
            counts = read_text(item, "RescaleType") in _COUNT_UNITS
            slope, intercept = _one_number(item, "RescaleSlope", 1.0), _one_number(item, "RescaleIntercept", 0.0)
            yield _Scale("Rescale Slope in a sequence", slope, intercept, counts)
    private = [tag for tag in list(dataset.keys()) if tag.is_private]
    creators = {int(tag): read_identifier(dataset, int(tag)) for tag in private if tag.is_private_creator}
    for tag in private:
        creator = creators.get((tag.group << 16) + (tag.element >> 8), "")
        with contextlib.suppress(KeyError):
            if private_dictionary_description(tag, creator) in _PRIVATE_SLOPES:
                for slope in read_numbers(dataset, int(tag)):
                    yield _Scale("a private scale factor", slope, 0.0, False)


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
