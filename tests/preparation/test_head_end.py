"""Feet up: seen by the gap between the legs, on phantoms, on a real scan and on bodies that are unlike most."""

from pathlib import Path

import pydicom.data
import pytest
from bodies import block, person

from doubleunet_bs.deployment.sides import orientation, sides
from doubleunet_bs.preparation.geometry import find_body
from doubleunet_bs.preparation.head_end import FEET_UP_WARNING
from doubleunet_bs.scans import read_scan
from doubleunet_bs.scans.phantom import make_phantom

BUNDLED = Path(pydicom.data.__file__).parent / "test_files"


def warned(*views):
    return FEET_UP_WARNING in find_body(dict(zip(("anterior", "posterior"), views, strict=False)))[1]


@pytest.mark.parametrize(("index", "cancer"), [(0, "breast"), (1, "breast"), (2, "prostate"), (3, "prostate")])
def test_phantoms(index, cancer):
    scan = make_phantom(3, index, cancer)
    assert not warned(scan.anterior, scan.posterior)
    assert warned(scan.anterior[::-1], scan.posterior[::-1]) and warned(scan.anterior[::-1, ::-1])


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG2000.dcm"])
def test_a_real_scan(name):
    scan = read_scan(BUNDLED / name, allow_missing_view=True)
    view = scan.anterior if scan.anterior.any() else scan.posterior
    assert not warned(view) and warned(view[::-1])


@pytest.mark.parametrize("speed", [0.2, 1, 5])
def test_counts_do_not_matter(speed):
    assert not warned(person(1, speed)) and warned(person(1, speed)[::-1])


def test_it_takes_every_view():
    assert not warned(person(1), person(2)[::-1])


def test_bodies_without_two_legs_at_either_end_are_not_warned_of():
    one_leg = person(1)
    one_leg[500:, :128] = 0
    assert not warned(one_leg) and not warned(one_leg[::-1]) and not warned(block())


def test_neither_are_arms_over_the_head_or_foci_of_the_skull():
    """There a gap is at the upper end, too, but not only there."""
    arms = person(1)
    arms[150:400, 40:64] = arms[150:400, 192:216] = 12
    assert not warned(arms)
    skull = person(1)
    skull[160:240, 104:110] = skull[160:240, 146:152] = 120
    assert not warned(skull)


def test_sides_are_in_doubt_then():
    assert sides("anterior", [FEET_UP_WARNING]) == "??" and orientation("posterior", [FEET_UP_WARNING]) is None
