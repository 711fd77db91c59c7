"""Skull, spine, ribs and sternum of the template person (decided here; sizes from anatomy, uptake tuned by eye)."""

import numpy as np

from doubleunet_bs.phantom.shapes import Cloud, curve, ellipsoid, join, keep, plate, scaled, tube

# Height (y, cm) of the middle of the first vertebral body of each region.
_CERVICAL_TOP, _THORACIC_TOP, _LUMBAR_TOP = 14.8, 26.2, 50.6


def skull() -> dict[str, Cloud]:
    """Calvarium, base, face and mandible: name -> Cloud."""
    vault = ellipsoid((0, 8.3, -0.2), (7.4, 8.2, 9.0), 0.72, hollow=0.935, density=1.6)
    y, z = vault.xyz[:, 1], vault.xyz[:, 2]
    vault = keep(vault, (y < 14.6) & ~((z > 3.0) & (y > 9.8)))
    # The occiput is thicker than the vertex, the squama of the temporal bone thinner.
    y, z = vault.xyz[:, 1], vault.xyz[:, 2]
    vault = scaled(vault, 1 + 0.35 * np.exp(-(((y - 10.5) / 2.2) ** 2)) * (z < -4) + 0.1 * (z > 5) * (y > 7.5))
    # Below it thins out into the neck: no edge.
    vault = scaled(vault, 1 / (1 + np.exp((vault.xyz[:, 1] - 12.6) / 0.5)))
    base = join(
        ellipsoid((0, 12.6, -1.0), (6.4, 2.0, 6.5), 0.07),
        both(ellipsoid((5.2, 12.9, -0.8), (1.4, 1.1, 1.4), 0.45)),
        both(ellipsoid((5.9, 14.2, -2.0), (0.8, 1.5, 1.0), 0.5)),
        ellipsoid((0, 13.0, -6.2), (3.8, 2.0, 2.0), 0.17),
    )
    face = join(
        ellipsoid((0, 11.9, 6.2), (1.2, 2.2, 1.8), 0.75),
        ellipsoid((0, 14.6, 6.2), (2.5, 1.4, 1.9), 0.7),
        both(ellipsoid((2.6, 13.2, 5.6), (1.0, 1.3, 1.4), 0.45)),
        both(tube([(3.4, 13.3, 6.8), (5.1, 12.9, 5.4), (6.3, 12.6, 2.0)], 0.6, 0.55)),
        both(tube([(1.2, 9.8, 8.0), (3.3, 9.2, 7.6), (5.2, 10.6, 5.6), (5.3, 12.4, 5.3)], 0.55, 0.45)),
        ellipsoid((0, 16.9, 4.2), (3.2, 2.2, 3.0), 0.15),
        ellipsoid((0, 16.0, 6.9), (2.3, 0.7, 1.3), 0.9),
        both(ellipsoid((1.2, 10.2, 3.0), (1.3, 0.9, 1.8), 0.35)),
    )
    mandible = join(
        both(
            tube(
                [
                    (5.7, 13.4, 0.3),
                    (5.4, 15.6, 0.8),
                    (4.9, 17.3, 2.2),
                    (3.9, 18.6, 4.8),
                    (2.2, 19.4, 6.6),
                    (0, 19.7, 7.3),
                ],
                [0.8, 0.9, 0.9, 0.85, 0.85, 0.9],
                [0.62, 0.42, 0.46, 0.44, 0.42, 0.42],
            )
        ),
    )
    return {"skull_vault": vault, "skull_base": base, "face": face, "mandible": mandible}


