"""Counts and masks -> pictures. Every picture of this package is made with these few functions.

A scan as a physician expects it, uptake dark on white, in blocks of 2 x 2 pixels, with a lesion outlined:

>>> counts = np.array([[0, 5, 40], [0, 5, 10]], np.uint16)
>>> lesion = counts > 20
>>> picture = as_rgb(enlarged(clinical_display(counts), 2))
>>> picture[outline(lesion, 2)] = 225, 87, 0
>>> picture.shape
(4, 6, 3)

Both views of one scan share an upper level (`display_views`), so that they can be compared. A prediction beside its
truth is coloured by `paint_errors`. `save_png` writes a file, `png_bytes` gives its bytes. For a web page `edge_path`
draws an outline as SVG, and for Labelme `exact_polygon` gives its points. Pillow writes text and PNG, OpenCV finds
outlines, matplotlib draws charts and nothing else.
"""

import base64
import io
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from doubleunet_bs.bsi.regions import REGIONS
from doubleunet_bs.constants import (
    CONTRADICTION_WARNING,
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    FEET_UP_WARNING,
    FRAME_ORDER_WARNING,
    METASTATIC,
    MIRRORED_WARNING,
    ONE_VIEW_WARNING,
    SAME_WARNING,
    SIDE_BY_SIDE_WARNING,
    TRUE_POSITIVE,
    VIEWS,
)
from doubleunet_bs.files import replace_file

Colour = tuple[int, int, int]

PHANTOM_NOTE = "synthetic phantom, not a patient"

SMALLEST_UPTAKE, MARGIN = 8.0, 8
"""Of `shown_box`: smoothed grey levels below white, and the rows and columns of air around."""

UPPER_PERCENTILE = 99.0
"""Of the pixels above zero: shown as black. An injection site or a full bladder is about 1 % of them, so it cannot turn
the skeleton pale."""
LABELME_VERSION = "5.5.0"


def upper_level(*images: np.ndarray) -> float:
    """The level shown as black: the 99th percentile of all pixels above zero, at least 1.

    Example:
        >>> upper_level(np.array([0, 0, 10, 20]), np.zeros(5)), upper_level(np.zeros(5))
        (19.9, 1.0)
    """
    above = np.concatenate([image[image > 0] for image in images])
    return max(1.0, float(np.percentile(above, UPPER_PERCENTILE))) if above.size else 1.0


def clinical_display(image: np.ndarray, upper: float | None = None) -> np.ndarray:
    """The usual display of nuclear medicine: uptake dark on white.

    Args:
        image: (rows, columns) counts or grey levels, not negative.
        upper: this level and all above it become black. None: `upper_level(image)`.

    Returns:
        uint8 array: 255 for no uptake, also for an image of zeros.

    Example:
        >>> clinical_display(np.array([[0, 50, 100, 1000]]), upper=100)
        array([[255, 127,   0,   0]], dtype=uint8)
    """
    if upper is None:
        upper = upper_level(image)
    return 255 - np.rint(np.minimum(image / float(upper), 1.0) * 255).astype(np.uint8)


