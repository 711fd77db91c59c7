"""Two files of one view each -> one scan: which files belong together, and which of two is the anterior view."""

import dataclasses
import datetime
from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset

from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans.dicom_file import read_identifier, read_numbers, read_text
from doubleunet_bs.scans.layout import Layout
from doubleunet_bs.scans.sources import Source
from doubleunet_bs.scans.views import ANTERIOR, FRAME_ORDER, POSTERIOR, STEPS, detector_numbers, view_of_file

MAX_GAP_SECONDS = 2 * 3600

# The least certain step last.
_STEPS = [*STEPS, FRAME_ORDER]


@dataclasses.dataclass(frozen=True)
class OneView:
    """What the header of a one-view file says about its scan. It identifies the patient, so it is never written.

    Attributes:
        source: the file.
        view, view_source: see `views.view_of_file`.
        study, series, patient, issuer, acquired: as in the header, "" when absent.
        order: GE's detector number, Detector Vector and Instance Number, None when absent: they order unnamed views.
        shape: rows, columns and `Layout.bin`.
    """

    source: Source
    view: str | None
    view_source: str
    study: str
    series: str
    patient: str
    issuer: str
    acquired: str
    order: tuple[int | None, int | None, int | None]
    shape: tuple[int, int, int]

    @property
    def likely_view(self) -> str:
        """`view`, or a guess where the header does not say: detector 2 of a GE camera is below the table."""
        return self.view or (POSTERIOR if 2 in self.order[:2] else ANTERIOR)


def describe_view(source: Source, dataset: Dataset, layout: Layout) -> OneView:
    """Read from the header of a one-view file what pairing needs."""
    view, step = view_of_file(dataset)
    instance = read_numbers(dataset, "InstanceNumber")
    return OneView(
        source=source,
        view=view,
        view_source=step,
        study=read_identifier(dataset, "StudyInstanceUID"),
        series=read_identifier(dataset, "SeriesInstanceUID"),
        patient=read_identifier(dataset, "PatientID"),
        issuer=read_identifier(dataset, "IssuerOfPatientID"),
        acquired=_acquired(dataset),
        order=(*detector_numbers(dataset), int(instance[0]) if len(instance) == 1 else None),
        shape=(layout.rows, layout.columns, layout.bin),
    )


def order_pair(first: OneView, second: OneView) -> tuple[OneView, OneView, str]:
    """The anterior one of two one-view files, the posterior one, and the step that distinguished them.

    Raises:
        ScanError: `ambiguous-pair` when they may not be the two views of one scan.
    """
    # A patient's identifier is only unique at the institution that issued it; one file may lack the issuer.
    for name in ("study", "patient", *(["issuer"] if first.patient and second.patient else [])):
        one, other = getattr(first, name), getattr(second, name)
        if one and other and one != other:
            what = "studies" if name == "study" else "patients"
            raise ScanError(f"the two files belong to different {what}", "ambiguous-pair")
    if first.shape != second.shape:
        raise ScanError("the two views have different matrix sizes", "ambiguous-pair")
    start, end = _moment(first.acquired), _moment(second.acquired)
    if start and end and abs((start - end).total_seconds()) > MAX_GAP_SECONDS:
        raise ScanError("the two views were acquired hours apart: two scans of one study", "ambiguous-pair")
    if first.view and first.view == second.view:
        missing = POSTERIOR if first.view == ANTERIOR else ANTERIOR
        raise ScanError(f"the study has two {first.view} views and no {missing} one", "ambiguous-pair")
    if first.view or second.view:
        step = max((view.view_source for view in (first, second) if view.view), key=_STEPS.index)
        swapped = first.view == POSTERIOR or second.view == ANTERIOR
        return (second, first, step) if swapped else (first, second, step)
    if first.order[0] is not None and first.order[0] == second.order[0]:
        raise ScanError("the two views come from the same detector and are not named", "ambiguous-pair")
    for one, other in zip(first.order, second.order, strict=True):
        if one is not None and other is not None and one != other:
            return (first, second, FRAME_ORDER) if one < other else (second, first, FRAME_ORDER)
    raise ScanError("the headers of the two views do not say which is the anterior one", "ambiguous-pair")


def pair_views(
    views: Iterable[OneView],
) -> tuple[list[tuple[OneView, OneView]], list[OneView], list[tuple[OneView, str]]]:
    """Sort the one-view files of a folder into scans.

    Within a study, two views of one series form a pair, then two of one acquisition time, then the last two.

    Returns:
        Pairs (anterior, posterior); views without a partner; and views that could belong to several scans, with why.
    """
    studies: dict[tuple, list[OneView]] = {}
    for index, view in enumerate(views):
        # Without a study no partner can be found.
        studies.setdefault((view.study or f"none {index}", view.patient), []).append(view)
    pairs: list[tuple[OneView, OneView]] = []
    alone: list[OneView] = []
    unclear: list[tuple[OneView, str]] = []
    for group in studies.values():
        for key in ("series", "acquired"):
            if len(group) > 2:
                group = _take_pairs(group, key, pairs)
        if len(group) == 1:
            alone += group
        elif len(group) == 2:
            try:
                anterior, posterior, _ = order_pair(*group)
                pairs.append((anterior, posterior))
            except ScanError as cause:
                unclear += [(view, str(cause)) for view in group]
        elif group:
            unclear += [(view, f"the study has {len(group)} single views, which cannot be paired") for view in group]
    return pairs, alone, unclear


def _take_pairs(group: Sequence[OneView], key: str, pairs: list[tuple[OneView, OneView]]) -> list[OneView]:
    """Move the views that share `key` with exactly one other to `pairs` where possible; return the others."""
    parts: dict[str, list[OneView]] = {}
    for view in group:
        parts.setdefault(getattr(view, key), []).append(view)
    left = []
    for value, part in parts.items():
        try:
            if not value or len(part) != 2:
                raise ScanError("not a pair")
            anterior, posterior, _ = order_pair(*part)
            pairs.append((anterior, posterior))
        except ScanError:
            # Another key may pair them with others.
            left += part
    return left


def _acquired(dataset: Dataset) -> str:
    moment = read_text(dataset, "AcquisitionDateTime")[:14]
    return moment or read_text(dataset, "AcquisitionDate") + read_text(dataset, "AcquisitionTime").partition(".")[0]


def _moment(acquired: str) -> datetime.datetime | None:
    """The moment, or None when date or time are not there in full."""
    try:
        return datetime.datetime.strptime(acquired, "%Y%m%d%H%M%S") if len(acquired) == 14 else None
    except ValueError:
        return None
