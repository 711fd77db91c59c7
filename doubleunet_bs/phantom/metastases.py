"""Metastases: how many, where, of what shape (after the sites reported for breast and prostate cancer)."""

import dataclasses

import numpy as np

from doubleunet_bs.phantom.camera import Camera, Patch, project
from doubleunet_bs.phantom.patient import PosedSkeleton
from doubleunet_bs.phantom.soft_tissue import Surfaces


@dataclasses.dataclass(frozen=True)
class Focus:
    """Extra uptake before it is made visible.

    Attributes:
        site: the bone of a metastasis, "T7" or "rib_L4", or the name of what is benign, "rib fracture".
        xyz: (points, 3) patient cm.
        weight: (points,) relative; only the proportions matter.
        contrast: (normal + focus) / normal at its brightest point, in the view that shows it better.
        involved: int (points,) indices into the points of the skeleton: the bone that lies within a metastasis, where
            its own uptake, before the camera blurs it, is at least half of its maximum.
    """

    site: str
    xyz: np.ndarray
    weight: np.ndarray
    contrast: float
    involved: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))


def blob(rng: np.random.Generator, centre, fwhm_mm, points: int = 900) -> tuple[np.ndarray, np.ndarray]:
    """A Gaussian ball or ellipsoid: `fwhm_mm` one value or one per axis (before the camera's blur). (xyz, weight)."""
    sigma = np.broadcast_to(np.asarray(fwhm_mm, float), 3) / 23.55
    offset = rng.standard_normal((points, 3)) * sigma
    return (np.asarray(centre, float) + offset).astype(np.float32), np.ones(points, np.float32)


def illuminate(focus: Focus, camera: Camera, body: Surfaces, normal: np.ndarray) -> Patch | None:
    """Project a focus into both views, scaled so that it has its contrast in the view that shows it better.

    Args:
        focus, camera, body: what to project, where the patient lies, and their skin.
        normal: noise-free images of the patient without foci, (2, 1024, 256), anterior columns.

    Returns:
        The scaled patch; None when the focus lies outside the image or emits nothing.
    """
    patch = project(camera, body, focus.xyz, focus.weight)
    if patch is None:
        return None
    best = 0.0
    for image, background in zip(patch.views, normal, strict=True):
        row, column = np.unravel_index(np.argmax(image), image.shape)
        best = max(best, image[row, column] / max(background[patch.box][row, column], 1e-3))
    if best <= 0:
        return None
    return patch.times((focus.contrast - 1) / best)


# Share of the lesions by site. Breast: spine > pelvis > ribs > sternum; prostate: lumbar spine and pelvis lead.
SITE_SHARES = {
    "breast": {
        "cervical": 0.03, "thoracic": 0.22, "lumbar": 0.15, "pelvis": 0.23, "ribs": 0.16, "sternum": 0.07,
        "skull": 0.06, "shoulder": 0.04, "femur": 0.04,
    },
    "prostate": {
        "cervical": 0.02, "thoracic": 0.16, "lumbar": 0.26, "pelvis": 0.35, "ribs": 0.08, "sternum": 0.02,
        "skull": 0.03, "shoulder": 0.02, "femur": 0.06,
    },
}  # fmt: skip
_BONES = {
    "cervical": ("C3", "C4", "C5", "C6", "C7"),
    "thoracic": tuple(f"T{k}" for k in range(1, 13)),
    "lumbar": tuple(f"L{k}" for k in range(1, 6)),
    "pelvis": (
        *("ilium_L", "ilium_R", "sacrum", "si_L", "si_R", "pubis_L", "pubis_R", "ischium_L", "ischium_R"),
        *("acetabulum_L", "acetabulum_R"),
    ),
    "ribs": tuple(f"rib_{side}{k}" for side in "LR" for k in range(1, 12)),
    "sternum": ("manubrium", "sternum_body"),
    "skull": ("skull_vault",),
    "shoulder": ("scapula_L", "scapula_R", "humerus_L", "humerus_R", "clavicle_L", "clavicle_R"),
    "femur": ("femur_L", "femur_R"),
}
_PELVIS_SHARES = np.array([0.24, 0.24, 0.18, 0.04, 0.04, 0.05, 0.05, 0.04, 0.04, 0.04, 0.04])
MOST_LESIONS = 60
LARGEST_INDEX = 20.0
"""Percent. The largest true Bone Scan Index that can be asked for: diffuse disease of spine, pelvis and ribs."""

