"""Benign foci: what is hot in bone without being a metastasis, in scans with and without disease.

As for a physician, place and shape distinguish them from metastases: joints, disc margins, rib ends, fractures in a
row of ribs, symmetry. Their contrasts overlap those of metastases on purpose.
"""

import numpy as np

from doubleunet_bs.phantom.metastases import Focus, blob
from doubleunet_bs.phantom.patient import PosedSkeleton
from doubleunet_bs.phantom.skeleton import ANKLE, ELBOW, KNEE, SHOULDER, WRIST


def draw_benign(rng: np.random.Generator, bones: PosedSkeleton) -> list[Focus]:
    """Draw the benign foci of one patient: the older the patient, the more foci."""
    wear = float(np.clip((bones.patient.age - 40) / 35, 0.1, 1.3))
    foci: list[Focus] = []
    for draw in (_spine, _joints, _ribs, _chest_front, _head, _compression):
        foci += draw(rng, bones, wear)
    return foci


def _contrast(rng: np.random.Generator, typical: float, spread: float = 0.32) -> float:
    return float(np.clip(1 + (typical - 1) * np.exp(rng.normal(0, spread)), 1.1, 7.0))


def _focus(rng: np.random.Generator, name: str, centre, fwhm_mm, typical: float, spread: float = 0.32) -> Focus:
    """A Gaussian focus whose contrast varies about `typical`."""
    xyz, weight = blob(rng, centre, fwhm_mm)
    return Focus(name, xyz, weight, _contrast(rng, typical, spread))


def _spine(rng: np.random.Generator, bones: PosedSkeleton, wear: float) -> list[Focus]:
    """Osteophytes at the disc margins and worn facets, mostly L3-S1 and C4-C7."""
    foci = []
    if rng.random() < 0.55 * wear:
        side = rng.choice([-1.0, 1.0])
        for name in rng.choice(["L2", "L3", "L4", "L5"], size=rng.integers(1, 4), replace=False):
            middle = bones.vertebral_body(str(name))
            centre = middle + np.array([side * rng.uniform(1.9, 2.5), 1.45, rng.normal(0, 0.5)])
            foci.append(_focus(rng, "degenerative spine", centre, (6, 6, 12), 2.2))
            if rng.random() < 0.35:
                side = -side
    if rng.random() < 0.4 * wear:
        name = str(rng.choice(["L3", "L4", "L5"]))
        middle = bones.vertebral_body(name)
        for side in (-1, 1) if rng.random() < 0.5 else (rng.choice([-1, 1]),):
            foci.append(_focus(rng, "facet joint", middle + (side * 1.7, 1.3, -2.6), (6, 8, 6), 2.0))
    if rng.random() < 0.45 * wear:
        name = str(rng.choice(["C4", "C5", "C6"]))
        side = rng.choice([-1, 1])
        centre = bones.vertebral_body(name) + (side * 1.3, 0.7, -0.8)
        foci.append(_focus(rng, "degenerative spine", centre, (6, 8, 8), 2.2))
    return foci


def _joints(rng: np.random.Generator, bones: PosedSkeleton, wear: float) -> list[Focus]:
    """Shoulders, hips, knees, hands, feet, elbows, sacroiliac joints: often on both sides."""
    places = (
        ("shoulder", "upper_arm", np.array(SHOULDER) + (0.0, 0.2, 0.3), (22, 26, 14), 0.35, 1.8),
        ("shoulder", "trunk", (15.4, 25.9, 0.2), (9, 8, 9), 0.40, 2.4),
        ("hip", "trunk", (10.6, 72.3, 0.8), (14, 8, 12), 0.25, 2.0),
        ("knee", "thigh", np.array(KNEE) + (-2.4, 0.2, 0.5), (14, 10, 16), 0.45, 2.4),
        ("knee", "thigh", np.array(KNEE) + (2.5, 0.2, 0.5), (12, 9, 14), 0.30, 2.2),
        ("knee", "thigh", np.array(KNEE) + (0.1, -2.8, 4.0), (16, 18, 8), 0.30, 2.0),
        ("hand", "hand", np.array(WRIST) + (1.9, 1.9, 0.0), (8, 8, 8), 0.35, 2.8),
        ("hand", "hand", np.array(WRIST) + (-0.4, 8.6, 0.2), (6, 6, 6), 0.15, 2.8),
        ("elbow", "upper_arm", np.array(ELBOW) + (-1.4, -0.2, 0.0), (9, 9, 9), 0.15, 2.2),
        ("foot", "foot", np.array(ANKLE) + (0.2, 9.8, 7.6), (8, 8, 8), 0.30, 2.8),
        ("foot", "foot", np.array(ANKLE) + (0.4, 3.4, 1.6), (16, 12, 14), 0.30, 2.0),
        ("sacroiliac joint", "trunk", (4.0, 67.5, -7.0), (8, 34, 14), 0.18, 1.7),
    )
    foci = []
    for kind, segment, point, size, often, typical in places:
        if rng.random() > often * wear + 0.05:
            continue
        for side in "LR" if rng.random() < 0.45 else str(rng.choice(["L", "R"])):
            moving = segment if segment == "trunk" else f"{segment}_{side}"
            centre = bones.at(np.asarray(point) * (1 if side == "L" else -1, 1, 1), moving)
            foci.append(_focus(rng, f"degenerative {kind}", centre, size, typical))
    return foci


