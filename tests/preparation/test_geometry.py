"""Body bounding box, crop, the way back to the raw views, and a coarser matrix."""

from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from bodies import block, person, scan_of
from hypothesis import given, settings
from hypothesis import strategies as st

from doubleunet_bs.constants import FEET_UP_WARNING
from doubleunet_bs.display import sides
from doubleunet_bs.errors import ScanError
from doubleunet_bs.phantom import make_phantom
from doubleunet_bs.preparation import prepare_scan
from doubleunet_bs.preparation.geometry import (
    BodyBox,
    Placement,
    _body_warnings,
    _gap,
    check_orientation,
    crop,
    find_body,
    majority_of_blocks,
    map_back,
    sum_blocks,
    uncrop,
)
from doubleunet_bs.scans import read_scan


def rows_of(*views):
    bodies, warnings = find_body(dict(zip(("anterior", "posterior"), views, strict=False)))
    return bodies["anterior"].first_row, bodies["anterior"].last_row, warnings


def test_a_rectangle_is_found_at_its_edges():
    bodies, warnings = find_body({"anterior": block()})
    body = bodies["anterior"]
    # The profile is smoothed over 7 rows, so an edge may come out up to 3 pixels early.
    assert 147 <= body.first_row <= 150 and 849 <= body.last_row <= 852
    assert 75 <= body.first_column <= 78 and 177 <= body.last_column <= 180
    assert warnings == []


def test_the_crop_puts_the_body_in_its_centre():
    # Rows 150 to 849 have their centre between 499 and 500; 475 rows of the crop lie on either side of it.
    assert BodyBox(150, 849, 78, 177).centred() == Placement(top=25, left=0)
    # A body low and to the right: the crop begins below the first row, and in column 30.
    assert BodyBox(300, 999, 108, 207).centred() == Placement(top=175, left=30)
    # A body high up: 150 rows of padding above the view.
    assert BodyBox(0, 649, 58, 157).centred() == Placement(top=-150, left=-20)


def test_row_640_lies_just_under_the_knee():
    # Where the crop ends, in parts of the body's length, for bodies of 647 to 769 rows: 72 to 76 %.
    for length in (647, 700, 769):
        body = BodyBox(120, 120 + length - 1, 50, 200)
        assert 0.71 < (body.centred().top + 640 - body.first_row) / length < 0.76


@pytest.mark.parametrize("speed", [1.0, 0.3, 0.1])
def test_a_person_is_found_at_every_scan_speed(speed):
    first, last, warnings = rows_of(person(0, speed), person(1, speed))
    assert abs(first - 150) <= 6 and abs(last - 849) <= 6
    assert warnings == []


def disturbed(kind: str) -> np.ndarray:
    view = person(2).astype(np.int64)
    random = np.random.default_rng(3)
    rows, columns = np.mgrid[:1024, :256]
    if kind == "injection site":
        # 19,000 counts in the peak, and the streaks of septal penetration through it.
        view += random.poisson(19_000 * np.exp(-((rows - 400) ** 2 + (columns - 45) ** 2) / 30))
        view[398:403, 5:120] += 300
        view[340:460, 43:48] += 300
    elif kind == "urine bag beyond the feet":
        view[880:960, 100:160] += random.poisson(60, (80, 60))
    elif kind == "urine bag beside the shins":
        view[690:800, 195:250] += random.poisson(60, (110, 55))
    elif kind == "scatter":
        view += random.poisson(0.6 * np.exp(-(((rows - 350) / 300.0) ** 2) - ((columns - 128) / 90.0) ** 2))
    elif kind == "contamination on the head rest":
        view[60:70, 30:40] += 500
    return view.astype(np.uint16)


@pytest.mark.parametrize(
    "kind",
    [
        "injection site",
        "urine bag beyond the feet",
        "urine bag beside the shins",
        "scatter",
        "contamination on the head rest",
    ],
)
def test_what_is_not_body_does_not_move_the_crop(kind):
    plain = find_body({"anterior": person(2)})[0]["anterior"].centred()
    found = find_body({"anterior": disturbed(kind)})[0]["anterior"].centred()
    assert abs(found.top - plain.top) <= 4 and abs(found.left - plain.left) <= 4


def test_a_leg_that_one_view_hardly_shows_is_held_by_the_other():
    dim = person(4)
    dim[600:] = np.random.default_rng(5).poisson(0.1, (424, 256))
    assert find_body({"anterior": dim})[0]["anterior"].last_row < 620
    first, last, warnings = rows_of(dim, person(6))
    assert abs(last - 849) <= 6
    assert warnings == ["the views disagree about where the body begins and ends"]


@pytest.mark.slow
@pytest.mark.parametrize("part", [1.0, 0.2, 0.05])
def test_a_real_scan_keeps_its_range_when_it_is_thinned(part):
    # A real anterior view, 1024 x 256, lossy but of the same scan as the NEMA sample. Binomial thinning of counts is
    # exactly what a faster scan would have recorded.
    counts = read_scan(pydicom.data.get_testdata_file("JPGExtended.dcm"), allow_missing_view=True).anterior
    thinned = np.random.default_rng(0).binomial(counts, part).astype(np.uint16)
    first, last, warnings = rows_of(thinned)
    assert abs(first - 90) <= 4 and abs(last - 853) <= 4
    assert warnings == []


