"""Areas of two scans: the same place, new, gone. Pixels are 2 x 2 mm, the body starts in another row and column."""

import pytest

from doubleunet_bs.findings.lesion_changes import match_earlier, tracking_uids


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
