"""DICOM files -> `BoneScan` (paper, section 2.1): a two-frame file, or the two one-view files of a study."""

import contextlib
import dataclasses
import datetime
import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from pydicom.dataset import Dataset

from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans.bone_scan import BoneScan
from doubleunet_bs.scans.dicom_file import (
    DicomFile,
    is_phantom,
    load_file,
    pydicom_silence,
    read_identifier,
    read_numbers,
    read_text,
)
from doubleunet_bs.scans.layout import Layout, spacing, understand
from doubleunet_bs.scans.pixels import bin_counts, pixel_hash, read_counts
from doubleunet_bs.scans.pseudonyms import Pseudonyms
from doubleunet_bs.scans.sources import Source
from doubleunet_bs.scans.views import (
    ANTERIOR,
    FRAME_ORDER,
    FRAME_ORDER_WARNING,
    ONE_VIEW_WARNING,
    POSTERIOR,
    STEPS,
    check_views,
    detector_numbers,
    view_of_file,
    views_of_frames,
)

# One detector head takes the two views one after the other, half an hour each at most.
MAX_GAP_SECONDS = 2 * 3600

_WEAKNESS = [*STEPS, FRAME_ORDER]


@dataclasses.dataclass(frozen=True)
class OneView:
    """What pairing needs to know of a one-view file. Stays in memory: it identifies the patient.

    Attributes:
        source: the file.
        view: "anterior", "posterior" or None when the header does not say.
        view_source: the step that decided (see `views`).
        study, series, patient: identifiers, "" when absent. issuer: of the patient's identifier, "" when absent.
        acquired: date and time of acquisition, "" when absent.
        order: what orders two views that say nothing of themselves: GE's detector number, Detector Vector and
            Instance Number, None when absent.
        shape: rows, columns and how many pixels are summed.
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
        """`view`, or a guess where the header does not say: detector 2 of a GE camera is the one below the table."""
        return self.view or (POSTERIOR if 2 in self.order[:2] else ANTERIOR)


def describe_view(source: Source, dataset: Dataset, layout: Layout) -> OneView:
    """Collect what pairing needs from the header of a one-view file."""
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


def settle_pair(first: OneView, second: OneView) -> tuple[OneView, OneView, str]:
    """Decide which of two one-view files is the anterior and which the posterior view of one scan.

    Returns:
        The anterior one, the posterior one, and the step that told them apart.

    Raises:
        ScanError: `ambiguous-pair` when they are not, or may not be, the two views of one scan.
    """
    # A patient's identifier is only unique at the institution that issued it; one file may lack the issuer.
    for name in ("study", "patient", *(["issuer"] if first.patient and second.patient else [])):
        one, other = getattr(first, name), getattr(second, name)
        if one and other and one != other:
            what = "studies" if name == "study" else "patients"
            raise ScanError(f"the two files belong to different {what}", "ambiguous-pair")
    if first.shape != second.shape:
        raise ScanError("the two views have different matrix sizes", "ambiguous-pair")
    moments = [_moment(view.acquired) for view in (first, second)]
    if all(moments) and abs((moments[0] - moments[1]).total_seconds()) > MAX_GAP_SECONDS:
        raise ScanError("the two views were acquired hours apart: two scans of one study", "ambiguous-pair")
    if first.view and first.view == second.view:
        missing = POSTERIOR if first.view == ANTERIOR else ANTERIOR
        raise ScanError(f"the study has two {first.view} views and no {missing} one", "ambiguous-pair")
    if first.view or second.view:
        step = max((view.view_source for view in (first, second) if view.view), key=_WEAKNESS.index)
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

    Within a study, two views of one series belong together, then two of one acquisition time, then the last two.

    Args:
        views: in the order of the folder.

    Returns:
        Pairs (anterior, posterior); views without a partner; and views that could belong to more than one scan, with
        the reason in words.
    """
    studies: dict[tuple, list[OneView]] = {}
    for index, view in enumerate(views):
        # Without a study there is nothing to find a partner by.
        studies.setdefault((view.study or f"none {index}", view.patient), []).append(view)
    pairs, alone, unclear = [], [], []
    for group in studies.values():
        for key in ("series", "acquired"):
            if len(group) > 2:
                group = _take_pairs(group, key, pairs)
        if len(group) == 1:
            alone += group
        elif len(group) == 2:
            try:
                anterior, posterior, _ = settle_pair(*group)
                pairs.append((anterior, posterior))
            except ScanError as cause:
                unclear += [(view, str(cause)) for view in group]
        elif group:
            unclear += [(view, f"the study has {len(group)} single views that cannot be told apart") for view in group]
    return pairs, alone, unclear


