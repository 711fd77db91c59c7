"""The files of one whole-body bone scan -> `BoneScan` (paper, section 2.1)."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from doubleunet_bs.constants import ONE_VIEW_WARNING, SIDE_BY_SIDE_WARNING
from doubleunet_bs.dicom_files.dicom_file import DicomFile, pydicom_silence
from doubleunet_bs.dicom_files.header_values import has_doubtful_text, is_phantom, read_identifier, read_person
from doubleunet_bs.dicom_files.layout import Layout, load_scan_file, pixel_spacing
from doubleunet_bs.dicom_files.pixels import bin_counts, pixel_hash, read_counts
from doubleunet_bs.dicom_files.sources import Source, prefix_errors
from doubleunet_bs.dicom_files.views import (
    ANTERIOR,
    FRAME_ORDER,
    POSTERIOR,
    check_views,
    clues_of_frames,
    distinguish,
    view_of_clues,
)
from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans.pairing import Pair, describe_view, order_pair
from doubleunet_bs.scans.picture_files import is_picture, read_pictures
from doubleunet_bs.scans.pseudonyms import Pseudonyms


@dataclasses.dataclass(frozen=True)
class BoneScan:
    """One whole-body bone scan (paper, section 2.1). Nothing in it identifies the patient.

    Attributes:
        anterior: uint16 array of shape (rows, columns), counts per pixel: the patient's right side is on the left of
            the image. All zero when the view was missing and that was allowed.
        posterior: the same from behind, not mirrored: the patient's left side is on the left of the image.
        pixel_spacing_mm: (row spacing, column spacing) in mm, or None when the header does not say.
        case: pseudonym of the scan.
        patient: pseudonym of the patient, or None when the header has no Patient ID or no pseudonyms were asked for.
        warnings: one line each, for a technician, without patient data.
        view_source: what distinguished the views (see `doubleunet_bs.dicom_files.views`).
        source_sha256: SHA-256 of the bytes of the source file; of two files, anterior first.
        missing_views: the views the source does not have, filled with zeros because the caller allowed it.
        pixel_sha256: of the counts of both views (see `doubleunet_bs.dicom_files.pixels.pixel_hash`).
        phantom: whether the source is marked as a synthetic scan of this package.
        sex: "F" or "M" as in the header, "" for anything else. It chooses the weights of the Bone Scan Index.
        pictures: whether the source are pictures, with display grey instead of counts.
    """

    anterior: np.ndarray
    posterior: np.ndarray
    pixel_spacing_mm: tuple[float, float] | None
    case: str
    patient: str | None = None
    warnings: tuple[str, ...] = ()
    view_source: str = ""
    source_sha256: str = ""
    missing_views: tuple[str, ...] = ()
    pixel_sha256: str = ""
    phantom: bool = False
    sex: str = ""
    pictures: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
    """One file, read: its counts of shape (frames, rows, columns) and its header."""

    source: Source
    file: DicomFile
    layout: Layout
    counts: np.ndarray
    warnings: tuple[str, ...]

    @property
    def dataset(self) -> Dataset:
        return self.file.dataset


SHARED_UID_WARNING = "its SOP Instance UID is also that of another file: the scan is named by its counts"
CHARACTER_SET_WARNING = (
    "the Patient ID is not in the character set that the header declares: give the patient in patients.csv"
)


def hash_counts(source: Source) -> str:
    """SHA-256 of the counts in one file. Raises `ScanError` without the file's name when they cannot be read."""
    with pydicom_silence:
        counts, _ = read_counts(*load_scan_file(source))
    return hashlib.sha256(repr(counts.shape).encode() + counts.tobytes()).hexdigest()


