"""A scan, its lesions and the settings -> a case."""

import dataclasses

import numpy as np
import pytest
from bodies import block, person, scan_of
from skimage.filters import threshold_otsu

from doubleunet_bs.errors import LabelError, ScanError, SettingsError
from doubleunet_bs.preparation import PreparationSettings, prepare_scan
from doubleunet_bs.preparation.brightness import find_gain
from doubleunet_bs.preparation.case import find_uptake
from doubleunet_bs.preparation.geometry import crop, find_body

SCAN = scan_of(person(0), person(1))


def test_the_paper_s_case():
    case = prepare_scan(SCAN)
    assert case.counts.shape == case.labels.shape == (640, 512)
    assert case.counts.dtype == np.uint16 and case.labels.dtype == np.uint8
    assert 7 < case.brightness < 14
    assert case.gains[0] == case.gains[1] == float(np.float32(case.gains[0]))
    assert case.sum_counts == int(SCAN.anterior.sum(dtype=np.int64) + SCAN.posterior.sum(dtype=np.int64))
    # Without lesions the labels are air and what Otsu keeps.
    assert set(np.unique(case.labels)) == {0, 1}
    assert case.uptake_fraction == (case.labels == 1).mean()
    assert case.warnings == ()


def test_pixels_are_moved_and_nothing_else():
    case = prepare_scan(SCAN)
    place = case.placements["posterior"]
    assert place.top > 0
    rows = slice(place.top, place.top + 640)
    left = max(0, place.left)
    np.testing.assert_array_equal(
        case.counts[:, 256 + left - place.left : 512 + min(0, -place.left)],
        SCAN.posterior[rows, left : 256 + place.left],
    )


def test_the_mean_is_taken_over_950_rows_before_the_legs_go():
    case = prepare_scan(SCAN)
    total = sum(
        np.minimum(getattr(SCAN, name)[place.top : place.top + 950].astype(float) * case.gains[0], 255).sum()
        for name, place in case.placements.items()
    )
    # Columns that the crop leaves out are empty here but for noise.
    assert case.brightness == pytest.approx(total / (2 * 950 * 256), rel=0.01)


@pytest.mark.parametrize("brightness", ["per_scan", "per_view"])
@pytest.mark.parametrize("speed", [0.1, 1.0, 4.0])
def test_a_case_is_made_of_its_steps(brightness, speed):
    views = {"anterior": person(1, speed), "posterior": person(2, speed)}
    case = prepare_scan(scan_of(**views), settings=PreparationSettings(brightness=brightness))
    assert case.bodies == find_body(views)[0]
    crops = [crop(views[name], case.placements[name]) for name in views]
    found = [find_gain([one]) for one in crops] if brightness == "per_view" else [find_gain(crops)] * 2
    assert case.gains == tuple(gain for gain, _ in found)
    assert case.brightness == np.mean([mean for _, mean in found])


def test_lesions_go_where_their_pixels_go():
    marked = SCAN.anterior.copy()
    marked[400:410, 100:120] = 150
    mask = np.zeros((1024, 256), np.uint8)
    mask[400:410, 100:120] = 2
    case = prepare_scan(dataclasses.replace(SCAN, anterior=marked), {"anterior": mask})
    assert case.metastatic_pixels == 200
    assert (case.counts[case.labels == 2] == 150).all()
    # The metastatic pixels are holes in the non-metastatic class.
    back = case.map_back(case.labels)
    np.testing.assert_array_equal(back["anterior"] == 2, mask == 2)
    assert not (back["posterior"] == 2).any()


def test_the_three_frames_of_an_annotation_are_the_same():
    random = np.random.default_rng(0)
    views = {name: np.zeros((1024, 256), np.uint8) for name in ("anterior", "posterior")}
    for mask in views.values():
        mask[300:600, 90:160] = random.integers(0, 3, (300, 70))
    by_view = prepare_scan(SCAN, views)
    side = prepare_scan(SCAN, {"side_by_side": np.concatenate(list(views.values()), axis=1)})
    np.testing.assert_array_equal(side.labels, by_view.labels)
    lesions = np.zeros((640, 512), np.uint8)
    lesions[by_view.labels == 2] = 2
    drawn = prepare_scan(SCAN, {"prepared": lesions})
    np.testing.assert_array_equal(drawn.labels == 2, by_view.labels == 2)
    assert not lesions.flags.owndata or lesions.max() == 2


