"""Lesions of hand-made masks: how many there are, and which of them belong together."""

import operator

import numpy as np
import pytest
from score_makers import Scan
from skimage.measure import label, regionprops

from doubleunet_bs.errors import SettingsError
from doubleunet_bs.evaluation import score_masks
from doubleunet_bs.evaluation.scorer import EvaluationSettings
from doubleunet_bs.evaluation.scores.lesions import LesionCounts, match_lesions
from doubleunet_bs.evaluation.scores.scan_scores import scan_from_json, score_scan
from doubleunet_bs.pixel_counts import PixelCounts


def mask(text):
    """A merged image of two views: lines of dots and letters, the views apart by a bar."""
    return np.array([[c != "." for c in line.replace("|", "")] for line in text.split()])


def test_corners_join_lesions_and_the_middle_of_the_image_parts_them():
    true, _ = match_lesions(mask("x...|.... .x.x|x... ...x|x..."), np.zeros((3, 8), bool), 2.5)
    assert [(lesion.view, lesion.pixels) for lesion in true] == [("anterior", 2), ("anterior", 2), ("posterior", 2)]
    assert [lesion.area for lesion in true] == [5.0, 5.0, 5.0]
    assert (true[0].row, true[0].column) == (0.5, 0.5)
    # Columns are those of the whole image.
    assert (true[2].row, true[2].column) == (1.5, 4.0)
    assert all(lesion.probability is None and not lesion.matched for lesion in true)


@pytest.mark.parametrize(
    ("truth", "found", "overlap", "expected"),
    [
        ("xxx.|....", "..xx|xx..", 0.0, ([True], [True, False])),
        # 1 of 4 pixels in the union.
        ("xxx.|....", "..xx|xx..", 0.25, ([True], [True, False])),
        ("xxx.|....", "..xx|xx..", 0.26, ([False], [False, False])),
        # A corner is no common pixel, and a lesion in the other view matches nothing.
        ("x...|.... ....|....", "....|.... .x..|....", 0.0, ([False], [False])),
        ("x...|....", "....|x...", 0.0, ([False], [False])),
    ],
)
def test_one_common_pixel_is_enough_unless_an_overlap_is_asked_for(truth, found, overlap, expected):
    sides = match_lesions(mask(truth), mask(found), 1.0, overlap)
    assert tuple([lesion.matched for lesion in side] for side in sides) == expected


def test_a_lesion_predicted_in_two_parts_is_detected():
    true, predicted = match_lesions(mask("xxxx|...."), mask("x.xx|...."), 1.0, 0.7)
    assert [(lesion.common, lesion.overlap, lesion.matched) for lesion in true] == [(3, 0.75, True)]
    # For a piece, the union is the whole true lesion without what another piece covers: 1 / (1 + 1) and 2 / (2 + 1).
    assert [lesion.overlap for lesion in predicted] == pytest.approx([1 / 2, 2 / 3])
    assert [lesion.matched for lesion in predicted] == [False, False]


def test_two_lesions_predicted_as_one_are_both_detected():
    true, predicted = match_lesions(mask("xx.xx...|........"), mask("xxxxxx..|........"), 1.0, 0.5)
    # Pixels in the other true lesion do not count: 2 / (2 + 2) each, and 4 / (6 + 0) for the predicted one.
    assert [lesion.overlap for lesion in true] == pytest.approx([1 / 2, 1 / 2])
    assert [lesion.overlap for lesion in predicted] == pytest.approx([4 / 6])
    assert all(lesion.matched for lesion in (*true, *predicted))


def test_probability_is_the_mean_over_the_lesion_and_the_peak_its_largest():
    probability = np.array([[0.2, 0.6, 0.9, 0.1, 0, 0, 0.5, 0]])
    _, predicted = match_lesions(mask("....|...."), mask("xx..|..x."), 1.0, probability=probability)
    assert [lesion.probability for lesion in predicted] == pytest.approx([0.4, 0.5])
    assert [lesion.peak for lesion in predicted] == pytest.approx([0.6, 0.5])


@pytest.mark.parametrize(
    ("truth", "found", "expected"),
    [
        ("....|....", "....|....", (None, None, None)),
        ("x...|....", "....|....", (None, 0.0, 0.0)),
        ("....|....", "x...|....", (0.0, None, 0.0)),
        ("x.x.|....", "x...|....", (1.0, 0.5, 2 / 3)),
        ("xx.x|....", "x...|...x", (0.5, 0.5, 0.5)),
    ],
)
def test_figures(truth, found, expected):
    counts = LesionCounts.of(*match_lesions(mask(truth), mask(found), 1.0))
    assert (counts.precision, counts.sensitivity, counts.f1) == pytest.approx(expected)


def test_counts_add_up():
    total = LesionCounts(3, 2, 4, 1) + LesionCounts(1, 1, 0, 0)
    assert total == LesionCounts(4, 3, 4, 1)
    assert total.false_positives == 3
    assert total.f1 == pytest.approx(2 * 0.25 * 0.75 / (0.25 + 0.75))


def random_image(seed):
    rng = np.random.default_rng(seed)
    truth, found = (rng.random((40, 60)) < level for level in (0.2, 0.25))
    return truth, found, rng.random((40, 60)).astype(np.float32)


