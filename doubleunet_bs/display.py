"""How counts are shown: the usual display of nuclear medicine. Needs NumPy only."""

import cv2
import numpy as np
from PIL import Image, ImageDraw

PHANTOM_NOTE = "synthetic phantom, not a patient"

UPPER_PERCENTILE = 99.0
"""Of the pixels above zero: shown in full black (decided here). An injection site or a full bladder is about one per
cent of them, so that it cannot turn the skeleton pale."""


def clinical_display(image: np.ndarray, upper: float | None = None) -> np.ndarray:
    """The usual display of nuclear medicine: uptake dark on white, everything above `upper` full black.

    Args:
        image: (rows, columns), grey levels or counts, not negative.
        upper: upper level of the window; None takes the 99th percentile of the pixels above zero, and 1 for an empty
            image.

    Returns:
        uint8 array of shape (rows, columns): 255 for no uptake.
    """
    if upper is None:
        upper = upper_level(image)
    return 255 - np.rint(np.minimum(image / float(upper), 1.0) * 255).astype(np.uint8)


def upper_level(image: np.ndarray) -> float:
    """The upper level that `clinical_display` takes: the 99th percentile of the pixels above zero, at least 1."""
    above = image[image > 0]
    return max(1.0, float(np.percentile(above, UPPER_PERCENTILE))) if above.size else 1.0


# Blocks of one colour compress as well without a filter, in half the time; level 6 would take four times as long.
_SETTINGS = [cv2.IMWRITE_PNG_COMPRESSION, 3, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT]
if hasattr(cv2, "IMWRITE_PNG_FILTER"):
    # OpenCV 4.10 has no such setting.
    _SETTINGS += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]


def png_bytes(picture: np.ndarray) -> bytes:
    """A PNG without metadata.

    Args:
        picture: uint8 array of shape (rows, columns), or (rows, columns, 3) with red first.
    """
    order = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, content = cv2.imencode(".png", order, _SETTINGS)
    return content.tobytes()


def exact_polygon(area: np.ndarray) -> list[list[float]] | None:
    """The outline of one connected area as a polygon for Labelme.

    Points are middles of pixels on the rim. Labelme and this package draw a polygon with its edges (Pillow's
    `ImageDraw.polygon`); it is drawn here as well and held against the area.

    Args:
        area: bool array of shape (rows, columns) with one connected area.

    Returns:
        [x, y] points, at least three, whose polygon covers exactly the pixels of the area; None when there is no such
        polygon, for instance because the area has a hole.
    """
    contours, _ = cv2.findContours(area.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if len(contours) != 1:
        return None
    points = contours[0][:, 0, :].astype(float).tolist()
    if len(points) < 3:
        # One pixel or a straight line of pixels: the same points again make it the polygon that Labelme wants.
        points = (points * 3)[:3]
    drawn = Image.new("1", (area.shape[1], area.shape[0]))
    ImageDraw.Draw(drawn).polygon([tuple(point) for point in points], outline=1, fill=1)
    return points if np.array_equal(np.asarray(drawn, bool), area.astype(bool)) else None


def edge_path(area: np.ndarray) -> str:
    """The outline of an area along the edges of its pixels, as the path of an SVG whose unit is a pixel.

    Args:
        area: (rows, columns), bool or 0 and 1; pixel (row, column) covers the square from (column, row) to (column + 1,
            row + 1).

    Returns:
        Horizontal and vertical lines, "M3 1h2M3 1v4...", around every part and every hole; "" for an empty area.
    """
    inside = np.pad(np.asarray(area, np.int8), 1)
    parts = []
    for row, start, end in _runs(np.diff(inside, axis=0)[:, 1:-1] != 0):
        parts.append(f"M{start} {row}h{end - start}")
    for column, start, end in _runs((np.diff(inside, axis=1)[1:-1] != 0).T):
        parts.append(f"M{column} {start}v{end - start}")
    return "".join(parts)


def _runs(edges: np.ndarray) -> list[tuple[int, int, int]]:
    """(line, start, end) of the runs of true entries in each line of a bool array; the end is exclusive."""
    steps = np.diff(np.pad(edges.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    lines, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    return list(zip(lines.tolist(), starts.tolist(), ends.tolist(), strict=True))
