"""One synthetic whole-body bone scan, from the seed to Poisson counts in two views and the truth about its lesions."""

import dataclasses
import operator

import cv2
import numpy as np
from PIL import Image, ImageDraw

from doubleunet_bs.bsi.regions import WeightTable, choose_table
from doubleunet_bs.constants import CANCERS, METASTATIC, VIEWS
from doubleunet_bs.display import rim_polygon
from doubleunet_bs.errors import SettingsError
from doubleunet_bs.phantom.artefacts import draw_artefacts
from doubleunet_bs.phantom.benign import draw_benign
from doubleunet_bs.phantom.camera import (
    COLUMNS,
    ROWS,
    Acquisition,
    Camera,
    Patch,
    displaced,
    draw_acquisition,
    project,
    scatter,
    soft_tissue_image,
    vary_acquisition,
)
from doubleunet_bs.phantom.metastases import LARGEST_INDEX, Focus, draw_extent, draw_metastases, illuminate
from doubleunet_bs.phantom.organs import draw_organs
from doubleunet_bs.phantom.patient import (
    Patient,
    PosedSkeleton,
    draw_patient,
    pose_skeleton,
    template_skeleton,
    vary_patient,
)
from doubleunet_bs.phantom.shapes import Cloud
from doubleunet_bs.phantom.soft_tissue import Surfaces, build_parts, surfaces
from doubleunet_bs.phantom.truth import draw_regions, involved_fractions, true_index, weight_of_points

LEVEL = 0.47  # of the lesion's own maximum: what a physician outlines
LEAST_CONTRAST = 0.40  # lesion over everything else, at its brightest point
LEAST_CONTRAST_AT_EDGE = 0.22
LEAST_PIXELS = 10


@dataclasses.dataclass(frozen=True)
class PhantomScan:
    """A synthetic scan, fully in memory.

    Attributes:
        seed, index: what determines it.
        cancer: "breast" or "prostate".
        metastatic: whether lesions were drawn.
        anterior, posterior: uint16 (1024, 256) counts, as a camera stores them: the posterior view seen from behind.
        mean: view -> float32 (1024, 256), the noise-free expectation of those counts.
        lesions: view -> uint8 (1024, 256), 2 where a physician would outline a metastasis, else 0.
        metastases: all of them, seen or not.
        involved: name of a region of the skeleton -> fraction of its bone that lies within a metastasis, in three
            dimensions. wanted_index: the Bone Scan Index that was asked for, if any. repeat: see `make_phantom`.
        patient, acquisition: how it was drawn. varied: beyond the usual ranges.
    """

    seed: int
    index: int
    cancer: str
    metastatic: bool
    anterior: np.ndarray
    posterior: np.ndarray
    mean: dict[str, np.ndarray]
    lesions: dict[str, np.ndarray]
    metastases: tuple[Focus, ...]
    involved: dict[str, float]
    wanted_index: float | None
    repeat: int
    patient: Patient
    acquisition: Acquisition
    varied: bool = False

    @property
    def pixel_spacing_mm(self) -> tuple[float, float]:
        """(row spacing, column spacing) in mm."""
        return self.acquisition.camera.spacing_mm, self.acquisition.camera.spacing_mm

    @property
    def total_counts(self) -> int:
        """Counts of both views together."""
        return int(self.anterior.sum(dtype=np.int64) + self.posterior.sum(dtype=np.int64))

    def regions(self) -> dict[str, np.ndarray]:
        """Region masks of both views: "anterior" and "posterior" -> uint8 (1024, 256), see `truth.draw_regions`."""
        return draw_regions(pose_skeleton(template_skeleton(), self.patient), self.acquisition.camera)

    def true_index(self, table: WeightTable) -> float:
        """The true Bone Scan Index in percent, from `involved`."""
        return true_index(self.involved, table)


