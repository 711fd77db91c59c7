"""What a physician would outline of a lesion in one view, and the outline as polygons (decided here)."""

import cv2
import numpy as np
from PIL import Image, ImageDraw

LEVEL = 0.47  # of the lesion's own maximum
LEAST_CONTRAST = 0.40  # lesion over everything else, at its brightest point
LEAST_CONTRAST_AT_EDGE = 0.22
LEAST_PIXELS = 10


def visible_outline(signal: np.ndarray, surroundings: np.ndarray) -> np.ndarray:
    """The pixels of one lesion a physician would outline in one view.

    Args:
        signal: float32 (rows, columns), the lesion's own noise-free counts.
        surroundings: the same window, expected counts of everything else.

    Returns:
        Boolean array: the largest connected region above 47 % of the lesion's maximum that stands out from its
        surroundings. All False when the lesion is too faint, too attenuated, or hidden behind something hotter.
    """
    nothing = np.zeros(signal.shape, bool)
    peak = np.unravel_index(np.argmax(signal), signal.shape)
    height, around = float(signal[peak]), float(surroundings[peak])
    # Rose: seen when the counts of some 25 pixels rise five standard deviations above what lies there.
    clear = 25 * height / np.sqrt(25 * (height + around) + 1e-6)
    if height <= 0 or height < LEAST_CONTRAST * around or clear < 5:
        return nothing
    region = (signal >= LEVEL * height) & (signal >= LEAST_CONTRAST_AT_EDGE * surroundings)
    count, numbers, statistics, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=4)
    if count < 2:
        return nothing
    largest = 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))
    if statistics[largest, cv2.CC_STAT_AREA] < LEAST_PIXELS:
        return nothing
    return numbers == largest


def mask_polygons(mask: np.ndarray) -> list[list[list[float]]]:
    """The connected regions of a mask as polygons.

    Drawing each with Pillow (`ImageDraw.polygon`, outline and fill) gives the mask back, its holes filled.

    Args:
        mask: (rows, columns), non-zero inside.

    Returns:
        One list of [x, y] per region, at least three points each; an empty list for an empty mask.
    """
    contours, _ = cv2.findContours((mask > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = []
    for contour in contours:
        points = contour[:, 0, :].astype(float).tolist()
        if len(points) < 3:
            # A line of pixels: give it the third corner a polygon needs.
            points = (points * 3)[:3]
        polygons.append(points)
    return sorted(polygons, key=lambda points: (min(p[1] for p in points), min(p[0] for p in points)))


def draw_polygons(polygons: list[list[list[float]]], shape: tuple[int, int]) -> np.ndarray:
    """Rasterise polygons as Labelme does: uint8 array of `shape`, 1 inside and on the edge."""
    image = Image.new("L", (shape[1], shape[0]))
    for points in polygons:
        ImageDraw.Draw(image).polygon([tuple(point) for point in points], outline=1, fill=1)
    return np.array(image, dtype=np.uint8)
