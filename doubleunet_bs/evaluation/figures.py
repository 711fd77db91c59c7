"""Overlay pictures: a scan, its truth and its prediction side by side (as in the paper, Figures 4 to 7)."""

import os

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from doubleunet_bs.constants import (
    BENIGN,
    BENIGN_COLOUR,
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    METASTATIC,
    TRUE_POSITIVE,
    TRUTH,
)
from doubleunet_bs.display import (
    PHANTOM_NOTE,
    as_rgb,
    clinical_display,
    enlarged,
    outline,
    paint,
    paint_errors,
    place_names,
    save_png,
)
from doubleunet_bs.evaluation.tables import percent
from doubleunet_bs.pixel_counts import PixelCounts, count_pixels
from doubleunet_bs.preparation.records import CaseRecord

_PANEL_ROWS = 960
"""Height of a panel in screen pixels, about: image pixels are shown as whole blocks. All else grows with it."""
_MARGIN, _GAP, _TOP, _BOTTOM = 24, 18, 104, 66
_TEXT, _DIM, _FRAME = (0, 0, 0), (89, 89, 89), (178, 178, 178)


def draw_case(
    path: str | os.PathLike,
    record: CaseRecord,
    grey: np.ndarray,
    labels: np.ndarray,
    mask: np.ndarray,
    benign: np.ndarray | None = None,
) -> None:
    """Draw image, truth and prediction of one case as PNG, written whole or not at all.

    The prediction panel has true positive, false positive and false negative pixels in their colours. Every image pixel
    is a block of equal screen pixels.

    Args:
        path: the PNG file.
        record: of the case. Its warnings may put the sides in doubt.
        grey: (rows, columns) uint8 prepared image.
        labels: (rows, columns) uint8 classes.
        mask: (rows, columns), bool or 0 and 1: the prediction.
        benign: (rows, columns) bool: predicted benign lesions, outlined in both panels; None of a model without them.
    """
    counts = count_pixels(labels, mask)
    background = clinical_display(grey)
    panels = {
        "Scan": as_rgb(background),
        "Truth": paint(background, (labels == METASTATIC, TRUTH)),
        "Prediction": paint_errors(background, labels, mask),
    }
    if benign is not None:
        panels["Truth"][outline(labels == BENIGN, 1)] = BENIGN_COLOUR
        panels["Prediction"][outline(benign, 1)] = BENIGN_COLOUR
    scale = max(1, round(_PANEL_ROWS / grey.shape[0]))
    height, width = grey.shape[0] * scale, grey.shape[1] * scale
    unit = height / _PANEL_ROWS
    margin, gap, top, bottom = (round(length * unit) for length in (_MARGIN, _GAP, _TOP, _BOTTOM))
    page = Image.new("RGB", (2 * margin + 3 * width + 2 * gap, top + height + bottom), "white")
    draw = ImageDraw.Draw(page)
    for number, (name, picture) in enumerate(panels.items()):
        left = margin + number * (width + gap)
        draw.rectangle((left - 1, top - 1, left + width, top + height), outline=_FRAME)
        page.paste(Image.fromarray(enlarged(picture, scale)), (left, top))
        draw.text((left + width / 2, top - 10 * unit), name, _TEXT, _font(24 * unit), anchor="ms")
        # The posterior view is seen from behind and not mirrored: there the patient's left is on the left.
        for x, text in place_names(width, record.warnings):
            draw.text((left + x, top + 8 * unit), text, _DIM, _font(17 * unit), anchor="ma")
    title = f"{record.case}     {PHANTOM_NOTE}" if record.phantom else record.case
    figures = {"precision": counts.precision, "sensitivity": counts.sensitivity, "F1": counts.f1}
    scores = "     ".join(f"{name} {percent(value)}{' %' * (value is not None)}" for name, value in figures.items())
    draw.text((margin, 18 * unit), title, _TEXT, _font(27 * unit))
    draw.text((page.width - margin, 18 * unit), scores, _TEXT, _font(25 * unit), anchor="ra")
    found = None if benign is None else (int(np.count_nonzero(labels == BENIGN)), int(np.count_nonzero(benign)))
    _draw_legend(draw, page.width / 2, top + height + bottom / 2, counts, unit, found)
    save_png(path, page)


def _draw_legend(
    draw: ImageDraw.ImageDraw,
    centre: float,
    middle: float,
    counts: PixelCounts,
    unit: float,
    benign: tuple[int, int] | None = None,
) -> None:
    entries = [
        ("metastatic in the truth", TRUTH, counts.tp + counts.fn),
        ("true positive", TRUE_POSITIVE, counts.tp),
        ("false positive", FALSE_POSITIVE, counts.fp),
        ("false negative", FALSE_NEGATIVE, counts.fn),
    ]
    font, box, gap = _font(21 * unit), 36 * unit, 12 * unit
    texts = [f"{name} ({number} pixels)" for name, _, number in entries]
    if benign is not None:
        entries.append(("benign", BENIGN_COLOUR, 0))
        texts.append("benign ({} true, {} predicted)".format(*benign))
    place = centre - (sum(draw.textlength(text, font) + box + 4 * gap for text in texts) - 3 * gap) / 2
    for text, (_, colour, _) in zip(texts, entries, strict=True):
        draw.rectangle((place, middle - 8 * unit, place + box, middle + 8 * unit), fill=colour)
        draw.text((place + box + gap, middle), text, _TEXT, font, anchor="lm")
        place += draw.textlength(text, font) + box + 4 * gap


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(6, size))
