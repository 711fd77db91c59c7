"""Two files of one view each -> one scan: which files belong together, and which of two is the anterior view."""

import contextlib
import dataclasses
import datetime
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from pydicom.dataset import Dataset

from doubleunet_bs.dicom_files.header_values import read_identifier, read_numbers, read_person, read_text
from doubleunet_bs.dicom_files.layout import Layout, differ, energy_window
from doubleunet_bs.dicom_files.sources import Source
from doubleunet_bs.dicom_files.views import (
    ANTERIOR,
    FRAME_ORDER,
    POSTERIOR,
    Clues,
    clues_of_frames,
    detector_numbers,
    distinguish,
    view_of_clues,
)
from doubleunet_bs.errors import ScanError

_IDENTITY = {
    "study": "StudyInstanceUID", "series": "SeriesInstanceUID", "patient": "PatientID", "issuer": "IssuerOfPatientID",
}  # fmt: skip
MAX_GAP_SECONDS = 2 * 3600
TIMES_WARNING = "an acquisition time is unreadable: that both views belong to one scan was not checked by their times"


@dataclasses.dataclass(frozen=True)
class OneView:
    """What the header of a one-view file says about its scan. It identifies the patient, so it is never written.

    Attributes:
        source: the file.
        clues: see `views.clues_of_frames`.
        identity: study, series, patient and issuer as in the header, birth date and sex in one form, "" when absent.
        acquired: when; None when that is absent or unreadable.
        order: GE's detector number, Detector Vector and Instance Number, None when absent: they order unnamed views.
        energy: lower and upper limit of the energy window in keV, or None.
        shape: rows, columns and `Layout.bin`.
        readable_time: False when there is an acquisition time that is none.
    """

    source: Source
    clues: Clues
    identity: Mapping[str, str]
    acquired: "Moment | None"
    order: tuple[int | None, int | None, int | None]
    energy: tuple[float, float] | None
    shape: tuple[int, int, int]
    readable_time: bool = True

    @property
    def view(self) -> str | None:
        """The view by its own header, None where that does not say."""
        return view_of_clues(self.clues)[0]

    @property
    def likely_view(self) -> str:
        """`view`, or a guess where the header does not say: detector 2 of a GE camera is below the table."""
        return self.view or (POSTERIOR if 2 in self.order[:2] else ANTERIOR)


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two one-view files that are one scan.

    Attributes:
        anterior, posterior: the files.
        step: that distinguished them, one of `views.STEPS` or `FRAME_ORDER`.
        warnings: one line each.
    """

    anterior: OneView
    posterior: OneView
    step: str
    warnings: tuple[str, ...]


def describe_view(source: Source, dataset: Dataset, layout: Layout) -> OneView:
    """Read from the header of a one-view file what pairing needs."""
    acquired, readable = _acquired(dataset)
    instance: tuple[float, ...] = ()
    with contextlib.suppress(ScanError):
        instance = read_numbers(dataset, "InstanceNumber")
    return OneView(
        source=source,
        clues=clues_of_frames(dataset, 1)[0],
        identity={name: read_identifier(dataset, keyword) for name, keyword in _IDENTITY.items()}
        | read_person(dataset),
        acquired=acquired,
        order=(*detector_numbers(dataset), int(instance[0]) if len(instance) == 1 else None),
        energy=energy_window(dataset, 0, 1),
        shape=(layout.rows, layout.columns, layout.bin),
        readable_time=readable,
    )


def order_pair(first: OneView, second: OneView) -> Pair:
    """Decide which of two one-view files is the anterior one; "ambiguous-pair" when they may not be of one scan."""
    # A patient's identifier is only unique at the institution that issued it; one file may lack the issuer.
    with_patient = first.identity["patient"] and second.identity["patient"]
    for name in ("study", "patient", "birth date", "sex", *(["issuer"] if with_patient else [])):
        one, other = first.identity[name], second.identity[name]
        if one and other and one != other:
            what = "studies" if name == "study" else "patients"
            raise ScanError(f"the two files belong to different {what}", "ambiguous-pair")
    if first.shape != second.shape:
        raise ScanError("the two views have different matrix sizes", "ambiguous-pair")
    if first.acquired and second.acquired and first.acquired.gap(second.acquired) > MAX_GAP_SECONDS:
        raise ScanError("the two views were acquired hours apart: two scans of one study", "ambiguous-pair")
    if first.energy and second.energy and differ(first.energy, second.energy):
        raise ScanError("the two views are of different energy windows", "ambiguous-pair")
    times = () if first.readable_time and second.readable_time else (TIMES_WARNING,)
    found = distinguish(first.clues, second.clues)
    if found.step != FRAME_ORDER:
        anterior, posterior = (first, second) if found.views[0] == ANTERIOR else (second, first)
        return Pair(anterior, posterior, found.step, found.warnings + times)
    if first.order[0] is not None and first.order[0] == second.order[0]:
        raise ScanError("the two views come from the same detector and are not named", "ambiguous-pair")
    for number, another in zip(first.order, second.order, strict=True):
        if number is not None and another is not None and number != another:
            anterior, posterior = (first, second) if number < another else (second, first)
            return Pair(anterior, posterior, FRAME_ORDER, found.warnings + times)
    raise ScanError("the headers of the two views do not say which is the anterior one", "ambiguous-pair")


def pair_views(
    views: Iterable[OneView],
) -> tuple[list[Pair], list[OneView], list[tuple[OneView, str]]]:
    """Sort the one-view files of a folder into scans.

    Within a study, two views of one series form a pair, then two of one acquisition time, then the last two.

    Returns:
        Pairs; views without a partner; and views that could belong to several scans, with why.
    """
    studies: dict[tuple, list[OneView]] = {}
    for index, view in enumerate(views):
        # Without a study no partner can be found.
        study = view.identity["study"] or f"none {index}"
        studies.setdefault((study, view.identity["patient"]), []).append(view)
    pairs: list[Pair] = []
    alone: list[OneView] = []
    unclear: list[tuple[OneView, str]] = []
    for group in studies.values():
        for key in (lambda view: view.identity["series"], lambda view: view.acquired):
            if len(group) > 2:
                group = _take_pairs(group, key, pairs)
        if len(group) == 1:
            alone += group
        elif len(group) == 2:
            try:
                pairs.append(order_pair(*group))
            except ScanError as cause:
                unclear += [(view, str(cause)) for view in group]
        elif group:
            unclear += [(view, f"its study has {len(group)} single views") for view in group]
    return pairs, alone, unclear


def _take_pairs(group: Sequence[OneView], key: Callable[[OneView], object], pairs: list[Pair]) -> list[OneView]:
    """Move the views that share `key` with exactly one other to `pairs` where possible; return the others."""
    parts: dict[object, list[OneView]] = {}
    for view in group:
        parts.setdefault(key(view), []).append(view)
    left = []
    for value, part in parts.items():
        try:
            if not value or len(part) != 2:
                raise ScanError("not a pair")
            pairs.append(order_pair(*part))
        except ScanError:
            # Another key may pair them with others.
            left += part
    return left


class Moment(NamedTuple):
    """The earliest and the latest that the date and time of a header can be, in UTC where it gives the zone.

    `parts`: whether it has a date, or a time of day only, and whether it has a zone.
    """

    first: datetime.datetime
    last: datetime.datetime
    parts: tuple[bool, bool]

    def gap(self, other: "Moment") -> float:
        """The least number of seconds between two moments; 0 when they cannot be compared."""
        if self.parts != other.parts:
            return 0
        early, late = sorted((self, other))
        apart = late.first - early.first
        if not self.parts[0]:
            # Midnight may lie between them.
            apart = min(apart, datetime.timedelta(days=1) - apart)
        return max(0, (apart - (early.last - early.first)).total_seconds())


def _acquired(dataset: Dataset) -> tuple[Moment | None, bool]:
    """When the view was acquired, and False where that is written in no form of DICOM."""
    form = r"(\d{4}|\d{6}|(?:\d\d){4,7})(?:\.\d+)?([+-]\d{4})?"
    text = read_text(dataset, "AcquisitionDateTime")
    if not text:
        form = r"((?:\d\d){4,7})(?:\.\d+)?()"
        date = re.sub(r"[.:/-]", "", read_text(dataset, "AcquisitionDate"))
        time = read_text(dataset, "AcquisitionTime").replace(":", "")
        text = (date or "19000101") + time if date or time else ""
    if not text:
        return None, True
    if not (found := re.fullmatch(form, text)):
        return None, False
    digits, zone = found.groups()
    if len(digits) < 8:
        # A year or a month is legal, but says too little.
        return None, True
    with contextlib.suppress(ValueError):
        first, last = (
            datetime.datetime.strptime(digits + rest[len(digits) - 8 :], "%Y%m%d%H%M%S")
            for rest in ("000000", "235959")
        )
        east = (
            datetime.timedelta(hours=int(zone[:3]), minutes=int(zone[0] + zone[3:])) if zone else datetime.timedelta()
        )
        return Moment(first - east, last - east, (first.year > 1900, bool(zone))), True
    return None, False