def _ribs(rng: np.random.Generator, bones: PosedSkeleton, wear: float) -> list[Focus]:
    """Fractures in a row of neighbouring ribs, and single benign foci, short and round."""
    foci = []
    if rng.random() < 0.16 + 0.12 * wear:
        side = str(rng.choice(["L", "R"]))
        first, count = int(rng.integers(3, 9)), int(rng.integers(2, 6))
        position = rng.uniform(0.35, 0.85)
        level = _contrast(rng, 3.4)
        for number in range(first, min(first + count, 11)):
            name = f"rib_{side}{number}"
            centre = bones.on_rod(name, float(np.clip(position + rng.normal(0, 0.025), 0.05, 0.95)))
            xyz, weight = blob(rng, centre, (5, 4, 5))
            foci.append(Focus("rib fracture", xyz, weight, max(1.5, level * float(np.exp(rng.normal(0, 0.2))))))
    if rng.random() < 0.30:
        name = f"rib_{rng.choice(['L', 'R'])}{rng.integers(3, 10)}"
        foci.append(_focus(rng, "benign rib focus", bones.on_rod(name, rng.uniform(0.9, 0.99)), (4, 4, 4), 2.2))
    if rng.random() < 0.18:
        for number in range(5, 10):
            for side in "LR":
                centre = bones.on_rod(f"rib_{side}{number}", 0.97)
                foci.append(_focus(rng, "costochondral junction", centre, (5, 5, 5), 1.5))
    return foci


def _chest_front(rng: np.random.Generator, bones: PosedSkeleton, wear: float) -> list[Focus]:
    """Sternoclavicular joints, first rib ends, the sternal angle, growth-like uptake of the whole sternum."""
    foci = []
    for often, point, size, name, typical in (
        (0.5, (2.1, 28.9, 7.6), (10, 9, 8), "sternoclavicular joint", 2.0),
        (0.4, (4.0, 30.3, 7.2), (8, 7, 7), "first rib end", 1.9),
    ):
        if rng.random() < often * (0.4 + 0.6 * wear):
            for sign in (-1, 1) if rng.random() < 0.6 else (rng.choice([-1, 1]),):
                foci.append(_focus(rng, name, bones.at(np.array(point) * (sign, 1, 1)), size, typical))
    if rng.random() < 0.4:
        foci.append(_focus(rng, "sternal angle", bones.at((0, 33.3, 7.9)), (24, 5, 6), 1.8))
    if rng.random() < 0.15:
        xyz, weight = bones.points("sternum_body")
        foci.append(Focus("sternal growth-like uptake", xyz, weight, _contrast(rng, 1.8, 0.2)))
    return foci


def _head(rng: np.random.Generator, bones: PosedSkeleton, wear: float) -> list[Focus]:
    """Sinuses, teeth, jaw joints, frontal bone thickening."""
    foci = []
    if rng.random() < 0.35:
        sign = rng.choice([-1, 1])
        foci.append(_focus(rng, "sinusitis", bones.at((sign * 2.4, 13.4, 5.8), "head"), (14, 14, 12), 2.0))
    for _ in range(rng.poisson(0.8)):
        sign = rng.choice([-1, 1])
        upper = rng.random() < 0.5
        point = (sign * rng.uniform(1.5, 3.4), 15.8 if upper else 18.4, 5.8)
        foci.append(_focus(rng, "dental", bones.at(point, "head"), (6, 6, 6), 2.2))
    if bones.patient.sex == "F" and rng.random() < 0.12 * wear:
        for sign in (-1, 1):
            centre = bones.at((sign * 2.6, 5.2, 7.6), "head")
            foci.append(_focus(rng, "hyperostosis frontalis", centre, (28, 24, 10), 1.7, 0.2))
    return foci


def _compression(rng: np.random.Generator, bones: PosedSkeleton, wear: float) -> list[Focus]:
    """An osteoporotic collapse: a flat band across the whole vertebra, thinner than a vertebra is high."""
    foci = []
    if rng.random() < 0.16 * wear:
        name = str(rng.choice(["T8", "T9", "T11", "T12", "L1", "L2", "L3"]))
        middle = bones.vertebral_body(name)
        foci.append(_focus(rng, "compression fracture", middle + (0, -0.4, -0.4), (36, 3, 24), 3.0))
    return foci