def spine() -> dict[str, Cloud]:
    """C1-C7, T1-T12, L1-L5 and the sacrum with the coccyx: name -> Cloud."""
    bones = {}
    for name, (y, z, wide, high, deep) in vertebra_places().items():
        bones[name] = _vertebra(name, y, z, wide, high, deep)

    def sacrum_line(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return curve(np.array([-5.0, -6.6, -7.6, -7.6, -6.4]), (y - 63.5) / 11.0)[:, 0] - 0.02 * x**2

    sacrum = join(
        plate(
            [
                (-4.9, 63.9),
                (-2.4, 63.6),
                (2.4, 63.6),
                (4.9, 63.9),
                (4.7, 67.0),
                (3.4, 70.2),
                (1.9, 73.4),
                (0, 74.4),
                (-1.9, 73.4),
                (-3.4, 70.2),
                (-4.7, 67.0),
            ],
            sacrum_line,
            2.0,
            0.75,
            rim=1.05,
        ),
        tube([(0, 65, -7.8), (0, 68, -9.0), (0, 71, -9.0)], 0.55, 0.9),
        ellipsoid((0, 64.6, -4.6), (2.5, 1.2, 1.6), 0.8),
        tube([(0, 74.4, -6.2), (0, 76.0, -5.0), (0, 77.0, -3.6)], [0.9, 0.7, 0.4], 0.6),
    )
    bones["sacrum"] = sacrum
    return bones


def vertebra_places() -> dict[str, tuple[float, float, float, float, float]]:
    """name -> (y of the body's middle, z, half width, half height, half depth), template cm."""
    places = {}
    for k in range(7):
        t = k / 6
        places[f"C{k + 1}"] = (_CERVICAL_TOP + 1.68 * k, -1.6 - 0.9 * t**2, 1.05 + 0.2 * t, 0.62, 0.8)
    y = _THORACIC_TOP
    for k in range(12):
        t = k / 11
        places[f"T{k + 1}"] = (
            y,
            -3.0 - 2.6 * np.sin(np.pi * min(1, 0.12 + 0.95 * t)),
            1.3 + 0.45 * t,
            0.62 + 0.22 * t,
            1.2,
        )
        y += 1.83 + 0.36 * t
    for k in range(5):
        t = k / 4
        places[f"L{k + 1}"] = (_LUMBAR_TOP + 2.85 * k, -3.6 + 1.0 * np.sin(np.pi * t * 0.9), 2.0 + 0.3 * t, 1.1, 1.55)
    return places


def _vertebra(name: str, y: float, z: float, wide: float, high: float, deep: float) -> Cloud:
    lumbar, cervical = name[0] == "L", name[0] == "C"
    body = tube([(0, y - high, z), (0, y, z), (0, y + high, z)], wide, [1.2, 0.85, 0.8, 0.85, 1.2], flatten=deep / wide)
    back = z - deep
    facet = 1.5 if lumbar else 1.1
    parts = [
        body,
        both(
            ellipsoid(
                (facet, y + 0.5 * high, back - 0.7), (0.6, 0.75 if lumbar else 0.55, 0.6), 1.0 if lumbar else 0.75
            )
        ),
        both(
            tube(
                [(0.5 * wide, y - 0.2, back), (facet, y, back - 0.9), (0.2, y + 0.6, back - 1.6)],
                0.4,
                0.9 if lumbar else 0.6,
            )
        ),
    ]
    reach = 2.6 if cervical else (3.6 if lumbar else 3.0)
    parts.append(
        both(
            tube(
                [(facet, y - 0.1, back - 0.6), (reach, y - 0.2 - (0.2 if lumbar else 0.4), back - 1.0)],
                0.36,
                0.75 if cervical else 0.6,
            )
        )
    )
    drop = 0.2 if lumbar else (0.5 if cervical else 1.5)
    parts.append(
        tube(
            [(0, y + 0.4, back - 1.5), (0, y + 0.6 + drop, back - (3.4 if lumbar else 2.6))],
            0.5 if lumbar else 0.36,
            1.0 if lumbar else 0.55,
        )
    )
    return join(*parts)


# Half width of the chest at each rib, where along the half circle from back (0) to front (1) the bony rib ends, how far
# it falls from back to front, and the x of its front end (None: it ends in the flank).
_RIB_WIDTH = (5.6, 8.2, 10.0, 11.3, 12.2, 12.8, 13.2, 13.5, 13.5, 13.1, 12.2, 9.6)
_RIB_FALL = (3.6, 6.4, 8.4, 9.8, 10.8, 11.6, 12.2, 12.4, 12.2, 11.6, 9.6, 7.0)
_RIB_END = (0.86, 0.86, 0.86, 0.855, 0.85, 0.83, 0.79, 0.73, 0.66, 0.60, 0.44, 0.28)


def rib_line(number: int, samples: int = 24) -> np.ndarray:
    """Centre line of the left rib `number` (1-12): float array (samples, 3), from the spine to its front end."""
    k = number - 1
    y0, z0, wide, high, deep = vertebra_places()[f"T{number}"]
    u = np.linspace(0, _RIB_END[k], samples)
    half = _RIB_WIDTH[k]
    back, front = z0 - 2.6, 8.3 - 0.10 * max(0, number - 7) - 1.2 * (number == 1)
    angle = np.pi * u
    # A box-like ellipse: ribs run flat across the back, turn at the angle, and are nearly straight at the flank.
    x = 1.7 + (half - 1.7) * np.abs(np.sin(angle)) ** 0.72
    taper = np.clip((u - 0.5) / 0.5, 0, 1)
    x = x - taper**2 * (0.10 * half)
    middle, reach = (back + front) / 2, (front - back) / 2
    z = middle - reach * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.85
    # Falling all the way, steepest at the flank.
    fall = _RIB_FALL[k] * (0.95 * u + 0.05 * (3 * u**2 - 2 * u**3)) / 0.9
    y = y0 - 0.8 + fall - 0.35 * np.sin(np.pi * np.clip(u / 0.16, 0, 1))
    start = np.array([[0.6 + wide * 0.7, y0 - 0.6, z0 - 0.8]])
    return np.vstack([start, np.column_stack([x, y, z])])


def ribs() -> dict[str, Cloud]:
    """The twelve left ribs, "rib_L1".."rib_L12": name -> Cloud. The right ones are their mirror images."""
    bones = {}
    for number in range(1, 13):
        radius = 0.62 if number in (1, 2) else 0.58
        if number >= 11:
            radius = 0.52
        # More marrow behind than in front; the flank is seen end on, and the lower ribs taper.
        profile = (
            [1.5, 1.65, 1.5, 1.15, 0.9, 0.85, 0.9, 1.0] if number < 8 else [1.5, 1.65, 1.5, 1.1, 0.85, 0.75, 0.7, 0.75]
        )
        bones[f"rib_L{number}"] = tube(rib_line(number), radius, profile, flatten=0.75)
    return bones


def sternum() -> dict[str, Cloud]:
    """Manubrium, body and xiphoid: name -> Cloud."""

    def depth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 7.6 + 0.10 * (y - 29) - 0.05 * x**2

    manubrium = plate(
        [
            (-2.6, 28.6),
            (-1.0, 28.9),
            (1.0, 28.9),
            (2.6, 28.6),
            (3.1, 29.7),
            (2.3, 31.4),
            (1.6, 33.0),
            (0, 33.2),
            (-1.6, 33.0),
            (-2.3, 31.4),
            (-3.1, 29.7),
        ],
        depth,
        1.2,
        1.1,
        rim=1.2,
    )
    body = plate(
        [
            (-1.4, 33.5),
            (1.4, 33.5),
            (1.7, 36.0),
            (2.0, 39.5),
            (1.5, 42.6),
            (0, 43.3),
            (-1.5, 42.6),
            (-2.0, 39.5),
            (-1.7, 36.0),
        ],
        depth,
        1.05,
        1.15,
        rim=1.1,
    )
    xiphoid = tube([(0, 43.3, 9.0), (0.1, 44.6, 9.1), (0, 46.0, 8.9)], [0.7, 0.55, 0.3], 0.5)
    return {"manubrium": manubrium, "sternum_body": join(body, xiphoid)}


def both(cloud: Cloud) -> Cloud:
    """A left-sided shape together with its mirror image."""
    return join(cloud, cloud.mirrored())
