"""Foci: small extra uptake on top of the normal scan, malignant or benign, and how bright each is made."""

import dataclasses

import numpy as np

from doubleunet_bs.phantom.camera import Camera, Patch, project
from doubleunet_bs.phantom.soft_tissue import Surfaces


@dataclasses.dataclass(frozen=True)
class Focus:
    """Extra uptake before it is made visible.

    Attributes:
        kind: what it is: "metastasis", "rib fracture", "degenerative spine", ...
        site: the bone or place: "T7", "rib_L4", "skin", ...
        xyz: (points, 3) patient cm.
        weight: (points,) relative; only the proportions matter.
        contrast: (normal + focus) / normal at its brightest point, in the view that shows it better.
    """

    kind: str
    site: str
    xyz: np.ndarray
    weight: np.ndarray
    contrast: float


def blob(rng: np.random.Generator, centre, fwhm_mm, points: int = 900) -> tuple[np.ndarray, np.ndarray]:
    """A Gaussian ball or ellipsoid: `fwhm_mm` one value or one per axis (before the camera's blur). (xyz, weight)."""
    sigma = np.broadcast_to(np.asarray(fwhm_mm, float), 3) / 23.55
    offset = rng.standard_normal((points, 3)) * sigma
    return (np.asarray(centre, float) + offset).astype(np.float32), np.ones(points, np.float32)


def illuminate(focus: Focus, camera: Camera, body: Surfaces, normal: list[np.ndarray]) -> Patch | None:
    """The focus in both views, scaled so that its contrast holds in the better view.

    Args:
        focus: what to show.
        normal: noise-free anterior and posterior image of the patient without foci, anterior columns.

    Returns:
        The scaled patch; None when the focus lies outside the frame or emits nothing.
    """
    patch = project(camera, body, focus.xyz, focus.weight)
    if patch is None:
        return None
    best = 0.0
    for image, background in zip(patch.views(), normal):
        row, column = np.unravel_index(np.argmax(image), image.shape)
        best = max(best, image[row, column] / max(background[patch.box][row, column], 1e-3))
    if best <= 0:
        return None
    return patch.times((focus.contrast - 1) / best)