def make_phantom(
    seed: int,
    index: int = 0,
    cancer: str = "breast",
    metastatic: bool = True,
    wanted_index: float | None = None,
    repeat: int = 0,
    varied: bool = False,
) -> PhantomScan:
    """Make one synthetic whole-body bone scan.

    Args:
        seed: the cohort's seed, 0 or more.
        index: the scan's number in the cohort, 0 or more.
        cancer: "breast" or "prostate"; sets sex, age, sites and, for prostate, catheters.
        metastatic: with lesions (at least one of them visible in a view) or without any.
        wanted_index: true Bone Scan Index in percent, above 0 and at most 20, by the ICRP 110 table of the patient's
            sex; None draws lesions as they are reported.
        repeat: number of the scan of this patient: 0 is the first, 1 and on are the same patient and lesions, laid a
            little elsewhere under the camera, with new noise.
        varied: another build, posture, uptake and camera than usual, see `patient.vary_patient`.

    Returns:
        The scan. Views are uint16 of shape (1024, 256).

    Raises:
        SettingsError: a negative or non-integer seed or index, an unknown cancer, an index that cannot be had.

    Example:
        >>> scan = make_phantom(seed=0)
        >>> scan.anterior.shape, scan.anterior.dtype.name
        ((1024, 256), 'uint16')
    """
    seed, index, repeat = check_whole(seed, "seed"), check_whole(index, "index"), check_whole(repeat, "repeat")
    if cancer not in CANCERS:
        raise SettingsError(f"unknown cancer {cancer!r}: choose one of {', '.join(CANCERS)}")
    if wanted_index is not None and not (metastatic and 0 < wanted_index <= LARGEST_INDEX):
        raise SettingsError(
            f"a BSI of {wanted_index}: choose one above 0 and at most {LARGEST_INDEX:g}, with metastases"
        )
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed, spawn_key=(index,)).spawn(6)]
    patient_rng, camera_rng, organ_rng, benign_rng, lesion_rng, noise_rng = streams
    variation_rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index, len(streams))))
    skeleton = template_skeleton()
    patient = draw_patient(patient_rng, skeleton, cancer)
    if varied:
        patient = vary_patient(variation_rng, patient)
    bones = pose_skeleton(skeleton, patient)
    parts = build_parts(patient)
    height = max(float(part.y[-1]) for part in parts)
    acquisition = draw_acquisition(camera_rng, height)
    if varied:
        acquisition = vary_acquisition(variation_rng, acquisition, height)
    if repeat:
        noise_rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index, len(streams) + repeat)))
        acquisition = dataclasses.replace(acquisition, camera=displaced(acquisition.camera, noise_rng))
    camera = acquisition.camera
    body = surfaces(parts, patient, camera.row_y, camera.column_x)

    normal = _normal_frames(bones, acquisition, body, draw_organs(organ_rng, bones))
    shown = normal.copy()
    for focus in draw_benign(benign_rng, bones):
        if (patch := illuminate(focus, camera, body, normal)) is not None:
            patch.add_to(shown)
    patches: list[tuple[Focus, Patch]] = []
    while metastatic and not patches:  # draw again if all lie where the camera does not see
        if wanted_index is None:
            foci = draw_metastases(lesion_rng, bones, cancer)
        else:
            worth = weight_of_points(choose_table(sex=patient.sex)[0])
            foci = draw_extent(lesion_rng, bones, cancer, wanted_index, worth)
        patches = _lesion_patches(foci, camera, body, normal)

    # From relative units to expected counts. Lesions take their share of the tracer: the sum is the same without them.
    field = camera.field()
    without = _scattered(shown)
    sums = [float(image.sum(dtype=np.float64)) for image in (without + _lesion_frames(patches)) * field]
    scales = [acquisition.counts / sums[0], acquisition.counts * acquisition.posterior_share / sums[1]]
    factors = np.array(scales, np.float32)[:, None, None]
    bright = float(np.percentile(without[0], 99)) * scales[0]
    artefacts = draw_artefacts(organ_rng, bones, camera, body, bright)
    expected = without * factors + artefacts + np.stack([scatter(image) for image in artefacts])

    masks = _annotate(patches, expected, scales)
    while patches and not masks.any():
        # A scan with metastases must show at least one.
        focus, patch = patches[0]
        patches[0] = dataclasses.replace(focus, contrast=1 + 1.4 * (focus.contrast - 1)), patch.times(1.4)
        masks = _annotate(patches, expected, scales)
    expected = expected + _lesion_frames(patches) * factors

    involved = np.zeros(len(bones.xyz), bool)
    for focus, _ in patches:
        involved[focus.involved] = True
    mean, counts = {}, {}
    for view, image in zip(VIEWS, expected, strict=True):
        image = (np.maximum(image, 0) + np.float32(acquisition.background)) * field
        mean[view] = image if view == "anterior" else np.ascontiguousarray(image[:, ::-1])
        # Poisson noise comes last, as in raw counts.
        counts[view] = np.minimum(noise_rng.poisson(mean[view]), 65535).astype(np.uint16)
    return PhantomScan(
        seed=seed,
        index=index,
        cancer=cancer,
        metastatic=bool(metastatic),
        anterior=counts["anterior"],
        posterior=counts["posterior"],
        mean=mean,
        lesions={"anterior": masks[0], "posterior": np.ascontiguousarray(masks[1][:, ::-1])},
        metastases=tuple(focus for focus, _ in patches),
        involved=involved_fractions(involved),
        wanted_index=wanted_index,
        repeat=repeat,
        patient=patient,
        acquisition=acquisition,
        varied=varied,
    )


def check_whole(value: int, name: str, least: int = 0) -> int:
    """`value` as an int of at least `least`; `SettingsError` when it is no whole number, or too small."""
    try:
        number = operator.index(value)
    except TypeError:
        raise SettingsError(f"{name} must be a whole number, not {value!r}") from None
    if number < least:
        raise SettingsError(f"{name} must be {least} or more, not {number}")
    return number


