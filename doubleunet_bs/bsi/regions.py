"""The twelve regions of the skeleton, numbered as the public skeleton masks of planar bone scans, and their weights.

A weight is the percent of the whole skeleton that a region makes up. `icrp110-male` and `icrp110-female` are bone
masses of the adult reference phantoms of ICRP Publication 110. `spiers1968` is the table used by Imbriaco et al. 1998;
it does not divide the spine, which is divided here by the ratio of `icrp110-male`. The tables differ twofold at the
spine: never compare results under different tables.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.errors import LabelError, SettingsError

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


@dataclasses.dataclass(frozen=True)
class WeightTable:
    """Weights of the twelve regions.

    Attributes:
        name: stands beside every result.
        percent: name of the region -> percent of the weight of the whole skeleton. The sum is below 100, since
            forearms, hands, lower legs and feet are outside of the twelve regions.

    Raises:
        SettingsError: a region is missing or unknown, a weight is no number above 0, or the sum exceeds 100.
    """

    name: str
    percent: Mapping[str, float]

    def __post_init__(self):
        usual = all(isinstance(value, int | float) and 0 < value < math.inf for value in self.percent.values())
        if set(self.percent) != {region.name for region in REGIONS} or not usual or self.total > 100 + 1e-9:
            raise SettingsError(
                f"weight table {self.name}: give each of the 12 regions a weight above 0, at most 100 % together"
            )

    @property
    def total(self) -> float:
        """Sum of all twelve in percent: the largest index that this table allows."""
        return math.fsum(self.percent.values())


WEIGHT_TABLES = {
    name: WeightTable(name, dict(zip((region.name for region in REGIONS), percent, strict=True)))
    for name, percent in {
        "icrp110-male": (11.30, 1.71, 6.04, 8.59, 0.64, 0.98, 4.01, 5.61, 4.74, 2.74, 10.48, 15.27),
        "icrp110-female": (12.66, 2.02, 6.42, 5.93, 0.69, 1.03, 3.06, 5.91, 5.85, 1.97, 9.91, 13.71),
        "spiers1968": (18.40, 0.93, 3.29, 4.40, 0.30, 1.00, 3.00, 6.60, 2.58, 1.50, 7.50, 17.80),
    }.items()
}


def choose_table(name: str | None = None, sex: str | None = None) -> tuple[WeightTable, str]:
    """The weight table of one scan, and why it is this one.

    Args:
        name: of a table, by the user's choice; None chooses by sex.
        sex: "F", "M" or anything else for unknown, as in the DICOM header.

    Raises:
        SettingsError: no table has this name.

    Example:
        >>> table, reason = choose_table(sex="M")
        >>> table.name, reason
        ('icrp110-male', 'by the sex in the header')
    """
    if name is not None:
        if name not in WEIGHT_TABLES:
            raise SettingsError(f"no weight table {name!r}: choose one of {', '.join(WEIGHT_TABLES)}")
        return WEIGHT_TABLES[name], "chosen"
    if sex in ("F", "M"):
        return WEIGHT_TABLES["icrp110-female" if sex == "F" else "icrp110-male"], "by the sex in the header"
    return WEIGHT_TABLES["icrp110-female"], "the default, as the header does not give the sex"
