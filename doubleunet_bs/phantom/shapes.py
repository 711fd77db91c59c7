"""Solid shapes as clouds of weighted points: the phantom's bones and organs are made of them.

Coordinates are centimetres of a 160 cm template person: x towards their left, y from the vertex towards the feet,
z towards the front. A point's weight is activity concentration x the volume it stands for. The points follow the
R-sequence (quasi-random, built on a generalised golden ratio): no random numbers, hardly any grain.
"""

import dataclasses

import numpy as np

POINTS_PER_SQUARE_CM = 70.0


@dataclasses.dataclass(frozen=True)
class Cloud:
    """Weighted points.

    Attributes:
        xyz: float32 array of shape (points, 3), template centimetres.
        weight: float32 array of shape (points,), activity concentration x cm^3.
        along: float32 array of shape (points,), position along the bone in [0, 1] (0.5 where it has no meaning).
        mass: float32 array of shape (points,), cm^3 of bone that the point stands for, whatever its activity.
    """

    xyz: np.ndarray
    weight: np.ndarray
    along: np.ndarray
    mass: np.ndarray

    def __len__(self) -> int:
        return len(self.weight)

    def mirrored(self) -> "Cloud":
        """The same shape on the other side of the body."""
        return Cloud(self.xyz * np.array([-1, 1, 1], np.float32), self.weight, self.along, self.mass)


def join(*clouds: Cloud) -> Cloud:
    """One cloud out of several. At least one is needed."""
    return Cloud(
        np.concatenate([cloud.xyz for cloud in clouds]),
        np.concatenate([cloud.weight for cloud in clouds]),
        np.concatenate([cloud.along for cloud in clouds]),
        np.concatenate([cloud.mass for cloud in clouds]),
    )


def quasi_random(count: int, dimensions: int) -> np.ndarray:
    """Points of the R-sequence: float64 array of shape (count, dimensions), values in [0, 1)."""
    ratio = 2.0
    for _ in range(60):
        ratio = (1 + ratio) ** (1 / (dimensions + 1))
    steps = ratio ** -np.arange(1, dimensions + 1)
    return (0.5 + np.arange(1, count + 1)[:, None] * steps) % 1


def _evenly_ordered(count: int) -> np.ndarray:
    """(count, 3) points in [0, 1): the first coordinate a ladder, the others quasi-random (no visible lattice)."""
    return np.column_stack([(np.arange(count) + 0.5) / count, quasi_random(count, 2)])


