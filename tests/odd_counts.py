"""Counts a scanner should never send, and some it does: what two implementations of the preparation must agree on."""

import numpy as np
from hypothesis import strategies as st

ALTERATIONS = ("thin", "brighten", "up", "aside", "hot", "blank", "cut", "noise", "halve")


def alter(counts: np.ndarray, steps: list[tuple[str, int]]) -> np.ndarray:
    """(2, 1024, 256) uint16 -> the same after some steps: each a kind of alteration and a number for its size."""
    for kind, number in steps:
        rng = np.random.default_rng(number)
        wide = counts.astype(np.int64)
        if kind == "thin":  # down to a thousandth of the counts
            wide = rng.binomial(wide, 10 ** rng.uniform(-3, 0))
        elif kind == "brighten":
            wide = wide * rng.integers(2, 40)
        elif kind == "up":  # the body at an edge, or over it
            wide = np.roll(wide, rng.integers(-400, 400), axis=1)
        elif kind == "aside":
            wide = np.roll(wide, rng.integers(-128, 128), axis=2)
        elif kind == "hot":  # an injection site
            row, column, size = rng.integers(1000), rng.integers(240), rng.integers(1, 25)
            wide[rng.integers(2), row : row + size, column : column + size] = rng.integers(0, 65536)
        elif kind == "blank":
            wide[rng.integers(2)] = 0
        elif kind == "cut":
            wide[:, rng.integers(50, 1024) :] = 0
        elif kind == "noise":
            wide = rng.poisson(10 ** rng.uniform(-4, 2), wide.shape)
        elif kind == "halve":
            wide //= rng.integers(2, 60)
        counts = np.clip(wide, 0, 65535).astype(np.uint16)
    return counts


steps = st.lists(st.tuples(st.sampled_from(ALTERATIONS), st.integers(0, 10_000)), max_size=3)
