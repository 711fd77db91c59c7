"""A scan, its lesions and the settings -> a prepared case (paper, sections 2.3 and 2.4)."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from doubleunet_bs.constants import CROP_SHAPE, KEPT_ROWS, METASTATIC, NON_METASTATIC, RAW_SHAPE, VIEWS
from doubleunet_bs.errors import LabelError, ScanError
from doubleunet_bs.preparation import geometry
from doubleunet_bs.preparation.background import SMALLEST_USUAL_FRACTION, find_uptake
from doubleunet_bs.preparation.brightness import MANY_TIMES, count_values, gain_of_histograms, sum_counts, to_grey
from doubleunet_bs.preparation.geometry import BodyBox, Placement, bin_counts, bin_labels
from doubleunet_bs.preparation.settings import PreparationSettings

if TYPE_CHECKING:  # pydicom stays out of what works on shards alone
    from doubleunet_bs.scans.bone_scan import BoneScan

LARGEST_COUNT = np.iinfo(np.uint16).max


@dataclasses.dataclass(frozen=True)
class PreparedCase:
    """One case as it goes into a shard or into the network. Nothing in it identifies the patient.

    Attributes:
        counts: uint16 array of shape (640, 512) divided by the binning: cropped and merged, before brightness.
        labels: uint8 array of the same shape: 0 air, 1 non-metastatic, 2 metastatic.
        gains: of the anterior and the posterior view, equal unless brightness is "per_view"; exact in float32.
        brightness: mean intensity of the frames of 950 rows after the gain, in grey levels; strictly inside (7, 14).
        placements: "anterior" and "posterior" -> where the window lies on the raw view.
        bodies: the same names -> body range; a missing view is not in it.
        uptake_fraction: part of the image (of the views that are there) that the background removal keeps, 0 for
            "none".
        metastatic_pixels: in `labels`.
        sum_counts: over both raw views.
        raw_shape: (rows, columns) of a raw view.
        warnings: those of the scan and those of the preparation.
        case, patient, missing_views, pixel_spacing_mm, source_sha256, phantom: of the scan.
        settings: what it was prepared with.
    """

    counts: np.ndarray
    labels: np.ndarray
    gains: tuple[float, float]
    brightness: float
    placements: dict[str, Placement]
    bodies: dict[str, BodyBox]
    uptake_fraction: float
    metastatic_pixels: int
    sum_counts: int
    raw_shape: tuple[int, int]
    warnings: tuple[str, ...]
    case: str
    patient: str | None
    missing_views: tuple[str, ...]
    pixel_spacing_mm: tuple[float, float] | None
    source_sha256: str
    settings: PreparationSettings
    phantom: bool = False

    @property
    def grey(self) -> np.ndarray:
        """uint8 image: `to_grey(counts, gains)`."""
        return to_grey(self.counts, self.gains)

    def map_back(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Lay an image of the shape of `counts` on the raw views: see `geometry.map_back`."""
        return geometry.map_back(image, self.placements, self.raw_shape, self.settings.bin)


