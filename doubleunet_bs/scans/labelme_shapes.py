"""One shape of a Labelme file -> pixels.

What Labelme draws for each kind, found by comparing with its output: polygon and oriented rectangle:
    `ImageDraw.polygon`; rectangle:
`ImageDraw.rectangle` between the smaller and the larger corner; circle: `ImageDraw.ellipse` around the first point,
the second lies on its edge; mask: the PNG's pixels, put where the first corner point says. All with outline and
filling.
"""

import base64
import binascii
import io
import math
import warnings
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from doubleunet_bs.errors import LabelError
from doubleunet_bs.scans.labels import shown

FARTHEST = 16_384
"""Coordinates beyond this many pixels are a damaged file, not a click beside the image (decided here)."""

NUMBER_OF_POINTS = {
    "polygon": (3, None),
    "rectangle": (2, 2),
    "circle": (2, 2),
    "oriented_rectangle": (4, 4),
    "mask": (2, 2),
}
NO_AREA = ("point", "points", "line", "linestrip")


def draw_shape(image: Image.Image, shape: dict[str, Any], value: int) -> None:
    """Draw a shape into `image`; what lies outside of it is cut off.

    Args:
        image: of mode "L".
        shape: an entry of `shapes` of a Labelme file. Without a `shape_type` (old versions) it is a polygon.
        value: what its pixels become.

    Raises:
        LabelError: it cannot be drawn, or not a single pixel of it lies in the image: a lesion must not vanish.
    """
    kind = shape.get("shape_type") or "polygon"
    if kind in NO_AREA:
        raise LabelError(f"is a {kind}, which encloses no lesion: draw a polygon", "label-shape")
    if not isinstance(kind, str) or kind not in NUMBER_OF_POINTS:
        raise LabelError(
            f"is of the kind {shown(kind)}; {', '.join(NUMBER_OF_POINTS)} are read: draw a polygon", "label-shape"
        )
    points = _points(shape.get("points"), *NUMBER_OF_POINTS[kind])
    if kind == "mask":
        drawn = _paste_mask(image, shape.get("mask"), points, value)
    else:
        drawn = _draw(image, kind, points, value)
    if not drawn:
        raise LabelError("covers not a single pixel of the image", "label-shape")


def _draw(image: Image.Image, kind: str, points: list[tuple[float, float]], value: int) -> bool:
    (x0, y0), (x1, y1) = points[:2]
    # Drawn on the part of the image that the shape can reach, to see that it left something there.
    if kind == "circle":
        radius = math.sqrt((x0 - x1) ** 2 + (y0 - y1) ** 2)
        xs, ys = (x0 - radius, x0 + radius), (y0 - radius, y0 + radius)
    else:
        xs, ys = [x for x, _ in points], [y for _, y in points]
    box = (
        max(0, math.floor(min(xs)) - 1),
        max(0, math.floor(min(ys)) - 1),
        min(image.width, math.ceil(max(xs)) + 2),
        min(image.height, math.ceil(max(ys)) + 2),
    )
    if box[0] >= box[2] or box[1] >= box[3]:
        return False
    stencil = Image.new("L", image.size)
    draw = ImageDraw.Draw(stencil)
    if kind in ("polygon", "oriented_rectangle"):
        draw.polygon(points, outline=255, fill=255)
    elif kind == "rectangle":
        draw.rectangle([min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)], outline=255, fill=255)
    else:
        draw.ellipse([x0 - radius, y0 - radius, x0 + radius, y0 + radius], outline=255, fill=255)
    part = stencil.crop(box)
    image.paste(value, box, part)
    return part.getbbox() is not None


def _paste_mask(image: Image.Image, encoded: Any, points: list[tuple[float, float]], value: int) -> bool:
    (x0, y0), (x1, y1) = [(int(x), int(y)) for x, y in points]
    size = (x1 - x0 + 1, y1 - y0 + 1)
    if size[0] < 1 or size[1] < 1:
        raise LabelError("is a mask whose second corner lies before the first", "label-shape")
    if not isinstance(encoded, str):
        raise LabelError("is a mask without its picture", "label-shape")
    try:
        data = base64.b64decode(encoded, validate=True)
        with warnings.catch_warnings():
            # Pillow warns of large pictures; ours are refused with a reason.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=("PNG",))
        with picture:
            # Before decoding: a small PNG can unfold to any size.
            if size[0] > image.width or size[1] > image.height:
                raise LabelError("is a mask larger than the image", "label-shape")
            if picture.size != size:
                raise LabelError(
                    f"is a mask of {picture.size[0]} x {picture.size[1]} pixels "
                    f"between corners {size[0]} x {size[1]} apart",
                    "label-shape",
                )
            pixels = np.asarray(picture)
    except LabelError:
        raise
    except (
        binascii.Error,
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        MemoryError,
        Image.DecompressionBombError,
    ) as cause:
        raise LabelError(f"is a mask whose picture is not readable ({type(cause).__name__})", "label-shape") from None
    if pixels.ndim != 2:
        raise LabelError("is a mask in colour", "label-shape")
    stencil = Image.fromarray(np.where(pixels, np.uint8(255), np.uint8(0)))
    image.paste(value, (x0, y0, x1 + 1, y1 + 1), stencil)
    return bool(pixels[max(0, -y0) : max(0, image.height - y0), max(0, -x0) : max(0, image.width - x0)].any())


def _points(points: Any, fewest: int, most: int | None) -> list[tuple[float, float]]:
    if not isinstance(points, list):
        raise LabelError("has no list of points", "label-shape")
    if len(points) < fewest or (most is not None and len(points) > most):
        needed = f"{fewest} or more" if most is None else f"exactly {fewest}"
        raise LabelError(f"has {len(points)} points and needs {needed}", "label-shape")
    for point in points:
        if not (
            isinstance(point, list)
            and len(point) == 2
            and all(type(number) in (int, float) for number in point)
            # False for NaN as well.
            and all(abs(number) <= FARTHEST for number in point)
        ):
            raise LabelError("has a point that is no pair of numbers near the image", "label-shape")
    return [(float(x), float(y)) for x, y in points]