def curve(points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A smooth (Catmull-Rom) curve through `points` (knots, values): its values (len(at), values) at `at` in [0, 1]."""
    points = np.asarray(points, float)
    if points.ndim == 1:
        points = points[:, None]
    knots = len(points)
    extended = np.vstack([2 * points[0] - points[1], points, 2 * points[-1] - points[-2]])
    position = np.clip(at, 0, 1) * (knots - 1)
    index = np.minimum(position.astype(int), knots - 2)
    u = (position - index)[:, None]
    p0, p1, p2, p3 = (extended[index + k] for k in range(4))
    return 0.5 * (2 * p1 + (p2 - p0) * u + (2 * p0 - 5 * p1 + 4 * p2 - p3) * u**2 + (3 * p1 - p0 - 3 * p2 + p3) * u**3)


def tube(points, radius, activity=1.0, flatten: float = 1.0) -> Cloud:
    """A bent rod.

    Args:
        points: (knots, 3) centre line.
        radius, activity: cm and concentration, one value or a profile along the rod.
        flatten: thickness across the bend plane over the thickness in it (ribs are flat).
    """
    dense = np.linspace(0, 1, 200)
    line = curve(points, dense)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    radius = np.atleast_1d(np.asarray(radius, float))
    activity = np.atleast_1d(np.asarray(activity, float))
    count = int(max(80, POINTS_PER_SQUARE_CM * length[-1] * (radius.mean() + radius.max())))
    q = _evenly_ordered(count)
    t = np.interp(q[:, 0] * length[-1], length, dense)
    along = q[:, 0]
    centre = np.stack([np.interp(t, dense, line[:, axis]) for axis in range(3)], axis=1)
    tangent = curve(points, np.minimum(t + 0.005, 1)) - curve(points, np.maximum(t - 0.005, 0))
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-12
    helper = np.where(np.abs(tangent[:, 2:3]) > 0.9, [[1.0, 0, 0]], [[0, 0, 1.0]])
    side = np.cross(tangent, helper)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(tangent, side)
    r = np.interp(along, np.linspace(0, 1, len(radius)), radius)
    a = np.interp(along, np.linspace(0, 1, len(activity)), activity)
    rho = r * np.sqrt(q[:, 1])
    angle = 2 * np.pi * q[:, 2]
    xyz = centre + side * (rho * np.cos(angle))[:, None] + other * (flatten * rho * np.sin(angle))[:, None]
    volume = np.pi * r**2 * flatten * length[-1] / count
    weight = a * np.pi * r**2 * flatten * length[-1] / count
    return Cloud(*(array.astype(np.float32) for array in (xyz, weight, along, volume)))


def ellipsoid(
    centre, radii, activity: float = 1.0, hollow: float = 0.0, density: float = 1.0, bone: float = 1.0
) -> Cloud:
    """A solid ellipsoid, or with `hollow` in (0, 1) the shell outside that fraction of its radius.

    `density` is that of the points; `bone` the part of the volume that is bone, in places of thin bone and much air.
    """
    radii = np.asarray(radii, float)
    area = np.pi * np.sort(radii)[1] * radii.max()
    count = int(max(60, POINTS_PER_SQUARE_CM * area * density))
    q = _evenly_ordered(count)[:, [1, 0, 2]]
    r = (hollow**3 + (1 - hollow**3) * q[:, 0]) ** (1 / 3)
    cosine = 2 * q[:, 1] - 1
    sine = np.sqrt(1 - cosine**2)
    angle = 2 * np.pi * q[:, 2]
    unit = np.stack([sine * np.cos(angle), sine * np.sin(angle), cosine], axis=1)
    xyz = np.asarray(centre, float) + unit * r[:, None] * radii
    volume = 4 / 3 * np.pi * radii.prod() * (1 - hollow**3)
    weight = np.full(count, activity * volume / count, np.float32)
    mass = np.full(count, bone * volume / count, np.float32)
    return Cloud(xyz.astype(np.float32), weight, np.full(count, 0.5, np.float32), mass)


def plate(outline, depth, thickness: float, activity: float = 1.0, rim: float = 1.0, rim_width: float = 0.8) -> Cloud:
    """A flat, possibly bent bone: everything inside a polygon of the coronal plane.

    Args:
        outline: (corners, 2) x and y of the border, smoothed.
        depth: function (x, y) -> z of the middle of the plate.
        thickness: cm along z.
        activity: concentration.
        rim: activity at the border over that inside.
        rim_width: cm over which the rim's activity falls off.
    """
    outline = np.asarray(outline, float)
    closed = curve(np.vstack([outline, outline[:1]]), np.linspace(0, 1, 16 * len(outline)))
    low, high = closed.min(axis=0), closed.max(axis=0)
    box = (high - low).prod()
    q = quasi_random(int(POINTS_PER_SQUARE_CM * box), 3)
    xy = low + q[:, :2] * (high - low)
    inside = _inside(closed, xy)
    distance = np.full(len(xy), np.inf)
    for point in closed[::2]:
        distance = np.minimum(distance, np.hypot(xy[:, 0] - point[0], xy[:, 1] - point[1]))
    local = activity * (1 + (rim - 1) * np.exp(-((distance / rim_width) ** 2)))
    z = depth(xy[:, 0], xy[:, 1]) + (q[:, 2] - 0.5) * thickness
    xyz = np.column_stack([xy, z])[inside]
    weight = (local * thickness * box / len(q))[inside]
    mass = np.full(len(xyz), thickness * box / len(q), np.float32)
    return Cloud(xyz.astype(np.float32), weight.astype(np.float32), np.full(len(xyz), 0.5, np.float32), mass)


def keep(cloud: Cloud, where: np.ndarray) -> Cloud:
    """The points of `cloud` for which the boolean array `where` is true."""
    return Cloud(cloud.xyz[where], cloud.weight[where], cloud.along[where], cloud.mass[where])


def scaled(cloud: Cloud, factor: np.ndarray | float) -> Cloud:
    """`cloud` with its activity multiplied by `factor` (a number, or one value per point)."""
    return Cloud(cloud.xyz, (cloud.weight * factor).astype(np.float32), cloud.along, cloud.mass)


def _inside(polygon: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Even-odd rule: boolean array, which `points` (n, 2) lie inside `polygon` (m, 2)."""
    result = np.zeros(len(points), bool)
    x, y = points[:, 0], points[:, 1]
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crosses = ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
        result ^= crosses
    return result