def display_views(views: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`clinical_display` of the views of one scan, by name, all with the same upper level."""
    upper = upper_level(*views.values())
    return {name: clinical_display(counts, upper) for name, counts in views.items()}


def shown_box(
    greys: Collection[np.ndarray], inside: Collection[tuple[slice, slice] | np.ndarray] = ()
) -> tuple[slice, slice]:
    """The rows and columns of the views that a picture shows: all uptake, without most of the air around it.

    One index for all `greys` from `clinical_display`, so that they have one size. What is `inside` (indices of rows and
    columns, or bool masks) is shown in any case.
    """
    shape = next(iter(greys)).shape
    seen = np.zeros(shape, bool)
    for grey in greys:
        seen |= cv2.GaussianBlur(255 - grey.astype(np.float32), (0, 0), 3) > SMALLEST_UPTAKE
    for part in inside:
        seen[part] = True
    if not seen.any():
        return slice(0, shape[0]), slice(0, shape[1])
    ends = []
    for axis, length in enumerate(shape):
        there = np.flatnonzero(seen.any(axis=1 - axis))
        ends.append(slice(max(0, int(there[0]) - MARGIN), min(length, int(there[-1]) + 1 + MARGIN)))
    return ends[0], ends[1]


_SIDES = {"anterior": "RL", "posterior": "LR"}
_DOUBTS = {
    MIRRORED_WARNING,
    SAME_WARNING,
    FEET_UP_WARNING,
    CONTRADICTION_WARNING,
    FRAME_ORDER_WARNING,
    SIDE_BY_SIDE_WARNING,
    *(ONE_VIEW_WARNING.format(view=view) for view in VIEWS),
}


def sides(view: str, warnings: Collection[str]) -> str:
    """The patient's sides at the left and the right edge of a view. A wrong letter is worse than none.

    Returns:
        "RL", "LR", or "??" when a warning of the scan says that a view may be mirrored, or may not be the one it is
        taken for: it is not known which of the two.

    Example:
        >>> sides("posterior", []), sides("posterior", [MIRRORED_WARNING])
        ('LR', '??')
    """
    return "??" if _DOUBTS & set(warnings) else _SIDES[view]


def place_names(width: float, warnings: Collection[str] = ()) -> list[tuple[float, str]]:
    """(x, text) of the names and sides of both views over a prepared image of this width, from the left."""
    names = []
    for centre, view in ((0.25, "anterior"), (0.75, "posterior")):
        letters = sides(view, warnings)
        left, right = letters[0], letters[1]
        names += [((centre + offset) * width, text) for offset, text in ((-0.22, left), (0.0, view), (0.22, right))]
    return names


def with_names(
    picture: np.ndarray,
    warnings: Collection[str] = (),
    phantom: bool | None = None,
    legend: Sequence[tuple[str, Colour]] = (),
) -> np.ndarray:
    """A picture of a prepared image with a strip above it: views and sides, legend, the note of a phantom.

    Args:
        picture: (rows, columns, 3) uint8, the anterior view on the left.
        warnings: of the scan, for `sides`.
        legend: text and colour of what is drawn.
    """
    columns = picture.shape[1]
    size = max(8, columns // 26)
    font = ImageFont.load_default(size)
    lines = 1 + bool(legend) + bool(phantom)
    strip = Image.new("RGB", (columns, round(1.4 * size * lines)), "white")
    draw = ImageDraw.Draw(strip)
    y = 0.1 * size
    if phantom:
        draw.text((columns / 2, y), PHANTOM_NOTE, "black", font, anchor="ma")
        y += 1.4 * size
    x = 0.3 * size
    for text, colour in legend:
        draw.rectangle((x, y + 0.2 * size, x + size, y + size), fill=colour)
        draw.text((x + 1.3 * size, y), text, "black", font)
        x += 2.3 * size + draw.textlength(text, font)
    y += 1.4 * size * bool(legend)
    for x, text in place_names(columns, warnings):
        draw.text((x, y), text, (89, 89, 89), font, anchor="ma")
    return np.concatenate([np.asarray(strip), picture])


def enlarged(image: np.ndarray, scale: int) -> np.ndarray:
    """Each pixel as a block of `scale` x `scale` pixels; (rows, columns) or (rows, columns, channels)."""
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def as_rgb(grey: np.ndarray) -> np.ndarray:
    """(rows, columns) uint8 grey -> (rows, columns, 3), a new array to draw into."""
    return np.repeat(grey[..., None], 3, axis=2)


def outline(mask: np.ndarray, scale: int = 1) -> np.ndarray:
    """The line around the areas of a mask, just outside of them: the uptake inside stays visible.

    Returns:
        bool array of shape (scale * rows, scale * columns). The line is `scale` pixels thick. No line for an empty mask
        and none along the edge of the image.

    Example:
        >>> outline(np.array([[0, 0, 0], [0, 0, 0], [0, 0, 1]])).astype(int)
        array([[0, 0, 0],
               [0, 1, 1],
               [0, 1, 0]])
    """
    blocks = enlarged(np.asarray(mask, np.uint8), scale)
    grown = cv2.dilate(blocks, np.ones((2 * scale + 1, 2 * scale + 1), np.uint8))
    return (grown > 0) & (blocks == 0)


def halo(mask: np.ndarray) -> np.ndarray:
    """The pixels that touch a bool mask from outside, at an edge or a corner; white on black bone."""
    return (cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~mask


def paint(grey: np.ndarray, *areas: tuple[np.ndarray, Colour]) -> np.ndarray:
    """A uint8 grey picture in colour, with areas (bool mask, colour) filled; later areas cover earlier ones."""
    picture = as_rgb(grey)
    for mask, colour in areas:
        picture[mask] = colour
    return picture


def paint_errors(grey: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A grey picture in colour, with true positive, false positive and false negative metastatic pixels painted.

    Args:
        grey: (rows, columns) uint8, usually from `clinical_display`.
        labels: (rows, columns) uint8 classes.
        mask: (rows, columns), bool or 0 and 1: where metastatic is predicted.
    """
    truth, found = np.asarray(labels) == METASTATIC, np.asarray(mask, bool)
    return paint(
        grey, (truth & found, TRUE_POSITIVE), (~truth & found, FALSE_POSITIVE), (truth & ~found, FALSE_NEGATIVE)
    )


def region_picture(regions: np.ndarray) -> Image.Image:
    """An index image of the skeleton: the numbers of the regions with their colours, 0 white."""
    image = Image.fromarray(regions)
    image.putpalette([255, 255, 255, *(value for region in REGIONS for value in region.colour)])
    return image


def hex_colour(colour: Colour) -> str:
    """A colour as a web page spells it.

    Example:
        >>> hex_colour((225, 87, 0))
        '#e15700'
    """
    return "#{:02x}{:02x}{:02x}".format(*colour)


def region_names(regions: Collection[np.ndarray]) -> list[tuple[str, Colour]]:
    """Name and colour of the regions of the skeleton that some masks show, in their order."""
    shown = set().union(*(np.unique(mask).tolist() for mask in regions))
    return [(region.name, region.colour) for region in REGIONS if region.number in shown]


def draw_borders(picture: np.ndarray, regions: np.ndarray) -> None:
    """Draw thin lines around the regions of the skeleton, just inside of them: the uptake between stays as it is.

    `picture` (rows, columns, 3) uint8 is changed; `regions` are 0 not bone, 1 to 12.
    """
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
    edge = (regions > 0) & ((cv2.dilate(regions, cross) != regions) | (cv2.erode(regions, cross) != regions))
    colours = np.array([(0, 0, 0), *(region.colour for region in REGIONS)], np.uint8)
    picture[edge] = colours[regions[edge]]


def png_bytes(picture: np.ndarray | Image.Image) -> bytes:
    """A PNG without metadata of a uint8 array of 1, 3 or 4 channels, or an image of Pillow."""
    content = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(content, "PNG", compress_level=2)
    return content.getvalue()


def save_png(path: str | os.PathLike, picture: np.ndarray | Image.Image) -> None:
    """Write `png_bytes(picture)` to `path`, whole or not at all."""
    replace_file(path, lambda temporary: temporary.write_bytes(png_bytes(picture)))


def rim_polygon(contour: np.ndarray) -> list[list[float]]:
    """A contour of `cv2.findContours` as [x, y] points, at least three. Points are centres of pixels on the rim."""
    points = contour[:, 0, :].astype(float).tolist()
    # One pixel or a straight line of pixels: the same points again make it the polygon that Labelme wants.
    return (points * 3)[:3] if len(points) < 3 else points


def exact_polygon(area: np.ndarray) -> list[list[float]] | None:
    """The outline of one connected area (bool array) as a polygon for Labelme.

    Points are those of `rim_polygon`. Labelme and this package fill a polygon together with its edges (Pillow's
    `ImageDraw.polygon`). The polygon is filled here in the same way and compared with the area.

    Returns:
        [x, y] points, at least three, whose polygon covers exactly the pixels of the area. None when there is no such
        polygon: the area has a hole, or is empty.
    """
    contours, _ = cv2.findContours(area.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if len(contours) != 1:
        return None
    points = rim_polygon(contours[0])
    drawn = Image.new("1", (area.shape[1], area.shape[0]))
    ImageDraw.Draw(drawn).polygon([tuple(point) for point in points], outline=1, fill=1)
    return points if np.array_equal(np.asarray(drawn, bool), area.astype(bool)) else None


def labelme_file(
    shapes: list[dict[str, Any]], size: tuple[int, ...], image_path: str, embedded: bytes | None = None
) -> dict[str, Any]:
    """The content of a Labelme JSON file.

    Args:
        shapes: of one view.
        size: (rows, columns) of the view.
        image_path: name of the picture's file, beside the JSON file.
        embedded: PNG bytes of the picture to put into the JSON file, which then needs no file beside it.
    """
    return {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None if embedded is None else base64.b64encode(embedded).decode("ascii"),
        "imageHeight": size[0],
        "imageWidth": size[1],
    }


def edge_path(area: np.ndarray) -> str:
    """The outline of an area along the edges of its pixels, as path data of an SVG whose unit is a pixel.

    Draw it with `fill: none; vector-effect: non-scaling-stroke`. The path is made of single lines: it cannot be filled.
    Pixel (row, column) covers the square from (column, row) to (column + 1, row + 1). "" for an empty area.

    Example:
        >>> edge_path(np.array([[0, 1]]))
        'M1 0h1M1 1h1M1 0v1M2 0v1'
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
