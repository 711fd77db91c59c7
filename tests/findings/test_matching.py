"""The same spot in two views, by hand for pixels of 2.4 mm, and in two scans, for pixels of 2 mm."""

import pytest

from doubleunet_bs.constants import FRAME_ORDER_WARNING, MIRRORED_WARNING, SAME_WARNING
from doubleunet_bs.findings.lesion_list import PredictedLesion
from doubleunet_bs.findings.matching import Focus, find_foci, focus_numbers, match_earlier, tracking_uids


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


def result(*areas, top=100, left=30, spacing=(2.0, 2.0), view="anterior", rows=800):
    """(row, column, pixels) of each area, from the top and the middle of a body of `rows` x 200 pixels."""
    body = {"first_row": top, "last_row": top + rows - 1, "first_column": left, "last_column": left + 200}
    return {
        "pixel_spacing_mm": spacing,
        "views": {name: {"body": body if name == view else None} for name in ("anterior", "posterior")},
        "lesions": [
            {"number": number, "view": view, "row": top + row, "column": left + 100 + column, "pixels": pixels}
            for number, (row, column, pixels) in enumerate(areas, start=1)
        ],
    }


def test_a_shifted_body_changes_nothing():
    now = result((50, 0, 20), (200, -30, 20), (400, 10, 20))
    before = result((198, -28, 10), (52, 1, 40), top=60, left=20)
    assert match_earlier(now, before) == {1: 2, 2: 1}
    assert match_earlier(before, now) == {1: 2, 2: 1}


@pytest.mark.parametrize(("rows", "matched"), [(12, True), (13, False)])
def test_at_most_25_mm_apart(rows, matched):
    assert match_earlier(result((200, 0, 20)), result((200 + rows, 0, 20))) == ({1: 1} if matched else {})


def test_a_large_area_may_be_farther_away():
    """2,000 pixels of 4 mm2: a radius of 50 mm."""
    assert match_earlier(result((200, 0, 2000)), result((224, 0, 20))) == {1: 1}


def test_as_many_pairs_as_possible():
    """The nearest neighbour of both new areas is the first old one."""
    assert match_earlier(result((200, 0, 9), (205, 0, 9)), result((203, 0, 9), (214, 0, 9))) == {1: 1, 2: 2}


def test_views_are_apart_and_nothing_matches_nothing():
    assert match_earlier(result((9, 9, 9)), result((9, 9, 9), view="posterior")) == {}
    assert match_earlier(result(), result((9, 9, 9))) == match_earlier(result(), result()) == {}


def test_without_a_spacing_the_body_is_the_measure():
    """Half the pixels across the same body."""
    half = result((100, 10, 5), rows=400, spacing=None)
    assert match_earlier(half, result((200, 20, 20))) == {1: 1}
    assert match_earlier(half, result((100, 10, 20))) == {}


def test_an_area_keeps_its_tracking_uid_from_scan_to_scan():
    first = result((50, 0, 20), (200, -30, 20)) | {"case": "a", "pixel_sha256": "0" * 64}
    second = result((198, -28, 10), (52, 1, 40), (400, 0, 9)) | {"case": "b", "pixel_sha256": "1" * 64}
    third = result((52, 1, 40)) | {"case": "c", "pixel_sha256": "2" * 64}
    uids = tracking_uids(first)
    assert tracking_uids(first) == uids and len(set(uids.values())) == 2
    follow = tracking_uids(second, first)
    assert (follow[1], follow[2]) == (uids[2], uids[1])
    assert follow[3] == tracking_uids(second)[3] not in uids.values()
    assert tracking_uids(second)[1] != follow[1]
    # What a result has written down goes on to the third scan.
    for area in second["lesions"]:
        area["tracking_uid"] = follow[area["number"]]
    assert tracking_uids(third, second) == {1: uids[1]}
    del second["pixel_sha256"]
    assert tracking_uids(third, second) == {1: uids[1]}
