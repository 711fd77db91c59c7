"""DICOM files -> `BoneScan` (paper, section 2.1): a two-frame file, or the two one-view files of a study."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from doubleunet_bs.errors import BoneScanError, ScanError
from doubleunet_bs.scans.bone_scan import BoneScan
from doubleunet_bs.scans.header import DicomFile, load_file, silence
from doubleunet_bs.scans.layout import Layout, spacing, understand
from doubleunet_bs.scans.dicom_values import identifier
from doubleunet_bs.scans.pairing import describe_view, settle_pair
from doubleunet_bs.scans.phantom_mark import is_phantom
from doubleunet_bs.scans.pixels import bin_counts, pixel_hash, read_counts
from doubleunet_bs.scans.pseudonyms import Pseudonyms
from doubleunet_bs.scans.sources import Source
from doubleunet_bs.scans.view_check import check_views
from doubleunet_bs.scans.views import ANTERIOR, FRAME_ORDER, FRAME_ORDER_WARNING, ONE_VIEW_WARNING, POSTERIOR, views_of_frames


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
    with silence():
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
    """Put the file's name before the message of a `ScanError`; what else escapes becomes one."""
    try:
        with contained():
            yield
    except ScanError as error:
        raise ScanError(f"{source.label}: {error}", error.reason) from None


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Turn what a damaged file provokes into a `ScanError`, still without the file's name."""
    try:
        yield
    except BoneScanError:
        raise
    except Exception as cause:
        # A damaged file that passed all checks and still surprises NumPy or pydicom. MemoryError belongs here.
        raise ScanError(f"is damaged ({type(cause).__name__})", "damaged-pixels") from None


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
        identifiers = [identifier(part.file.dataset, "SOPInstanceUID") for part in parts]
        case = pseudonyms.case("\\".join(identifiers) if all(identifiers) else fingerprint)
        # An identifier is only unique at the institution that issued it.
        patient_id = [identifier(dataset, "PatientID"), identifier(dataset, "IssuerOfPatientID")]
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
