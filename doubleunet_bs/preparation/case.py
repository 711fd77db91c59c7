"""A scan, its lesions and the settings -> a prepared case (paper, sections 2.3 and 2.4)."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import cv2
import numpy as np

from doubleunet_bs.constants import BENIGN, CROP_SHAPE, KEPT_ROWS, METASTATIC, NON_METASTATIC, RAW_SHAPE, VIEWS
from doubleunet_bs.errors import LabelError, ScanError
from doubleunet_bs.preparation import geometry
from doubleunet_bs.preparation.brightness import MANY_TIMES, find_gain, to_grey
from doubleunet_bs.preparation.geometry import BodyBox, Placement
from doubleunet_bs.preparation.settings import PreparationSettings

if TYPE_CHECKING:  # pydicom stays out of what works on shards alone
    from doubleunet_bs.scans.bone_scan import BoneScan

BODY_SIGMA = 3.0
"""Of the Gaussian, in pixels, before the outline of the body is found."""

MOST_OUTSIDE, MOST_IN_AIR = 0.2, 0.5
"""Parts of the metastatic pixels of a view; more is a warning. On 60 phantoms the true outlines have at most 0.00
outside the body and 0.34 in air; outlines of half the size, as from another matrix, have all."""

MOST_BENIGN = 0.5
"""Part of the uptake; more is a warning: an annotation of all uptake and not of benign lesions."""

SMALLEST_USUAL_FRACTION = 0.05
"""A smaller kept fraction is a warning: a hot injection site can push Otsu's threshold above everything else. On real
scans Otsu keeps 7-27 % of the raw image, the logarithm 23-41 %."""

LARGEST_COUNT = np.iinfo(np.uint16).max


@dataclasses.dataclass(frozen=True)
class PreparedCase:
    """One case as it goes into a shard or into the network. Nothing in it identifies the patient.

    Attributes:
        counts: uint16 array of shape (640, 512) divided by the binning: cropped and merged, before brightness.
        labels: uint8 array of the same shape: 0 air, 1 non-metastatic, 2 metastatic, 3 benign (see `settings.benign`).
        warnings: those of the scan and those of the preparation.
        case, patient, missing_views, pixel_spacing_mm, source_sha256, phantom: of the scan.
        settings: what it was prepared with.

    The others are those of `records.CaseRecord`.
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
    benign_pixels: int = 0

    @property
    def grey(self) -> np.ndarray:
        """uint8 image: `to_grey(counts, gains)`."""
        return to_grey(self.counts, self.gains)

    def map_back(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Map an image of the shape of `counts` back to the raw pixels of both views: see `geometry.map_back`."""
        return geometry.map_back(image, self.placements, self.raw_shape, self.settings.bin)


def prepare_scan(
    scan: "BoneScan",
    lesions: Mapping[str, np.ndarray] | None = None,
    settings: PreparationSettings | None = None,
) -> PreparedCase:
    """Find the body, crop, normalise the brightness, drop the rows below the knee, merge, remove the background.

    Args:
        scan: two views of 1024 x 256 counts. Views named in `scan.missing_views` are not looked at and stay zero.
        lesions: uint8 class masks (0 = not annotated): "anterior" and/or "posterior" in raw-view coordinates (1024,
            256), or "side_by_side" (1024, 512), anterior on the left, or "prepared" (640, 512). None or empty:
            nothing is annotated.
        settings: defaults to `PreparationSettings()`.

    Raises:
        ScanError: another matrix ("wrong-matrix"), both views missing, no body, too few counts.
        LabelError: a mask of another shape or name, with a class above 2, or with lesions in a view that is missing.
        TypeError: something other than a scan, such as its path, or than masks by name.
        ValueError: `missing_views` of the scan has other names than those of views, or is a text.

    Example:
        >>> from doubleunet_bs.phantom import make_phantom
        >>> from doubleunet_bs.scans import BoneScan
        >>> phantom = make_phantom(seed=1, index=0)
        >>> scan = BoneScan(phantom.anterior, phantom.posterior, pixel_spacing_mm=None, case="phantom")
        >>> case = prepare_scan(scan)
        >>> case.grey.shape, case.labels.shape, 7 < case.brightness < 14
        ((640, 512), (640, 512), True)
    """
    settings = settings or PreparationSettings()
    views = _check_views(scan)
    bodies, warnings = geometry.find_body(views)
    warnings = [*scan.warnings, *warnings]
    placements = {name: body.centred() for name, body in bodies.items()}
    for name in VIEWS:
        # A missing view gets the place that leaves its columns where they are.
        placements.setdefault(name, Placement(next(iter(placements.values())).top, 0))

    crops = {
        name: geometry.sum_blocks(geometry.crop(counts, placements[name]), settings.bin)
        for name, counts in views.items()
    }
    overflow = any(cropped.max() > LARGEST_COUNT for cropped in crops.values())
    if overflow and settings.source == "pictures":
        # Display grey has no unit: the means of the blocks instead of their sums.
        crops = {name: cropped // settings.bin**2 for name, cropped in crops.items()}
    crops = {name: np.minimum(cropped, LARGEST_COUNT).astype(np.uint16, copy=False) for name, cropped in crops.items()}
    gains, brightness = _find_gains(crops, settings.brightness)
    # As a rule such a pixel, at the injection site or in the bladder, is white with its true counts as well.
    shows = settings.background == "log" or min(gains) * LARGEST_COUNT < 2 * 255  # Augmentation halves a gain at most.
    if overflow and shows and settings.source != "pictures":
        warnings.append(f"sums of counts over {LARGEST_COUNT} are kept as {LARGEST_COUNT}")
    if scan.pictures != (settings.source == "pictures"):
        kinds = ("display grey of pictures", "counts")
        here, there = kinds if scan.pictures else kinds[::-1]
        warnings.append(f"the scan has {here}, the model or the settings are for {there}: do not rely on the result")
    if max(gains) > MANY_TIMES and not scan.pictures:
        warnings.append(f"few counts: a gain of {max(gains):.1f} is needed")

    rows, columns = KEPT_ROWS // settings.bin, CROP_SHAPE[1] // settings.bin
    empty = np.zeros((rows, columns), np.uint16)
    counts = geometry.merge(*(crops[name][:rows] if name in crops else empty for name in VIEWS))

    annotated, lost = _merge_lesions({} if lesions is None else lesions, placements, scan.missing_views)
    annotated = geometry.majority_of_blocks(annotated, settings.bin)
    if settings.benign == "own":
        annotated = np.where(annotated == NON_METASTATIC, np.uint8(BENIGN), annotated)
    if lost:
        warnings.append(f"{lost} metastatic pixels lie outside of the prepared image, below the knee or beside it")

    halves = {"anterior": np.s_[:, :columns], "posterior": np.s_[:, columns:]}
    # A missing half must not take part in the threshold.
    seen = np.s_[:, :] if len(views) == 2 else halves[next(iter(views))]
    left_out = annotated[seen] == METASTATIC if settings.otsu_histogram == "non-metastatic" else None
    uptake = np.zeros(counts.shape, bool)
    uptake[seen] = find_uptake(to_grey(counts, gains)[seen], counts[seen], settings.background, left_out)
    fraction = np.count_nonzero(uptake[seen]) / uptake[seen].size
    if settings.background != "none" and fraction < SMALLEST_USUAL_FRACTION:
        warnings.append(
            f"background removal keeps only {fraction:.1%} of the image: an injection site or very bright lesions?"
        )

    # Of the classes the larger one holds: uptake is non-metastatic unless it is metastatic or benign.
    labels = np.maximum(annotated, uptake.astype(np.uint8) * np.uint8(NON_METASTATIC))
    benign = int(np.count_nonzero(labels == BENIGN))
    if benign > MOST_BENIGN * np.count_nonzero(labels):
        warnings.append(f"{benign} of {np.count_nonzero(labels)} pixels of uptake are benign: outline lesions alone")
    warnings += _check_outlines(counts, labels == METASTATIC, uptake, fraction, settings.background)
    return PreparedCase(
        counts=counts,
        labels=labels,
        gains=gains,
        brightness=brightness,
        placements=placements,
        bodies=bodies,
        uptake_fraction=fraction,
        metastatic_pixels=int(np.count_nonzero(labels == METASTATIC)),
        sum_counts=sum(int(view.sum(dtype=np.int64)) for view in views.values()),
        raw_shape=RAW_SHAPE,
        warnings=tuple(warnings),
        case=scan.case,
        patient=scan.patient,
        missing_views=tuple(scan.missing_views),
        pixel_spacing_mm=scan.pixel_spacing_mm,
        source_sha256=scan.source_sha256,
        settings=settings,
        phantom=scan.phantom,
        benign_pixels=benign,
    )


def find_uptake(
    grey: np.ndarray, counts: np.ndarray, background: str, left_out: np.ndarray | None = None
) -> np.ndarray:
    """Pixels above Otsu's threshold.

    Args:
        grey: uint8 array of shape (rows, columns), the prepared image.
        counts: unsigned array of the same shape, its counts.
        background: "otsu" thresholds `grey`; "log" thresholds log(1 + counts) in 256 steps up to the largest value;
            "none" finds nothing.
        left_out: bool array of the same shape, pixels that the histogram leaves out (in the paper the metastases).
            The threshold applies to them all the same. None: every pixel is in the histogram.

    Returns:
        bool array of the same shape. An image of zeros, or one of which every pixel is left out, has no uptake.

    Example:
        >>> grey = np.array([[10, 12, 11, 200, 210]], np.uint8)
        >>> find_uptake(grey, grey, "otsu")
        array([[False, False, False,  True,  True]])
    """
    if background == "none":
        return np.zeros(grey.shape, bool)
    if background == "log":
        logarithm = np.log1p(counts, dtype=np.float32)
        grey = np.rint(logarithm * (255 / max(float(logarithm.max(initial=0)), 1e-6))).astype(np.uint8)
    histogram = grey if left_out is None else grey[~left_out]
    if not histogram.size:
        return np.zeros(grey.shape, bool)
    # cv2 returns the threshold and the image; pixels strictly above the threshold are uptake.
    threshold, _ = cv2.threshold(np.ascontiguousarray(histogram), 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return grey > threshold


def _check_outlines(
    counts: np.ndarray, metastatic: np.ndarray, uptake: np.ndarray, fraction: float, background: str
) -> list[str]:
    """Warn of views whose annotated metastases lie where none can be: in air, or outside the body."""
    warnings = []
    half = counts.shape[1] // 2
    for name, columns in zip(VIEWS, (np.s_[:half], np.s_[half:]), strict=True):
        drawn = metastatic[:, columns]
        if not drawn.any():
            continue
        smooth = cv2.GaussianBlur(counts[:, columns].astype(np.float32), (0, 0), BODY_SIGMA)
        outside = 1 - np.mean(find_uptake(smooth, smooth, "log")[drawn])
        # A hot injection site can take Otsu's threshold above every lesion.
        usual = background == "otsu" and fraction >= SMALLEST_USUAL_FRACTION
        in_air = 1 - np.mean(uptake[:, columns][drawn]) if usual else 0.0
        where = "outside the body" if outside > MOST_OUTSIDE else "in air" if in_air > MOST_IN_AIR else None
        if where is not None:
            share = outside if where == "outside the body" else in_air
            warnings.append(
                f"{share:.0%} of the metastatic pixels of the {name} view lie {where}: "
                "is it the annotation of this scan and view?"
            )
    return warnings


def _check_views(scan: "BoneScan") -> dict[str, np.ndarray]:
    """The views that are there, of the right shape and type."""
    if not all(hasattr(scan, name) for name in VIEWS):
        raise TypeError(f"scan is a {type(scan).__name__}: give a BoneScan, such as read_scan returns")
    if not set(VIEWS).issuperset(scan.missing_views):
        raise ValueError(f"missing_views {scan.missing_views!r}: give a tuple of names, such as ('posterior',)")
    views = {name: getattr(scan, name) for name in VIEWS if name not in scan.missing_views}
    for name, counts in views.items():
        if counts.shape != RAW_SHAPE or counts.dtype != np.uint16:
            needed = f"{RAW_SHAPE[0]} x {RAW_SHAPE[1]} of type uint16"
            raise ScanError(f"the {name} view is {_described(counts)}: {needed} is needed", "wrong-matrix")
    if not views:
        raise ScanError("both views are missing", "missing-view")
    return views


def _find_gains(crops: Mapping[str, np.ndarray], brightness: str) -> tuple[tuple[float, float], float]:
    """The gains of the anterior and the posterior view, and the mean intensity that they give."""
    if brightness == "per_view":
        found = {name: find_gain([cropped]) for name, cropped in crops.items()}
    else:
        found = dict.fromkeys(crops, find_gain(list(crops.values())))
    # A missing view is black at any gain; it gets that of the other one, so that a scan has one gain.
    anterior, posterior = (found.get(name, next(iter(found.values())))[0] for name in VIEWS)
    return (anterior, posterior), float(np.mean([mean for _, mean in found.values()]))


def _merge_lesions(
    lesions: Mapping[str, np.ndarray], placements: Mapping[str, Placement], missing: Collection[str]
) -> tuple[np.ndarray, int]:
    """Class mask of the prepared image before binning, and how many raw metastatic pixels are not in it."""
    _check_lesions(lesions)
    total = sum(int(np.count_nonzero(mask == METASTATIC)) for mask in lesions.values())
    if "prepared" in lesions:
        merged = lesions["prepared"]
        views = {"anterior": merged[:, : CROP_SHAPE[1]], "posterior": merged[:, CROP_SHAPE[1] :]}
    else:
        views = dict(lesions)
        if "side_by_side" in lesions:
            both = lesions["side_by_side"]
            views = {"anterior": both[:, : RAW_SHAPE[1]], "posterior": both[:, RAW_SHAPE[1] :]}
        empty = np.zeros((KEPT_ROWS, CROP_SHAPE[1]), np.uint8)
        merged = geometry.merge(
            *(geometry.crop(views[name], placements[name], KEPT_ROWS) if name in views else empty for name in VIEWS)
        )
    for name in missing:
        if name in views and views[name].any():
            raise LabelError(f"the {name} view is annotated, but the scan does not have it", "label-missing-view")
    return merged, total - int(np.count_nonzero(merged == METASTATIC))


def _check_lesions(lesions: Mapping[str, np.ndarray]) -> None:
    if not isinstance(lesions, Mapping):
        raise TypeError(f"lesions are a {type(lesions).__name__}: give masks by name, such as {{'anterior': mask}}")
    shapes = {
        **dict.fromkeys(VIEWS, RAW_SHAPE),
        "side_by_side": (RAW_SHAPE[0], 2 * RAW_SHAPE[1]),
        "prepared": (KEPT_ROWS, 2 * CROP_SHAPE[1]),
    }
    for name, mask in lesions.items():
        if name not in shapes:
            raise LabelError(f"a mask is named {name!r}: it must be one of {', '.join(shapes)}", "label-frame")
        if mask.shape != shapes[name] or mask.dtype != np.uint8:
            needed = f"{' x '.join(map(str, shapes[name]))} of type uint8"
            raise LabelError(f"the {name} mask is {_described(mask)}: {needed} is needed", "label-frame")
        if mask.max(initial=0) > METASTATIC:
            raise LabelError(f"the {name} mask has a class above {METASTATIC}", "label-class")
    if len(lesions) > 1 and set(lesions) != set(VIEWS):
        raise LabelError(f"masks of {' and '.join(sorted(lesions))} at once: keep one of them", "label-frame")


def _described(array: np.ndarray) -> str:
    return f"{' x '.join(map(str, array.shape))} of type {array.dtype}"
