"""Small images with square lesions in place of shards, for tests of everything that only needs pictures and labels."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from doubleunet_bs.preparation.settings import PreparationSettings


@dataclasses.dataclass(frozen=True)
class SyntheticCase:
    case: str
    patient: str
    group: str
    metastatic_pixels: int
    pixel_sha256: str = ""
    source_sha256: str = ""
    gains: tuple[float, float] = (1.0, 1.0)
    brightness: float = 10.0
    phantom: bool = False
    cancer: str | None = None
    part: str | None = None
    warnings: tuple[str, ...] = ()


class SyntheticShards:
    """`scans` images of `size` x `columns` pixels, square without `columns`: a bright body, in it a brighter square
    lesion of 8 x 8; every sixth is normal.

    A square as bright, but outside of the body, is no lesion: brightness alone does not tell.
    """

    def __init__(
        self, scans: int = 24, size: int = 32, seed: int = 0, patient: str = "patient", columns: int | None = None
    ):
        columns = size if columns is None else columns
        rng = np.random.default_rng(seed)
        self.image_shape = (size, columns)
        self.settings = PreparationSettings()
        self.fingerprint = f"synthetic-{scans}-{size}-{columns}-{seed}-{patient}"
        self.key_mark = None
        self.sources = ()
        self.path = Path(f"{patient}-shards")
        self._grey = rng.poisson(10, (scans, size, columns)).astype(np.uint8)
        self._labels = np.zeros((scans, size, columns), np.uint8)
        body = slice(size // 4, None)
        self._grey[:, body] += 60
        self._labels[:, body] = 1
        self._grey[:, 1 : size // 5, 4:12] += 150
        for index in range(scans):
            if index % 6 == 5:
                continue
            row, column = rng.integers(size // 4, size - 8), rng.integers(0, columns - 8)
            self._grey[index, row : row + 8, column : column + 8] += 120
            self._labels[index, row : row + 8, column : column + 8] = 2
        self.cases = tuple(
            SyntheticCase(
                f"case-{index:03d}",
                f"{patient}-{index:03d}",
                "negative" if index % 6 == 5 else "positive",
                int((self._labels[index] == 2).sum()),
                hashlib.sha256(self._grey[index].tobytes()).hexdigest(),
                brightness=float(self._grey[index].mean()),
            )
            for index in range(scans)
        )

    def __len__(self):
        return len(self.cases)

    def grey(self, index):
        return self._grey[index]

    def counts(self, index):
        return self._grey[index].astype(np.uint16)

    def labels(self, index):
        return self._labels[index]