Shape = tuple[np.ndarray, np.ndarray, np.ndarray]
"""xyz, weight and involved of a `Focus`."""


def draw_metastases(rng: np.random.Generator, bones: PosedSkeleton, cancer: str) -> list[Focus]:
    """Draw the lesions of one patient: 1 to 60, median about 4; the upper tail is diffuse disease."""
    count = int(np.clip(np.floor(np.exp(rng.normal(1.45, 0.85)) + 0.5), 1, MOST_LESIONS))
    names = list(SITE_SHARES[cancer])
    shares = np.array([SITE_SHARES[cancer][name] for name in names])
    # A patient's lesions are not spread evenly over the sites.
    shares = shares * rng.gamma(2.0, 0.5, len(names))
    sites = rng.choice(names, count, p=shares / shares.sum())
    level = np.exp(rng.normal(np.log(3.0), 0.20))
    return [_lesion(rng, bones, str(site), level) for site in sites]


def _lesion(rng: np.random.Generator, bones: PosedSkeleton, site: str, level: float) -> Focus:
    contrast = float(np.clip(level * np.exp(rng.normal(0, 0.28)), 1.9, 6.0))
    name = _bone(rng, site)
    if site in ("cervical", "thoracic", "lumbar"):
        shape = _vertebral(rng, bones, name)
    elif site == "ribs":
        shape = _costal(rng, bones, name)
    elif (site == "pelvis" and rng.random() < 0.45) or (site == "sternum" and rng.random() < 0.4):
        shape = _irregular(rng, bones, name)
    else:
        centre = _place(rng, bones, name)
        size = rng.uniform(3, 12) if site != "skull" else rng.uniform(3, 10)
        stretch = np.array([1, rng.uniform(1, 2.2), 1]) if site == "femur" else rng.uniform(0.8, 1.25, 3)
        shape = _ball(rng, bones, centre, size * stretch)
    xyz, weight, involved = shape
    return Focus(name, xyz, weight, contrast, involved)


def _bone(rng: np.random.Generator, site: str) -> str:
    return str(rng.choice(_BONES[site], p=_PELVIS_SHARES / _PELVIS_SHARES.sum() if site == "pelvis" else None))


def draw_extent(
    rng: np.random.Generator, bones: PosedSkeleton, cancer: str, wanted: float, worth: np.ndarray
) -> list[Focus]:
    """Draw lesions until the true Bone Scan Index is `wanted`.

    Each lesion takes the bone within 0.6 to 3.5 cm of a point of it. The last one gets the size that hits the index.

    Args:
        rng: random numbers. bones: the patient. cancer: for the sites.
        wanted: the index in percent, up to `LARGEST_INDEX`.
        worth: float64 (points of the skeleton,), what each point adds to the index (`truth.weight_of_points`).
    """
    shares = np.array(list(SITE_SHARES[cancer].values())) * rng.gamma(2.0, 0.5, len(SITE_SHARES[cancer]))
    sites = list(SITE_SHARES[cancer])
    level = np.exp(rng.normal(np.log(3.0), 0.20))
    left, foci = worth.copy(), []
    while wanted > 1e-9:
        site = str(rng.choice(sites, p=shares / shares.sum()))
        name = _bone(rng, site)
        radius = float(np.clip(np.exp(rng.normal(np.log(1.4), 0.4)), 0.6, 3.5))
        contrast = float(np.clip(level * np.exp(rng.normal(0, 0.28)), 1.9, 6.0))
        xyz, weight = bones.points(name)
        distance = np.linalg.norm(xyz - _place(rng, bones, name), axis=1)
        order = np.argsort(distance, kind="stable")
        first = bones.skeleton.bones[name].start
        gained = np.cumsum(left[first + order])
        inside = int(np.searchsorted(distance[order], radius, "right"))
        inside = min(inside, int(np.searchsorted(gained, wanted)) + 1)
        if gained[inside - 1] <= 0:
            continue  # all of it is involved already
        involved = first + order[:inside]
        reach = max(float(distance[order[inside - 1]]), 0.1)
        near = np.exp2(-((distance / reach) ** 2))
        foci.append(Focus(name, xyz, (weight * near).astype(np.float32), contrast, involved))
        wanted -= float(gained[inside - 1])
        left[involved] = 0
    return foci