def test_agrees_with_scikit_image():
    truth, found, probability = random_image(1)
    true, predicted = match_lesions(truth, found, 1.0, probability=probability)
    for lesions, image, other in ((true, truth, found), (predicted, found, truth)):
        place = 0
        for view, left in (("anterior", 0), ("posterior", 30)):
            part = np.s_[:, left : left + 30]
            regions = regionprops(label(image[part], connectivity=2), probability[part])
            own = [lesion for lesion in lesions if lesion.view == view]
            found_there = ((r.centroid[0], r.centroid[1] + left, r.area, r) for r in regions)
            expected = sorted(found_there, key=operator.itemgetter(0, 1, 2))
            for lesion, (row, column, area, region) in zip(
                sorted(own, key=lambda lesion: (lesion.row, lesion.column, lesion.pixels)), expected, strict=True
            ):
                assert (lesion.row, lesion.column, lesion.pixels) == pytest.approx((row, column, area))
                rows, columns = region.coords.T
                assert lesion.common == int(other[part][rows, columns].sum())
                if lesion.probability is not None:
                    values = probability[part][rows, columns]
                    assert lesion.probability == pytest.approx(values.mean(), abs=1e-6)
                    assert lesion.peak == pytest.approx(values.max())
            place += len(own)
        assert place == len(lesions)


def test_overlap_by_its_definition():
    """The shortcut over a table of pairs against the definition, pixel by pixel."""
    truth, found, _ = random_image(2)
    true, predicted = match_lesions(truth, found, 1.0)
    for lesions, image, other in ((true, truth, found), (predicted, found, truth)):
        expected = []
        for left in (0, 30):
            own, others = (label(side[:, left : left + 30], connectivity=2) for side in (image, other))
            for number in range(1, own.max() + 1):
                lesion = own == number
                touching = np.isin(others, np.setdiff1d(np.unique(others[lesion]), 0))
                union = lesion | (touching & ~(own > 0))
                expected.append((lesion & touching).sum() / union.sum())
        assert sorted(lesion.overlap for lesion in lesions) == pytest.approx(sorted(expected))


def test_views_of_a_scan_add_up_and_read_back():
    labels = np.array([[2, 2, 0, 1], [0, 0, 2, 1]], np.uint8)
    found = np.array([[1, 0, 1, 0], [0, 1, 1, 1]], np.uint8)
    scan = score_scan(Scan(), labels, found, np.full((2, 4), 0.5), 3.0)
    counts = {name: (c.tp, c.fp, c.fn) for name, c in scan.views.items()}
    assert counts == {"anterior": (1, 1, 1), "posterior": (1, 2, 0)}
    assert (scan.counts.tp, scan.counts.fp, scan.counts.fn) == (2, 3, 1)
    assert scan.dice == scan.counts.f1 == 4 / 8
    assert scan.probability == 0.5
    assert scan_from_json(scan.to_json()) == scan and scan.candidates
    without = {name: value for name, value in scan.to_json().items() if name not in ("candidates", "peaks")}
    assert scan_from_json(without).candidates is None
    damaged = scan.to_json() | {"tp": 3}
    with pytest.raises(ValueError, match="do not add up"):
        scan_from_json(damaged)
    damaged = scan.to_json()
    damaged["views"]["anterior"] |= {"tp": 2, "fp": -1}
    with pytest.raises(ValueError, match="must be whole numbers"):
        scan_from_json(damaged | {"tp": 3, "fp": 1})
    # Without a predicted lesion the probability is the lowest.
    nothing = score_scan(Scan(), labels, found * 0, np.full((2, 4), 0.4))
    assert (nothing.probability, nothing.counts.precision, nothing.dice) == (0.0, None, 0.0)


@pytest.mark.parametrize("overlap", [-0.1, 1.0, float("nan")])
def test_impossible_overlap(overlap):
    with pytest.raises(SettingsError, match="lesion overlap"):
        EvaluationSettings(overlap=overlap)


def test_masks_of_one_view():
    """By hand: a pixel of a lesion of two is predicted, and a lesion of one pixel that is none."""
    truth, prediction = np.zeros((2, 4, 6), np.uint8)
    truth[0, :2] = prediction[0, 0] = prediction[3, 5] = 1
    pixels, lesions = score_masks(truth, prediction)
    assert pixels == PixelCounts(tp=1, fp=1, fn=1)
    assert lesions == LesionCounts(true=1, found=1, predicted=2, right=1)
    # The overlap is a half.
    assert score_masks(truth, prediction, overlap=0.6).lesions == LesionCounts(true=1, found=0, predicted=2, right=0)
    assert score_masks(truth * 0, prediction * 0) == (PixelCounts(), LesionCounts())
    with pytest.raises(ValueError, match=r"\(4, 6\) and \(4, 5\)"):
        score_masks(truth, prediction[:, :5])
    # Class 1 of `rasterize` is no metastasis, class 2 of a model is benign: neither may count silently.
    with pytest.raises(ValueError, match="mask == 2"):
        score_masks(2 * truth.astype(np.uint8), prediction)
    # Nor a probability, however small, or what is no number.
    for wrong in (0.1, -1.0, np.nan):
        with pytest.raises(ValueError, match="other than 0 and 1"):
            score_masks(truth, prediction * wrong)
    for overlap in (-0.1, 1, np.nan):
        with pytest.raises(ValueError, match="an overlap of"):
            score_masks(truth, prediction, overlap)


def test_masks_across_the_middle_are_one_lesion_in_one_view():
    """`score_scan` has two views in an image, `score_masks` has one."""
    image = np.ones((2, 6), np.uint8)
    assert score_masks(image, image).lesions.true == 1
    assert score_scan(Scan(), 2 * image, image).lesions.true == 2
