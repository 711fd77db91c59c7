"""Areas of a mask -> outlines: polygons that are drawn back to the same pixels, and paths along the pixels' edges."""

import cv2
import numpy as np
from PIL import Image, ImageDraw


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
