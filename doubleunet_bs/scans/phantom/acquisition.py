"""How one scan was taken: pixel size, position on the table, scan speed and the counts it yields (decided here).

Calibration: 0.4-5.6 million counts in the anterior view, about 3 million at 8-10 cm/min and 0.5 million at 27 cm/min;
posterior to anterior 0.81-1.00; background 0.05-0.6 counts per pixel.
"""

import dataclasses

import numpy as np

from doubleunet_bs.phantom.camera import COLUMNS, ROWS, Camera

SPACINGS_MM = (2.26, 2.332, 2.398)
BODY_ROWS = (652, 756)
FIELD_OF_VIEW_MM = 540.0


@dataclasses.dataclass(frozen=True)
class Acquisition:
    """One scan's settings.

    Attributes:
        camera: pixel size and position.
        speed: table speed, cm/min.
        counts: expected counts of the anterior view without artefacts.
        posterior_share: posterior over anterior counts, likewise.
        background: counts per pixel within the field of view, from the room.
        motion: (segment, (dx, dy) cm, share of the time) or None.
    """

    camera: Camera
    speed: float
    counts: float
    posterior_share: float
    background: float
    motion: tuple[str, tuple[float, float], float] | None


def draw_acquisition(rng: np.random.Generator, height_cm: float) -> Acquisition:
    """Draw the settings for a body `height_cm` long from vertex to toes."""
    fitting = [s for s in SPACINGS_MM if BODY_ROWS[0] <= height_cm * 10 / s <= BODY_ROWS[1]]
    spacing = (
        float(rng.choice(fitting))
        if fitting
        else SPACINGS_MM[0 if height_cm * 10 / SPACINGS_MM[0] < BODY_ROWS[0] else -1]
    )
    rows = height_cm * 10 / spacing
    top = float(np.clip(rng.normal(110, 25), 40, ROWS - rows - 40))
    columns = FIELD_OF_VIEW_MM / spacing
    left = int(round(COLUMNS / 2 - columns / 2))
    speed = float(rng.choice([8, 10, 12, 15, 18, 20, 25, 27], p=[0.12, 0.24, 0.14, 0.16, 0.08, 0.10, 0.06, 0.10]))
    counts = float(np.clip(3.3e6 * (9 / speed) ** 1.6 * np.exp(rng.normal(0, 0.28)), 0.43e6, 4.7e6))
    motion = None
    if rng.random() < 0.15:
        segment = str(rng.choice(["head", "head", "hand_L", "hand_R", "forearm_L", "forearm_R"]))
        reach = 1.3 if segment == "head" else 2.0
        motion = (
            segment,
            (float(rng.normal(0, reach)), float(rng.normal(0, 0.4 * reach))),
            float(rng.uniform(0.2, 0.5)),
        )
    return Acquisition(
        camera=Camera(
            spacing,
            top,
            float(COLUMNS / 2 - 0.5 + rng.normal(0, 1.5)),
            (left, COLUMNS - left),
            (int(max(0, top - rng.uniform(20, 45))), int(min(ROWS, top + rows + rng.uniform(15, 60)))),
        ),
        speed=speed,
        counts=counts,
        posterior_share=float(np.clip(rng.normal(0.91, 0.04), 0.83, 0.98)),
        background=float(np.clip(0.05 + 0.22 * (counts / 3e6) * rng.uniform(0.3, 1.6), 0.05, 0.6)),
        motion=motion,
    )
