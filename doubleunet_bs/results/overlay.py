"""A picture of a prediction on the raw views, as a physician looks at a bone scan: what `overlay.png` shows."""

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from doubleunet_bs.constants import BENIGN_COLOUR, KEPT_ROWS, VIEWS
from doubleunet_bs.display import (
    PHANTOM_NOTE,
    Colour,
    as_rgb,
    display_views,
    draw_borders,
    enlarged,
    halo,
    outline,
    region_names,
    shown_box,
    sides,
)
from doubleunet_bs.errors import counted
from doubleunet_bs.findings.lesion_list import PredictedLesion, all_warnings
from doubleunet_bs.findings.skeleton_result import SkeletonResult
from doubleunet_bs.inference.model_description import INTENDED_USE
from doubleunet_bs.inference.predictor import Prediction
from doubleunet_bs.scans.bone_scan import BoneScan

CONTOUR = (225, 87, 0)
"""Orange red: stands out from grey for any colour vision."""

SCALE = 2
_MARGIN, _GAP, _TOP, _BOTTOM = 30, 24, 150, 92
_SMALL = 17
_LINE = 22
"""Rows of a line of warnings; `_TOP` has room for one."""
_SWATCH = 20
"""Columns of the square before the name of a region, with the gap after it."""
_TEXT, _DIM, _FRAME = (0, 0, 0), (90, 90, 90), (178, 178, 178)


def view_pictures(scan: BoneScan) -> dict[str, np.ndarray]:
    """Both raw views in the usual display, at the same level: uint8 arrays of their shape."""
    return display_views({view: getattr(scan, view) for view in VIEWS})


