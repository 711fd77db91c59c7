"""Pictures of scans: the overlay of each (as in the paper, Figures 4 to 7), what a report shows, maps of all errors."""

import base64
import os
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import cv2
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
    Colour,
    as_rgb,
    clinical_display,
    edge_path,
    enlarged,
    outline,
    paint,
    paint_errors,
    place_names,
    png_bytes,
    save_png,
)
from doubleunet_bs.evaluation.scores.lesions import view_parts
from doubleunet_bs.evaluation.scores.scan_scores import ScanScore
from doubleunet_bs.evaluation.tables import percent
from doubleunet_bs.inference.model_description import with_unit
from doubleunet_bs.pixel_counts import PixelCounts, count_pixels
from doubleunet_bs.preparation.records import CaseRecord

PROBABILITY_COLOUR = (230, 130, 0)
FALSE_POSITIVE_COLOUR, FALSE_NEGATIVE_COLOUR = (200, 70, 0), (0, 80, 200)
SMOOTHING = 0.012
"""Standard deviation of the smoothing of an error map as a part of the image's rows: 8 of 640."""


def chosen_scans(scans: Sequence[tuple[int, ScanScore]]) -> list[tuple[str, int, ScanScore]]:
    """The best, the median and the worst of (fold, score) by Dice, two of each at most; no scan is taken twice.

    Returns:
        (what it is, fold, score), the best and the worst one first among their like; none without a Dice coefficient.
    """
    ranked = sorted(
        (item for item in scans if item[1].dice is not None), key=lambda item: (-(item[1].dice or 0.0), item[1].case)
    )
    best = range(len(ranked))
    worst, middle = best[::-1], max(0, (len(ranked) - 2) // 2)
    places: dict[int, str] = {}
    for name, numbers in (
        ("best", best[:1]),
        ("worst", worst[:1]),
        ("median", best[middle : middle + 2]),
        ("best", best[:2]),
        ("worst", worst[:2]),
    ):
        for number in numbers:
            places.setdefault(number, name)
    order = ("best", "median", "worst")
    found = sorted(places.items(), key=lambda item: (order.index(item[1]), -item[0] if item[1] == "worst" else item[0]))
    return [(name, *ranked[place]) for place, name in found]


def scan_figure(
    what: str,
    fold: int,
    score: ScanScore,
    images: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    warnings: Collection[str] = (),
) -> dict[str, Any]:
    """One scan whose layers can be switched by the boxes of the page: the values of its template.

    Args:
        what: "best", "median" or "worst". fold: 0 for an ensemble. score: of the scan.
        images: each (rows, columns): grey uint8, classes uint8, predicted mask bool, probability 0 to 1.
        warnings: of the scan: they may put the sides in doubt.
    """
    grey, labels, mask, probability = images
    counts, lesions = score.counts, score.lesions
    caption = (
        f"Dice {with_unit(score.dice)}: precision {with_unit(counts.precision)}, sensitivity "
        f"{with_unit(counts.sensitivity)}. {lesions.found} of {lesions.true} lesions detected, "
        f"{lesions.false_positives} of {lesions.predicted} predicted ones are false positives."
    )
    return {
        "title": f"{what.capitalize()}: {score.case}",
        "where": f"(fold {fold})" if fold else "(ensemble)",
        "caption": caption,
        "label": f"{what} scan {score.case}, anterior and posterior view. {caption}",
        "shape": grey.shape,
        "names": place_names(grey.shape[1], warnings),
        # (name of the layer, picture or path), from the bottom up.
        "pictures": [("", png_uri(clinical_display(grey))), ("probability", png_uri(tinted(probability)))],
        "outlines": [("truth", edge_path(labels == METASTATIC)), ("prediction", edge_path(mask))],
    }


def png_uri(image: np.ndarray) -> str:
    """A picture as a data URI: (rows, columns) uint8 grey, or (rows, columns, 4) uint8 with opacity."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode("ascii")


def tinted(probability: np.ndarray) -> np.ndarray:
    """(rows, columns, 4) uint8 of one colour, the more opaque the more probable; under 0.05 nothing is drawn."""
    alpha = np.where(probability < 0.05, 0, np.rint(np.clip(probability, 0, 1) * 15) * 17).astype(np.uint8)
    picture = np.zeros((*probability.shape, 4), np.uint8)
    picture[alpha > 0, :3] = PROBABILITY_COLOUR
    picture[..., 3] = alpha
    return picture


def error_maps(
    scans: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> list[tuple[str, np.ndarray, np.ndarray, Colour]]:
    """Where the errors of all scans are: of false positives, then of false negatives; none without scans.

    Args:
        scans: each (rows, columns): uint8 image and classes, bool prediction.

    Returns:
        Name, mean picture (uint8), smoothed share of the scans in which a pixel is an error (0 to 1), and colour.
    """
    count, sums = 0, np.zeros(3)
    for grey, labels, mask in scans:
        truth = labels == METASTATIC
        # As displayed: scans of many counts must not outshine the others.
        sums = sums + np.stack([255 - clinical_display(grey), mask & ~truth, ~mask & truth], axis=-1)
        count += 1
    if not count:
        return []
    grey, false_positives, false_negatives = np.moveaxis(sums / count, -1, 0)
    mean = 255 - np.rint(grey * 0.6).astype(np.uint8)
    return [
        ("False positives", mean, _smooth(false_positives), FALSE_POSITIVE_COLOUR),
        ("False negatives", mean, _smooth(false_negatives), FALSE_NEGATIVE_COLOUR),
    ]


def _smooth(share: np.ndarray) -> np.ndarray:
    """Each view by itself: smoothing must not carry an error across the middle."""
    sigma = max(0.5, SMOOTHING * share.shape[0])
    parts = (np.ascontiguousarray(share[part]) for _, part in view_parts(share))
    return np.hstack([cv2.GaussianBlur(part, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT) for part in parts])


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
