"""Where the errors are: maps over the body, all test scans laid over each other in prepared coordinates.

The preparation centres every body in its window, so that the same pixel is about the same place of the body; patients
differ in height, and the maps are smoothed by more than that leaves to see.
"""

import dataclasses

import cv2
import numpy as np

from doubleunet_bs.constants import METASTATIC
from doubleunet_bs.evaluation.figures import clinical_display
from doubleunet_bs.evaluation.report.markup import text, tinted
from doubleunet_bs.evaluation.report.scan_figures import layered, picture

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
