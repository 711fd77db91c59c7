"""Scans with their layers: the image, true and predicted outlines, the probability map."""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from doubleunet_bs.constants import METASTATIC
from doubleunet_bs.evaluation.figures import clinical_display
from doubleunet_bs.evaluation.report.markup import png_uri, text, tinted, with_unit
from doubleunet_bs.evaluation.scores import ScanScore

PROBABILITY_COLOUR = (230, 130, 0)
_FINE = 3
OUTLINE_TRANSFORM = f"scale({1 / _FINE:.6f}) translate(0.5 0.5)"


def chosen_scans(scans: Sequence[tuple[int, ScanScore]], each: int = 2) -> list[tuple[str, int, ScanScore]]:
    """The best, the median and the worst scans by Dice.

    Args:
        scans: (fold, score); scans without a Dice coefficient are not looked at.
        each: how many of each, at most; no scan is taken twice.

    Returns:
        (what it is, fold, score), the best and the worst one first among their like; none without scans.
    """
    ranked = sorted(
        (item for item in scans if item[1].dice is not None), key=lambda item: (-item[1].dice, item[1].case)
    )
    count = len(ranked)
    middle = max(0, (count - each) // 2)
    places: dict[int, str] = {}
    for name, numbers in (
        ("best", range(min(1, count))),
        ("worst", range(count - 1, count - 1 - min(1, count), -1)),
        ("median", range(middle, min(middle + each, count))),
        ("best", range(min(each, count))),
        ("worst", range(count - 1, max(-1, count - 1 - each), -1)),
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
    grey: np.ndarray,
    labels: np.ndarray,
    mask: np.ndarray,
    probability: np.ndarray,
) -> str:
    """One scan as a figure whose layers can be switched by the boxes of the page.

    Args:
        what: "best", "median" or "worst". fold: 0 for an ensemble. score: of the scan.
        grey: (rows, columns) uint8 prepared image. labels: (rows, columns) uint8 classes.
        mask: (rows, columns) bool. probability: (rows, columns), 0 to 1.
    """
    truth = np.asarray(labels) == METASTATIC
    layers = [
        picture(clinical_display(grey), grey.shape),
        picture(tinted(np.asarray(probability), PROBABILITY_COLOUR), grey.shape, "probability"),
        f'<path class="truth" transform="{OUTLINE_TRANSFORM}" d="{outline(truth)}"/>',
        f'<path class="prediction" transform="{OUTLINE_TRANSFORM}" d="{outline(mask)}"/>',
    ]
    where = f"fold {fold}" if fold else "ensemble"
    lesions = score.lesions
    caption = (
        f"Dice {with_unit(score.dice)}: precision {with_unit(score.counts.precision)}, sensitivity "
        f"{with_unit(score.counts.sensitivity)}. {lesions.found} of {lesions.true} lesions found, "
        f"{lesions.false_positives} of {lesions.predicted} predicted ones wrong."
    )
    label = f"{what} scan {score.case}, anterior and posterior view. {caption}"
    return (
        f"<figure><h3>{text(what.capitalize())}: {text(score.case)} <span class='small'>({where})</span></h3>"
        f"{layered(layers, grey.shape, label)}<figcaption>{text(caption)}</figcaption></figure>"
    )


def layered(layers: Sequence[str], shape: tuple[int, int], label: str) -> str:
    """Layers over each other in image coordinates, with the names of the views and the patient's sides."""
    rows, columns = shape
    size = columns / 28
    names = "".join(
        f'<text x="{columns * place:.1f}" y="{size * 1.2:.1f}" font-size="{size:.1f}" text-anchor="middle">'
        f"{name}</text>"
        for place, name in (
            (0.03, "R"),
            (0.25, "anterior"),
            (0.47, "L"),
            (0.53, "L"),
            (0.75, "posterior"),
            (0.97, "R"),
        )
    )
    return (
        f'<svg class="layers" viewBox="0 0 {columns} {rows}" role="img" aria-label="{text(label)}">'
        f"{''.join(layers)}{names}</svg>"
    )


def picture(image: np.ndarray, shape: tuple[int, int], name: str = "") -> str:
    """A picture that fills the image area; `name` is the layer it belongs to."""
    return (
        f'<image class="pixels {name}" width="{shape[1]}" height="{shape[0]}" preserveAspectRatio="none" '
        f'href="{png_uri(image)}"/>'
    )


def outline(mask: np.ndarray) -> str:
    """The outlines of a mask as SVG path data, holes included; "" for an empty mask.

    Every pixel is drawn as a block and its outline lies just inside: single pixels are seen, and outlines of lesions
    that touch do not run into one. The unit is a third of a pixel, counted from the middle of the first third
    (`OUTLINE_TRANSFORM`), so that all numbers are whole and, being relative to the point before, short.
    """
    fine = np.asarray(mask, bool).astype(np.uint8).repeat(_FINE, axis=0).repeat(_FINE, axis=1)
    contours, _ = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for contour in contours:
        points = contour[:, 0, :]
        steps = np.diff(points, axis=0).ravel().tolist()
        parts.append(f"M{points[0, 0]} {points[0, 1]}l{' '.join(map(str, steps))}z")
    return "".join(parts)


SMOOTHING = 0.012
"""Standard deviation of the smoothing as a part of the image's rows: 8 of 640."""
WRONG_COLOUR, MISSED_COLOUR = (200, 70, 0), (0, 80, 200)


@dataclasses.dataclass
class ErrorMaps:
    """Sums over scans; `add` one after another.

    Attributes:
        grey: sum of the pictures. wrong, missed: in how many scans a pixel is falsely positive, or falsely negative.
        scans: how many were added.
    """

    grey: np.ndarray
    wrong: np.ndarray
    missed: np.ndarray
    scans: int = 0

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> "ErrorMaps":
        """For images of (rows, columns)."""
        return cls(np.zeros(shape), np.zeros(shape), np.zeros(shape))

    def add(self, grey: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> None:
        """Add one scan: (rows, columns) uint8 image and classes, bool prediction."""
        truth = np.asarray(labels) == METASTATIC
        # Scans of many counts must not outshine the others.
        self.grey += 255 - clinical_display(grey)
        self.wrong += mask & ~truth
        self.missed += truth & ~mask
        self.scans += 1

    def figures(self) -> str:
        """Two figures, false positives and false negatives; "" without scans."""
        if not self.scans:
            return ""
        mean = 255 - np.rint(self.grey / self.scans * 0.6).astype(np.uint8)
        return "".join(
            _figure(mean, errors / self.scans, colour, name)
            for errors, colour, name in (
                (self.wrong, WRONG_COLOUR, "False positives"),
                (self.missed, MISSED_COLOUR, "False negatives"),
            )
        )


def _figure(mean: np.ndarray, share: np.ndarray, colour: tuple[int, int, int], name: str) -> str:
    rows, columns = share.shape
    half = columns // 2
    # Each view by itself: smoothing must not carry an error across the middle.
    smooth = np.concatenate(
        [
            cv2.GaussianBlur(
                np.ascontiguousarray(part), (0, 0), max(0.5, SMOOTHING * rows), borderType=cv2.BORDER_CONSTANT
            )
            for part in (share[:, :half], share[:, half:])
        ],
        axis=1,
    )
    peak = float(smooth.max())
    layers = [picture(mean, share.shape)]
    if peak > 0:
        layers.append(picture(tinted(np.sqrt(smooth / peak), colour, least=0.12), share.shape))
    caption = (
        f"{name}: up to {100 * peak:.1f} %, at the darkest place (share of the scans in which a pixel is one, smoothed "
        "over its surroundings; the colour goes with the square root)."
        if peak > 0
        else f"{name}: none."
    )
    return (
        f"<figure><h3>{text(name)}</h3>{layered(layers, share.shape, f'Map over the body. {caption}')}"
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )
