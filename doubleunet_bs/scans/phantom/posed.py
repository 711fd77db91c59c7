"""The template skeleton bent to one patient, with his uptake."""

import dataclasses

import numpy as np

from doubleunet_bs.phantom.axial_skeleton import vertebra_places
from doubleunet_bs.phantom.patient import Patient, pose, uneven
from doubleunet_bs.scans.phantom.skeleton import Skeleton


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