def overlay_picture(
    scan: BoneScan,
    prediction: Prediction,
    lesions: Sequence[PredictedLesion],
    pictures: Mapping[str, np.ndarray],
    foci: Mapping[int, int | None] | None = None,
    skeleton: SkeletonResult | None = None,
) -> np.ndarray:
    """Both raw views, without the air around the body, with the predicted metastatic areas outlined and numbered.

    With a skeleton thin lines show its regions, which are named below, beside the Bone Scan Index.

    Every raw pixel is a block of 2 x 2 pixels. The picture carries the case pseudonym, the warnings and the intended
    use: it may be all that someone sees of a result.

    Args:
        scan, prediction, lesions: the scan, the prediction, and `find_lesions` of both.
        pictures: `view_pictures` of the scan.
        foci: number of a lesion -> number of its focus, which is written beside it, instead of its own.
        skeleton: its regions and index.

    Returns:
        uint8 array of shape (rows, columns, 3): at most 2290 x 1108 for the usual matrix, and 22 rows more
        for each line of warnings after the first, and for each line of names.
    """
    box = shown_box(
        [pictures[view] for view in VIEWS if view not in scan.missing_views],
        [
            *(body.box for body in prediction.prepared.bodies.values()),
            *(mask == 1 for mask in prediction.masks.values()),
        ],
    )
    height, width = ((part.stop - part.start) * SCALE for part in box)
    page_width = 2 * _MARGIN + 2 * width + _GAP
    warnings = [*filter(None, [prediction.model.quality_warning]), *all_warnings(scan, prediction)]
    warnings += skeleton.result_warnings if skeleton else ()
    lines = [line for warning in warnings for line in _wrapped(warning, page_width - 2 * _MARGIN)]
    top = _TOP + _LINE * max(len(lines) - 1, 0)
    about = _about_skeleton(skeleton, page_width - 2 * _MARGIN) if skeleton else []
    bottom = top + height + _LINE * len(about)
    page = Image.new("RGB", (page_width, bottom + _BOTTOM), "white")
    draw = ImageDraw.Draw(page)
    for number, view in enumerate(VIEWS):
        left = _MARGIN + number * (width + _GAP)
        centre = left + width // 2
        draw.rectangle((left - 1, top - 1, left + width, top + height), outline=_FRAME)
        if view in scan.missing_views:
            draw.text((centre, top - 12), view, _TEXT, _font(21), anchor="ms")
            draw.text((centre, top + height // 2), "view missing", _DIM, _font(28), anchor="mm")
            continue
        found = [lesion for lesion in lesions if lesion.view == view]
        title = f"{view}: {counted(len(found), 'area')}, {prediction.lesion_pixels[view]} pixels"
        draw.text((centre, top - 12), title, _TEXT, _font(21), anchor="ms")
        regions = skeleton.regions[view] if skeleton else None
        page.paste(_draw_view(pictures[view], view, box, prediction, found, foci or {}, regions), (left, top))
    name = f"{prediction.case}   {PHANTOM_NOTE}" if scan.phantom else prediction.case
    draw.text((_MARGIN, 18), name, _TEXT, _font(28))
    outlined = "Outlined: predicted metastatic" if lesions else "Nothing is predicted to be metastatic"
    if prediction.benign and any(mask.any() for mask in prediction.benign.values()):
        outlined += "; blue: benign"
    outlined += f" by {prediction.model.name}"
    if prediction.threshold is not None:
        outlined += f", {prediction.mask_rule}"
    size = 20
    while draw.textlength(outlined, _font(size)) > page.width - 2 * _MARGIN:  # An ensemble has a long name.
        size -= 1
    draw.text((_MARGIN, 58), outlined, CONTOUR if lesions else _TEXT, _font(size))
    for place, line in enumerate(lines):
        draw.text((_MARGIN, 88 + _LINE * place), line, _TEXT, _font(_SMALL))
    for place, entries in enumerate(about):
        y = top + height + _LINE * place + 8
        for x, text, colour in entries:
            x += _MARGIN
            if colour is not None:
                draw.rectangle((x, y + 4, x + _SWATCH - 6, y + 16), fill=colour)
                x += _SWATCH
            draw.text((x, y), text, _TEXT, _font(_SMALL))
    draw.text((_MARGIN, bottom + 12), "NOT FOR DIAGNOSIS", _TEXT, _font(22))
    for place, sentence in enumerate(INTENDED_USE.split(". ", 1)):
        line = sentence.rstrip(".") + "."
        draw.text((_MARGIN, bottom + 42 + 22 * place), line, _TEXT, _font(16))
    return np.asarray(page)


def thumbnail(scan: BoneScan, prediction: Prediction, pictures: Mapping[str, np.ndarray]) -> np.ndarray:
    """Both views side by side at a third of their size, with the predicted areas outlined and the sides marked.

    Args:
        scan, prediction: the scan and the prediction.
        pictures: `view_pictures` of the scan.

    Returns:
        uint8 array of shape (rows, columns, 3): 341 x 180 for the usual matrix.
    """
    views = []
    for view in VIEWS:
        picture = as_rgb(pictures[view])
        line = outline(prediction.masks[view], 1).astype(np.uint8)
        picture[cv2.dilate(line, np.ones((3, 3), np.uint8)) > 0] = CONTOUR
        rows, columns = (length // 3 for length in picture.shape[:2])
        views.append(cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA))
    page = Image.fromarray(np.hstack([views[0], np.full((len(views[0]), 10, 3), 255, np.uint8), views[1]]))
    draw = ImageDraw.Draw(page)
    for number, view in enumerate(VIEWS):
        if view in scan.missing_views:
            continue
        left = number * (views[0].shape[1] + 10)
        for letter, place, anchor in zip(
            sides(view, prediction.warnings), (2, views[0].shape[1] - 2), "lr", strict=True
        ):
            draw.text((left + place, 2), letter, _DIM, _font(11), anchor=f"{anchor}a")
    if scan.phantom:
        draw.text((page.width // 2, page.height - 4), PHANTOM_NOTE, _TEXT, _font(10), anchor="ms")
    return np.asarray(page)


def _draw_view(
    grey: np.ndarray,
    view: str,
    box: tuple[slice, slice],
    prediction: Prediction,
    lesions: Sequence[PredictedLesion],
    foci: Mapping[int, int | None],
    regions: np.ndarray | None,
) -> Image.Image:
    background = as_rgb(enlarged(grey[box], SCALE))
    if regions is not None:
        draw_borders(background, enlarged(regions[box], SCALE))
    image = Image.fromarray(background)
    first_row, first_column = box[0].start, box[1].start
    draw = ImageDraw.Draw(image)
    letters = sides(view, prediction.warnings)
    for place, side, anchor in zip((8, image.width - 8), letters, ("la", "ra"), strict=True):
        draw.text((place, 8), side, _DIM, _font(20), anchor=anchor)
    last = (prediction.prepared.placements[view].top + KEPT_ROWS - first_row) * SCALE
    if 0 <= last < image.height:
        for start in range(0, image.width, 12):
            draw.line((start, last, start + 5, last), fill=_DIM)
        text = (image.width - 6, last + 8)
        draw.multiline_text(text, "not segmented\nbelow", _DIM, _font(16), anchor="ra", align="right")
    mask = prediction.masks[view][box]
    line = outline(mask, SCALE)
    taken = line | enlarged(mask == 1, SCALE)
    for lesion in lesions:
        number = str(foci.get(lesion.number) or lesion.number)
        if (at := _free_place(lesion, (first_row, first_column), number, taken)) is not None:
            draw.text(at, number, _TEXT, _font(16), anchor="ls", stroke_width=2, stroke_fill="white")
    picture = np.array(image)
    # Last, so that no number hides a part of an outline. The halo keeps it visible on black bone.
    picture[halo(line | enlarged(mask == 1, SCALE))] = 255
    if prediction.benign:
        picture[outline(prediction.benign[view][box], SCALE)] = BENIGN_COLOUR
    picture[line] = CONTOUR
    return Image.fromarray(picture)


def _free_place(
    lesion: PredictedLesion, corner: tuple[int, int], number: str, taken: np.ndarray
) -> tuple[int, int] | None:
    """Where the number of a lesion hides no outline and no other number; None where there is no room beside it.

    Returns the left end of its baseline, whose surroundings are then marked in `taken`, the pixels that are in use.
    """
    top, bottom = ((row - corner[0]) * SCALE for row in (lesion.first_row, lesion.last_row + 1))
    left, right = ((column - corner[1]) * SCALE for column in (lesion.first_column, lesion.last_column + 1))
    width, height = math.ceil(_font(16).getlength(number)), 12
    beside, middle = (right + 5, left - 5 - width), (left + right - width) // 2
    rows = max(top - 5, height + 4), (top + bottom + height) // 2, bottom + height
    places = [*((x, y) for y in rows for x in beside), (middle, top - 5), (middle, bottom + height + 5)]
    for x, y in places:
        around = taken[max(0, y - height - 1) : y + 2, max(0, x - 1) : x + width + 1]
        if x >= 3 and x + width + 3 <= taken.shape[1] and height + 3 <= y <= len(taken) - 3 and not around.any():
            around[:] = True
            return x, y
    return None


def _about_skeleton(skeleton: SkeletonResult, width: int) -> list[list[tuple[int, str, Colour | None]]]:
    """Lines of (x, text, colour of the square before it): the index, and the names of the regions that are drawn."""
    index = skeleton.index
    lines: list[list[tuple[int, str, Colour | None]]] = [
        [(0, f"Bone Scan Index {index.value:.2f} % of the skeleton by {index.table}", None)],
        [(0, f"Thin lines: regions by {skeleton.model.name}", None)],
        [],
    ]
    x = 0
    for name, colour in region_names(list(skeleton.regions.values())):
        length = _SWATCH + math.ceil(_font(_SMALL).getlength(name)) + 16
        if lines[-1] and x + length > width:
            lines.append([])
            x = 0
        lines[-1].append((x, name, colour))
        x += length
    return [line for line in lines if line]


def _wrapped(warning: str, width: int) -> list[str]:
    """A warning in lines of at most `width` screen pixels, the further ones indented."""
    lines, font = [], _font(_SMALL)
    line = "Warning:"
    for word in warning.split():
        if font.getlength(f"{line} {word}") > width:
            lines.append(line)
            line = "   "
        line = f"{line} {word}"
    return [*lines, line]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
