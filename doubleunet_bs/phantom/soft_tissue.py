"""The outline of the body: where its front and back surface lie, and the soft tissue between them.

Each part is a stack of (super)ellipses, one per row: half width and half depth about a centre line.
"""

import dataclasses

import numpy as np

from doubleunet_bs.phantom.patient import Patient, pose
from doubleunet_bs.phantom.skeleton import ANKLE, ELBOW, HIP, KNEE, SHOULDER, WRIST


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the body; all arrays of shape (knots,), patient centimetres, `y` increasing.

    `concentration` is relative to the patient's muscle; `power` 2 is an ellipse, larger is more box-like.
    """

    y: np.ndarray
    x: np.ndarray
    half_width: np.ndarray
    z: np.ndarray
    half_depth: np.ndarray
    concentration: float = 1.0
    power: float = 2.0


@dataclasses.dataclass(frozen=True)
class Surfaces:
    """float32 arrays of shape (rows, columns): z of the body's front and back in cm, and what lies between them.

    `concentration` is that of the soft tissue, relative to trabecular bone. Where there is no
    body, front is -100, back +100 and the concentration 0.
    """

    front: np.ndarray
    back: np.ndarray
    concentration: np.ndarray

    @property
    def thickness(self) -> np.ndarray:
        """cm of tissue along the line of sight, 0 outside the body."""
        return np.maximum(self.front - self.back, 0)


# y, half width, half depth, fat's share of the width, of the depth
_TORSO = np.array([
    (21.5, 5.2, 5.2, 0.3, 0.2), (23.5, 6.6, 5.8, 0.9, 0.4), (25.0, 10.5, 6.2, 1.3, 0.5),
    (26.5, 14.2, 6.8, 1.6, 0.8), (28.5, 16.2, 7.8, 1.7, 1.0), (32.0, 16.8, 9.2, 2.2, 1.2),
    (37.0, 16.0, 10.2, 3.0, 1.6), (43.0, 15.0, 10.4, 3.6, 2.2), (50.0, 14.2, 9.8, 4.6, 3.0),
    (56.0, 13.9, 9.4, 5.6, 3.8), (61.0, 15.0, 9.6, 5.2, 3.8), (67.0, 16.5, 10.0, 4.4, 3.2),
    (73.0, 17.2, 10.2, 3.4, 2.4), (77.0, 17.0, 9.8, 2.8, 2.0), (80.0, 15.6, 8.6, 2.2, 1.6),
    (82.0, 12.4, 7.0, 1.6, 1.2), (83.2, 9.0, 5.0, 1.2, 0.8), (84.0, 5.0, 0.1, 1.0, 0.0),
])  # fmt: skip


def build_parts(patient: Patient) -> list[Part]:
    """Head, neck, torso, limbs and breasts of `patient`."""
    fat = 1.25 * patient.fat
    parts = [_head(patient), _ears(patient, 1), _ears(patient, -1)]
    y, half_width, half_depth, wide_share, deep_share = _TORSO.T
    middle = pose(np.column_stack([np.zeros_like(y), y, -0.4 + 0.0 * y]), "trunk", patient)
    male = 1.0 if patient.sex == "M" else 0.0
    hips = 1 - 0.05 * male * np.clip((y - 55) / 15, 0, 1)
    wide = half_width * hips * patient.width + wide_share * fat
    deep = half_depth * patient.depth + deep_share * fat
    parts.append(Part(middle[:, 1], middle[:, 0], wide, middle[:, 2] + 0.5 * fat * deep_share, deep, 1.0, 2.6))
    for side, sign in (("L", 1), ("R", -1)):
        parts += [_arm(patient, side, sign, fat), _leg(patient, side, sign, fat)]
        if patient.sex == "F":
            parts.append(_breast(patient, sign, fat))
    return parts


def _head(patient: Patient) -> Part:
    y = np.array([-0.4, 0.0, 0.8, 2.2, 4.5, 7.5, 10.5, 13.5, 16.0, 18.0, 20.0, 21.5, 23.0, 25.0])
    width = np.array([0.1, 2.6, 4.4, 6.0, 7.3, 7.9, 7.9, 7.4, 6.7, 6.1, 5.6, 5.5, 5.8, 6.6])
    depth = np.array([0.1, 3.2, 5.5, 7.5, 9.0, 9.8, 9.8, 9.6, 9.2, 8.2, 6.6, 5.8, 5.8, 6.0])
    fat = patient.fat * 0.9 * np.clip((y - 13) / 6, 0, 1)
    line = pose(np.column_stack([0 * y, y, 0 * y]), "head", patient)
    return Part(line[:, 1], line[:, 0], width + fat, line[:, 2], depth, 1.0, 2.2)


def _ears(patient: Patient, sign: int) -> Part:
    y = np.array([9.6, 10.2, 12.0, 14.0, 15.0])
    line = pose(np.column_stack([0 * y + 7.9 * sign, y, -0.8 + 0 * y]), "head", patient)
    width, depth = np.array([0.1, 0.9, 1.2, 0.8, 0.1]), np.array([0.1, 0.8, 1.2, 0.8, 0.1])
    return Part(line[:, 1], line[:, 0], width, line[:, 2], depth, 1.6)


def _arm(patient: Patient, side: str, sign: int, fat: float) -> Part:
    s, e, w = (np.array(p) * (sign, 1, 1) for p in (SHOULDER, ELBOW, WRIST))
    knots, widths, depths = [], [], []
    upper = [
        (-0.135, 0.1, 0.1), (-0.12, 1.5, 2.6), (-0.08, 2.7, 3.6), (0.0, 3.9, 4.6), (0.15, 4.2, 4.9), (0.4, 4.1, 4.7),
        (0.75, 3.7, 4.1), (0.97, 3.7, 3.8),
    ]  # fmt: skip
    hand = [
        (1.5, 0.2, 3.1, 2.0), (5.0, 0.8, 4.4, 2.0), (9.0, 0.9, 4.3, 1.6), (13.0, 0.4, 3.4, 1.2), (16.0, 0.2, 2.6, 0.9),
        (17.5, 0.2, 0.2, 0.2),
    ]  # fmt: skip
    for t, half_width, half_depth in upper:
        knots.append(pose((s + t * (e - s) + (sign * 0.3, 0, 0))[None], f"upper_arm_{side}", patient)[0])
        widths.append(half_width + fat * 1.1 * min(1, max(0, t + 0.1) * 4))
        depths.append(half_depth + fat * 0.8)
    for t, half_width, half_depth in ((0.12, 3.9, 3.7), (0.3, 3.8, 3.6), (0.6, 3.1, 3.0), (0.92, 2.7, 2.1)):
        knots.append(pose((e + t * (w - e))[None], f"forearm_{side}", patient)[0])
        widths.append(half_width + fat * 0.8 * (1 - t))
        depths.append(half_depth + fat * 0.6 * (1 - t))
    flat = 0.35 + 0.65 * patient.hand_width
    for down, across, half_width, half_depth in hand:
        knots.append(pose((w + (sign * across, down, 0))[None], f"hand_{side}", patient)[0])
        widths.append(half_width * flat)
        depths.append(half_depth / flat**0.5)
    return _limb(knots, widths, depths, 0.95, 2.1)


def _limb(knots: list, widths: list[float], depths: list[float], concentration: float, power: float) -> Part:
    """A limb from its knots in any order."""
    line = np.array(knots)
    order = np.argsort(line[:, 1], kind="stable")
    x, y, z = line[order].T
    return Part(y, x, np.array(widths)[order], z, np.array(depths)[order], concentration, power)


def _leg(patient: Patient, side: str, sign: int, fat: float) -> Part:
    h, k, a = (np.array(p) * (sign, 1, 1) for p in (HIP, KNEE, ANKLE))
    knots, widths, depths = [], [], []

    def add(segment: str, point, half_width: float, half_depth: float) -> None:
        knots.append(pose(np.asarray(point)[None], f"{segment}_{side}", patient)[0])
        widths.append(half_width)
        depths.append(half_depth)

    thigh = [
        (-0.05, 7.0, 6.5, 1.4), (0.06, 8.3, 8.2, 1.9), (0.2, 8.3, 8.5, 1.9), (0.45, 7.2, 7.8, 1.5),
        (0.7, 6.1, 6.6, 1.0), (0.92, 5.6, 5.9, 0.6),
    ]  # fmt: skip
    shank = [
        (0.03, 5.6, 5.8, 0.5), (0.14, 5.1, 5.3, 0.5), (0.3, 5.5, 5.6, 0.7), (0.5, 5.0, 5.0, 0.6), (0.75, 3.7, 3.9, 0.4),
        (0.93, 3.2, 3.6, 0.2),
    ]  # fmt: skip
    foot = [
        (1.5, 0.1, 3.4, 4.2, -0.3), (4.5, 0.5, 3.6, 5.0, 0.5), (8.0, 1.3, 4.2, 3.2, 4.5), (11.0, 1.9, 4.3, 2.2, 7.0),
        (13.5, 2.2, 3.5, 1.5, 8.5), (14.7, 2.3, 0.3, 0.3, 9.0),
    ]  # fmt: skip
    for t, wide, deep, share in thigh:
        outwards = sign * (0.2 + 0.9 * fat)
        add("thigh", h + t * (k - h) + (outwards * (1 - t), 0, -0.3), wide + share * fat, deep + share * fat)
    for t, wide, deep, share in shank:
        add("shank", k + t * (a - k) + (0, 0, -1.2 * (1 - t)), wide + share * fat, deep + share * fat)
    for down, across, half_width, half_depth, z in foot:
        add("foot", a + (sign * across, down, z), half_width, half_depth)
    return _limb(knots, widths, depths, 0.85, 2.0)


def _breast(patient: Patient, sign: int, fat: float) -> Part:
    size = 0.75 + 0.55 * fat
    t = np.linspace(-1, 1, 11)
    round_ = np.sqrt(np.maximum(1 - t**2, 0.002))
    middle = pose(np.array([[sign * (8.6 + 1.6 * fat), 40.5 + 1.5 * fat, 6.5]]), "trunk", patient)[0]
    radius = 5.2 * size
    return Part(
        middle[1] + radius * t,
        np.full(11, middle[0]),
        1.05 * radius * round_,
        np.full(11, middle[2] + 0.6 * fat),
        (3.6 * size + 2.0) * round_,
        1.1,
    )


def surfaces(parts: list[Part], patient: Patient, row_y: np.ndarray, column_x: np.ndarray) -> Surfaces:
    """Union of all `parts` on a grid: `row_y` (rows,) and `column_x` (columns,) are its middles in patient cm."""
    shape = (len(row_y), len(column_x))
    front, back = np.full(shape, -100, np.float32), np.full(shape, 100, np.float32)
    amount, depth_sum = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for part in parts:
        rows = np.flatnonzero((row_y >= part.y[0]) & (row_y <= part.y[-1]))
        if not len(rows):
            continue
        y = row_y[rows]
        x, wide, z, deep = (
            np.interp(y, part.y, values).astype(np.float32)
            for values in (part.x, part.half_width, part.z, part.half_depth)
        )
        low, high = np.searchsorted(column_x, [(x - wide).min(), (x + wide).max()])
        if low == high:
            continue
        box = (slice(rows[0], rows[-1] + 1), slice(low, high))
        across = np.abs(column_x[None, low:high].astype(np.float32) - x[:, None]) / wide[:, None]
        half = deep[:, None] * np.maximum(1 - across**part.power, 0) ** np.float32(1 / min(part.power, 2.2))
        inside = half > 0
        front[box] = np.where(inside, np.maximum(front[box], z[:, None] + half), front[box])
        back[box] = np.where(inside, np.minimum(back[box], z[:, None] - half), back[box])
        amount[box] += part.concentration * half
        depth_sum[box] += half
    concentration = np.divide(amount, depth_sum, out=np.zeros(shape, np.float32), where=depth_sum > 0)
    return Surfaces(front, back, concentration * np.float32(patient.soft_tissue))
