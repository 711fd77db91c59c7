"""Labelme annotation -> class mask (paper, section 2.2).

Labelme files of versions 3 to 7 are read, and files of AnyLabeling and X-AnyLabeling of any version. Shapes become
pixels as in Labelme itself, which draws with Pillow. Later shapes are drawn over earlier ones. `imageData`, a picture
of the patient, only tells which view was annotated.
"""

import base64
import binascii
import dataclasses
import functools
import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from doubleunet_bs.errors import LabelError
from doubleunet_bs.scans.labels import (
    PNG_ERRORS,
    check_image_size,
    fold_classes,
    fold_label,
    open_picture,
    quoted,
    read_file,
)

VERSIONS = range(3, 8)
LARGEST_FILE = 64 << 20
MOST_SHAPES = 5_000
# Far more than a person draws in a scan, and still drawn within seconds.
MOST_POINTS = 50_000
# Coordinates beyond this many pixels mean a damaged file, not a click beside the image.
FARTHEST = 16_384

NUMBER_OF_POINTS = {
    "polygon": (3, None), "rectangle": (2, 2), "circle": (2, 2), "oriented_rectangle": (4, 4), "mask": (2, 2),
}  # fmt: skip
# Names of X-AnyLabeling for shapes of four corners. Its rectangles have four corners, too.
FOUR_CORNERS = {"rotation": "oriented_rectangle", "quadrilateral": "oriented_rectangle"}
# Entries of a shape that AnyLabeling and X-AnyLabeling write and Labelme does not.
_ANYLABELING = ("difficult", "attributes", "kie_linking", "score", "text")
NO_AREA = ("point", "points", "line", "linestrip")


