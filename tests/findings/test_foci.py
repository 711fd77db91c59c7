"""One focus, not two. Distances in these cases are computed by hand for pixels of 2.4 mm."""

import pytest

from doubleunet_bs.constants import FRAME_ORDER_WARNING, MIRRORED_WARNING, SAME_WARNING
from doubleunet_bs.findings.foci import Focus, find_foci, focus_numbers
from doubleunet_bs.findings.lesion_list import PredictedLesion


def areas(*places):
    """(view, row, column, pixels) of each -> lesions, numbered in this order."""
    return [
        PredictedLesion(number, view, row, column, 0, 0, 0, 0, pixels, None, 0.9, 0.8, 10, 5)
        for number, (view, row, column, pixels) in enumerate(places, start=1)
    ]


def test_the_same_spot_is_one_focus():
    """Column 100 from in front is column 255 - 100 = 155 from behind."""
    found = find_foci(areas(("anterior", 300, 100, 40), ("posterior", 301, 155, 35), ("posterior", 90, 9, 8)))
    assert found == (Focus(1, None, 3), Focus(2, 1, 2))
    assert focus_numbers(found) == {1: 2, 2: 2, 3: 1}


@pytest.mark.parametrize(
    ("front", "back", "matched"),
    [
        ((300, 100, 40), (306, 155, 40), True),  # 14.4 mm
        ((300, 100, 40), (307, 155, 40), False),  # 16.8 mm
        ((300, 100, 40), (300, 161, 40), True),
        ((300, 100, 40), (300, 162, 40), False),
        ((300, 100, 40), (300, 100, 40), False),  # not mirrored: the other side of the body
        ((300, 100, 400), (308, 155, 400), True),  # 19.2 mm; the radius is 11.3 pixels, 27.1 mm
        ((300, 100, 40), (300, 155, 160), True),
        ((300, 100, 40), (300, 155, 161), False),
        ((300, 100, 161), (300, 155, 40), False),
    ],
)
def test_distance_and_size(front, back, matched):
    found = find_foci(areas(("anterior", *front), ("posterior", *back)), (2.4, 2.4))
    assert len(found) == (1 if matched else 2)


def test_the_pixel_spacing_counts():
    two = areas(("anterior", 300, 100, 4), ("posterior", 306, 155, 4))
    assert len(find_foci(two, (2.4, 2.4))) == len(find_foci(two, None)) == 1
    assert len(find_foci(two, (3.0, 3.0))) == 2


def test_neighbours_are_matched_once_each_and_nearest():
    """The second anterior area is the nearest of both posterior ones, but both can have a partner."""
    found = find_foci(
        areas(
            ("anterior", 300, 100, 9), ("anterior", 304, 100, 9), ("posterior", 305, 155, 9), ("posterior", 308, 155, 9)
        )
    )
    assert [(focus.anterior, focus.posterior) for focus in found] == [(1, 3), (2, 4)]
    found = find_foci(areas(("anterior", 300, 100, 9), ("posterior", 301, 155, 9), ("posterior", 305, 155, 9)))
    assert [(focus.anterior, focus.posterior) for focus in found] == [(1, 2), (None, 3)]


def test_bones_that_differ_are_not_one_focus():
    two = areas(("anterior", 300, 100, 9), ("posterior", 300, 155, 9))
    assert len(find_foci(two, regions={1: "sternum", 2: "thoracic spine"})) == 2
    assert len(find_foci(two, regions={1: "ribs", 2: "ribs"})) == len(find_foci(two, regions={1: "ribs"})) == 1


def test_nothing_is_matched_where_a_view_may_be_mirrored():
    two = areas(("anterior", 300, 100, 9), ("posterior", 300, 155, 9))
    for warning in (MIRRORED_WARNING, SAME_WARNING):
        assert find_foci(two, warnings=[warning]) is None
    assert len(find_foci(two, warnings=[FRAME_ORDER_WARNING])) == 1
    assert focus_numbers(None) == {}


def test_one_view_or_nothing():
    assert find_foci([]) == ()
    assert find_foci(areas(("posterior", 300, 155, 9))) == (Focus(1, None, 1),)
