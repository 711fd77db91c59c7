"""The bones of the template person, 160 cm tall, as shapes; sizes from anatomy, uptake tuned by eye."""

import numpy as np

from doubleunet_bs.phantom.shapes import Cloud, curve, ellipsoid, join, keep, plate, scaled, tube

# Joints of the left side (x, y, z), template cm: soft tissue and bones turn about the same points.
SHOULDER = (16.4, 29.4, -1.0)
ELBOW = (19.4, 57.8, -2.0)
WRIST = (21.6, 80.6, -0.5)
HIP = (8.6, 75.0, 0.0)
KNEE = (9.0, 114.6, 0.0)
ANKLE = (8.6, 152.6, -0.5)

_THIN = 0.15  # part of the volume that is bone at the base of the skull and in the face

# Height (y, cm) of the middle of the first vertebral body of each region.
_CERVICAL_TOP, _THORACIC_TOP, _LUMBAR_TOP = 14.8, 26.2, 50.6


def all_bones() -> dict[str, Cloud]:
    """Every bone of the template person, those of the left side mirrored to the right one: name -> Cloud."""
    bones = {**skull(), **spine(), **sternum()}
    for name, cloud in {**ribs(), **shoulder_girdle(), **arm(), **pelvis(), **leg()}.items():
        bones[name] = cloud
        bones[name.replace("_L", "_R")] = cloud.mirrored()
    return bones


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
        ellipsoid((0, 12.6, -1.0), (6.4, 2.0, 6.5), 0.07, bone=_THIN),
        both_sides(ellipsoid((5.2, 12.9, -0.8), (1.4, 1.1, 1.4), 0.45)),
        both_sides(ellipsoid((5.9, 14.2, -2.0), (0.8, 1.5, 1.0), 0.5)),
        ellipsoid((0, 13.0, -6.2), (3.8, 2.0, 2.0), 0.17, bone=_THIN),
    )
    face = join(
        ellipsoid((0, 11.9, 6.2), (1.2, 2.2, 1.8), 0.75),
        ellipsoid((0, 14.6, 6.2), (2.5, 1.4, 1.9), 0.7),
        both_sides(ellipsoid((2.6, 13.2, 5.6), (1.0, 1.3, 1.4), 0.45)),
        both_sides(tube([(3.4, 13.3, 6.8), (5.1, 12.9, 5.4), (6.3, 12.6, 2.0)], 0.6, 0.55)),
        both_sides(tube([(1.2, 9.8, 8.0), (3.3, 9.2, 7.6), (5.2, 10.6, 5.6), (5.3, 12.4, 5.3)], 0.55, 0.45)),
        ellipsoid((0, 16.9, 4.2), (3.2, 2.2, 3.0), 0.15, bone=_THIN),
        ellipsoid((0, 16.0, 6.9), (2.3, 0.7, 1.3), 0.9),
        both_sides(ellipsoid((1.2, 10.2, 3.0), (1.3, 0.9, 1.8), 0.35)),
    )
    mandible = both_sides(
        tube(
            [
                (5.7, 13.4, 0.3), (5.4, 15.6, 0.8), (4.9, 17.3, 2.2), (3.9, 18.6, 4.8), (2.2, 19.4, 6.6),
                (0, 19.7, 7.3),
            ],
            [0.8, 0.9, 0.9, 0.85, 0.85, 0.9],
            [0.62, 0.42, 0.46, 0.44, 0.42, 0.42],
        )
    )  # fmt: skip
    return {"skull_vault": vault, "skull_base": base, "face": face, "mandible": mandible}