def _take_pairs(group: Sequence[OneView], key: str, pairs: list[tuple[OneView, OneView]]) -> list[OneView]:
    """Move the views that share `key` with exactly one other to `pairs` where they settle; return the others."""
    parts: dict[str, list[OneView]] = {}
    for view in group:
        parts.setdefault(getattr(view, key), []).append(view)
    left = []
    for value, part in parts.items():
        if value and len(part) == 2:
            try:
                anterior, posterior, _ = settle_pair(*part)
                pairs.append((anterior, posterior))
                continue
            except ScanError:
                # Two of a kind: perhaps another key pairs them with others.
                left += part
        else:
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


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
    """One file, read: its counts and what its header contributes."""

    source: Source
    file: DicomFile
    layout: Layout
    counts: np.ndarray
    warnings: tuple[str, ...]


def read_sources(
    sources: Sequence[Source], allow_missing_view: bool = False, pseudonyms: Pseudonyms | None = None
) -> BoneScan:
    """Read one scan from one or two files; see `doubleunet_bs.scans.read_scan`, which takes paths."""
    if len(sources) not in (1, 2):
        raise ScanError(f"{len(sources)} files given; a scan is one file, or two of one view each", "ambiguous-pair")
    with pydicom_silence:
        parts = [_read_part(source) for source in sources]
        if len(parts) == 2:
            parts, warnings, step = _two_files(*parts)
            counts = dict(zip((ANTERIOR, POSTERIOR), (part.counts[0] for part in parts), strict=True))
        elif parts[0].layout.views == 2:
            counts, warnings, step = _two_views(parts[0])
        else:
            counts, warnings, step = _one_view(parts[0], allow_missing_view)
        with naming(parts[0].source):
            return _assemble(parts, counts, warnings, step, pseudonyms)


@contextlib.contextmanager
def naming(source: Source) -> Iterator[None]:
    """Put the file's name before the message of a `ScanError`."""
    try:
        yield
    except ScanError as error:
        raise ScanError(f"{source.label}: {error}", error.reason) from None


def _read_part(source: Source) -> _Part:
    with naming(source):
        file = load_file(source)
        layout = understand(file)
        counts, warnings = read_counts(file, layout)
        return _Part(source, file, layout, counts, warnings)


def _two_files(first: _Part, second: _Part) -> tuple[list[_Part], list[str], str]:
    """The two files in the order anterior, posterior."""
    for part in (first, second):
        if part.layout.views == 2:
            raise ScanError(f"{part.source.label}: holds both views already: give it alone", "ambiguous-pair")
    with naming(first.source):
        if first.source == second.source:
            raise ScanError("is given twice; the other view is another file", "ambiguous-pair")
        described = [describe_view(part.source, part.file.dataset, part.layout) for part in (first, second)]
        anterior, _, step = settle_pair(*described)
        sizes = [spacing(part.file.dataset) for part in (first, second)]
        if all(sizes) and not np.allclose(sizes[0], sizes[1], rtol=0.01):
            raise ScanError("the two views have different pixel sizes", "ambiguous-pair")
    warnings = [FRAME_ORDER_WARNING] if step == FRAME_ORDER else []
    return [first, second] if anterior is described[0] else [second, first], warnings, step