def test_unusual_bodies_are_reported():
    first, last, warnings = rows_of(block(400, 800))
    assert warnings[0] == f"the body is {last - first + 1} rows long, which is unusual (rows {first} to {last})"
    assert any("reaches the edge" in line for line in rows_of(block(0, 700))[2])


@pytest.mark.parametrize(
    ("rows", "said"),
    [(549, "unusual"), (550, None), (900, None), (901, "unusual"), (950, "unusual"), (951, "longer than the crop")],
)
def test_a_body_of_550_to_900_rows_is_usual(rows, said):
    warnings = _body_warnings(30, 30 + rows - 1, [np.ones(1024)])
    assert said in warnings[-1] if said else warnings == []


@pytest.mark.parametrize("level", [0, 7])
def test_no_body_is_an_error(level):
    with pytest.raises(ScanError) as caught:
        find_body({"anterior": np.full((1024, 256), level, np.uint16)})
    assert caught.value.reason == "no-body"


def test_rows_that_are_bright_from_edge_to_edge_are_no_body():
    counts = np.full((1024, 256), 3, np.uint16)
    counts[150:850] = 5
    with pytest.raises(ScanError, match="no column stands out") as caught:
        find_body({"anterior": counts})
    assert caught.value.reason == "no-body"


placements = st.builds(Placement, top=st.integers(-300, 300), left=st.integers(-100, 100))


def test_crop_pads_with_zeros():
    view = np.arange(1, 1024 * 256 + 1, dtype=np.int64).reshape(1024, 256)
    frame = crop(view, Placement(top=-2, left=3))
    assert frame.shape == (950, 256)
    assert not frame[:2].any() and not frame[:, 253:].any()
    assert frame[2, 0] == view[0, 3] and frame[949, 252] == view[947, 255]


@given(placement=placements, seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_there_and_back_is_the_identity_inside_the_crop(placement, seed):
    view = np.random.default_rng(seed).integers(1, 255, (1024, 256), np.uint8)
    frame = crop(view, placement)
    back = uncrop(frame, placement, view.shape)
    inside = uncrop(np.ones_like(frame), placement, view.shape).astype(bool)
    np.testing.assert_array_equal(back[inside], view[inside])
    assert not back[~inside].any()
    np.testing.assert_array_equal(crop(back, placement), frame)


@given(anterior=placements, posterior=placements, bin=st.sampled_from([1, 2, 4]), seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_a_prepared_image_lies_on_the_raw_views_where_it_came_from(anterior, posterior, bin, seed):
    places = {"anterior": anterior, "posterior": posterior}
    image = np.random.default_rng(seed).integers(1, 255, (640 // bin, 512 // bin), np.uint8)
    raw = map_back(image, places, (1024, 256), bin)
    for index, (name, place) in enumerate(places.items()):
        assert raw[name].shape == (1024, 256)
        half = np.kron(image[:, index * 256 // bin : (index + 1) * 256 // bin], np.ones((bin, bin), np.uint8))
        again = crop(raw[name], place, 640)
        seen = crop(np.ones((1024, 256), bool), place, 640)
        np.testing.assert_array_equal(again[seen], half[seen])
        assert np.count_nonzero(raw[name]) == np.count_nonzero(seen)


def test_an_image_of_another_shape_is_not_laid_back():
    places = dict.fromkeys(("anterior", "posterior"), Placement(0, 0))
    with pytest.raises(ValueError, match="640, 512"):
        map_back(np.zeros((950, 512), np.uint8), places, (1024, 256))


def test_counts_of_a_block_are_added():
    counts = np.arange(16, dtype=np.uint16).reshape(4, 4)
    assert sum_blocks(counts, 2).tolist() == [[10, 18], [42, 50]]
    assert sum_blocks(counts, 4).tolist() == [[120]]
    assert sum_blocks(counts, 1) is counts


def test_no_sum_wraps():
    assert sum_blocks(np.full((4, 4), 65535, np.uint16), 4).tolist() == [[16 * 65535]]


def test_rows_that_do_not_divide_are_filled_up_with_zeros():
    counts = np.ones((950, 256), np.uint16)
    coarse = sum_blocks(counts, 4)
    assert coarse.shape == (238, 64)
    assert (coarse[:237] == 16).all() and (coarse[237] == 8).all()


def test_half_of_a_block_decides_and_metastatic_goes_first():
    labels = np.array(
        [
            [2, 2, 2, 0, 2, 2, 1, 0],
            [0, 0, 0, 0, 1, 1, 1, 2],
        ],
        np.uint8,
    )
    # Two of four metastatic; one of four; two metastatic and two not; two non-metastatic and one metastatic.
    assert majority_of_blocks(labels, 2).tolist() == [[2, 0, 2, 1]]


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
