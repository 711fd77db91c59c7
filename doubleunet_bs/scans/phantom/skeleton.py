"""The template skeleton: every bone of one person, built once per process and then bent to each patient."""

import dataclasses
import functools

import numpy as np

from doubleunet_bs.phantom import axial_skeleton, limb_skeleton
from doubleunet_bs.phantom.shapes import Cloud

# Bones that move together. A bone not named here belongs to the trunk.
_SEGMENTS = {
    "skull": "head",
    "face": "head",
    "mandible": "head",
    "humerus": "upper_arm",
    "forearm": "forearm",
    "hand": "hand",
    "femur": "thigh",
    "knee": "thigh",
    "shank": "shank",
    "ankle": "foot",
    "foot": "foot",
}


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

    def names(self, *prefixes: str) -> list[str]:
        """Names of the bones that start with one of `prefixes`, in the order of the cloud."""
        return [name for name in self.bones if name.startswith(prefixes)]


@functools.lru_cache(maxsize=1)
def template_skeleton() -> Skeleton:
    """The skeleton of the 160 cm template person. The same object every time: do not change its arrays."""
    clouds = {**axial_skeleton.skull(), **axial_skeleton.spine(), **axial_skeleton.sternum()}
    left = {
        **axial_skeleton.ribs(),
        **limb_skeleton.shoulder_girdle(),
        **limb_skeleton.arm(),
        **limb_skeleton.pelvis(),
        **limb_skeleton.leg(),
    }
    for name, cloud in left.items():
        clouds[name] = cloud
        clouds[name.replace("_L", "_R")] = cloud.mirrored()
    bones, segments, start = {}, {}, 0
    for name, cloud in clouds.items():
        bones[name] = slice(start, start + len(cloud))
        segments[name] = _segment(name)
        start += len(cloud)
    joined = Cloud(
        *(np.concatenate([getattr(c, field) for c in clouds.values()]) for field in ("xyz", "weight", "along"))
    )
    for array in (joined.xyz, joined.weight, joined.along):
        array.setflags(write=False)
    return Skeleton(joined, bones, segments)


def _segment(name: str) -> str:
    stem = name.split("_")[0]
    if stem in ("C1", "C2", "C3", "C4", "C5", "C6", "C7"):
        return "neck"
    if stem not in _SEGMENTS:
        return "trunk"
    return _SEGMENTS[stem] if _SEGMENTS[stem] == "head" else f"{_SEGMENTS[stem]}_{name[-1]}"