def read_sources(
    sources: Sequence[Source],
    allow_missing_view: bool = False,
    pseudonyms: Pseudonyms | None = None,
    shared_uid: bool = False,
) -> BoneScan:
    """Read one scan from one or two files; see `doubleunet_bs.scans.read_scan`, which takes paths.

    With `shared_uid` the SOP Instance UID is not believed, since files with other counts have it, too.
    """
    if len(sources) not in (1, 2):
        raise ScanError(f"{len(sources)} files given: a scan is one file, or two of one view each", "ambiguous-pair")
    with prefix_errors(sources[0]):
        pictures = is_picture(sources[0])
    if pictures:
        return _scan_of_pictures(sources, allow_missing_view, pseudonyms)
    with pydicom_silence:
        parts = [_read_part(source) for source in sources]
        if len(parts) == 2:
            parts, pair = _order_files(*parts)
            counts = dict(zip((ANTERIOR, POSTERIOR), (part.counts[0] for part in parts), strict=True))
            warnings, step = list(pair.warnings), pair.step
        elif parts[0].layout.views == 2:
            counts, warnings, step = _two_views(parts[0])
        else:
            counts, warnings, step = _one_view(parts[0], allow_missing_view)
        with prefix_errors(parts[0].source):
            instances = [read_identifier(part.dataset, "SOPInstanceUID") for part in parts]
            if shared_uid or (len(set(instances)) < len(instances) and all(instances)):
                warnings.append(SHARED_UID_WARNING)
                instances = []
            return _assemble(parts, counts, warnings, step, pseudonyms, instances)


def _scan_of_pictures(sources: Sequence[Source], allow_missing_view: bool, pseudonyms: Pseudonyms | None) -> BoneScan:
    views, warnings = read_pictures(sources)
    for view in (ANTERIOR, POSTERIOR):
        if view not in views and not allow_missing_view:
            message = f"the picture of the {view} view is missing: give both, or --allow-missing-view"
            raise ScanError(f"{sources[0].label}: {message}", "missing-view")
        if view not in views:
            warnings.append(f"the {view} view is missing: it is all zero")
    content = _whole(views, warnings)
    digest = hashlib.sha256(b"".join(source.read()[0] for source in sources))
    if pseudonyms is not None:
        content["case"] = pseudonyms.case(content["pixel_sha256"])
    return BoneScan(
        **content,
        pixel_spacing_mm=None,
        warnings=tuple(warnings),
        view_source="picture-name",
        source_sha256=digest.hexdigest(),
        pictures=True,
    )


def _whole(views: Mapping[str, np.ndarray], warnings: list[str]) -> dict[str, Any]:
    """What a scan has of its views alone: both of them, which is missing, their hash, and a name after it."""
    missing = tuple(view for view in (ANTERIOR, POSTERIOR) if view not in views)
    if not missing:
        warnings += check_views(views[ANTERIOR], views[POSTERIOR])
    empty = np.zeros_like(next(iter(views.values())))
    both = {view: np.ascontiguousarray(views.get(view, empty), dtype=np.uint16) for view in (ANTERIOR, POSTERIOR)}
    fingerprint = pixel_hash(both[ANTERIOR], both[POSTERIOR])
    return both | {"missing_views": missing, "pixel_sha256": fingerprint, "case": f"case-{fingerprint[:12]}"}


def _read_part(source: Source) -> _Part:
    with prefix_errors(source):
        file, layout = load_scan_file(source)
        counts, warnings = read_counts(file, layout)
        return _Part(source, file, layout, counts, warnings)


def _order_files(first: _Part, second: _Part) -> tuple[list[_Part], Pair]:
    """The two files in the order anterior, posterior, and how that was decided."""
    for part in (first, second):
        if part.layout.views == 2:
            raise ScanError(f"{part.source.label}: holds both views: give this file alone", "ambiguous-pair")
    with prefix_errors(first.source):
        if first.source == second.source:
            raise ScanError("is given twice: the other view is another file", "ambiguous-pair")
        described = [describe_view(part.source, part.dataset, part.layout) for part in (first, second)]
        pair = order_pair(*described)
        one, other = (pixel_spacing(part.dataset) for part in (first, second))
        if one and other and not np.allclose(one, other, rtol=0.01):
            raise ScanError("the two views have different pixel sizes", "ambiguous-pair")
    return [first, second] if pair.anterior is described[0] else [second, first], pair