def _with_motion(bones: PosedSkeleton, acquisition: Acquisition) -> tuple[np.ndarray, np.ndarray]:
    """Points of the skeleton; where the patient moved, a share of that segment's points is displaced."""
    if acquisition.motion is None:
        return bones.xyz, bones.weight
    segment, shift, share = acquisition.motion
    xyz = bones.xyz.copy()
    for name, where in bones.skeleton.bones.items():
        if bones.skeleton.segments[name] == segment:
            moved = (np.arange(where.stop - where.start) * 0.6180339887) % 1 < share
            xyz[where][moved, :2] += np.array(shift, np.float32)
    return xyz, bones.weight


def _normal_frames(bones: PosedSkeleton, acquisition: Acquisition, body: Surfaces, organs: Cloud) -> np.ndarray:
    """Skeleton, organs and soft tissue in both views, float32 (2, 1024, 256), relative units, anterior columns."""
    camera = acquisition.camera
    frames = np.zeros((2, ROWS, COLUMNS), np.float32)
    for xyz, weight in (_with_motion(bones, acquisition), (organs.xyz, organs.weight)):
        if (patch := project(camera, body, xyz, weight)) is not None:
            patch.add_to(frames)
    return np.maximum(frames + soft_tissue_image(camera, body), 0)


def _lesion_patches(foci: list[Focus], camera: Camera, body: Surfaces, normal: np.ndarray) -> list[tuple[Focus, Patch]]:
    """The foci the camera can see, each with its image."""
    field, patches = camera.field(), []
    for focus in foci:
        patch = illuminate(focus, camera, body, normal)
        if patch is not None:
            patch = Patch(patch.box, patch.views * field[patch.box])
            if patch.views[0].any():
                patches.append((focus, patch))
    return patches


def _lesion_frames(patches: list[tuple[Focus, Patch]]) -> np.ndarray:
    """All lesions with the scatter they cause, float32 (2, 1024, 256), relative units, anterior columns."""
    frames = np.zeros((2, ROWS, COLUMNS), np.float32)
    for _, patch in patches:
        patch.add_to(frames)
    return _scattered(frames) if patches else frames


def _scattered(frames: np.ndarray) -> np.ndarray:
    return frames + np.stack([scatter(image) for image in frames])


def _annotate(patches: list[tuple[Focus, Patch]], expected: np.ndarray, scales: list[float]) -> np.ndarray:
    """Outline every lesion in both views: uint8 (2, 1024, 256), anterior columns."""
    masks = np.zeros(expected.shape, np.uint8)
    for _, patch in patches:
        for mask, image, around, scale in zip(masks, patch.views, expected, scales, strict=True):
            mask[patch.box][visible_outline(image * np.float32(scale), around[patch.box])] = METASTATIC
    # An outline has no holes: the masks are what the outlines enclose.
    return np.stack([METASTATIC * draw_polygons(mask_polygons(mask), mask.shape) for mask in masks])


def visible_outline(signal: np.ndarray, surroundings: np.ndarray) -> np.ndarray:
    """The pixels of one lesion a physician would outline in one view.

    Args:
        signal: float32 (rows, columns), the lesion's own noise-free counts.
        surroundings: the same window, expected counts of everything else.

    Returns:
        Boolean array: the largest connected region above 47 % of the lesion's maximum that stands out from its
        surroundings. All False when the lesion is too faint, too attenuated, or hidden behind something hotter.
    """
    nothing = np.zeros(signal.shape, bool)
    peak = np.unravel_index(np.argmax(signal), signal.shape)
    height, around = float(signal[peak]), float(surroundings[peak])
    # Rose: seen when the counts of some 25 pixels rise five standard deviations above what lies there.
    clear = 25 * height / np.sqrt(25 * (height + around) + 1e-6)
    if height <= 0 or height < LEAST_CONTRAST * around or clear < 5:
        return nothing
    region = (signal >= LEVEL * height) & (signal >= LEAST_CONTRAST_AT_EDGE * surroundings)
    count, numbers, statistics, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=4)
    if count < 2:
        return nothing
    largest = 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))
    if statistics[largest, cv2.CC_STAT_AREA] < LEAST_PIXELS:
        return nothing
    return numbers == largest


def mask_polygons(mask: np.ndarray) -> list[list[list[float]]]:
    """The connected regions of a mask as polygons, one list of at least three [x, y] per region.

    Drawing each with Pillow (`ImageDraw.polygon`, outline and fill) gives the mask back, its holes filled.
    """
    contours, _ = cv2.findContours((mask > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return sorted(map(rim_polygon, contours), key=lambda points: (min(p[1] for p in points), min(p[0] for p in points)))


def draw_polygons(polygons: list[list[list[float]]], shape: tuple[int, int]) -> np.ndarray:
    """Rasterise polygons as Labelme does: uint8 array of `shape`, 1 inside and on the edge."""
    image = Image.new("L", (shape[1], shape[0]))
    for points in polygons:
        ImageDraw.Draw(image).polygon([tuple(point) for point in points], outline=1, fill=1)
    return np.array(image, dtype=np.uint8)
