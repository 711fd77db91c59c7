"""Which scans a report shows, their layers as SVG in image coordinates, and maps of all errors."""

import base64
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import cv2
import numpy as np

from doubleunet_bs.constants import METASTATIC
from doubleunet_bs.display import Colour, clinical_display, edge_path, place_names, png_bytes
from doubleunet_bs.evaluation.scores.lesions import view_parts
from doubleunet_bs.evaluation.scores.scan_scores import ScanScore
from doubleunet_bs.evaluation.tables import with_unit

PROBABILITY_COLOUR = (230, 130, 0)
FALSE_POSITIVE_COLOUR, FALSE_NEGATIVE_COLOUR = (200, 70, 0), (0, 80, 200)
SMOOTHING = 0.012
"""Standard deviation of the smoothing of an error map as a part of the image's rows: 8 of 640."""


def chosen_scans(scans: Sequence[tuple[int, ScanScore]], each: int = 2) -> list[tuple[str, int, ScanScore]]:
    """The best, the median and the worst of (fold, score) by Dice, `each` of them at most; no scan is taken twice.

    Returns:
        (what it is, fold, score), the best and the worst one first among their like; none without a Dice coefficient.
    """
    ranked = sorted(
        (item for item in scans if item[1].dice is not None), key=lambda item: (-(item[1].dice or 0.0), item[1].case)
    )
    best = range(len(ranked))
    worst, middle = best[::-1], max(0, (len(ranked) - each) // 2)
    places: dict[int, str] = {}
    for name, numbers in (
        ("best", best[:1]),
        ("worst", worst[:1]),
        ("median", best[middle : middle + each]),
        ("best", best[:each]),
        ("worst", worst[:each]),
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