def _ball(rng: np.random.Generator, bones: PosedSkeleton, centre, fwhm_mm) -> Shape:
    """A `blob` of 900 points; the bone within half its width is involved, of whatever bones."""
    xyz, weight = blob(rng, centre, fwhm_mm, 900)
    reach = np.broadcast_to(np.asarray(fwhm_mm, float), 3) / 20
    near = np.flatnonzero(np.abs(bones.xyz[:, 1] - centre[1]) <= reach[1])
    distance = (((bones.xyz[near] - np.asarray(centre, float)) / reach) ** 2).sum(axis=1)
    return xyz, weight, near[distance <= 1]


def _part(bones: PosedSkeleton, name: str, near: np.ndarray) -> Shape:
    """A lesion that follows a bone: the uptake of its points times `near`. Above half of it the bone is involved."""
    xyz, weight = bones.points(name)
    involved = bones.skeleton.bones[name].start + np.flatnonzero(near >= 0.5 * near.max())
    return xyz, (weight * near).astype(np.float32), involved


def _place(rng: np.random.Generator, bones: PosedSkeleton, name: str) -> np.ndarray:
    """A point of the bone drawn by its uptake; of long bones only the end near the trunk, where red marrow is."""
    xyz, weight = bones.points(name)
    if name.startswith(("femur", "humerus")):
        top = xyz[:, 1].min()
        weight = weight * (xyz[:, 1] < top + rng.choice([6.0, 18.0], p=[0.7, 0.3]))
    return xyz[rng.choice(len(xyz), p=weight / weight.sum())]


def _vertebral(rng: np.random.Generator, bones: PosedSkeleton, name: str) -> Shape:
    """The whole vertebral body, or one side of it with the pedicle."""
    xyz, _ = bones.points(name)
    body = bones.vertebral_body(name)
    if rng.random() < 0.35:
        # Even filling: the body of the vertebra and some of the arch, not its end plates.
        near = np.exp(-0.5 * (((xyz[:, 0] - body[0]) / 2.2) ** 2 + ((xyz[:, 1] - body[1]) / 0.9) ** 2))
        return _part(bones, name, near)
    side = rng.choice([-1.0, 1.0])
    centre = body + np.array([side * rng.uniform(0.1, 1.2), rng.normal(0, 0.25), -rng.uniform(0, 2.2)])
    return _ball(rng, bones, centre, rng.uniform(4, 13) * rng.uniform(0.85, 1.2, 3))


def _costal(rng: np.random.Generator, bones: PosedSkeleton, name: str) -> Shape:
    """A stretch along the rib, unlike a fracture."""
    along = bones.along(name)
    length = bones.length(name)
    middle = rng.uniform(0.06, 0.9)
    half = rng.uniform(1.0, 3.2) if rng.random() < 0.75 else rng.uniform(3.2, 6.0)
    return _part(bones, name, np.exp(-(np.abs((along - middle) * length / half) ** 3)))


def _irregular(rng: np.random.Generator, bones: PosedSkeleton, name: str) -> Shape:
    """A large lesion that follows the bone: several merging foci weighed on the bone's own points."""
    xyz, _ = bones.points(name)
    centre = _place(rng, bones, name)
    near = np.zeros(len(xyz))
    for _ in range(rng.integers(2, 6)):
        middle = centre + rng.normal(0, 1.3, 3)
        near += rng.uniform(0.5, 1.0) * np.exp(-0.5 * ((xyz - middle) ** 2).sum(axis=1) / rng.uniform(0.7, 1.6) ** 2)
    if near.max() < 0.05:
        return _ball(rng, bones, centre, rng.uniform(10, 20))
    return _part(bones, name, near)
