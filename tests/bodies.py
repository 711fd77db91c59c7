"""Scans simple enough to know by heart, for the tests of the preparation."""

import numpy as np

from doubleunet_bs.scans.bone_scan import BoneScan


def block(
    first_row: int = 150,
    last_row: int = 849,
    first_column: int = 78,
    last_column: int = 177,
    rate: float = 20,
    background: float = 0.2,
    seed: int = 0,
) -> np.ndarray:
    """One view: a rectangle of `rate` counts per pixel in Poisson noise, uint16 (1024, 256)."""
    mean = np.full((1024, 256), background)
    mean[first_row : last_row + 1, first_column : last_column + 1] += rate
    return np.random.default_rng(seed).poisson(mean).astype(np.uint16)


def person(seed: int = 0, speed: float = 1.0, top: int = 150) -> np.ndarray:
    """One view with the proportions of a person 700 rows long: head, trunk, arms, legs of half the intensity, feet."""
    rows, columns = np.mgrid[:1024, :256]
    rows = rows - top
    mean = np.full((1024, 256), 0.1)
    mean[(((rows - 45) / 45) ** 2 + ((columns - 128) / 32) ** 2) < 1] = 14
    mean[(rows >= 85) & (rows < 105) & (abs(columns - 128) < 18)] = 10
    mean[(rows >= 105) & (rows < 370) & (abs(columns - 128) < 60)] = 16
    mean[(rows >= 115) & (rows < 390) & (abs(abs(columns - 128) - 80) < 12)] = 8
    mean[(rows >= 370) & (rows < 670) & (abs(abs(columns - 128) - 32) < 22)] = 8
    mean[(rows >= 670) & (rows < 700) & (abs(abs(columns - 128) - 36) < 14)] = 5
    return np.random.default_rng(seed).poisson(mean * speed).astype(np.uint16)


def scan_of(anterior: np.ndarray, posterior: np.ndarray | None = None, **others) -> BoneScan:
    """A scan of these counts; without a posterior view that one is missing."""
    if posterior is None:
        others.setdefault("missing_views", ("posterior",))
        posterior = np.zeros_like(anterior)
    return BoneScan(anterior, posterior, pixel_spacing_mm=(2.4, 2.4), case="case-000000000000", **others)
