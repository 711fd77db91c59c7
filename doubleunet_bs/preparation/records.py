"""One case in `dataset.json`, and the public data sets that cases are from: what is written and checked on reading."""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from doubleunet_bs.constants import CANCERS, CASE_NAME, PATIENT_NAME, VIEWS
from doubleunet_bs.errors import DatasetError
from doubleunet_bs.preparation.brightness import GAIN_LIMIT
from doubleunet_bs.preparation.case import PreparedCase
from doubleunet_bs.preparation.geometry import BodyBox, Placement

UNKNOWN_GROUP, UNOUTLINED = "unknown", "unoutlined"
GROUPS = ("positive", "negative", UNOUTLINED, UNKNOWN_GROUP)
WITH_METASTASES = ("positive", UNOUTLINED)
"""Groups of patients with metastases."""
PARTS = ("test", "validation", "train")
"""Of the published split of a public data set."""
PHANTOMS, PATIENTS, MIXED = "phantoms", "patients", "mixed"
NOT_STATED = "not stated"
# Empty for a scan that was made in memory.
_HASH = re.compile(r"([0-9a-f]{64})?\Z")


@dataclasses.dataclass(frozen=True, slots=True)
class CaseRecord:
    """One case of a shard folder.

    Attributes:
        case, patient: pseudonyms.
        group: "positive" (with outlined metastases), "negative", "unoutlined" (with metastases, none of them outlined),
            or "unknown": only its skeleton is annotated, or it may have metastases.
        cancer: "breast", "prostate" or None when not stated.
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
        metastatic_pixels, benign_pixels: in the labels.
        warnings: one line each.
        source_sha256: of the source file(s). pixel_sha256: of the counts.
        phantom: whether it is a synthetic scan of this package.
        has_regions: whether its skeleton is annotated.
        part: "train", "validation" or "test" where a public data set has a published split, else None.
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
    phantom: bool
    has_regions: bool = False
    part: str | None = None
    benign_pixels: int = 0

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
    """The record of a prepared case with further `warnings`; shard and row are 0 until it is written."""
    shared = {field.name for field in dataclasses.fields(PreparedCase)} & _NAMES
    content = {name: getattr(prepared, name) for name in shared}
    content |= {"patient": patient, "warnings": (*prepared.warnings, *warnings)}
    return CaseRecord(**content, group=group, cancer=cancer, shard=0, row=0, pixel_sha256=pixel_sha256)


def parse_record(content: Any) -> CaseRecord:
    """The inverse of `CaseRecord.to_json`; `DatasetError` names an entry that is missing, unknown or wrong."""
    if not isinstance(content, dict) or content.keys() != _NAMES:
        different = _NAMES ^ set(content) if isinstance(content, dict) else _NAMES
        names = ", ".join(sorted(map(str, different)))[:200]
        raise DatasetError(f"a case has missing or unknown entries ({names}): prepare the scans again")
    for name, is_right in _CHECKS.items():
        if not is_right(content[name]):
            raise DatasetError(f"a case has an impossible entry: {name}")
    content = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    content["gains"] = tuple(map(float, content["gains"]))
    content["placements"] = {view: Placement(**place) for view, place in content["placements"].items()}
    content["bodies"] = {view: BodyBox(**body) for view, body in content["bodies"].items()}
    return CaseRecord(**content)


_NAMES = {field.name for field in dataclasses.fields(CaseRecord)}


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e12


def _is_gain(value: Any) -> bool:
    return _is_number(value) and 0 < value < GAIN_LIMIT and float(np.float32(value)) == value


def _is_list(value: Any, is_right: Callable[[Any], bool], length: int | None = None) -> bool:
    return isinstance(value, list) and length in (None, len(value)) and all(map(is_right, value))


def _is_table(value: Any, kind: type[Placement] | type[BodyBox]) -> bool:
    """Whether a value gives whole numbers below a million for all fields of `kind` to some views."""
    names = {field.name for field in dataclasses.fields(kind)}
    return (
        isinstance(value, dict)
        and set(value) <= set(VIEWS)
        and all(isinstance(entry, dict) and entry.keys() == names for entry in value.values())
        and all(type(number) is int and abs(number) < 10**6 for entry in value.values() for number in entry.values())
    )


_CHECKS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("shard", "row", "sum_counts", "metastatic_pixels", "benign_pixels"), _is_whole),
    **dict.fromkeys(
        ("source_sha256", "pixel_sha256"), lambda value: isinstance(value, str) and bool(_HASH.match(value))
    ),
    "case": lambda value: isinstance(value, str) and CASE_NAME.fullmatch(value) is not None,
    "patient": lambda value: isinstance(value, str) and PATIENT_NAME.fullmatch(value) is not None,
    "group": lambda value: value in GROUPS,
    "cancer": lambda value: value is None or value in CANCERS,
    "gains": lambda value: _is_list(value, _is_gain, 2),
    "brightness": _is_number,
    "placements": lambda value: _is_table(value, Placement) and set(value) == set(VIEWS),
    "bodies": lambda value: _is_table(value, BodyBox),
    "raw_shape": lambda value: _is_list(value, lambda length: _is_whole(length) and length > 0, 2),
    "pixel_spacing_mm": lambda value: value is None or _is_list(value, _is_number, 2),
    "missing_views": lambda value: _is_list(value, lambda name: name in VIEWS),
    "uptake_fraction": lambda value: _is_number(value) and 0 <= value <= 1,
    "warnings": lambda value: _is_list(value, lambda line: isinstance(line, str)),
    **dict.fromkeys(("phantom", "has_regions"), lambda value: type(value) is bool),
    "part": lambda value: value is None or value in PARTS,
}


def scans_are(records: Iterable[CaseRecord]) -> str:
    """ "phantoms", "patients" or "mixed"."""
    marks = {record.phantom for record in records}
    if len(marks) > 1:
        return MIXED
    return PHANTOMS if marks == {True} else PATIENTS


def count_cohort(records: Iterable[CaseRecord]) -> dict[str, Any]:
    """How many patients and scans there are: what a model says of its training.

    Returns:
        {"patients", "scans", "normal_scans", "cancers"}. The last counts patients by cancer, "not stated" among them.

    Example:
        >>> count_cohort([])
        {'patients': 0, 'scans': 0, 'normal_scans': 0, 'cancers': {}}
    """
    records = list(records)
    cancers: dict[str, str | None] = {}
    for record in records:
        cancers[record.patient] = cancers.get(record.patient) or record.cancer
    return {
        "patients": len(cancers),
        "scans": len(records),
        "normal_scans": sum(record.group == "negative" for record in records),
        "cancers": dict(sorted(Counter(cancer or NOT_STATED for cancer in cancers.values()).items())),
    }


LONGEST_TEXT = 2000


@dataclasses.dataclass(frozen=True)
class DataSource:
    """A public data set, as shards, runs, model cards and reports name it.

    Attributes:
        name: as `prepare --dataset` takes it.
        licence, citation: in words.
        remarks: what belongs beside every score, one sentence each: weak labels for instance.
        whole: whether every scan of the data set went in but those known to be damaged.
    """

    name: str
    licence: str
    citation: str
    remarks: tuple[str, ...] = ()
    whole: bool = False

    @property
    def text(self) -> str:
        """One paragraph for model cards and reports."""
        part = "" if self.whole else ", not all of it"
        return " ".join([f"Data: {self.name}{part}, {self.citation}. Licence: {self.licence}.", *self.remarks])

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return dataclasses.asdict(self) | {"remarks": list(self.remarks)}


def parse_sources(content: Any) -> tuple[DataSource, ...]:
    """The inverse of a list of `DataSource.to_json`; `DatasetError` when it is damaged."""
    try:
        sources = tuple(DataSource(**{**entry, "remarks": tuple(entry["remarks"])}) for entry in content)
    except (TypeError, KeyError):
        raise DatasetError("`sources` is damaged") from None
    texts = [text for one in sources for text in (one.name, one.licence, one.citation, *one.remarks)]
    readable = all(isinstance(text, str) and len(text) <= LONGEST_TEXT and text.isprintable() for text in texts)
    if not readable or not all(type(one.whole) is bool for one in sources):
        raise DatasetError("`sources` is damaged")
    return sources