def test_an_explicit_non_class_label_holds_in_air_as_well():
    mask = np.zeros((1024, 256), np.uint8)
    mask[200:204, 4:9] = 1
    case = prepare_scan(SCAN, {"anterior": mask}, PreparationSettings(background="none"))
    assert (case.labels == 1).sum() == 20 and case.uptake_fraction == 0


def test_a_lesion_below_the_knee_is_said_to_be_left_out():
    mask = np.zeros((1024, 256), np.uint8)
    mask[800:805, 100:110] = 2
    case = prepare_scan(SCAN, {"anterior": mask})
    assert case.metastatic_pixels == 0
    assert any(line.startswith("50 metastatic pixels lie outside") for line in case.warnings)


def test_a_missing_view_stays_zero_and_does_not_count():
    alone = prepare_scan(scan_of(person(0), warnings=("the posterior view is missing",)))
    assert not alone.counts[:, 256:].any() and not alone.labels[:, 256:].any()
    assert alone.warnings == ("the posterior view is missing",)
    assert set(alone.bodies) == {"anterior"}
    # As bright as with the same view twice: half a frame of zeros has no part in mean, threshold or fraction.
    twice = prepare_scan(scan_of(person(0), person(0)))
    assert alone.gains == twice.gains and alone.brightness == twice.brightness
    assert alone.uptake_fraction == twice.uptake_fraction
    np.testing.assert_array_equal(alone.labels[:, :256], twice.labels[:, :256])


def test_one_gain_per_view_when_asked_for():
    scan = scan_of(person(0, 0.3), person(1))
    together = prepare_scan(scan)
    apart = prepare_scan(scan, settings=PreparationSettings(brightness="per_view"))
    assert together.gains[0] == together.gains[1]
    assert apart.gains[0] > 2 * apart.gains[1]


