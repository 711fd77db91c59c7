"""Organs and urine: what a bone tracer shows besides bone, in every patient."""

import numpy as np

from doubleunet_bs.phantom.patient import PosedSkeleton
from doubleunet_bs.phantom.shapes import Cloud, ellipsoid, join, tube


def draw_organs(rng: np.random.Generator, bones: PosedSkeleton) -> Cloud:
    """Draw kidneys, bladder, liver and heart, and in some patients stomach, thyroid cartilage and breasts.

    Returns:
        Points in patient cm with activity concentration x cm^3 as weight.
    """
    patient = bones.patient
    muscle = patient.soft_tissue
    clouds: list[Cloud] = []

    def add(centre, radii, concentration: float, **options) -> None:
        clouds.append(ellipsoid(bones.at(centre), np.asarray(radii) * patient.width, concentration, **options))

    add((-6.5, 50.5, 1.5), (7.0, 5.5, 6.0), muscle * rng.uniform(0.1, 0.7), density=0.25)
    add((2.5, 39.5, 3.0), (4.5, 5.0, 4.5), muscle * rng.uniform(0.1, 0.6), density=0.25)
    lungs = -muscle * 0.45
    for sign in (-1, 1):
        add((sign * 7.2, 38.0, 0.0), (4.6, 8.5, 6.5), lungs, density=0.25)
    clouds += _kidneys(rng, bones)
    clouds.append(_bladder(rng, bones))
    if rng.random() < 0.06:  # stomach
        add((6.5, 50.0, 2.5), (4.5, 3.5, 3.0), muscle * rng.uniform(1.0, 2.5), density=0.3)
    if rng.random() < 0.3:  # thyroid cartilage
        add((0, 23.4, 2.8), (1.2, 1.1, 0.9), rng.uniform(0.1, 0.35))
    if patient.sex == "F" and rng.random() < 0.3:
        sides = [(-1,), (1,), (-1, 1)][rng.choice(3, p=[0.3, 0.3, 0.4])]
        for sign in sides:
            centre = (sign * (8.6 + 2 * patient.fat), 41.0 + 2 * patient.fat, 10.0 + 1.0 * patient.fat)
            add(centre, (3.6, 3.4, 2.2), muscle * rng.uniform(0.8, 2.6), density=0.5)
    if patient.sex == "M":
        add((0, 83.5, 3.5), (1.8, 3.2, 1.6), muscle * rng.uniform(1.5, 4.0))
    return join(*clouds)


def _kidneys(rng: np.random.Generator, bones: PosedSkeleton) -> list[Cloud]:
    clouds = []
    level = 0.34 * np.exp(rng.normal(0, 0.5))
    missing = rng.choice(["", "L", "R"], p=[0.95, 0.025, 0.025])
    for side, sign in (("L", 1), ("R", -1)):
        if side == missing:
            continue
        middle = np.array([sign * rng.normal(5.9, 0.4), 53.0 + (0.9 if side == "R" else 0) + rng.normal(0, 0.8), -5.2])
        size = rng.normal(1, 0.07) * (1.15 if missing else 1.0)
        radii = (2.5 * size, 5.0 * size, 2.1 * size)
        kidney = ellipsoid((0, 0, 0), radii, level * np.exp(rng.normal(0, 0.15)), hollow=0.35)
        lean = sign * rng.normal(0.22, 0.06)
        x, y = kidney.xyz[:, 0], kidney.xyz[:, 1]
        turned = np.column_stack(
            [x * np.cos(lean) + y * np.sin(lean), y * np.cos(lean) - x * np.sin(lean), kidney.xyz[:, 2]]
        )
        # The hilum faces the spine and is poor in uptake.
        hilum = 1 - 0.8 * np.exp(-(((sign * x + 2.0 * size) / (1.3 * size)) ** 2) - (y / (1.9 * size)) ** 2)
        xyz = (bones.at(middle) + turned).astype(np.float32)
        clouds.append(Cloud(xyz, (kidney.weight * hilum).astype(np.float32), kidney.along, kidney.mass))
        if rng.random() < 0.22:  # renal pelvis
            where = bones.at(middle + (-sign * 1.6, 0.3, 0.6))
            clouds.append(ellipsoid(where, (0.9, 1.3, 0.9), level * rng.uniform(1.5, 4.0)))
        if rng.random() < 0.06:  # ureter
            offsets = ((-sign * 1.6, 2, 0.8), (-sign * 2.2, 8, 2.0), (-sign * 2.2, 14, 1.0))
            path = [bones.at(middle + offset) for offset in offsets]
            clouds.append(tube(path, 0.3, [0.3, rng.uniform(1.0, 4.0), 0.2]))
    return clouds


def _bladder(rng: np.random.Generator, bones: PosedSkeleton) -> Cloud:
    radius = float(np.clip(rng.normal(3.1, 0.9), 1.6, 5.2))
    squash = rng.uniform(0.65, 0.95)
    centre = bones.at((rng.normal(0, 0.4), 76.0 - squash * radius, 2.0))
    concentration = float(1.1 * np.exp(rng.normal(0, 0.75)) * (3.0 / radius) ** 0.7)
    return ellipsoid(centre, (radius * 1.1, radius * squash, radius * 0.9), concentration)