def rasterize(path: str | os.PathLike, classes: Mapping[str, int]) -> np.ndarray:
    """Draw the annotation of one Labelme file as a mask.

    Args:
        path: a Labelme JSON file.
        classes: label -> class 0, 1 or 2; compared without regard to case. A shape of class 0 erases.

    Returns:
        uint8 array of shape (imageHeight, imageWidth): 0 not annotated, 1 non-metastatic, 2 metastatic. All zero for
        a file without shapes.

    Raises:
        LabelError: naming the file, and for a shape its index (from 0) and the reason. `reason` is "label-file" (not
            a readable Labelme file), "label-frame" (another image size), "label-unknown" (a label the class map
            lacks) or "label-shape".

    Example:
        >>> import tempfile
        >>> square = {"label": "lesion", "points": [[2, 1], [4, 1], [4, 3], [2, 3]]}
        >>> file = {"version": "5.5.0", "shapes": [square], "imageHeight": 1024, "imageWidth": 256}
        >>> path = Path(tempfile.mkdtemp()) / "scan_anterior.json"
        >>> _ = path.write_text(json.dumps(file))
        >>> rasterize(path, {"lesion": 2})[:5, :6]
        array([[0, 0, 0, 0, 0, 0],
               [0, 0, 2, 2, 2, 0],
               [0, 0, 2, 2, 2, 0],
               [0, 0, 2, 2, 2, 0],
               [0, 0, 0, 0, 0, 0]], dtype=uint8)
    """
    return read_labelme(path, classes).mask


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A Labelme file.

    Attributes:
        mask: as `rasterize` returns it.
        picture_name: name of the picture it was drawn on, without folders and ending; "" where it does not say.
        picture: grey levels of that picture, uint8 of the shape of the mask; None where it is not in the file.
    """

    mask: np.ndarray
    picture_name: str = ""
    picture: np.ndarray | None = None


def read_labelme(path: str | os.PathLike, classes: Mapping[str, int]) -> Drawing:
    """The mask of `rasterize`, and what the file says of the picture it was drawn on."""
    path = Path(path)
    content = _read(path)
    check_image_size(path, content["imageHeight"], content["imageWidth"])
    mask = draw_shapes(path, content["shapes"], (content["imageHeight"], content["imageWidth"]), classes)
    name = content.get("imagePath")
    name = Path(name.replace("\\", "/")).stem if isinstance(name, str) else ""
    return Drawing(mask, name, _decode_picture(content.get("imageData"), mask.shape))


def _decode_picture(encoded: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """The grey levels of `imageData`; None when it is no readable PNG or JPEG picture of this shape."""
    if not isinstance(encoded, str):
        return None
    try:
        with open_picture(io.BytesIO(base64.b64decode(encoded)), ("PNG", "JPEG")) as picture:
            return np.asarray(picture.convert("L")) if picture.size == shape[::-1] else None
    except (*PNG_ERRORS, binascii.Error):
        return None


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
    kind = FOUR_CORNERS.get(kind, kind) if isinstance(kind, str) else kind
    if kind in NO_AREA:
        raise LabelError(f"is a {kind} without area: draw a polygon", "label-shape")
    if not isinstance(kind, str) or kind not in NUMBER_OF_POINTS:
        message = f"is of the unknown kind {quoted(kind)}: draw one of {', '.join(NUMBER_OF_POINTS)}"
        raise LabelError(message, "label-shape")
    points = shape.get("points")
    if kind == "rectangle" and isinstance(points, list) and len(points) == 4:
        points = _opposite_corners(_points(points, 4, 4))
    points = _points(points, *NUMBER_OF_POINTS[kind])
    if kind == "mask":
        drawn = _paste_mask(image, shape.get("mask"), points, value)
    else:
        drawn = _draw(image, kind, points, value)
    if not drawn:
        raise LabelError("covers not a single pixel of the image", "label-shape")


def _opposite_corners(corners: list[tuple[float, float]]) -> list[list[float]]:
    """Two corners of a rectangle that is given by all four."""
    xs, ys = zip(*corners, strict=True)
    if set(corners) != {(x, y) for x in (min(xs), max(xs)) for y in (min(ys), max(ys))}:
        raise LabelError("is a rectangle whose four points are not its corners: draw a polygon", "label-shape")
    return [[min(xs), min(ys)], [max(xs), max(ys)]]


def _draw(image: Image.Image, kind: str, points: list[tuple[float, float]], value: int) -> bool:
    (x0, y0), (x1, y1) = points[:2]
    # Drawn by itself, to see that it left something in the image.
    stencil = Image.new("L", image.size)
    draw = ImageDraw.Draw(stencil)
    if kind in ("polygon", "oriented_rectangle"):
        draw.polygon(points, outline=255, fill=255)
    elif kind == "rectangle":
        draw.rectangle([min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)], outline=255, fill=255)
    else:
        radius = math.sqrt((x0 - x1) ** 2 + (y0 - y1) ** 2)
        draw.ellipse([x0 - radius, y0 - radius, x0 + radius, y0 + radius], outline=255, fill=255)
    image.paste(value, (0, 0), stencil)
    return stencil.getbbox() is not None


def _paste_mask(image: Image.Image, encoded: Any, points: list[tuple[float, float]], value: int) -> bool:
    (x0, y0), (x1, y1) = [(int(x), int(y)) for x, y in points]
    size = (x1 - x0 + 1, y1 - y0 + 1)
    if size[0] < 1 or size[1] < 1:
        raise LabelError("is a mask whose second corner lies before the first", "label-shape")
    if not isinstance(encoded, str):
        raise LabelError("is a mask without its picture", "label-shape")
    try:
        with open_picture(io.BytesIO(base64.b64decode(encoded, validate=True))) as picture:
            if size[0] > image.width or size[1] > image.height:
                raise LabelError("is a mask larger than the image", "label-shape")
            if picture.size != size:
                raise LabelError("is a mask of another size than its corners say", "label-shape")
            pixels = np.asarray(picture)
    except LabelError:
        raise
    except (*PNG_ERRORS, binascii.Error) as cause:
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


def draw_shapes(path: Path, shapes: list[Any], shape: tuple[int, int], classes: Mapping[str, int]) -> np.ndarray:
    """Draw the shapes of a Labelme file on an empty image; `path` is for messages. Otherwise as `rasterize`."""
    folded = fold_classes(classes)
    if len(shapes) > MOST_SHAPES:
        raise LabelError(f"{path}: has {len(shapes)} shapes: at most {MOST_SHAPES} are read", "label-shape")
    if _are_fractions(shapes) or any(_are_fractions([shape], whole=False) for shape in shapes):
        raise LabelError(
            f"{path}: coordinates lie between 0 and 1: multiply x by {shape[1]} and y by {shape[0]}", "label-frame"
        )
    image = Image.new("L", (shape[1], shape[0]))
    points = 0
    for index, entry in enumerate(shapes):
        if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
            raise LabelError(f"{path}: shape {index} has no label", "label-shape")
        label = fold_label(entry["label"])
        if label not in folded:
            known = ", ".join(map(quoted, sorted(folded)[:10]))
            message = f"{path}: shape {index} has the label {quoted(entry['label'])}, which the class map lacks"
            raise LabelError(f"{message}: add it by --classes (known: {known})", "label-unknown")
        points += len(entry["points"]) if isinstance(entry.get("points"), list) else 0
        if points > MOST_POINTS:
            raise LabelError(f"{path}: more than {MOST_POINTS} points are not read", "label-shape")
        try:
            draw_shape(image, entry, folded[label])
        except LabelError as error:
            raise LabelError(f"{path}: shape {index} ({quoted(entry['label'])}) {error}", error.reason) from None
    return np.array(image)


def _are_fractions(shapes: list[Any], whole: bool = True) -> bool:
    """Whether coordinates are parts of the image size instead of pixels: nothing a person draws fits into one pixel.

    Without `whole`, whole numbers alone do not count.
    """
    drawn = [shape for shape in shapes if isinstance(shape, dict) and shape.get("shape_type") != "mask"]
    numbers = [
        number
        for shape in drawn
        for point in (shape["points"] if isinstance(shape.get("points"), list) else ())
        for number in (point if isinstance(point, list) else ())
    ]
    fractions = len(numbers) >= 4 and all(type(number) in (int, float) and 0 <= number <= 1 for number in numbers)
    return fractions and (whole or any(number % 1 for number in numbers))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(
            read_file(path, LARGEST_FILE, "Labelme annotation", functools.partial(LabelError, reason="label-file"))
        )
    # ValueError: not JSON, or a number of more than 4300 digits.
    except (ValueError, RecursionError) as cause:
        raise LabelError(f"{path}: not readable as JSON ({type(cause).__name__})", "label-file") from None
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise LabelError(f"{path}: not a Labelme file (it has no list of shapes)", "label-file")
    version = content.get("version")
    major = version.split(".")[0] if isinstance(version, str) else ""
    known = major.isascii() and major.isdigit() and len(major) < 4 and int(major) in VERSIONS
    others = [
        shape for shape in content["shapes"] if isinstance(shape, dict) and any(name in shape for name in _ANYLABELING)
    ]
    if not known and not others:
        needed = f"save with version {VERSIONS[0]} to {VERSIONS[-1]}"
        raise LabelError(f"{path}: Labelme version {quoted(version)} is not read: {needed}", "label-file")
    for name in ("imageHeight", "imageWidth"):
        if type(content.get(name)) is float and content[name].is_integer():
            content[name] = int(content[name])
    if not all(type(content.get(name)) is int and content[name] > 0 for name in ("imageHeight", "imageWidth")):
        message = f"{path}: imageHeight or imageWidth is missing or not a whole number: save it with a newer Labelme"
        raise LabelError(message, "label-file")
    return content