@pytest.mark.parametrize("bin", [2, 4])
def test_binning_adds_counts_and_keeps_the_brightness_range(bin):
    fine, coarse = prepare_scan(SCAN), prepare_scan(SCAN, settings=PreparationSettings(bin=bin))
    assert coarse.counts.shape == (640 // bin, 512 // bin)
    assert coarse.counts.sum(dtype=np.int64) == fine.counts.sum(dtype=np.int64)
    assert coarse.counts[100 // bin, 128 // bin] == fine.counts[100 : 100 + bin, 128 : 128 + bin].sum()
    assert 7 < coarse.brightness < 14
    assert coarse.map_back(coarse.labels)["anterior"].shape == (1024, 256)


def test_binned_sums_over_16_bits_are_kept_at_the_top_and_reported_where_that_shows():
    hot = person(0)
    hot[400:404, 128:132] = 60_000
    case = prepare_scan(scan_of(hot, person(1)), settings=PreparationSettings(bin=2))
    top = case.counts == 65535
    assert top.any() and (case.grey[top] == 255).all()
    assert not any("65535" in line for line in case.warnings)
    many = np.where(person(0) > 0, 6000, 0)
    case = prepare_scan(scan_of(many.astype(np.uint16), person(1)), settings=PreparationSettings(bin=4))
    assert case.counts.max() == 65535 and case.grey.max() < 255
    assert "sums of counts over 65535 are kept as 65535" in case.warnings


def test_a_hot_injection_site_that_takes_otsu_s_threshold_is_reported():
    hot = person(0, 0.25)
    hot[300:330, 30:60] = 3000
    case = prepare_scan(scan_of(hot, hot))
    assert case.uptake_fraction < 0.05
    assert any("keeps only" in line for line in case.warnings)


@pytest.mark.parametrize(("speed", "few"), [(0.05, True), (0.2, False)])
def test_a_gain_above_20_is_said(speed, few):
    case = prepare_scan(scan_of(person(0, speed), person(1, speed)))
    said = [f"few counts: a gain of {case.gains[0]:.1f} is needed"]
    assert (case.gains[0] > 20) == few and [line for line in case.warnings if "gain" in line] == said * few


@pytest.mark.parametrize("place", ["lesion", "air beside the body", "soft tissue", "both"])
def test_outlines_in_air_or_outside_the_body_are_said(place):
    hot = SCAN.posterior.copy()
    hot[400:420, 120:140] = 200
    rows, columns = np.indices(hot.shape)
    masks = {
        "lesion": (rows >= 400) & (rows < 420) & (columns >= 120) & (columns < 140),
        "air beside the body": (rows >= 400) & (rows < 420) & (columns < 20),
    }
    scan = dataclasses.replace(SCAN, posterior=hot)
    plain = prepare_scan(scan)
    air = plain.map_back((plain.labels == 0).astype(np.uint8))["posterior"] > 0
    masks["soft tissue"] = air & (rows > 300) & (rows < 320) & (columns > 110) & (columns < 150)
    masks["both"] = masks["lesion"] | masks["air beside the body"]
    # What is wrong with one view is not said of the other.
    uptake = plain.map_back((plain.labels == 1).astype(np.uint8))["anterior"] > 0
    drawn = {"anterior": masks["lesion"] & uptake, "posterior": masks[place]}
    lesions = {view: mask.astype(np.uint8) * 2 for view, mask in drawn.items()}
    case = prepare_scan(scan, lesions, PreparationSettings(otsu_histogram="all"))
    said = {
        "lesion": [],
        "air beside the body": ["100% of the metastatic pixels of the posterior view lie outside the body"],
        "soft tissue": ["100% of the metastatic pixels of the posterior view lie in air"],
        "both": ["50% of the metastatic pixels of the posterior view lie outside the body"],
    }
    assert [line.partition(":")[0] for line in case.warnings if "metastatic pixels of" in line] == said[place]


@pytest.mark.parametrize("bin", [1, 2])
def test_the_histogram_leaves_the_metastases_out(bin):
    hot = SCAN.anterior.copy()
    hot[400:440, 100:160] = 250
    mask = np.zeros((1024, 256), np.uint8)
    mask[400:440, 100:160] = 2
    scan = dataclasses.replace(SCAN, anterior=hot)
    case, kept = (
        prepare_scan(scan, {"anterior": mask}, PreparationSettings(bin=bin, otsu_histogram=histogram))
        for histogram in ("non-metastatic", "all")
    )
    lesion = case.labels == 2
    np.testing.assert_array_equal(case.labels == 1, (case.grey > threshold_otsu(case.grey[~lesion])) & ~lesion)
    np.testing.assert_array_equal(kept.labels == 1, (kept.grey > threshold_otsu(kept.grey)) & ~lesion)
    assert np.count_nonzero(case.labels == 1) > np.count_nonzero(kept.labels == 1)
    # Without an annotation there is nothing to leave out.
    unlabelled = prepare_scan(scan, settings=PreparationSettings(bin=bin))
    np.testing.assert_array_equal(unlabelled.labels | 2 * lesion > 0, kept.labels > 0)


def test_settings_of_another_kind_are_refused():
    for wrong in ({"bin": 3}, {"bin": True}, {"bin": 2.0}, {"background": "Otsu"}, {"classes": {"a": 3}}):
        with pytest.raises(SettingsError):
            PreparationSettings(**wrong)


def test_settings_survive_json():
    made = PreparationSettings("log", "per_view", 2, {"b": 2, "a": 1}, "all")
    assert PreparationSettings.from_json(made.to_json()) == made


@pytest.mark.parametrize("view", [np.zeros((512, 1024), np.uint16), np.zeros((1024, 256), np.int32)])
def test_another_matrix_is_refused(view):
    with pytest.raises(ScanError) as caught:
        prepare_scan(scan_of(view, view))
    assert caught.value.reason == "wrong-matrix"


@pytest.mark.parametrize(
    "lesions",
    [
        {"anterior": np.zeros((640, 256), np.uint8)},
        {"anterior": np.zeros((1024, 256), np.int64)},
        {"anterior": np.full((1024, 256), 3, np.uint8)},
        {"front": np.zeros((1024, 256), np.uint8)},
        {"anterior": np.zeros((1024, 256), np.uint8), "prepared": np.zeros((640, 512), np.uint8)},
    ],
)
def test_masks_that_do_not_fit_are_refused(lesions):
    with pytest.raises(LabelError):
        prepare_scan(SCAN, lesions)


def test_what_is_no_scan_or_no_masks_by_name_is_refused():
    """The first things that somebody tries in a notebook."""
    mask = np.zeros((1024, 256), np.uint8)
    for scan in ("scan.dcm", [SCAN], np.stack([SCAN.anterior, SCAN.posterior]), prepare_scan(SCAN)):
        with pytest.raises(TypeError, match=f"^scan is a {type(scan).__name__}: give a BoneScan"):
            prepare_scan(scan)
    for lesions in (mask, [mask], PreparationSettings()):
        with pytest.raises(TypeError, match="give masks by name"):
            prepare_scan(SCAN, lesions)
    # A forgotten comma makes a text of the tuple.
    for missing in (("front",), "posterior"):
        with pytest.raises(ValueError, match="^missing_views .*: give a tuple of names"):
            prepare_scan(dataclasses.replace(SCAN, missing_views=missing))


def test_a_lesion_in_a_view_that_is_not_there_is_refused():
    mask = np.zeros((1024, 256), np.uint8)
    mask[300, 100] = 2
    with pytest.raises(LabelError) as caught:
        prepare_scan(scan_of(block()), {"posterior": mask})
    assert caught.value.reason == "label-missing-view"


def test_two_levels_are_told_apart():
    grey = np.array([[0, 0, 0, 10, 10, 200, 210]], np.uint8)
    assert find_uptake(grey, grey.astype(np.uint16), "otsu").tolist() == [[False] * 5 + [True] * 2]


def test_otsu_agrees_with_another_implementation():
    grey = np.minimum(person(), 255).astype(np.uint8)
    np.testing.assert_array_equal(find_uptake(grey, grey, "otsu"), grey > threshold_otsu(grey))


def test_the_logarithm_keeps_the_outline_that_otsu_loses():
    # Air 0-1, soft tissue 8, bone 100: plain Otsu cuts above the soft tissue, the logarithm below it.
    counts = np.repeat(np.array([0, 1, 8, 100], np.uint16), (300, 300, 250, 150)).reshape(10, 100)
    grey = counts.astype(np.uint8)
    np.testing.assert_array_equal(find_uptake(grey, counts, "otsu"), counts == 100)
    np.testing.assert_array_equal(find_uptake(grey, counts, "log"), counts >= 8)


def test_what_is_left_out_does_not_move_the_threshold_but_is_thresholded():
    # With the lesion of 200 the best split is between 40 and 200, without it between 10 and 40.
    grey = np.repeat(np.array([0, 10, 40, 200], np.uint8), (10, 10, 10, 12))[None]
    counts = grey.astype(np.uint16)
    np.testing.assert_array_equal(find_uptake(grey, counts, "otsu"), grey > 40)
    np.testing.assert_array_equal(find_uptake(grey, counts, "otsu", left_out=grey == 200), grey > 10)
    np.testing.assert_array_equal(find_uptake(grey, counts, "otsu", left_out=grey == 10), grey > 40)
    assert threshold_otsu(grey[grey < 200]) == 10
    assert not find_uptake(grey, counts, "otsu", left_out=np.ones(grey.shape, bool)).any()


def test_none_keeps_nothing():
    grey = np.full((4, 4), 90, np.uint8)
    assert not find_uptake(grey, grey.astype(np.uint16), "none").any()


@pytest.mark.parametrize("background", ["otsu", "log"])
def test_a_blank_image_has_no_uptake(background):
    blank = np.zeros((4, 4), np.uint8)
    assert not find_uptake(blank, blank.astype(np.uint16), background).any()
