"""One synthetic patient: size, build, posture and uptake, and how the template person is bent to them.

The ranges keep a cohort inside bands measured on real whole-body scans: body height 647-769 rows at 2.26-2.40 mm,
body 21-43 % of the image, bone to soft tissue about 3:1.
"""

import dataclasses
import functools

import numpy as np

from doubleunet_bs.phantom.shapes import Cloud, join
from doubleunet_bs.phantom.skeleton import ANKLE, ELBOW, HIP, KNEE, SHOULDER, WRIST, all_bones, vertebra_places

# Bones that move together. A bone not named here belongs to the trunk.
_SEGMENTS = {
    "skull": "head", "face": "head", "mandible": "head", "humerus": "upper_arm", "forearm": "forearm", "hand": "hand",
    "femur": "thigh", "knee": "thigh", "shank": "shank", "ankle": "foot", "foot": "foot",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """All bones in one set of arrays.

    Attributes:
        cloud: the points of all bones, template centimetres.
        bones: bone name ("T7", "rib_L4", "ilium_R", ...) -> slice into the cloud.
        segments: bone name -> moving segment ("trunk", "head", "neck", "forearm_L", ...).
    """

    cloud: Cloud
    bones: dict[str, slice]
    segments: dict[str, str]


@functools.lru_cache(maxsize=1)
def template_skeleton() -> Skeleton:
    """The skeleton of the 160 cm template person. The same object every time: do not change its arrays."""
    clouds = all_bones()
    bones: dict[str, slice] = {}
    segments: dict[str, str] = {}
    start = 0
    for name, cloud in clouds.items():
        bones[name] = slice(start, start + len(cloud))
        segments[name] = _segment(name)
        start += len(cloud)
    joined = join(*clouds.values())
    for array in (joined.xyz, joined.weight, joined.along, joined.mass):
        array.setflags(write=False)
    return Skeleton(joined, bones, segments)


def _segment(name: str) -> str:
    stem = name.split("_")[0]
    if stem in ("C1", "C2", "C3", "C4", "C5", "C6", "C7"):
        return "neck"
    if stem not in _SEGMENTS:
        return "trunk"
    return _SEGMENTS[stem] if _SEGMENTS[stem] == "head" else f"{_SEGMENTS[stem]}_{name[-1]}"


# Heights (template cm) between which each stretch of the body is scaled by its own factor.
_LEVELS = np.array([-30.0, 0.0, 19.5, 27.0, 50.0, 64.0, 75.0, 114.6, 152.6, 200.0])


@dataclasses.dataclass(frozen=True)
class Patient:
    """A patient drawn from the seed.

    Attributes:
        sex: "F" or "M".
        age: years, 35-88.
        fat: -0.4 wasted, 0 lean, 1 obese.
        lengths: scale factor of each stretch between `_LEVELS`.
        width, depth: scale of the trunk across and front to back.
        scoliosis: (amplitude cm, phase, period cm); kyphosis: cm of extra backward bend.
        head: (tilt, turn) in radians.
        joints: segment joint ("shoulder_L", "elbow_R", "hip_L", ...) -> angle in radians, positive away from the body.
        hand_width: apparent width of the hands, 1 flat, 0.4 on edge.
        uptake: bone name -> factor on the template's concentration.
        soft_tissue: concentration of muscle and fat over that of trabecular bone.
        texture: (waves, 4) wave vectors in 1/cm and phases of the uneven uptake within bones.
    """

    sex: str
    age: float
    fat: float
    lengths: np.ndarray
    width: float
    depth: float
    scoliosis: tuple[float, float, float]
    kyphosis: float
    head: tuple[float, float]
    joints: dict[str, float]
    hand_width: float
    uptake: dict[str, float]
    soft_tissue: float
    texture: np.ndarray


def draw_patient(rng: np.random.Generator, skeleton: Skeleton, cancer: str) -> Patient:
    """Draw a patient: women with breast cancer (1 in 100 a man), men with prostate cancer, older."""
    sex = "M" if cancer == "prostate" or rng.random() < 0.01 else "F"
    age = float(np.clip(rng.normal(70 if cancer == "prostate" else 56, 10), 35, 88))
    fat = float(np.clip(rng.beta(2.0, 2.6) * 1.5 - 0.42, -0.4, 1))
    stature = np.clip(rng.normal(1.045 if sex == "M" else 1.0, 0.035), 0.93, 1.08)
    lengths = stature * np.clip(rng.normal(1, 0.02, len(_LEVELS) - 1), 0.95, 1.05)
    lengths[:2] = 0.45 * lengths[:2] + 0.55
    osteoporosis = np.clip((age - 55) / 30 + rng.normal(0, 0.3), 0, 1)
    joints = {}
    spread = rng.normal(0.030, 0.015)
    arms = max(0.0, 0.14 * fat) + abs(rng.normal(0, 0.025))
    for side in "LR":
        joints[f"shoulder_{side}"] = float(arms + rng.normal(0, 0.025))
        joints[f"elbow_{side}"] = float(np.clip(rng.normal(-0.02, 0.05), -0.16, 0.10) - 0.55 * arms)
        joints[f"wrist_{side}"] = float(rng.normal(-0.05, 0.10))
        joints[f"hip_{side}"] = float(spread + 0.02 * fat + rng.normal(0, 0.012))
        joints[f"knee_{side}"] = float(rng.normal(-0.035, 0.02))
        joints[f"ankle_{side}"] = float(np.clip(rng.normal(0.10, 0.16), -0.15, 0.45))
    return Patient(
        sex=sex,
        age=age,
        fat=fat,
        lengths=lengths,
        width=float((1.06 if sex == "M" else 0.98) * rng.normal(1, 0.03) * (1 + 0.04 * fat)),
        depth=float(rng.normal(1, 0.04) * (1 + 0.10 * fat)),
        scoliosis=(
            float(rng.normal(0, 0.5) * (2.4 if rng.random() < 0.15 else 1)),
            float(rng.uniform(0, 6.3)),
            float(rng.uniform(36, 60)),
        ),
        kyphosis=float(np.clip(rng.normal(0.3 + 1.6 * osteoporosis, 0.5), 0, 3)),
        head=(float(rng.normal(0, 0.06)), float(rng.normal(0, 0.13))),
        joints=joints,
        hand_width=float(rng.uniform(0.45, 1.0)),
        uptake=_draw_uptake(rng, skeleton, osteoporosis),
        soft_tissue=float(0.050 * np.exp(rng.normal(0, 0.16)) * (1 + 0.35 * osteoporosis)),
        texture=np.column_stack([rng.normal(0, 1.1, (7, 3)), rng.uniform(0, 2 * np.pi, 7)]),
    )


def _draw_uptake(rng: np.random.Generator, skeleton: Skeleton, osteoporosis: float) -> dict[str, float]:
    """Whole regions vary from patient to patient, single bones a little on top of it."""
    region_spread = {
        "skull": 0.16, "face": 0.22, "mandible": 0.20, "rib": 0.10, "manubrium": 0.14, "sternum": 0.16,
        "si": 0.14, "scapula": 0.12, "hand": 0.22, "knee": 0.22, "ankle": 0.2, "foot": 0.2,
    }  # fmt: skip
    regions: dict[str, float] = {}
    uptake = {}
    for name in skeleton.bones:
        stem = name.split("_")[0]
        region = "spine" if stem[0] in "CTL" and stem[1:].isdigit() else stem
        if region not in regions:
            regions[region] = float(np.exp(rng.normal(0, region_spread.get(region, 0.10))))
        own = 0.05 if region in ("spine", "rib") else 0.07
        uptake[name] = regions[region] * float(np.exp(rng.normal(0, own))) * (1 - 0.15 * osteoporosis)
    return uptake


def vary_patient(rng: np.random.Generator, patient: Patient) -> Patient:
    """The same patient with another build and posture, and other uptake of bones and soft tissue.

    Widened beyond the bands measured on real scans on purpose: for networks that must not learn one posture or build by
    heart. At most 50 cm wide at the hips.
    """
    regions: dict[str, float] = {}
    uptake = {}
    for name, value in patient.uptake.items():
        stem = name.split("_")[0]
        region = stem[0] if stem[0] in "CTL" and stem[1:].isdigit() else stem
        if region not in regions:
            regions[region] = float(np.exp(rng.normal(0, 0.30)))
        uptake[name] = value * regions[region] * float(np.exp(rng.normal(0, 0.08)))
    joints = dict(patient.joints)
    arms = rng.uniform(0, 0.35)
    for side in "LR":
        joints[f"shoulder_{side}"] += float(arms * rng.uniform(0.6, 1.2))
        # Forearms beside the body, or laid on the belly.
        joints[f"elbow_{side}"] -= float(rng.uniform(0.5, 1.0) if rng.random() < 0.25 else arms * rng.uniform(0, 1.5))
        joints[f"wrist_{side}"] += float(rng.normal(0, 0.15))
        joints[f"hip_{side}"] += float(rng.uniform(-0.05, 0.08))
        joints[f"knee_{side}"] += float(rng.normal(0, 0.04))
    amplitude, phase, period = patient.scoliosis
    return dataclasses.replace(
        patient,
        fat=float(rng.uniform(-0.4, 1.5)),
        lengths=patient.lengths * rng.uniform(0.9, 1.08) * np.exp(rng.normal(0, 0.05, len(patient.lengths))),
        width=float(patient.width * rng.uniform(0.9, 1.2)),
        depth=float(patient.depth * rng.uniform(0.9, 1.2)),
        scoliosis=(amplitude * float(rng.uniform(1, 2.5)), phase, period),
        kyphosis=float(patient.kyphosis * rng.uniform(0.5, 1.6)),
        head=(float(rng.normal(0, 0.12)), float(rng.normal(0, 0.30))),
        joints=joints,
        uptake=uptake,
        soft_tissue=float(patient.soft_tissue * np.exp(rng.uniform(np.log(0.7), np.log(3.0)))),
    )


def pose(xyz: np.ndarray, segment: str, patient: Patient) -> np.ndarray:
    """Template points (points, 3) of a moving segment -> patient centimetres in the same axes, float32."""
    xyz = np.array(xyz, np.float32)
    side = segment[-1] if segment[-2:] in ("_L", "_R") else ""
    sign = -1.0 if side == "R" else 1.0
    if side:
        xyz[:, 0] *= sign
        if segment.startswith("hand"):
            wrist = WRIST[0]
            xyz[:, 0] = wrist + (xyz[:, 0] - wrist) * patient.hand_width
        for joint, centre in _chain(segment[:-2]):
            xyz = _turn(xyz, centre, patient.joints[f"{joint}_{side}"])
        xyz[:, 0] *= sign
    elif segment in ("head", "neck"):
        share = np.clip((25.0 - xyz[:, 1]) / 9.0, 0, 1)
        xyz = _turn(xyz, (0.0, 24.5, 0.0), patient.head[0] * share)
        turn = patient.head[1] * share
        x, z = xyz[:, 0].copy(), xyz[:, 2].copy()
        xyz[:, 0] = x * np.cos(turn) + z * np.sin(turn)
        xyz[:, 2] = z * np.cos(turn) - x * np.sin(turn)
    return _warp(xyz, segment, patient)


def _chain(part: str) -> list[tuple[str, tuple[float, float, float]]]:
    """The joints that move a limb segment, outermost first."""
    shoulder, elbow, wrist = ("shoulder", SHOULDER), ("elbow", ELBOW), ("wrist", WRIST)
    hip, knee, ankle = ("hip", HIP), ("knee", KNEE), ("ankle", ANKLE)
    arm = {"upper_arm": [shoulder], "forearm": [elbow, shoulder], "hand": [wrist, elbow, shoulder]}
    leg = {"thigh": [hip], "shank": [knee, hip], "foot": [ankle, knee, hip]}
    return (arm | leg)[part]


def _turn(xyz: np.ndarray, centre, angle) -> np.ndarray:
    """Turn in the coronal plane about `centre`; a positive angle takes a hanging limb of the left side outwards."""
    x, y = xyz[:, 0] - centre[0], xyz[:, 1] - centre[1]
    cosine, sine = np.cos(angle), np.sin(angle)
    turned = [centre[0] + x * cosine + y * sine, centre[1] - x * sine + y * cosine, xyz[:, 2]]
    return np.column_stack(turned).astype(np.float32)


def _warp(xyz: np.ndarray, segment: str, patient: Patient) -> np.ndarray:
    x, y, z = xyz.T
    reached = np.concatenate([[_LEVELS[0]], _LEVELS[0] + np.cumsum(np.diff(_LEVELS) * patient.lengths)])
    reached -= np.interp(0.0, _LEVELS, reached)
    wide = np.where(y < 22, 1 + 0.3 * (patient.width - 1), patient.width) if segment == "head" else patient.width
    level = np.clip(y, 15, 66)
    amplitude, phase, period = patient.scoliosis
    bend = amplitude * np.sin(2 * np.pi * level / period + phase) * np.clip((66 - level) / 10, 0, 1)
    if segment.split("_")[0] in ("upper", "forearm", "hand"):
        bend = amplitude * np.sin(2 * np.pi * 29.0 / period + phase)
    deep = z * patient.depth if segment in ("trunk", "neck") else z
    deep = deep - (patient.kyphosis * np.exp(-(((y - 33) / 9) ** 2)) if segment == "trunk" else 0)
    return np.column_stack([x * wide + bend, np.interp(y, _LEVELS, reached), deep]).astype(np.float32)


def uneven(xyz: np.ndarray, patient: Patient) -> np.ndarray:
    """Uneven uptake within bones: a factor about 1 for each template point, float32 (points,)."""
    waves = patient.texture[:, :3].astype(np.float32)
    total = np.zeros(len(xyz), np.float32)
    for (kx, ky, kz), phase in zip(waves, patient.texture[:, 3].astype(np.float32), strict=True):
        total += np.sin(xyz[:, 0] * kx + xyz[:, 1] * ky + xyz[:, 2] * kz + phase)
    return 1 + 0.07 * total / np.float32(np.sqrt(len(waves) / 2))


@dataclasses.dataclass(frozen=True)
class PosedSkeleton:
    """One patient's bones.

    Attributes:
        skeleton: the template they come from.
        patient: whose they are.
        xyz: float32 (points, 3), patient cm.
        weight: float32 (points,), activity concentration x cm^3.
    """

    skeleton: Skeleton
    patient: Patient
    xyz: np.ndarray
    weight: np.ndarray

    def points(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Points (n, 3) and weights (n,) of one bone."""
        where = self.skeleton.bones[name]
        return self.xyz[where], self.weight[where]

    def along(self, name: str) -> np.ndarray:
        """Position of each point of a rod-like bone along it, in [0, 1]."""
        return self.skeleton.cloud.along[self.skeleton.bones[name]]

    def length(self, name: str) -> float:
        """Length of a rod-like bone in cm."""
        xyz, along = self.xyz[self.skeleton.bones[name]], self.along(name)
        bins = np.minimum((along * 20).astype(int), 19)
        count = np.maximum(np.bincount(bins, minlength=20), 1)
        line = np.column_stack([np.bincount(bins, xyz[:, axis], minlength=20) / count for axis in range(3)])
        return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum() * 20 / 19)

    def on_rod(self, name: str, position: float) -> np.ndarray:
        """Centre of a rod-like bone at `position` in [0, 1], (3,)."""
        near = np.abs(self.along(name) - position) < 0.04
        return self.xyz[self.skeleton.bones[name]][near].mean(axis=0)

    def vertebral_body(self, name: str) -> np.ndarray:
        """Middle of a vertebral body, (3,)."""
        y, z, *_ = vertebra_places()[name]
        return self.at((0.0, y, z), self.skeleton.segments[name])

    def at(self, template_point, segment: str = "trunk") -> np.ndarray:
        """Where a point of the template person lies in this patient, (3,)."""
        return pose(np.asarray(template_point, float)[None], segment, self.patient)[0]


def pose_skeleton(skeleton: Skeleton, patient: Patient) -> PosedSkeleton:
    """Bend the whole skeleton and give each bone the patient's uptake."""
    xyz = np.empty_like(skeleton.cloud.xyz)
    weight = skeleton.cloud.weight * uneven(skeleton.cloud.xyz, patient)
    for name, where in skeleton.bones.items():
        xyz[where] = pose(skeleton.cloud.xyz[where], skeleton.segments[name], patient)
        weight[where] *= np.float32(patient.uptake[name])
    return PosedSkeleton(skeleton, patient, xyz, weight)