def spine() -> dict[str, Cloud]:
    """C1-C7, T1-T12, L1-L5 and the sacrum with the coccyx: name -> Cloud."""
    bones = {}
    for name, place in vertebra_places().items():
        bones[name] = _vertebra(name, *place)

    def sacrum_line(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return curve(np.array([-5.0, -6.6, -7.6, -7.6, -6.4]), (y - 63.5) / 11.0)[:, 0] - 0.02 * x**2

    sacrum = join(
        plate(
            [
                (-4.9, 63.9), (-2.4, 63.6), (2.4, 63.6), (4.9, 63.9), (4.7, 67.0), (3.4, 70.2), (1.9, 73.4),
                (0, 74.4), (-1.9, 73.4), (-3.4, 70.2), (-4.7, 67.0),
            ],
            sacrum_line, 2.0, 0.75, rim=1.05
        ),
        tube([(0, 65, -7.8), (0, 68, -9.0), (0, 71, -9.0)], 0.55, 0.9),
        ellipsoid((0, 64.6, -4.6), (2.5, 1.2, 1.6), 0.8),
        tube([(0, 74.4, -6.2), (0, 76.0, -5.0), (0, 77.0, -3.6)], [0.9, 0.7, 0.4], 0.6),
    )  # fmt: skip
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
        z = -3.0 - 2.6 * np.sin(np.pi * min(1, 0.12 + 0.95 * t))
        places[f"T{k + 1}"] = (y, z, 1.3 + 0.45 * t, 0.62 + 0.22 * t, 1.2)
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
    joint = ellipsoid(
        (facet, y + 0.5 * high, back - 0.7), (0.6, 0.75 if lumbar else 0.55, 0.6), 1.0 if lumbar else 0.75
    )
    arch = [(0.5 * wide, y - 0.2, back), (facet, y, back - 0.9), (0.2, y + 0.6, back - 1.6)]
    reach = 2.6 if cervical else (3.6 if lumbar else 3.0)
    transverse = [(facet, y - 0.1, back - 0.6), (reach, y - 0.2 - (0.2 if lumbar else 0.4), back - 1.0)]
    drop = 0.2 if lumbar else (0.5 if cervical else 1.5)
    spinous = [(0, y + 0.4, back - 1.5), (0, y + 0.6 + drop, back - (3.4 if lumbar else 2.6))]
    return join(
        body,
        both_sides(joint),
        both_sides(tube(arch, 0.4, 0.9 if lumbar else 0.6)),
        both_sides(tube(transverse, 0.36, 0.75 if cervical else 0.6)),
        tube(spinous, 0.5 if lumbar else 0.36, 1.0 if lumbar else 0.55),
    )


# Half width of the chest at each rib, where along the half circle from back (0) to front (1) the bony rib ends, how far
# it falls from back to front, and the x of its front end (None: it ends in the flank).
_RIB_WIDTH = (5.6, 8.2, 10.0, 11.3, 12.2, 12.8, 13.2, 13.5, 13.5, 13.1, 12.2, 9.6)
_RIB_FALL = (3.6, 6.4, 8.4, 9.8, 10.8, 11.6, 12.2, 12.4, 12.2, 11.6, 9.6, 7.0)
_RIB_END = (0.86, 0.86, 0.86, 0.855, 0.85, 0.83, 0.79, 0.73, 0.66, 0.60, 0.44, 0.28)


def rib_line(number: int, samples: int = 24) -> np.ndarray:
    """Centre line of the left rib `number` (1-12): float array (samples, 3), from the spine to its front end."""
    k = number - 1
    y0, z0, wide, *_ = vertebra_places()[f"T{number}"]
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
        radius = 0.62 if number < 3 else 0.58 if number < 11 else 0.52
        # More marrow behind than in front; the flank is seen end on, and the lower ribs taper.
        profile = [1.5, 1.65, 1.5] + ([1.15, 0.9, 0.85, 0.9, 1.0] if number < 8 else [1.1, 0.85, 0.75, 0.7, 0.75])
        bones[f"rib_L{number}"] = tube(rib_line(number), radius, profile, flatten=0.75)
    return bones


def sternum() -> dict[str, Cloud]:
    """Manubrium, body and xiphoid: name -> Cloud."""

    def depth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 7.6 + 0.10 * (y - 29) - 0.05 * x**2

    manubrium = plate(
        [
            (-2.6, 28.6), (-1.0, 28.9), (1.0, 28.9), (2.6, 28.6), (3.1, 29.7), (2.3, 31.4), (1.6, 33.0), (0, 33.2),
            (-1.6, 33.0), (-2.3, 31.4), (-3.1, 29.7),
        ],
        depth, 1.2, 1.1, rim=1.2
    )  # fmt: skip
    body = plate(
        [
            (-1.4, 33.5), (1.4, 33.5), (1.7, 36.0), (2.0, 39.5), (1.5, 42.6), (0, 43.3), (-1.5, 42.6), (-2.0, 39.5),
            (-1.7, 36.0),
        ],
        depth, 1.05, 1.15, rim=1.1
    )  # fmt: skip
    xiphoid = tube([(0, 43.3, 9.0), (0.1, 44.6, 9.1), (0, 46.0, 8.9)], [0.7, 0.55, 0.3], 0.5)
    return {"manubrium": manubrium, "sternum_body": join(body, xiphoid)}


def shoulder_girdle() -> dict[str, Cloud]:
    """Clavicle and scapula: name -> Cloud."""
    clavicle = tube(
        [(1.9, 28.9, 7.4), (4.5, 28.4, 7.9), (8.0, 27.2, 6.4), (11.5, 26.0, 3.4), (15.0, 25.9, 0.9)],
        [0.95, 0.62, 0.55, 0.55, 0.7],
        [1.05, 0.75, 0.68, 0.68, 0.95],
    )
    blade = plate(
        [
            (6.0, 27.6), (9.0, 27.8), (12.8, 29.2), (13.6, 31.2), (12.2, 34.0), (10.4, 37.6), (8.6, 41.4),
            (7.7, 41.6), (6.7, 37.0), (5.9, 31.5),
        ],
        lambda x, y: -8.3 + 0.035 * np.maximum(0, x - 6) ** 2 + 0.01 * (y - 34),
        0.55,
        0.72,
        rim=2.0,
        rim_width=0.8,
    )  # fmt: skip
    scapula = join(
        blade,
        tube(
            [(6.2, 30.6, -8.6), (9.5, 29.2, -8.4), (13.0, 27.4, -6.6), (15.6, 26.2, -3.4)], [0.45, 0.6, 0.6, 0.7], 1.0
        ),
        ellipsoid((16.3, 26.2, -1.6), (1.1, 0.8, 1.6), 0.7),
        ellipsoid((13.9, 30.1, -2.0), (0.9, 1.9, 1.3), 0.95),
        tube([(12.7, 28.8, -1.2), (12.6, 27.9, 1.0), (13.4, 28.6, 2.8)], [0.8, 0.65, 0.7], 1.0),
    )
    return {"clavicle_L": clavicle, "scapula_L": scapula}


def arm() -> dict[str, Cloud]:
    """Humerus, forearm and hand: name -> Cloud."""
    s, e, w = (np.array(p) for p in (SHOULDER, ELBOW, WRIST))
    humerus = join(
        ellipsoid(s, (2.2, 2.3, 2.1), 0.50, hollow=0.3),
        ellipsoid(s + (1.5, 0.1, 0.4), (0.9, 1.5, 1.0), 0.5),
        tube(
            [s + (0.5, 1.0, 0), s + 0.15 * (e - s), s + 0.5 * (e - s), e - (0, 3.0, 0), e - (0, 0.8, 0)],
            [1.7, 1.2, 1.0, 0.95, 1.1],
            [0.45, 0.5, 0.5, 0.5, 0.5],
        ),
        ellipsoid(e + (-1.6, -0.6, 0), (1.0, 0.9, 0.9), 0.75),
        ellipsoid(e + (1.4, -0.5, 0), (1.0, 0.9, 0.9), 0.75),
        ellipsoid(e + (0, -0.2, 0), (1.6, 0.7, 0.8), 0.6),
    )
    down = w - e
    forearm = join(
        ellipsoid(e + (-0.5, 0.9, -1.2), (0.9, 1.2, 0.9), 0.8),
        tube(
            [e + (-1.0, 0.5, -0.6), e + 0.35 * down + (-1.0, 0, 0), e + 1.0 * down + (-1.6, 0, 0)],
            [0.95, 0.65, 0.45],
            0.65,
        ),
        tube(
            [e + (1.2, 0.8, 0), e + 0.35 * down + (1.0, 0, 0), e + 1.0 * down + (0.9, 0, 0)],
            [0.75, 0.62, 1.05],
            [0.7, 0.6, 0.6, 0.95],
        ),
    )
    bones = [
        ellipsoid(w + (dx, dy, 0), (0.85, 0.75, 0.8), 0.95)
        for dx, dy in ((-1.4, 1.0), (-0.1, 0.8), (1.2, 1.0), (-1.2, 2.3), (0.1, 2.2), (1.4, 2.4))
    ]
    for finger, (spread, metacarpal, digit) in enumerate(
        ((3.6, 3.9, 4.0), (1.9, 6.0, 6.6), (0.4, 6.2, 7.4), (-1.0, 5.7, 6.8), (-2.3, 5.2, 5.2))
    ):
        root = w + (0.55 * spread + (0.6 if finger == 0 else 0), 2.6, 0)
        knuckle = root + (0.55 * spread, metacarpal, 0.2)
        tip = knuckle + (0.22 * spread, digit, -0.6)
        bones += [
            tube([root, (root + knuckle) / 2, knuckle], [0.5, 0.4, 0.5], [0.9, 0.7, 1.0]),
            ellipsoid(knuckle, (0.65, 0.6, 0.6), 1.0),
            tube([knuckle, (knuckle + tip) / 2, tip], [0.45, 0.36, 0.3], 0.75),
            ellipsoid(knuckle + 0.52 * (tip - knuckle), (0.5, 0.5, 0.5), 0.9),
        ]
    return {"humerus_L": humerus, "forearm_L": forearm, "hand_L": join(*bones)}


def pelvis() -> dict[str, Cloud]:
    """Ilium, sacroiliac joint, acetabulum, pubis and ischium: name -> Cloud."""

    def wing_depth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return -6.2 + 0.92 * np.clip(x - 3.6, 0, 20) + 0.05 * (y - 66)

    wing = plate(
        [
            (3.3, 63.8), (5.0, 61.4), (8.0, 60.2), (11.4, 59.8), (13.8, 61.4), (14.3, 64.0), (13.9, 67.2),
            (12.3, 69.2), (11.3, 72.0), (11.0, 73.6), (7.4, 73.8), (5.8, 71.4), (4.2, 69.6), (3.2, 66.8),
        ],
        wing_depth, 0.95, 0.80, rim=1.1, rim_width=0.8
    )  # fmt: skip
    # Thick towards the sacroiliac joint and the hip, thin in the fossa.
    x, y = wing.xyz[:, 0], wing.xyz[:, 1]
    wing = scaled(wing, 0.5 + 1.1 * np.exp(-(((x - 4.0) / 2.8) ** 2)) + 0.9 * np.exp(-(((y - 73) / 3.2) ** 2)))
    crest = tube(
        [
            (4.3, 63.2, -6.2), (5.4, 61.5, -4.6), (8.2, 60.2, -2.2), (11.4, 59.9, 0.6), (13.8, 61.7, 2.6),
            (14.2, 64.2, 3.6), (13.8, 67.2, 4.8),
        ],
        [0.9, 0.8, 0.65, 0.6, 0.65, 0.8],
        [0.7, 0.55, 0.42, 0.45, 0.6, 0.8],
    )  # fmt: skip
    roof = tube([(6.2, 71.2, -2.2), (7.6, 72.2, -0.8), (9.6, 72.4, 0.4), (11.2, 71.4, 1.8)], [1.2, 1.3, 1.1, 0.8], 0.5)
    brim = tube(
        [(4.6, 69.0, -5.0), (6.0, 71.6, -2.2), (6.7, 73.8, 0.6), (6.2, 75.3, 3.0)], [0.9, 0.85, 0.85, 0.8], 0.65
    )
    joint = tube(
        [(4.3, 63.6, -6.6), (3.9, 66.2, -7.2), (4.1, 68.8, -7.4), (4.6, 70.2, -6.8)],
        [0.75, 0.95, 0.95, 0.6],
        [1.05, 1.2, 1.15, 1.0],
    )
    cup = ellipsoid(HIP, (2.9, 2.9, 2.9), 0.48, hollow=0.82)
    medial = (cup.xyz[:, 0] < HIP[0] + 1.2) & (cup.xyz[:, 1] < HIP[1] + 2.0)
    cup = keep(cup, medial | (cup.xyz[:, 1] < HIP[1] - 1.2))
    pubis = join(
        tube([(6.9, 75.4, 2.2), (5.0, 75.3, 4.0), (3.0, 75.9, 5.0), (1.1, 76.8, 5.2)], [0.95, 0.8, 0.8, 0.95], 0.85),
        ellipsoid((1.0, 77.6, 5.0), (0.75, 1.6, 0.9), 0.95),
        tube([(1.2, 78.8, 4.6), (2.6, 80.2, 2.6), (4.4, 81.4, -0.6)], [0.75, 0.65, 0.75], 0.85),
    )
    ischium = tube(
        [(7.3, 75.6, -2.6), (6.9, 78.4, -3.6), (6.0, 81.0, -4.0), (4.7, 81.8, -2.2)],
        [1.2, 1.15, 1.35, 0.9],
        [0.75, 0.75, 0.95, 0.9],
    )
    return {
        "ilium_L": join(wing, crest, roof, brim),
        "si_L": joint,
        "acetabulum_L": cup,
        "pubis_L": pubis,
        "ischium_L": ischium,
    }


def leg() -> dict[str, Cloud]:
    """Femur, knee, shank, ankle and foot: name -> Cloud."""
    h, k, a = (np.array(p) for p in (HIP, KNEE, ANKLE))
    femur = join(
        ellipsoid(h, (2.25, 2.25, 2.25), 0.62, hollow=0.3),
        tube([h + (0.6, 0.4, 0), h + (2.4, 1.9, -0.2), h + (3.9, 4.6, -0.4)], [1.8, 1.7, 2.0], 0.55),
        ellipsoid(h + (4.6, 2.6, -0.9), (1.2, 2.1, 1.5), 0.42),
        ellipsoid(h + (3.3, 5.2, -1.2), (0.9, 1.2, 0.9), 0.6),
        tube(
            [h + (3.5, 4.6, -0.3), h + (3.9, 10, 0.4), h + (2.6, 21, 1.2), h + (1.2, 31, 0.8), k + (0.2, -4.0, 0)],
            [1.6, 1.35, 1.25, 1.35, 1.9],
            [0.40, 0.39, 0.37, 0.36, 0.32],
        ),
    )
    knee = join(
        ellipsoid(k + (1.8, -1.5, -0.6), (2.0, 2.0, 2.2), 0.36),
        ellipsoid(k + (-1.8, -1.5, -0.6), (2.0, 2.1, 2.2), 0.38),
        tube([k + (-3.0, -0.4, -0.3), k + (0, -0.7, -0.5), k + (3.0, -0.4, -0.3)], 0.6, 0.75),
        ellipsoid(k + (0.1, -2.6, 4.0), (2.0, 2.2, 0.9), 0.34),
        tube([k + (-3.2, 1.0, 0), k + (0, 1.0, 0), k + (3.2, 1.0, 0)], [0.95, 1.1, 0.95], 0.40, flatten=1.6),
        ellipsoid(k + (0.1, 3.4, 1.5), (1.3, 1.7, 1.0), 0.12),
    )
    shank = join(
        tube(
            [k + (0, 1.4, 0), k + (-0.3, 5.5, 0.6), k + (-0.7, 18, 0.8), k + (-0.9, 29, 0.4), a + (-0.5, -0.2, 0)],
            [3.1, 1.7, 1.15, 1.05, 1.7],
            [0.22, 0.28, 0.42, 0.42, 0.36],
        ),
        ellipsoid(a + (-2.1, 0.2, 0.2), (0.8, 1.4, 1.0), 0.7),
        ellipsoid(k + (3.2, 3.1, -1.4), (0.9, 1.1, 0.9), 0.65),
        tube(
            [k + (3.2, 3.2, -1.4), k + (2.7, 16, -1.2), k + (1.9, 31, -0.8), a + (2.2, 1.0, -0.8)],
            [0.7, 0.5, 0.5, 0.85],
            [0.6, 0.45, 0.45, 0.55],
        ),
    )
    ankle = join(
        ellipsoid(a + (0.1, 1.4, 0.4), (2.2, 1.4, 2.1), 0.30),
        ellipsoid(a + (0.2, 4.0, -2.0), (1.9, 2.1, 2.8), 0.22),
        ellipsoid(a + (0.6, 4.4, 2.8), (2.5, 1.8, 1.6), 0.20),
    )
    toes = []
    for ray in range(5):
        x = -1.9 + 1.0 * ray
        root = a + (0.9 + 0.75 * x, 5.2, 4.2)
        head = a + (1.8 + 1.15 * x, 9.6 - 0.35 * ray, 7.6 - 0.2 * ray)
        tip = head + (0.6 + 0.15 * x, 2.8 - 0.3 * ray, 1.9)
        thick = 0.75 if ray == 0 else 0.5
        toes += [
            tube([root, (root + head) / 2, head], [thick, 0.8 * thick, thick], 0.40),
            ellipsoid(head, (thick, thick, thick), 0.6 if ray == 0 else 0.5),
            tube([head, (head + tip) / 2, tip], 0.75 * thick, 0.5),
        ]
    return {"femur_L": femur, "knee_L": knee, "shank_L": shank, "ankle_L": ankle, "foot_L": join(*toes)}


def both_sides(cloud: Cloud) -> Cloud:
    """A left-sided shape together with its mirror image."""
    return join(cloud, cloud.mirrored())