def prepare_scan(
    scan: "BoneScan",
    lesions: Mapping[str, np.ndarray] | None = None,
    settings: PreparationSettings | None = None,
) -> PreparedCase:
    """Body range, window, brightness, rows above the knee, merge, background.

    Args:
        scan: two views of 1024 x 256 counts; views named in `scan.missing_views` are not looked at and stay zero.
        lesions: uint8 class masks (0 = not annotated): "anterior" and/or "posterior" in raw-view coordinates (1024,
            256), or "side_by_side" (1024, 512), anterior on the left, or "prepared" (640, 512). None or empty:
            nothing is annotated.
        settings: defaults to `PreparationSettings()`.

    Raises:
        ScanError: another matrix ("wrong-matrix"), both views missing, no body, too few counts.
        LabelError: a mask of another shape or name, with a class above 2, or with lesions in a view that is missing.
    """
    settings = settings or PreparationSettings()
    present = {name: getattr(scan, name) for name in VIEWS if name not in scan.missing_views}
    for name, counts in present.items():
        if counts.shape != RAW_SHAPE or counts.dtype != np.uint16:
            raise ScanError(
                f"the {name} view is {' x '.join(map(str, counts.shape))} of type {counts.dtype}; "
                f"{RAW_SHAPE[0]} x {RAW_SHAPE[1]} of type uint16 is needed",
                "wrong-matrix",
            )
    if not present:
        raise ScanError("both views are missing", "missing-view")
    histograms = {name: count_values(counts) for name, counts in present.items()}
    bodies, warnings = geometry.find_body(present, histograms)
    warnings = [*scan.warnings, *warnings]
    placements = {name: body.centred() for name, body in bodies.items()}
    for name in VIEWS:
        # A missing view gets the place that leaves its columns where they are.
        placements.setdefault(name, Placement(next(iter(placements.values())).top, 0))

    frames = {
        name: bin_counts(geometry.crop(counts, placements[name]), settings.bin) for name, counts in present.items()
    }
    if settings.bin > 1:
        if any(frame.max(initial=0) > LARGEST_COUNT for frame in frames.values()):
            warnings.append(f"sums of counts over {LARGEST_COUNT} are kept as {LARGEST_COUNT}")
        frames = {name: np.minimum(frame, LARGEST_COUNT).astype(np.uint16) for name, frame in frames.items()}
        histograms = {name: count_values(frame) for name, frame in frames.items()}
    else:
        histograms = {
            name: geometry.crop_histogram(counts, placements[name], histograms[name])
            for name, counts in present.items()
        }
    if settings.brightness == "per_view":
        found = {name: gain_of_histograms([numbers]) for name, numbers in histograms.items()}
    else:
        found = dict.fromkeys(frames, gain_of_histograms(list(histograms.values())))
    gain_of = {name: gain for name, (gain, _) in found.items()}
    brightness = float(np.mean([mean for _, mean in found.values()]))
    if max(gain_of.values()) > MANY_TIMES:
        warnings.append(f"few counts: a gain of {max(gain_of.values()):.1f} is needed")
    # A missing view is black at any gain; it gets that of the other one, so that a scan has one gain.
    gains = tuple(gain_of.get(name, next(iter(gain_of.values()))) for name in VIEWS)

    rows, columns = KEPT_ROWS // settings.bin, CROP_SHAPE[1] // settings.bin
    empty = np.zeros((rows, columns), np.uint16)
    counts = geometry.merge(*(frames[name][:rows] if name in frames else empty for name in VIEWS))

    half = {"anterior": np.s_[:, :columns], "posterior": np.s_[:, columns:]}
    # A missing half must not take part in the threshold.
    seen = np.s_[:, :] if len(present) == 2 else half[next(iter(present))]
    uptake = np.zeros(counts.shape, bool)
    uptake[seen] = find_uptake(to_grey(counts, gains)[seen], counts[seen], settings.background)
    fraction = np.count_nonzero(uptake[seen]) / uptake[seen].size
    if settings.background != "none" and fraction < SMALLEST_USUAL_FRACTION:
        warnings.append(f"background removal keeps only {fraction:.1%} of the image: is an injection site in it?")

    labels, lost = _merge_lesions(lesions or {}, placements, scan.missing_views, settings.bin)
    if lost:
        warnings.append(f"{lost} metastatic pixels lie outside of the prepared image, below the knee or beside it")
    # Of the classes 0, 1 and 2 the larger one holds: uptake is non-metastatic unless it is metastatic.
    np.maximum(labels, uptake.view(np.uint8) * np.uint8(NON_METASTATIC), out=labels)
    return PreparedCase(
        counts=counts,
        labels=labels,
        gains=gains,
        brightness=brightness,
        placements=placements,
        bodies=bodies,
        uptake_fraction=fraction,
        metastatic_pixels=int(np.count_nonzero(labels == METASTATIC)),
        sum_counts=sum(map(sum_counts, present.values())),
        raw_shape=RAW_SHAPE,
        warnings=tuple(warnings),
        case=scan.case,
        patient=scan.patient,
        missing_views=tuple(scan.missing_views),
        pixel_spacing_mm=scan.pixel_spacing_mm,
        source_sha256=scan.source_sha256,
        settings=settings,
        phantom=scan.phantom,
    )


def _merge_lesions(
    lesions: Mapping[str, np.ndarray], placements: dict[str, Placement], missing: tuple[str, ...], bin: int
) -> tuple[np.ndarray, int]:
    """Class mask of the prepared image, and how many raw metastatic pixels are not in it."""
    both = (KEPT_ROWS, 2 * CROP_SHAPE[1])
    shapes = dict.fromkeys(VIEWS, RAW_SHAPE) | {"side_by_side": (RAW_SHAPE[0], 2 * RAW_SHAPE[1]), "prepared": both}
    for name, mask in lesions.items():
        if name not in shapes:
            raise LabelError(f"a mask is named {name!r}; it must be one of {', '.join(shapes)}", "label-frame")
        if mask.shape != shapes[name] or mask.dtype != np.uint8:
            raise LabelError(
                f"the {name} mask is {' x '.join(map(str, mask.shape))} of type {mask.dtype}, not "
                f"{' x '.join(map(str, shapes[name]))} of type uint8",
                "label-frame",
            )
        if mask.max(initial=0) > METASTATIC:
            raise LabelError(f"the {name} mask has a class above {METASTATIC}", "label-class")
    if len(lesions) > 1 and set(lesions) != set(VIEWS):
        raise LabelError(f"masks of {' and '.join(sorted(lesions))} at once: which one holds?", "label-frame")
    lesions = dict(lesions)
    if "side_by_side" in lesions:
        mask = lesions.pop("side_by_side")
        lesions = {"anterior": mask[:, : RAW_SHAPE[1]], "posterior": mask[:, RAW_SHAPE[1] :]}
    if "prepared" in lesions:
        full = lesions["prepared"].copy()
        total = int(np.count_nonzero(full == METASTATIC))
        views = {"anterior": full[:, : CROP_SHAPE[1]], "posterior": full[:, CROP_SHAPE[1] :]}
    else:
        views = lesions
        total = sum(int(np.count_nonzero(mask == METASTATIC)) for mask in lesions.values())
        empty = np.zeros((KEPT_ROWS, CROP_SHAPE[1]), np.uint8)
        full = geometry.merge(
            *(geometry.crop(views[name], placements[name], KEPT_ROWS) if name in views else empty for name in VIEWS)
        )
    for name in missing:
        if name in views and views[name].any():
            raise LabelError(f"the {name} view is annotated, but the scan does not have it", "label-missing-view")
    return bin_labels(full, bin), total - int(np.count_nonzero(full == METASTATIC))
