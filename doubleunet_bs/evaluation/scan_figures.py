"""Which scans a report shows, their layers as SVG in image coordinates, and maps of all errors."""

import base64
from collections.abc import Collection, Sequence
from typing import Any

import cv2
import numpy as np

from doubleunet_bs.constants import METASTATIC
from doubleunet_bs.display import Colour, clinical_display, place_names, png_bytes
from doubleunet_bs.evaluation.scores.scan_scores import ScanScore
from doubleunet_bs.evaluation.tables import with_unit

PROBABILITY_COLOUR = (230, 130, 0)
FALSE_POSITIVE_COLOUR, FALSE_NEGATIVE_COLOUR = (200, 70, 0), (0, 80, 200)
SMOOTHING = 0.012
"""Standard deviation of the smoothing of an error map as a part of the image's rows: 8 of 640."""
_FINE = 3
OUTLINE_TRANSFORM = f"scale({1 / _FINE:.6f}) translate(0.5 0.5)"


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
        "outlines": [("truth", inner_outline(labels == METASTATIC)), ("prediction", inner_outline(mask))],
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


def inner_outline(mask: np.ndarray) -> str:
    """The outlines of a mask as SVG path data, holes included; "" for an empty mask.

    Every pixel is drawn as a block and its outline lies just inside, so that outlines of lesions that touch do not run
    into one. The unit is a third of a pixel (`OUTLINE_TRANSFORM`), so that all numbers are whole and short.
    """
    parts = []
    for points in _fine_outlines(mask):
        steps = np.diff(points, axis=0).ravel().tolist()
        parts.append(f"M{points[0, 0]} {points[0, 1]}l{' '.join(map(str, steps))}z")
    return "".join(parts)


def outline_points(mask: np.ndarray) -> list[np.ndarray]:
    """The outlines of `inner_outline` as closed polygons: float arrays of (x, y), whose unit is a pixel."""
    return [(points + 0.5) / _FINE for points in _fine_outlines(mask)]


def _fine_outlines(mask: np.ndarray) -> list[np.ndarray]:
    fine = np.asarray(mask, bool).astype(np.uint8).repeat(_FINE, axis=0).repeat(_FINE, axis=1)
    contours, _ = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return [contour[:, 0, :] for contour in contours]


class ErrorMaps:
    """Sums over `scans` scans: of the pictures, and in how many of them a pixel is a false positive or negative."""

    def __init__(self, shape: tuple[int, int]):
        self.grey, self.false_positives, self.false_negatives = np.zeros((3, *shape))
        self.scans = 0
        self.warnings: set[str] = set()

    def add(self, grey: np.ndarray, labels: np.ndarray, mask: np.ndarray, warnings: Collection[str] = ()) -> None:
        """Add one scan: (rows, columns) uint8 image and classes, bool prediction, and its warnings."""
        self.warnings |= set(warnings)
        truth = np.asarray(labels) == METASTATIC
        # As displayed: scans of many counts must not outshine the others.
        self.grey += 255 - clinical_display(grey)
        self.false_positives += mask & ~truth
        self.false_negatives += truth & ~mask
        self.scans += 1

    def maps(self) -> list[tuple[str, np.ndarray, np.ndarray, Colour]]:
        """Name, mean picture (uint8), smoothed share of the scans (0 to 1) and colour of both; none without scans."""
        if not self.scans:
            return []
        mean = 255 - np.rint(self.grey / self.scans * 0.6).astype(np.uint8)
        return [
            ("False positives", mean, _smooth(self.false_positives / self.scans), FALSE_POSITIVE_COLOUR),
            ("False negatives", mean, _smooth(self.false_negatives / self.scans), FALSE_NEGATIVE_COLOUR),
        ]


def _smooth(share: np.ndarray) -> np.ndarray:
    """Each view by itself: smoothing must not carry an error across the middle."""
    rows, columns = share.shape
    sigma = max(0.5, SMOOTHING * rows)
    parts = (np.ascontiguousarray(part) for part in (share[:, : columns // 2], share[:, columns // 2 :]))
    return np.concatenate(
        [cv2.GaussianBlur(part, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT) for part in parts], axis=1
    )
