"""The twelve regions of the skeleton, numbered as the public skeleton masks of planar bone scans number them."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.errors import LabelError

NOT_BONE = 0
STERNUM = 5
FEMORA = 12


@dataclasses.dataclass(frozen=True)
class Region:
    """One region. Left and right are one.

    Attributes:
        number: pixel value in region masks, 1 to 12.
        name: as results and annotations spell it.
        snomed: its SNOMED CT code.
        aliases: other labels that annotations may use.
        colour: (red, green, blue) in pictures. Regions that touch differ for any colour vision, and all of them from
            the outlines of lesions.
    """

    number: int
    name: str
    snomed: str
    aliases: tuple[str, ...]
    colour: tuple[int, int, int]


REGIONS = (
    Region(1, "skull", "89546000", (), (60, 30, 135)),
    Region(2, "cervical spine", "122494005", ("cervical",), (0, 150, 135)),
    Region(3, "thoracic spine", "122495006", ("thoracic",), (90, 75, 180)),
    Region(4, "ribs", "113197003", ("rib",), (0, 210, 255)),
    Region(5, "sternum", "56873002", (), (225, 180, 120)),
    Region(6, "clavicles", "51299004", ("clavicle", "collarbone"), (75, 60, 15)),
    Region(7, "scapulae", "79601000", ("scapula",), (165, 195, 165)),
    Region(8, "humeri", "85050009", ("humerus",), (165, 15, 135)),
    Region(9, "lumbar spine", "122496007", ("lumbar",), (120, 30, 75)),
    Region(10, "sacrum", "54735007", (), (180, 150, 120)),
    Region(11, "pelvis", "118645006", (), (15, 135, 255)),
    Region(12, "femora", "71341001", ("femur",), (120, 75, 60)),
)
REGION_LABELS: dict[str, int] = {label: region.number for region in REGIONS for label in (region.name, *region.aliases)}
"""Label of an annotation -> number of the region."""


def region_number(name: str) -> int:
    """The number of a region by its name or one of its aliases, without regard to case.

    Raises:
        LabelError: no region is called so.

    Example:
        >>> region_number("Femur")
        12
    """
    number = REGION_LABELS.get(name.strip().casefold())
    if number is None:
        names = ", ".join(region.name for region in REGIONS)
        raise LabelError(f"no region is called {name!r}: use one of {names}", "region-unknown")
    return number


def without_posterior_sternum(regions: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], int]:
    """Predicted regions by view, with a sternum that a network sees from behind as not bone, and its pixels."""
    kept, pixels = dict(regions), 0
    if "posterior" in kept:
        wrong = kept["posterior"] == STERNUM
        kept["posterior"], pixels = np.where(wrong, np.uint8(NOT_BONE), kept["posterior"]), int(wrong.sum())
    return kept, pixels


def check_regions(regions: Mapping[str, np.ndarray]) -> None:
    """Check the region masks of one scan.

    Args:
        regions: "anterior" and/or "posterior" -> uint8 (rows, columns), 0 not bone, 1 to 12 the regions.

    Raises:
        LabelError: another name or type, a number above 12, a sternum in the posterior view.
    """
    for view, mask in regions.items():
        if view not in VIEWS:
            raise LabelError(f"a region mask is named {view!r}: name it anterior or posterior", "region-frame")
        if mask.dtype != np.uint8 or mask.ndim != 2:
            raise LabelError(f"the {view} region mask must be a uint8 image, not {mask.dtype}", "region-frame")
        if mask.max(initial=0) > len(REGIONS):
            raise LabelError(f"the {view} region mask holds number {mask.max()}: regions are 1 to 12", "region-unknown")
    if "posterior" in regions and (regions["posterior"] == STERNUM).any():
        message = "the posterior region mask has a sternum, which is not seen from behind: erase it there"
        raise LabelError(message, "region-sternum")
