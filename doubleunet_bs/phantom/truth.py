"""The truth about a phantom's skeleton: region masks of both views, and the involved fraction of each region.

The fraction is Imbriaco's, in three dimensions and before any projection: the share of a region's bone, by mass, that
lies within a metastasis (see `metastases.Focus.involved`). The masks are what a physician would draw on the projection
and play no part in it.
"""

import functools
import math
from collections.abc import Mapping

import cv2
import numpy as np

from doubleunet_bs.bsi.regions import NOT_BONE, REGIONS, WeightTable, region_number
from doubleunet_bs.constants import VIEWS
from doubleunet_bs.phantom.camera import COLUMNS, ROWS, Camera
from doubleunet_bs.phantom.patient import PosedSkeleton, template_skeleton
from doubleunet_bs.phantom.skeleton import KNEE

_REGION_OF_BONE = {
    "skull": "skull", "face": "skull", "mandible": "skull", "rib": "ribs", "manubrium": "sternum",
    "sternum": "sternum", "clavicle": "clavicles", "scapula": "scapulae", "humerus": "humeri", "sacrum": "sacrum",
    "ilium": "pelvis", "si": "pelvis", "acetabulum": "pelvis", "pubis": "pelvis", "ischium": "pelvis",
    "femur": "femora",
    **{f"C{k}": "cervical spine" for k in range(1, 8)},
    **{f"T{k}": "thoracic spine" for k in range(1, 13)},
    **{f"L{k}": "lumbar spine" for k in range(1, 6)},
}  # fmt: skip

# Where bones lie over each other the first of these wins: the one that is nearer to the detector or seen more clearly.
# The shoulder blades win from behind, the ribs and the collarbones from in front.
_FIRST_TO_LAST = {
    "anterior": ("skull", "sternum", "clavicles", "cervical spine", "thoracic spine", "lumbar spine", "sacrum",
                 "humeri", "femora", "pelvis", "ribs", "scapulae"),
    "posterior": ("skull", "cervical spine", "thoracic spine", "lumbar spine", "sacrum", "humeri", "scapulae",
                  "femora", "pelvis", "ribs", "clavicles"),
}  # fmt: skip

_FLOATING = ("rib_L11", "rib_R11", "rib_L12", "rib_R12")
"""Not seen from in front: too deep."""

_CLOSED = {
    "ribs": (9, 9),
    "cervical spine": (9, 5),
    "thoracic spine": (15, 5),
    "lumbar spine": (17, 5),
    "sternum": (5, 5),
}
"""Gaps of so many rows and columns, between ribs or vertebrae, belong to the region. Others: 3."""

_SPINE_HALF_WIDTH = 2.8
"""Template cm: the tips of the transverse processes are too thin to be seen."""

_FILLED = 400
"""Holes of so many pixels, such as the obturator foramen, lie inside of an outline. The pelvic inlet is larger."""

_LEAST_PIXELS = 20
"""Smaller pieces that another bone leaves over are not drawn."""


@functools.lru_cache(maxsize=1)
def region_of_points() -> np.ndarray:
    """The region of each point of the template skeleton: uint8 (points,), 0 for forearms, hands, lower legs and feet.

    The knee is divided at the joint; the kneecap is no part of the femur.
    """
    skeleton = template_skeleton()
    regions = np.zeros(len(skeleton.cloud), np.uint8)
    for bone, where in skeleton.bones.items():
        stem = bone.split("_")[0]
        if stem in _REGION_OF_BONE:
            regions[where] = region_number(_REGION_OF_BONE[stem])
        elif stem == "knee":
            xyz = skeleton.cloud.xyz[where]
            regions[where][(xyz[:, 1] <= KNEE[1]) & (xyz[:, 2] < 3)] = region_number("femora")
    regions.setflags(write=False)
    return regions


def involved_fractions(involved: np.ndarray) -> dict[str, float]:
    """Name of the region -> true involved fraction of its bone mass, 0 to 1, by the bool points of the skeleton."""
    regions, mass = region_of_points(), template_skeleton().cloud.mass.astype(np.float64)
    total = np.bincount(regions, mass, minlength=len(REGIONS) + 1)
    part = np.bincount(regions[involved], mass[involved], minlength=len(REGIONS) + 1)
    return {region.name: float(part[region.number] / total[region.number]) for region in REGIONS}


