"""Feet up: seen by the gap between the legs, on phantoms, on a real scan and on bodies that are unlike most."""

from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from bodies import block, person, scan_of

from doubleunet_bs.constants import FEET_UP_WARNING
from doubleunet_bs.display import sides
from doubleunet_bs.phantom import make_phantom
from doubleunet_bs.preparation import prepare_scan
from doubleunet_bs.preparation.geometry import _gap, check_orientation, find_body
from doubleunet_bs.scans import read_scan

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


def test_a_part_of_the_body_tells_nothing():
    """Too short for a whole body, or at the edge of the frame: no verdict, though the two ends look as if turned."""
    turned = person(1)[::-1].copy()
    first, last = 174, 873
    assert warned(turned)
    short = turned.copy()
    short[700:] = 0
    short[:, :66] = short[:, 190:] = 0  # No arms, between which and the trunk there is a gap, too.
    assert check_orientation([short], first, 699) and not warned(short)
    at_the_edge = np.roll(turned, -first, axis=0)
    assert check_orientation([at_the_edge], 0, last - first) and not warned(at_the_edge)


def test_bodies_without_two_legs_at_either_end_are_not_warned_of():
    one_leg = person(1)
    one_leg[500:, :128] = 0
    assert not warned(one_leg) and not warned(one_leg[::-1]) and not warned(block())
    # Nor where the middle of the skull is paler.
    one_leg[160:240, 112:144] //= 2
    assert 0.3 < _gap(one_leg[164:241]) < 0.8 and not warned(one_leg)


def test_neither_are_arms_over_the_head_or_foci_of_the_skull():
    """There a gap is at the upper end, too, but not only there."""
    arms, skull = person(1), person(1)
    arms[150:400, 40:64] = arms[150:400, 192:216] = 12
    skull[160:240, 96:116] = skull[160:240, 140:160] = 120
    skull[160:240, 116:140] = 0
    for view in (arms, skull):
        assert _gap(view[164:241]) > 0.8
        assert not warned(view)
        # And turned they are not recognised: both ends look like legs.
        assert not warned(view[::-1])


def test_the_deepest_gap():
    two = np.zeros((60, 100))
    two[:, 20:40], two[:, 60:80] = 10, 5
    assert _gap(two) == 1
    two[:, 40:60] = 2
    assert _gap(two) == pytest.approx(0.6)
    assert _gap(np.full((60, 100), 7.0)) == 0 and _gap(np.zeros((60, 100))) == 0


def test_sides_are_in_doubt_then():
    """The warning goes the whole way from the counts into what results say of the sides."""
    scan = make_phantom(3, 0)
    turned = scan_of(scan.anterior[::-1].copy(), scan.posterior[::-1].copy())
    for view in ("anterior", "posterior"):
        warnings = prepare_scan(turned).warnings
        assert FEET_UP_WARNING in warnings
        assert sides(view, warnings) == "??"
        assert sides(view, prepare_scan(scan_of(scan.anterior, scan.posterior)).warnings) != "??"
