"""Weights of the regions: the percent of the whole skeleton that each of them makes up.

`icrp110-male` and `icrp110-female` are bone masses of the adult reference phantoms of ICRP Publication 110.
`spiers1968` is the table used by Imbriaco et al. 1998; it does not divide the spine, which is divided here by the
ratio of `icrp110-male`. The tables differ twofold at the spine: never compare results under different tables.
"""

import dataclasses
import math
from collections.abc import Mapping

from doubleunet_bs.bsi.regions import REGIONS
from doubleunet_bs.errors import SettingsError

_NAMES = tuple(region.name for region in REGIONS)
NUMBER_OF_REGIONS = len(REGIONS)


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
        missing = [name for name in _NAMES if name not in self.percent]
        unknown = sorted(set(self.percent) - set(_NAMES))
        if missing:
            raise SettingsError(f"weight table {self.name} lacks {', '.join(missing)}: give all 12 regions a weight")
        if unknown:
            raise SettingsError(f"weight table {self.name} has an unknown region {unknown[0]!r}: use the 12 names")
        for name, value in self.percent.items():
            if not (isinstance(value, int | float) and 0 < value < math.inf):
                raise SettingsError(f"weight table {self.name}: the weight of {name} must be above 0, not {value!r}")
        if self.total > 100 + 1e-9:
            raise SettingsError(f"weight table {self.name} adds up to {self.total:.1f} %: at most 100 % is possible")

    @property
    def total(self) -> float:
        """Sum of all twelve in percent: the largest index that this table allows."""
        return math.fsum(self.percent.values())


def _table(name: str, *percent: float) -> WeightTable:
    return WeightTable(name, dict(zip(_NAMES, percent, strict=True)))


WEIGHT_TABLES = {
    table.name: table
    for table in (
        _table("icrp110-male", 11.30, 1.71, 6.04, 8.59, 0.64, 0.98, 4.01, 5.61, 4.74, 2.74, 10.48, 15.27),
        _table("icrp110-female", 12.66, 2.02, 6.42, 5.93, 0.69, 1.03, 3.06, 5.91, 5.85, 1.97, 9.91, 13.71),
        _table("spiers1968", 18.40, 0.93, 3.29, 4.40, 0.30, 1.00, 3.00, 6.60, 2.58, 1.50, 7.50, 17.80),
    )
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