def true_index(fractions: Mapping[str, float], table: WeightTable) -> float:
    """The true Bone Scan Index in percent from the involved fraction of each region."""
    return math.fsum(table.percent[name] * fraction for name, fraction in fractions.items())


def weight_of_points(table: WeightTable) -> np.ndarray:
    """What each point of the skeleton adds to the true index when it is involved: float64 (points,), percent."""
    regions, mass = region_of_points(), template_skeleton().cloud.mass.astype(np.float64)
    total = np.bincount(regions, mass, minlength=len(REGIONS) + 1)
    weights = np.array([0.0, *(table.percent[region.name] for region in REGIONS)])
    return weights[regions] * mass / total[regions]


def draw_regions(bones: PosedSkeleton, camera: Camera) -> dict[str, np.ndarray]:
    """Region masks of both views as a physician would draw them.

    The rib cage is outlined as a whole, with the spaces between the ribs. Left and right are one region.

    Returns:
        "anterior" and "posterior" -> uint8 (1024, 256) in the geometry of the raw views: 0 not bone, 1 to 12.
    """
    row, column = camera.pixels(bones.xyz)
    x = bones.skeleton.cloud.xyz[:, 0]
    seen = (row >= 0) & (row < ROWS) & (column >= 0) & (column < COLUMNS)
    regions = region_of_points()
    floating = np.zeros(len(regions), bool)
    for name in _FLOATING:
        floating[bones.skeleton.bones[name]] = True

    def project(points: np.ndarray, name: str) -> np.ndarray:
        mask = np.zeros((ROWS, COLUMNS), np.uint8)
        mask[row[points], column[points]] = 1
        return _outline(mask, _CLOSED.get(name, (3, 3)))

    masks = {}
    for view in VIEWS:
        drawn = {}
        for name in _FIRST_TO_LAST[view]:
            points = (regions == region_number(name)) & seen
            if name == "ribs":
                points &= ~(floating & (view == "anterior"))
                drawn[name] = _between(project(points & (x > 0), name)) | _between(project(points & (x <= 0), name))
            else:
                drawn[name] = project(points & (np.abs(x) < _SPINE_HALF_WIDTH) if "spine" in name else points, name)
        mask = _paint(drawn) * camera.field().astype(np.uint8)
        masks[view] = mask if view == "anterior" else np.ascontiguousarray(mask[:, ::-1])
    return masks


def _between(half: np.ndarray) -> np.ndarray:
    """One half of the chest, filled from its innermost to its outermost rib in every row."""
    return np.maximum.accumulate(half, axis=1) & np.maximum.accumulate(half[:, ::-1], axis=1)[:, ::-1]


def _outline(mask: np.ndarray, gap: tuple[int, int]) -> np.ndarray:
    """`mask` without gaps of so many rows and columns, without grain and small holes: uint8, 0 and 1."""
    shape = cv2.MORPH_ELLIPSE if gap[0] == gap[1] else cv2.MORPH_RECT
    box = _box(mask)
    closed = cv2.morphologyEx(mask[box], cv2.MORPH_CLOSE, cv2.getStructuringElement(shape, gap[::-1]))
    closed = cv2.morphologyEx(closed, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    _, numbers, statistics, _ = cv2.connectedComponentsWithStats(1 - closed, connectivity=4)
    small = statistics[:, cv2.CC_STAT_AREA] <= _FILLED
    # What reaches the border of the box is outside, however small.
    small[np.r_[0, numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]]] = False
    closed[small[numbers]] = 1
    drawn = np.zeros_like(mask)
    drawn[box] = closed
    return drawn


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns around all that is not 0, with a margin wider than any gap that is closed."""
    left, top, width, height = cv2.boundingRect(mask)
    return slice(max(0, top - 20), top + height + 20), slice(max(0, left - 20), left + width + 20)


def _paint(drawn: Mapping[str, np.ndarray]) -> np.ndarray:
    """One region a pixel: the first one wins; small remains of the others are left out."""
    mask = np.zeros((ROWS, COLUMNS), np.uint8)
    for name, region in drawn.items():
        box = _box(region)
        left = (region[box] > 0) & (mask[box] == NOT_BONE)
        _, numbers, statistics, _ = cv2.connectedComponentsWithStats(left.astype(np.uint8), connectivity=4)
        large = statistics[:, cv2.CC_STAT_AREA] >= _LEAST_PIXELS
        large[0] = False
        mask[box][large[numbers]] = region_number(name)
    return mask
