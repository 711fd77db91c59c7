"""A two-headed gamma camera: attenuation, a point spread that grows with depth, scatter. All images are noise-free.

The figures fit real scans: attenuation 0.11/cm (140 keV, broad beam), point spread sigma 2.0-2.6 pixels.
"""

import dataclasses
import functools

import cv2
import numpy as np

from doubleunet_bs.constants import RAW_SHAPE
from doubleunet_bs.phantom.soft_tissue import Surfaces

ROWS, COLUMNS = RAW_SHAPE
SPACINGS_MM = (2.26, 2.332, 2.398)
BODY_ROWS, VARIED_BODY_ROWS = (652, 756), (600, 890)
FIELD_OF_VIEW_MM = 540.0
ATTENUATION = 0.11  # per cm
# Depth (cm) under the skin up to which each point spread (sigma, mm) holds.
DEPTH_LIMITS_CM = (3.0, 8.0, np.inf)
POINT_SPREAD_MM = (4.7, 5.4, 6.2)


@dataclasses.dataclass(frozen=True)
class Camera:
    """Where the patient lies under the camera.

    Attributes:
        spacing_mm: pixel size, square.
        top_row: row of the vertex (y = 0).
        middle_column: column of x = 0 in the anterior view.
        field_columns: first and last + 1 column the detector sees; nothing is ever counted outside.
        field_rows: first and last + 1 row of the scan.
        blur: factor on the point spread.
    """

    spacing_mm: float
    top_row: float
    middle_column: float
    field_columns: tuple[int, int]
    field_rows: tuple[int, int]
    blur: float = 1.0

    @property
    def row_y(self) -> np.ndarray:
        """(1024,) patient y in cm of each row's middle."""
        return (np.arange(ROWS) - self.top_row) * self.spacing_mm / 10

    @property
    def column_x(self) -> np.ndarray:
        """(256,) patient x in cm of each column's middle, in the anterior view."""
        return (np.arange(COLUMNS) - self.middle_column) * self.spacing_mm / 10

    def field(self) -> np.ndarray:
        """1 where the camera counts, else 0: float32 (1024, 256). Symmetric, so it holds for both views."""
        inside = np.zeros((ROWS, COLUMNS), np.float32)
        inside[slice(*self.field_rows), slice(*self.field_columns)] = 1
        return inside

    def pixels(self, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(row, column) in the anterior view, int32 arrays; may lie outside the frame."""
        row = np.floor(self.top_row + xyz[:, 1] * (10 / self.spacing_mm) + 0.5).astype(np.int32)
        column = np.floor(self.middle_column + xyz[:, 0] * (10 / self.spacing_mm) + 0.5).astype(np.int32)
        return row, column


@dataclasses.dataclass(frozen=True)
class Patch:
    """A rectangle of both views: its rows and columns `box`, and float32 `views` (2, rows, columns), anterior first.

    Both are in the anterior view's columns: the posterior view is mirrored only when it is stored.
    """

    box: tuple[slice, slice]
    views: np.ndarray

    def times(self, factor: float) -> "Patch":
        """The same patch, `factor` times as bright."""
        return Patch(self.box, self.views * np.float32(factor))

    def add_to(self, frames: np.ndarray) -> None:
        """Add it to float32 frames (2, 1024, 256)."""
        frames[:, *self.box] += self.views


def project(camera: Camera, body: Surfaces, xyz: np.ndarray, weight: np.ndarray, margin: int = 24) -> Patch | None:
    """Project weighted points into both views: attenuation to that view's skin, then the point spread of that depth.

    Args:
        camera, body: where the patient lies and their skin is.
        xyz, weight: (points, 3) patient cm and (points,) activity concentration x cm^3.
        margin: pixels kept around the outermost points, at least four times the widest point spread.

    Returns:
        The rectangle around the points, in activity x cm per pixel; None when all points lie outside the image.
    """
    row, column = camera.pixels(xyz)
    seen = (row >= 0) & (row < ROWS) & (column >= 0) & (column < COLUMNS)
    if not seen.any():
        return None
    row, column, z, weight = row[seen], column[seen], xyz[seen, 2], weight[seen]
    top, bottom = max(0, row.min() - margin), min(ROWS, row.max() + margin + 1)
    left, right = max(0, column.min() - margin), min(COLUMNS, column.max() + margin + 1)
    height, width = int(bottom - top), int(right - left)
    place = (row - top) * width + (column - left)
    per_area = 100 / camera.spacing_mm**2
    images: list[np.ndarray] = []
    for depth in (body.front[row, column] - z, z - body.back[row, column]):
        depth = np.maximum(depth, 0)
        layer = np.searchsorted(DEPTH_LIMITS_CM[:-1], depth)
        seen_weight = weight * np.exp(-ATTENUATION * depth) * per_area
        shape = (len(POINT_SPREAD_MM), height, width)
        layers = np.bincount(layer * (height * width) + place, seen_weight, minlength=int(np.prod(shape)))
        pairs = zip(layers.reshape(shape).astype(np.float32), POINT_SPREAD_MM, strict=True)
        blurred = [spread(image, sigma * camera.blur / camera.spacing_mm) for image, sigma in pairs]
        images.append(functools.reduce(np.add, blurred))
    return Patch((slice(int(top), int(bottom)), slice(int(left), int(right))), np.stack(images))


def soft_tissue_image(camera: Camera, body: Surfaces) -> np.ndarray:
    """The soft tissue itself, integrated along depth: the same in both views. float32 (1024, 256)."""
    image = body.concentration * (1 - np.exp(-ATTENUATION * body.thickness)) / ATTENUATION
    return spread(image, POINT_SPREAD_MM[1] * camera.blur / camera.spacing_mm)


def spread(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur with zeros outside the image; `sigma` in pixels."""
    return cv2.GaussianBlur(image, (0, 0), float(sigma), borderType=cv2.BORDER_CONSTANT)


def scatter(image: np.ndarray) -> np.ndarray:
    """Scattered photons: two broad copies holding 9 and 4.5 % of the counts.

    float32, the shape of `image`. Computed on a quarter of the rows and columns: it is smooth.
    """
    rows, columns = image.shape
    padded = np.pad(image, ((0, 0), (96, 96)))
    small = padded.reshape(rows // 4, 4, (columns + 192) // 4, 4).mean(axis=(1, 3))
    blurred = 0.09 * spread(small, 2.6) + 0.045 * spread(small, 9.0)
    full = cv2.resize(blurred.astype(np.float32), (columns + 192, rows), interpolation=cv2.INTER_LINEAR)
    return full[:, 96:-96]


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
    nearest = SPACINGS_MM[0 if height_cm * 10 / SPACINGS_MM[0] < BODY_ROWS[0] else -1]
    spacing = float(rng.choice(fitting)) if fitting else nearest
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
        shift = (float(rng.normal(0, reach)), float(rng.normal(0, 0.4 * reach)))
        motion = (segment, shift, float(rng.uniform(0.2, 0.5)))
    middle = float(COLUMNS / 2 - 0.5 + rng.normal(0, 1.5))
    field_rows = (int(max(0, top - rng.uniform(20, 45))), int(min(ROWS, top + rows + rng.uniform(15, 60))))
    return Acquisition(
        camera=Camera(spacing, top, middle, (left, COLUMNS - left), field_rows),
        speed=speed,
        counts=counts,
        posterior_share=float(np.clip(rng.normal(0.91, 0.04), 0.83, 0.98)),
        background=float(np.clip(0.05 + 0.22 * (counts / 3e6) * rng.uniform(0.3, 1.6), 0.05, 0.6)),
        motion=motion,
    )


def vary_acquisition(rng: np.random.Generator, acquisition: Acquisition, height_cm: float) -> Acquisition:
    """The same settings with another pixel size, place, field of view, scan length, resolution, counts and noise.

    Beyond the usual ranges on purpose, as `patient.vary_patient`.

    Args:
        rng: random numbers. acquisition: as drawn.
        height_cm: from vertex to toes.
    """
    spacing = float(np.clip(height_cm * 10 / rng.uniform(*VARIED_BODY_ROWS), 1.8, 3.0))
    rows = height_cm * 10 / spacing
    top = float(rng.uniform(20, max(21.0, ROWS - rows - 20)))
    half = min(COLUMNS / 2, rng.uniform(430, 600) / spacing / 2)
    left = int(round(COLUMNS / 2 - half))
    end = rows + rng.uniform(5, 60)
    if rng.random() < 0.25:
        end = rows * rng.uniform(0.62, 1.0)  # the table stops at the knees or shanks
    counts = float(np.exp(rng.uniform(np.log(0.25e6), np.log(4e6))))
    camera = dataclasses.replace(
        acquisition.camera,
        spacing_mm=spacing,
        top_row=top,
        middle_column=float(COLUMNS / 2 - 0.5 + rng.normal(0, 6)),
        field_columns=(left, COLUMNS - left),
        field_rows=(int(max(0, top - rng.uniform(5, 60))), int(min(ROWS, top + end))),
        blur=float(rng.uniform(0.8, 1.6)),
    )
    return dataclasses.replace(
        acquisition,
        camera=camera,
        counts=counts,
        posterior_share=float(rng.uniform(0.7, 1.2)),
        background=float(0.05 + 0.3 * (counts / 3e6) * rng.uniform(0, 2)),
    )


def displaced(camera: Camera, rng: np.random.Generator) -> Camera:
    """The camera above a patient who lay down again: some 10 mm further up or down, some 5 mm to a side."""
    rows, columns = rng.normal(0, (10 / camera.spacing_mm, 5 / camera.spacing_mm))
    return dataclasses.replace(
        camera, top_row=camera.top_row + float(rows), middle_column=camera.middle_column + float(columns)
    )
