"""Labelme annotation -> class mask (paper, section 2.2).

Labelme files of versions 3 to 7 are read. A shape becomes pixels as in Labelme itself, which draws with Pillow's
ImageDraw; the agreement is tested on masks that Labelme made. Later shapes win. Group ids, flags, descriptions,
colours, `imagePath` and `imageData` have no influence; `imageData`, which may hold a picture of the patient, is
dropped at once.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from doubleunet_bs.errors import LabelError
from doubleunet_bs.scans.labels import fold_classes, fold_label, shown
from doubleunet_bs.scans.label_frames import check_frame
from doubleunet_bs.scans.labelme_shapes import draw_shape

VERSIONS = range(3, 8)
LARGEST_FILE = 64 << 20
MOST_SHAPES = 5_000
# Far more than hands draw in a scan, and still drawn within seconds.
MOST_POINTS = 50_000


def rasterize(path: str | os.PathLike, classes: Mapping[str, int]) -> np.ndarray:
    """Draw the annotation of one file.

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
    """
    path = Path(path)
    content = _read(path)
    check_frame(path, content["imageHeight"], content["imageWidth"])
    return draw_shapes(path, content["shapes"], (content["imageHeight"], content["imageWidth"]), classes)


def draw_shapes(path: Path, shapes: list[Any], shape: tuple[int, int], classes: Mapping[str, int]) -> np.ndarray:
    """Draw the shapes of a Labelme file on an empty image; `path` is for messages. Otherwise as `rasterize`."""
    folded = fold_classes(classes)
    if len(shapes) > MOST_SHAPES:
        raise LabelError(f"{path}: {len(shapes)} shapes; more than {MOST_SHAPES} are not read", "label-shape")
    image = Image.new("L", (shape[1], shape[0]))
    points = 0
    for index, entry in enumerate(shapes):
        if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
            raise LabelError(f"{path}: shape {index} has no label", "label-shape")
        label = fold_label(entry["label"])
        if label not in folded:
            raise LabelError(
                f"{path}: shape {index} has the label {shown(entry['label'])}, which the class map lacks "
                f"(it has {', '.join(map(shown, sorted(folded)[:10]))})",
                "label-unknown",
            )
        points += len(entry["points"]) if isinstance(entry.get("points"), list) else 0
        if points > MOST_POINTS:
            raise LabelError(f"{path}: more than {MOST_POINTS} points are not read", "label-shape")
        try:
            draw_shape(image, entry, folded[label])
        except LabelError as error:
            raise LabelError(f"{path}: shape {index} ({shown(entry['label'])}) {error}", error.reason) from None
    return np.array(image)


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise LabelError(f"{path}: larger than {LARGEST_FILE >> 20} MB, which no annotation is", "label-file")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise LabelError(f"{path}: no such annotation file", "label-file") from None
    # ValueError: not UTF-8, not JSON, or a number of more than 4300 digits.
    except (OSError, ValueError, RecursionError) as cause:
        raise LabelError(f"{path}: not readable as JSON ({type(cause).__name__})", "label-file") from None
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise LabelError(f"{path}: not a Labelme file (it has no list of shapes)", "label-file")
    content.pop("imageData", None)
    version = content.get("version")
    major = version.split(".")[0] if isinstance(version, str) else ""
    if not (major.isascii() and major.isdigit() and len(major) < 4 and int(major) in VERSIONS):
        raise LabelError(
            f"{path}: Labelme version {shown(version)}; versions {VERSIONS[0]} to {VERSIONS[-1]} are read: "
            "save it again with one of these",
            "label-file",
        )
    if not all(type(content.get(name)) is int and content[name] > 0 for name in ("imageHeight", "imageWidth")):
        raise LabelError(
            f"{path}: imageHeight and imageWidth are missing or no whole numbers: save it again with a newer Labelme",
            "label-file",
        )
    return content