def _two_views(part: _Part) -> tuple[dict[str, np.ndarray], list[str], str]:
    if part.layout.side_by_side:
        left, right = np.split(part.counts[0], 2, axis=1)
        with prefix_errors(part.source):
            _check_halves(part.counts[0])
        return {ANTERIOR: left, POSTERIOR: right}, [SIDE_BY_SIDE_WARNING], FRAME_ORDER
    with prefix_errors(part.source):
        found = distinguish(*clues_of_frames(part.dataset, 2))
    return dict(zip(found.views, part.counts, strict=True)), list(found.warnings), found.step


def _one_view(part: _Part, allow_missing_view: bool) -> tuple[dict[str, np.ndarray], list[str], str]:
    found = describe_view(part.source, part.dataset, part.layout)
    view = found.likely_view
    missing = POSTERIOR if view == ANTERIOR else ANTERIOR
    if not allow_missing_view:
        message = f"holds the {view} view only: give the file of the {missing} view as well, or --allow-missing-view"
        raise ScanError(f"{part.source.label}: {message}", "missing-view")
    warnings = [f"the {missing} view is missing: it is all zero"]
    said, step, contradiction = view_of_clues(found.clues)
    warnings += contradiction if said else [ONE_VIEW_WARNING.format(view=view)]
    return {view: part.counts[0]}, warnings, step


def _assemble(
    parts: Sequence[_Part],
    counts: dict[str, np.ndarray],
    warnings: list[str],
    step: str,
    pseudonyms: Pseudonyms | None,
    instances: Sequence[str],
) -> BoneScan:
    """Build the scan from its one file, or from the two in the order anterior, posterior.

    `instances` are the identifiers of the files that name the scan; without them its counts do.
    """
    layout, dataset = parts[0].layout, parts[0].dataset
    for view, frame in counts.items():
        if not frame.any():
            raise ScanError(f"has a blank {view} view: all its pixels are zero", "blank")
    if layout.bin > 1:
        matrix = f"the {'x'.join(map(str, next(iter(counts.values())).shape))} matrix"
        warnings.append(f"{matrix} was summed over {layout.bin} x {layout.bin} pixels; no count is lost")
    content = _whole({view: bin_counts(frame, layout.bin) for view, frame in counts.items()}, warnings)
    patient = None
    if pseudonyms is not None:
        named = instances and all(instances)
        content["case"] = pseudonyms.case("\\".join(instances) if named else content["pixel_sha256"])
        # An identifier is only unique at the institution that issued it.
        patient_id = [read_identifier(dataset, "PatientID"), read_identifier(dataset, "IssuerOfPatientID")]
        patient = pseudonyms.patient("\\".join(filter(None, patient_id))) if patient_id[0] else None
        if any(has_doubtful_text(dataset, keyword) for keyword in ("PatientID", "IssuerOfPatientID")):
            warnings.append(CHARACTER_SET_WARNING)
        if patient is not None:
            for part in parts:
                birth, sex = read_person(part.dataset).values()
                pseudonyms.persons.setdefault(patient, set()).add((birth, sex))
    found = pixel_spacing(dataset)
    digest = hashlib.sha256(b"".join(part.file.data for part in parts))
    return BoneScan(
        **content,
        pixel_spacing_mm=(found[0] * layout.bin, found[1] * layout.bin) if found else None,
        patient=patient,
        warnings=tuple(dict.fromkeys([*(line for part in parts for line in part.warnings), *warnings])),
        view_source=step,
        source_sha256=digest.hexdigest(),
        phantom=any(is_phantom(part.dataset) for part in parts),
        sex=sex if (sex := read_identifier(dataset, "PatientSex").upper()) in ("F", "M") else "",
    )


def _check_halves(frame: np.ndarray) -> None:
    """Refuse one wide view: two views have air between them, one body has not."""
    columns = frame.shape[1]
    profile = frame.sum(axis=0, dtype=np.int64)
    edge = columns // 32
    middle = profile[columns // 2 - edge : columns // 2 + edge].mean()
    quarters = min(profile[centre - edge : centre + edge].mean() for centre in (columns // 4, 3 * columns // 4))
    if middle >= quarters:
        raise ScanError("has one body in the middle of a wide frame: not two views side by side", "wrong-matrix")
