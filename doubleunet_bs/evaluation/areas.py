"""The area of lesions: in mm2 where the pixel spacing is known, else in pixels of the camera (decided here).

A pixel of the camera and not of the prepared image, so that sizes mean the same at every binning.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable

from doubleunet_bs.preparation.records import CaseRecord

MM2, PIXELS = "mm2", "pixels"
SIZE_EDGES = {MM2: (150.0, 300.0, 600.0), PIXELS: (25.0, 50.0, 100.0)}
"""Limits of the size classes (decided here): a focus of 14 mm, of 20 mm and of 28 mm across; at a spacing of 2.4 mm the
limits in pixels are about the same lesions. A lesion belongs to the class whose lower limit it reaches."""


@dataclasses.dataclass(frozen=True)
class AreaUnit:
    """How areas are given for a set of cases.

    Attributes:
        name: "mm2", or "pixels" (of the camera) when the spacing of any of the cases is unknown.
        bin: rows and columns of camera pixels in a pixel of the prepared image.
    """

    name: str
    bin: int

    def of_a_pixel(self, record: CaseRecord) -> float:
        """The area of one pixel of the prepared image of a case."""
        if self.name == PIXELS:
            return float(self.bin**2)
        rows, columns = record.pixel_spacing_mm
        return rows * columns * self.bin**2


def area_unit(records: Iterable[CaseRecord], bin: int) -> AreaUnit:
    """mm2 when every case has a usable pixel spacing, else pixels: figures of both kinds cannot be put together."""
    known = all(
        record.pixel_spacing_mm is not None
        and all(math.isfinite(length) and length > 0 for length in record.pixel_spacing_mm)
        for record in records
    )
    return AreaUnit(MM2 if known else PIXELS, bin)


def size_class(area: float, unit: str) -> int:
    """0 for the smallest class, up to `len(SIZE_EDGES[unit])`."""
    return sum(area >= edge for edge in SIZE_EDGES[unit])


def size_class_names(unit: str) -> tuple[str, ...]:
    """What the classes are called: "under 150 mm2", "150 to 300 mm2" and so on."""
    edges = [f"{edge:g}" for edge in SIZE_EDGES[unit]]
    between = [f"{low} to {high} {unit}" for low, high in itertools.pairwise(edges)]
    return (f"under {edges[0]} {unit}", *between, f"{edges[-1]} {unit} and more")