def _two_views(part: _Part) -> tuple[dict[str, np.ndarray], list[str], str]:
    if part.layout.side_by_side:
        left, right = np.split(part.counts[0], 2, axis=1)
        with naming(part.source):
            _check_halves(part.counts[0])
        return (
            {ANTERIOR: left, POSTERIOR: right},
            ["both views lie side by side in one frame: the left half is taken as anterior"],
            FRAME_ORDER,
        )
    views, step = views_of_frames(part.file.dataset)
    warnings = [FRAME_ORDER_WARNING] if step == FRAME_ORDER else []
    return dict(zip(views, part.counts, strict=True)), warnings, step


def _one_view(part: _Part, allow_missing_view: bool) -> tuple[dict[str, np.ndarray], list[str], str]:
    found = describe_view(part.source, part.file.dataset, part.layout)
    view = found.likely_view
    missing = POSTERIOR if view == ANTERIOR else ANTERIOR
    if not allow_missing_view:
        raise ScanError(
            f"{part.source.label}: holds one view, the {view} one; give the file of the {missing} view as well, "
            "or allow a missing view (--allow-missing-view)",
            "missing-view",
        )
    warnings = [f"the {missing} view is missing: it is all zero"]
    if found.view is None:
        warnings.append(ONE_VIEW_WARNING.format(view=view))
    return {view: part.counts[0]}, warnings, found.view_source


def _assemble(
    parts: Sequence[_Part],
    counts: dict[str, np.ndarray],
    warnings: list[str],
    step: str,
    pseudonyms: Pseudonyms | None,
) -> BoneScan:
    """Build the scan from its one file, or from the two in the order anterior, posterior."""
    layout, dataset = parts[0].layout, parts[0].file.dataset
    for view, frame in counts.items():
        if not frame.any():
            raise ScanError(f"has a blank {view} view: all its pixels are zero", "blank")
    views = {view: bin_counts(frame, layout.bin) for view, frame in counts.items()}
    missing = tuple(view for view in (ANTERIOR, POSTERIOR) if view not in views)
    if layout.bin > 1:
        warnings.append(
            f"the {'x'.join(map(str, frame.shape))} matrix was summed over {layout.bin} x {layout.bin} pixels; "
            "no count is lost"
        )
    if not missing:
        warnings += check_views(views[ANTERIOR], views[POSTERIOR])
    shape = next(iter(views.values())).shape
    anterior, posterior = (
        np.ascontiguousarray(views.get(view, np.zeros(shape, np.uint16)), dtype=np.uint16)
        for view in (ANTERIOR, POSTERIOR)
    )
    fingerprint = pixel_hash(anterior, posterior)
    case, patient = "case-" + fingerprint[:12], None
    if pseudonyms is not None:
        identifiers = [read_identifier(part.file.dataset, "SOPInstanceUID") for part in parts]
        case = pseudonyms.case("\\".join(identifiers) if all(identifiers) else fingerprint)
        # An identifier is only unique at the institution that issued it.
        patient_id = [read_identifier(dataset, "PatientID"), read_identifier(dataset, "IssuerOfPatientID")]
        patient = pseudonyms.patient("\\".join(filter(None, patient_id))) if patient_id[0] else None
    found = spacing(dataset)
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.file.data)
    return BoneScan(
        anterior=anterior,
        posterior=posterior,
        pixel_spacing_mm=(found[0] * layout.bin, found[1] * layout.bin) if found else None,
        case=case,
        patient=patient,
        warnings=tuple(dict.fromkeys([*(line for part in parts for line in part.warnings), *warnings])),
        view_source=step,
        source_sha256=digest.hexdigest(),
        missing_views=missing,
        pixel_sha256=fingerprint,
        phantom=any(is_phantom(part.file.dataset) for part in parts),
    )


def _check_halves(frame: np.ndarray) -> None:
    """Refuse one wide view: where two views meet there is air, where one body stands there is not (decided here)."""
    columns = frame.shape[1]
    profile = frame.sum(axis=0, dtype=np.int64)
    edge = columns // 32
    middle = profile[columns // 2 - edge : columns // 2 + edge].mean()
    quarters = min(profile[centre - edge : centre + edge].mean() for centre in (columns // 4, 3 * columns // 4))
    if middle >= quarters:
        raise ScanError("has one body in the middle of a wide frame, not two views side by side", "wrong-matrix")
