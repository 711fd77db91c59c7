"""Hot spots outside the patient's bones and organs: injection site, spilled urine, a catheter and its bag."""

from collections.abc import Callable

import numpy as np

from doubleunet_bs.phantom.camera import COLUMNS, ROWS, Camera, project
from doubleunet_bs.phantom.metastases import blob
from doubleunet_bs.phantom.patient import PosedSkeleton
from doubleunet_bs.phantom.shapes import ellipsoid, tube
from doubleunet_bs.phantom.skeleton import ELBOW, WRIST
from doubleunet_bs.phantom.soft_tissue import Surfaces

HOTTEST_COUNTS = 19000.0  # in a pixel
MOST_COUNTS = 0.6e6  # in all of an injection site


def draw_artefacts(
    rng: np.random.Generator, bones: PosedSkeleton, camera: Camera, body: Surfaces, bright: float
) -> np.ndarray:
    """Draw the artefacts of one scan.

    Args:
        rng: random numbers. bones, body: the patient. camera: where they lie.
        bright: counts of the 99th percentile of the normal image.

    Returns:
        Noise-free images in counts, float32 (2, 1024, 256), anterior view first, both in anterior columns.
    """
    images = np.zeros((2, ROWS, COLUMNS), np.float32)

    def add(xyz: np.ndarray, weight: np.ndarray, peak: float) -> None:
        patch = project(camera, body, xyz, weight)
        if patch is not None:
            patch.times(peak / patch.views.max()).add_to(images)

    if rng.random() < 0.8:
        _injection(rng, bones, camera, images, add, bright)
    for _ in range(rng.poisson(0.25)):
        place = rng.choice(["groin", "thigh", "hand"])
        point = {
            "groin": (rng.normal(0, 2.5), rng.uniform(80, 86), 6.0),
            "thigh": (rng.normal(0, 11), rng.uniform(84, 105), 8.0),
            "hand": (0, 0, 0),
        }[str(place)]
        if place == "hand":
            side = str(rng.choice(["L", "R"]))
            palm = np.array(WRIST) + (rng.normal(0, 1.5), rng.uniform(3, 14), 1.5)
            centre = bones.at(palm * (1 if side == "L" else -1, 1, 1), f"hand_{side}")
        else:
            centre = bones.at(point)
        add(*blob(rng, centre, rng.uniform(3, 14, 3) * (1, 1, 0.2)), bright * float(np.exp(rng.normal(0.3, 0.6))))
    if bones.patient.sex == "M" and rng.random() < 0.3:
        _catheter(rng, bones, add, bright)
    return images


def _injection(
    rng: np.random.Generator,
    bones: PosedSkeleton,
    camera: Camera,
    images: np.ndarray,
    add: Callable[[np.ndarray, np.ndarray, float], None],
    bright: float,
) -> None:
    """A vein of the elbow or the hand; in one of eight patients some tracer leaked beside it."""
    side = str(rng.choice(["L", "R"], p=[0.45, 0.55]))
    flip = np.array((1 if side == "L" else -1, 1, 1))
    at_elbow = rng.random() < 0.6
    if at_elbow:
        centre = bones.at((np.array(ELBOW) + (rng.normal(0, 0.8), rng.normal(1.0, 1.2), 2.5)) * flip, f"forearm_{side}")
    else:
        vein_of_hand = np.array(WRIST) + (rng.normal(0.8, 0.6), rng.uniform(-2.0, 5.0), 1.2)
        centre = bones.at(vein_of_hand * flip, f"hand_{side}")
    extravasated = rng.random() < 0.12
    level = rng.uniform(np.log(8), np.log(250)) if extravasated else rng.normal(0.3, 0.8)
    size = (rng.uniform(4, 20, 3) if extravasated else rng.uniform(3, 9, 3)) * (1, 1.5, 0.5)
    # 12.5 mm: the camera's own point spread. 1.13 x the two widths is the area of a Gaussian spot.
    area = 1.13 * np.hypot(size[0], 12.5) * np.hypot(size[1], 12.5) / camera.spacing_mm**2
    peak = float(min(bright * np.exp(level), HOTTEST_COUNTS, MOST_COUNTS / area))
    add(*blob(rng, centre, size), peak)
    if rng.random() < 0.3 and at_elbow:
        top = bones.at((np.array(ELBOW) + (-1.0, -12, 2.0)) * flip, f"upper_arm_{side}")
        vein = tube([centre, (centre + top) / 2, top], 0.25, [1.0, 0.5, 0.05])
        add(vein.xyz, vein.weight, bright * float(rng.uniform(0.2, 0.9)))
    if peak > 12 * bright:  # septal penetration
        row, column = camera.pixels(centre[None])
        star = _star(int(row[0]), int(column[0]), float(rng.uniform(0, np.pi / 3)))
        images += np.float32(peak) * star


def _star(row: int, column: int, turn: float) -> np.ndarray:
    """Septal penetration of a hexagonal-hole collimator: six faint rays and a halo about a very hot spot."""
    y, x = np.mgrid[0:ROWS, 0:COLUMNS].astype(np.float32)
    y, x = y - row, x - column
    r = np.hypot(y, x) + 1
    off = np.abs((np.arctan2(y, x) + turn) % (np.pi / 3) - np.pi / 6) * r
    rays = np.exp(-0.5 * (off / (1.5 + 0.03 * r)) ** 2) * np.exp(-r / 22)
    return (0.012 * rays + 0.004 * np.exp(-r / 18)).astype(np.float32)


def _catheter(
    rng: np.random.Generator,
    bones: PosedSkeleton,
    add: Callable[[np.ndarray, np.ndarray, float], None],
    bright: float,
) -> None:
    """From the bladder over one thigh to a bag beside the leg or between the shanks."""
    sign = float(rng.choice([-1, 1]))
    side = "L" if sign > 0 else "R"
    beside = rng.random() < 0.6
    start, groin = bones.at((0, 80.0, 4.0)), bones.at((sign * 1.5, 85.5, 6.5))
    thigh = bones.at((sign * 7.5, 93.0, 8.0), f"thigh_{side}")
    bag = bones.at((sign * 18.5, 106.0, 0.0)) if beside else bones.at((sign * 1.0, 128.0, 2.0))
    bag[0] = np.clip(bag[0], -24.5, 24.5)
    loop = (thigh + bag) / 2 + (sign * rng.normal(0, 2.5), rng.normal(0, 1.5), 0)
    line = tube([start, groin, thigh, loop, bag], 0.3, [0.8, 1.0, 0.5, 1.0, 0.8])
    add(line.xyz, line.weight, bright * float(np.exp(rng.normal(-0.2, 0.5))))
    # A flat bag, filled from the bottom: a rounded box, fuller below.
    pouch = ellipsoid(bag + (0, 7.5, 0), (4.6, 8.0, 1.5), 1.0)
    full = pouch.weight / (1 + np.exp((bag[1] + 7.5 - rng.uniform(-3, 5) - pouch.xyz[:, 1]) / 0.8))
    add(pouch.xyz, full + 0.04 * pouch.weight, bright * float(np.exp(rng.normal(0.6, 0.7))))
