"""What `dataset.json` says of one case, and the check that it says it."""

import dataclasses
import functools
import math
import re
import struct
import sys
from collections.abc import Iterable
from typing import Any

from doubleunet_bs.constants import CANCERS, VIEWS
from doubleunet_bs.errors import DatasetError
from doubleunet_bs.preparation.brightness import GAIN_LIMIT
from doubleunet_bs.preparation.case import PreparedCase
from doubleunet_bs.preparation.geometry import BodyBox, Placement

GROUPS = ("positive", "negative")
PHANTOMS, PATIENTS, MIXED, UNKNOWN = "phantoms", "patients", "mixed", "unknown"
_HASH = re.compile(r"[0-9a-f]{64}\Z")


# All records of a data set are in memory: slots, and one object for what many have in common, make them small.
@dataclasses.dataclass(frozen=True, slots=True)
class CaseRecord:
    """One case of a shard folder.

    Attributes:
        case, patient: pseudonyms.
        group: "positive" (with metastases) or "negative".
        cancer: "breast", "prostate" or None when nobody said.
        shard, row: number of the shard and row in its arrays.
        gains: of the anterior and the posterior view; exact in float32.
        brightness: mean intensity of the crops of 950 rows after the gain, in grey levels.
        placements: "anterior" and "posterior" -> place of the crop on the raw view.
        bodies: the same, where the body lies on the raw view; a missing view is not in it.
        raw_shape: (rows, columns) of a raw view.
        pixel_spacing_mm: (row, column) spacing, or None.
        missing_views: names of the views the scan does not have.
        sum_counts: over both raw views.
        uptake_fraction: part of the image that background removal kept.
        metastatic_pixels: in the labels.
        warnings: one line each.
        source_sha256: of the source file(s). pixel_sha256: of the counts.
        phantom: whether it is a synthetic scan of this package; None in shards that were written before this was noted.
    """

    case: str
    patient: str
    group: str
    cancer: str | None
    shard: int
    row: int
    gains: tuple[float, float]
    brightness: float
    placements: dict[str, Placement]
    bodies: dict[str, BodyBox]
    raw_shape: tuple[int, int]
    pixel_spacing_mm: tuple[float, float] | None
    missing_views: tuple[str, ...]
    sum_counts: int
    uptake_fraction: float
    metastatic_pixels: int
    warnings: tuple[str, ...]
    source_sha256: str
    pixel_sha256: str
    phantom: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object with an entry for each attribute."""
        return dataclasses.asdict(self)


def make_record(
    prepared: PreparedCase,
    patient: str,
    group: str,
    cancer: str | None,
    pixel_sha256: str,
    warnings: tuple[str, ...] = (),
) -> CaseRecord:
    """The record of a prepared case; shard and row are given when it is written."""
    return CaseRecord(
        case=prepared.case,
        patient=patient,
        group=group,
        cancer=cancer,
        shard=0,
        row=0,
        gains=prepared.gains,
        brightness=prepared.brightness,
        placements=prepared.placements,
        bodies=prepared.bodies,
        raw_shape=prepared.raw_shape,
        pixel_spacing_mm=prepared.pixel_spacing_mm,
        missing_views=prepared.missing_views,
        sum_counts=prepared.sum_counts,
        uptake_fraction=prepared.uptake_fraction,
        metastatic_pixels=prepared.metastatic_pixels,
        warnings=(*prepared.warnings, *warnings),
        source_sha256=prepared.source_sha256,
        pixel_sha256=pixel_sha256,
        phantom=prepared.phantom,
    )


def parse_record(content: Any) -> CaseRecord:
    """The inverse of `CaseRecord.to_json`.

    Raises:
        DatasetError: an entry is missing, unknown, or not what it must be. The message names the entry.
    """
    if isinstance(content, dict):
        # Shards of this format version were first written without it: they still open, and do not know.
        content = {"phantom": None, **content}
    if not isinstance(content, dict) or content.keys() != _NAMES:
        different = _NAMES ^ set(content) if isinstance(content, dict) else _NAMES
        raise DatasetError(f"a case has missing or unknown entries: {', '.join(sorted(map(str, different)))[:200]}")
    checks = {
        "case": _is_name(content["case"]),
        "patient": _is_name(content["patient"]),
        "group": content["group"] in GROUPS,
        "cancer": content["cancer"] is None or content["cancer"] in CANCERS,
        "shard": _is_whole(content["shard"]),
        "row": _is_whole(content["row"]),
        "gains": _are_numbers(content["gains"], 2)
        and all(0 < gain < GAIN_LIMIT and _is_float32(gain) for gain in content["gains"]),
        "brightness": _are_numbers([content["brightness"]], 1),
        "placements": _is_table(content["placements"], Placement) and set(content["placements"]) == set(VIEWS),
        "bodies": _is_table(content["bodies"], BodyBox) and set(content["bodies"]) <= set(VIEWS),
        "raw_shape": isinstance(content["raw_shape"], list)
        and len(content["raw_shape"]) == 2
        and all(_is_whole(length) and length for length in content["raw_shape"]),
        "pixel_spacing_mm": content["pixel_spacing_mm"] is None or _are_numbers(content["pixel_spacing_mm"], 2),
        "missing_views": isinstance(content["missing_views"], list)
        and all(name in VIEWS for name in content["missing_views"]),
        "sum_counts": _is_whole(content["sum_counts"]),
        "uptake_fraction": _are_numbers([content["uptake_fraction"]], 1) and 0 <= content["uptake_fraction"] <= 1,
        "metastatic_pixels": _is_whole(content["metastatic_pixels"]),
        "warnings": isinstance(content["warnings"], list)
        and all(isinstance(line, str) for line in content["warnings"]),
        "source_sha256": _is_hash(content["source_sha256"]),
        "pixel_sha256": _is_hash(content["pixel_sha256"]),
        "phantom": content["phantom"] is None or type(content["phantom"]) is bool,
    }
    wrong = [name for name, right in checks.items() if not right]
    if wrong:
        raise DatasetError(f"a case has an impossible entry: {wrong[0]}")
    content = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    content["gains"] = tuple(map(float, content["gains"]))
    content["placements"] = {view: Placement(**place) for view, place in content["placements"].items()}
    content["bodies"] = {view: BodyBox(**body) for view, body in content["bodies"].items()}
    content["group"] = sys.intern(content["group"])
    content["cancer"] = content["cancer"] and sys.intern(content["cancer"])
    content["raw_shape"], content["pixel_spacing_mm"] = _shared(content["raw_shape"], content["pixel_spacing_mm"])
    return CaseRecord(**content)


_NAMES = {field.name for field in dataclasses.fields(CaseRecord)}
_FIELDS = {kind: {field.name for field in dataclasses.fields(kind)} for kind in (Placement, BodyBox)}


@functools.lru_cache(64)
def _shared(*values: Any) -> tuple:
    """The same objects for equal values."""
    return values


def _is_float32(number: float) -> bool:
    try:
        return struct.unpack("f", struct.pack("f", number))[0] == number
    except OverflowError:
        return False


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 100


def _is_hash(value: Any) -> bool:
    # Empty: a scan that was made in memory and not read from a file.
    return isinstance(value, str) and (value == "" or _HASH.match(value) is not None)


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _are_numbers(value: Any, length: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == length
        and all(type(number) in (int, float) and abs(number) < 1e12 and math.isfinite(number) for number in value)
    )


def _is_table(value: Any, kind: type) -> bool:
    names = _FIELDS[kind]
    return isinstance(value, dict) and all(
        isinstance(entry, dict)
        and entry.keys() == names
        and all(type(n) is int and abs(n) < 10**6 for n in entry.values())
        for entry in value.values()
    )


def scans_are(records: Iterable[CaseRecord]) -> str:
    """ "phantoms", "patients", "mixed", or "unknown" when the shards of one do not say, or there is none."""
    marks = {record.phantom for record in records}
    if None in marks or not marks:
        return UNKNOWN
    return {(True,): PHANTOMS, (False,): PATIENTS}.get(tuple(marks), MIXED)
