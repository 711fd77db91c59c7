"""Figures that other publications give: Dice of images, AUC of images and patients, the FROC curve."""

import dataclasses
import types

import numpy as np
import pytest
from scipy import ndimage
from score_makers import Scan, fold, scan
from sklearn.metrics import auc

from doubleunet_bs.evaluation.paper_tables import PUBLISHED_SCORES, provenance
from doubleunet_bs.evaluation.scorer import EvaluationSettings, Scorer
from doubleunet_bs.evaluation.scores.comparable_scores import BenignScores, comparable_figures, comparable_scores, froc
from doubleunet_bs.evaluation.scores.lesions import Candidate, find_candidates
from doubleunet_bs.evaluation.scores.scan_scores import score_scan
from doubleunet_bs.evaluation.summary import Summary
from doubleunet_bs.evaluation.tables import comparable_table, summary_text
from doubleunet_bs.pixel_counts import PixelCounts
from doubleunet_bs.preparation.records import DataSource
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.runs.experiments import paper_experiment


def seen(one, anterior=0.0, posterior=0.0, candidates=(), of_posterior=None):
    """A scan with the largest probability of each view, and pixels of the posterior view."""
    views = one.views | {"posterior": of_posterior or PixelCounts()}
    peaks = {"anterior": anterior, "posterior": posterior}
    return dataclasses.replace(one, views=views, candidates=tuple(candidates), peaks=peaks)


def test_dice_by_hand():
    scans = [
        seen(scan(1, tp=3, fp=1, fn=1), of_posterior=PixelCounts(1, 0, 1)),
        seen(scan(2, group="negative", fp=4)),  # a normal scan: a Dice of 0 in front, none behind
    ]
    found = comparable_scores(scans)
    assert found.dice_pooled == pytest.approx({"both views": 8 / 15, "anterior": 6 / 12, "posterior": 2 / 3})
    assert found.dice_mean == pytest.approx(
        {"both views": (6 / 8 + 2 / 3 + 0) / 3, "anterior": (6 / 8 + 0) / 2, "posterior": 2 / 3}
    )
    assert found.images == {"both views": 3, "anterior": 2, "posterior": 1}


def test_auc_by_hand():
    scans = [
        seen(scan(1, tp=1), 0.9, 0.2),
        seen(scan(2, fn=1, patient=1), 0.3, 0.1),
        seen(scan(3, fn=1), 0.6, 0.3),
        seen(scan(4, group="negative"), 0.7, 0.3),
    ]
    found = comparable_scores(scans)
    # Positive images 0.9, 0.3 and 0.6; negative ones 0.2, 0.1, 0.3, 0.7 and 0.3: of the 15 pairs two are ties.
    assert found.image_auc["both views"] == pytest.approx((5 + (2 + 2 * 0.5) + 4) / 15)
    assert found.image_auc["anterior"] == pytest.approx(1 / 3)
    assert found.image_auc["posterior"] is None
    assert found.patient_auc == pytest.approx(1 / 2)  # 0.9 and 0.6 against 0.7
    assert found.undefined == {
        "FROC": "there is no true lesion",
        "AUC of images, posterior": "none has metastases",
    }
    one = comparable_scores(scans[:1])
    assert one.image_auc["both views"] == 1.0 and one.patient_auc is None
    assert one.undefined == found.undefined | {
        "AUC of images, anterior": "all have metastases",
        "AUC of patients": "all have metastases",
    }


def test_auc_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(7)
    scans, truth, score = [], [], []
    for number in range(30):
        sick = bool(rng.random() < 0.6)
        peaks = rng.random(2).round(1)
        scans.append(seen(scan(number, tp=int(sick), group="positive" if sick else "negative"), *peaks))
        truth.append(sick)
        score.append(max(peaks))
    found = comparable_scores(scans)

    def share(scores):
        pairs = [
            (one, other)
            for one, sick in zip(scores, truth, strict=True)
            if sick
            for other, also in zip(scores, truth, strict=True)
            if not also
        ]
        return sum((one > other) + 0.5 * (one == other) for one, other in pairs) / len(pairs)

    assert found.patient_auc == pytest.approx(share(score), abs=1e-12)
    assert found.image_auc["anterior"] == pytest.approx(share([one.peaks["anterior"] for one in scans]), abs=1e-12)


def test_a_missing_view_is_no_image():
    scans = [seen(scan(1, tp=1), 0.9), seen(scan(2, group="negative"), 0.1)]
    scans.append(dataclasses.replace(scans[0], patient="patient-3", peaks={"anterior": 0.05}))
    found = comparable_scores(scans)
    assert found.image_auc["anterior"] == pytest.approx(1 / 2)
    assert found.image_auc["both views"] == pytest.approx((3 + 2) / 6)  # negative images: 0.0, 0.0, 0.1


@pytest.mark.parametrize(("missing", "views"), [((), ["anterior", "posterior"]), (("posterior",), ["anterior"])])
def test_the_scorer_gives_a_missing_view_no_peak(missing, views):
    """Its half of the images is empty, but would count as a negative image."""
    case = types.SimpleNamespace(
        case="case-0", patient="patient-0", group="positive", missing_views=missing, pixel_spacing_mm=None, phantom=True
    )
    labels = np.zeros((8, 8), np.uint8)
    labels[2:4, 1:3] = 2
    dataset = types.SimpleNamespace(
        cases=[case], labels=lambda index: labels, image_shape=labels.shape, settings=PreparationSettings()
    )
    predictions = types.SimpleNamespace(read=lambda name, shape: (labels == 2, labels / np.float32(2), None))
    [scored] = Scorer(dataset, predictions, EvaluationSettings()).score(["case-0"])
    assert sorted(scored.peaks) == views and scored.peaks["anterior"] == 1.0


def test_metastases_that_nobody_outlined_count_for_the_auc_of_patients_alone():
    known = [seen(scan(1, tp=1, fp=1), 0.9, 0.1), seen(scan(2, fp=1, group="negative"), 0.7)]
    unoutlined = [seen(scan(3, fp=9, group="unoutlined"), 0.6), seen(scan(4, fp=9, group="unoutlined"), 0.8)]
    found, without = comparable_scores(known + unoutlined), comparable_scores(known)
    assert found.patient_auc == pytest.approx(2 / 3) and without.patient_auc == 1.0
    assert dataclasses.replace(found, patient_auc=1.0) == without
    alone = comparable_scores([known[1], *unoutlined])
    assert alone.patient_auc == pytest.approx(1 / 2) and set(alone.image_auc.values()) == {None}
    assert alone.dice_pooled["both views"] is None and "no metastasis is outlined" in str(alone.undefined)


def test_without_probabilities_only_the_dice_is_left():
    found = comparable_scores([scan(1, tp=1), scan(2, group="negative")])
    assert found.dice_pooled["both views"] == 1.0
    assert (found.froc, found.patient_auc, set(found.image_auc.values())) == (None, None, {None})
    assert "masks of another program" in found.undefined["FROC and AUC"]
    assert comparable_scores([]).undefined == {}


def test_means_over_folds_leave_out_what_is_undefined():
    first = fold(1, seen(scan(1, tp=1, fn=1), 0.9, 0.1), seen(scan(2, group="negative"), 0.2))
    second = fold(2, scan(3, tp=1))
    figures = {one.name: one for one in comparable_figures([first.comparable, second.comparable])}
    dice = figures["Dice, both views: pooled"]
    assert (dice.mean, dice.folds, dice.percent) == (pytest.approx((2 / 3 + 1) / 2), 2, True)
    assert (figures["AUC of patients"].mean, figures["AUC of patients"].folds) == (1.0, 1)
    text = summary_text(Summary("dice", {}, 10, (first, second)))
    assert "AUC of patients" in text and "1.000 (1 of 2 folds)" in text
    assert "Undefined, no probabilities" in text
    assert "Undefined, none has metastases: AUC of images, posterior." in text


MASKS = DataSource("bs80k-masks", "CC BY 4.0", "masks", whole=True)
PICTURES = DataSource("bs80k", "none stated", "pictures", whole=True)


def of_public(sources=(MASKS, PICTURES), folds=1, bin=1, normals=291, phantom=None, kept=293):
    """Two scans with metastases and `normals` normal ones are scored; the shards have `kept` test scans, and others."""
    record = types.SimpleNamespace(cancer=None, phantom=phantom, part="test", group="negative")
    others = [{"part": "train"}, {"group": "unknown"}, {"part": None}]
    records = [record] * kept + [types.SimpleNamespace(**vars(record) | other) for other in others]
    experiment, settings = paper_experiment("dice", folds=folds), PreparationSettings(bin=bin)
    of = provenance(experiment, records, settings, sources)
    scans = [seen(scan(number, tp=1), 0.9, 0.1) for number in range(2)]
    own = [seen(scan(9, group="negative"), 0.2)] * normals
    return Summary("dice", {}, 1, (fold(1, *scans, normals=tuple(own)),), of)


def test_published_scores_stand_beside_figures_of_the_same_scans():
    summary = of_public()
    text = summary_text(summary)
    assert ["AUC of images, both views", "1.000", "0.81 to 0.84"] in comparable_table(summary).rows
    assert "doi:10.5281/zenodo.23190333" in text and "not stated" in text
    assert comparable_table(summary).head == ["all unseen scans", "this run", "published"]
    assert summary.to_json()["comparable"]["published"]["scans"] == 293 and "left out by prepare" not in text
    names = {one.name for one in summary.comparable}
    dice = {"both views": 0.5, "anterior": 0.5, "posterior": 0.5}
    scores = [one.comparable for one in summary.folds]
    with_benign = {one.name for one in comparable_figures(scores, [BenignScores(dice, dice, 0.5, 1.0)])}
    assert names < with_benign and all(set(one.figures) <= with_benign for one in PUBLISHED_SCORES.values())


@pytest.mark.parametrize(
    "changes",
    [
        {"sources": ()},
        {"sources": (PICTURES,)},
        {"sources": (MASKS, dataclasses.replace(PICTURES, whole=False))},
        {"sources": (MASKS, PICTURES, DataSource("paraguay", "CC BY 4.0", "more scans to train on", whole=True))},
        {"folds": 10},
        {"bin": 2},
        {"phantom": True},
        {"normals": 290},
    ],
)
def test_published_scores_are_left_out_for_other_scans(changes):
    summary = of_public(**changes)
    assert "0.81 to 0.84" not in summary_text(summary)
    assert summary.published is None and comparable_table(summary).head == ["all unseen scans", ""]
    left_out = "The published scores are left out: 292 of the 293 test scans of these shards are scored."
    assert (left_out in summary.comparable_notes) == ("normals" in changes)


def test_published_scores_say_how_many_of_their_scans_are_scored():
    """`prepare` leaves out damaged and double scans and those without a class: the data set is whole all the same."""
    summary = of_public(normals=288, kept=290)
    text = summary_text(summary)
    assert "0.81 to 0.84" in text
    assert "290 of 293 published test scans are scored here; the others were left out by prepare." in text
    said = summary.to_json()["comparable"]["published"]
    assert (said["scans"], said["scored"]) == (293, 290)


def candidate(peak, lesion=None):
    return Candidate("anterior", 0, 0, peak, lesion)


def test_candidates_by_hand():
    truth, probability = np.zeros((6, 12), bool), np.zeros((6, 12))
    truth[0:2, 0:2] = truth[4, 3:5] = truth[0:2, 8] = True  # two lesions in the anterior view, one in the posterior
    probability[0:2, 1:3] = (0.3, 0.2), (0.6, 0.1)  # its peak lies in the first lesion
    probability[4, 4], probability[5, 5] = 0.5, 0.7  # touches the second by a corner, but its peak lies outside
    probability[5, 6], probability[0, 8], probability[3, 10] = 0.2, 0.09, 0.1  # the view ends; below and at the limit
    found, peaks = find_candidates(truth, probability)
    assert found == (
        Candidate("anterior", 1, 1, 0.6, 0),
        Candidate("anterior", 5, 5, 0.7, None),
        Candidate("posterior", 3, 10, 0.1, None),
        Candidate("posterior", 5, 6, 0.2, None),
    )
    assert peaks == {"anterior": 0.7, "posterior": 0.2}
    scored = score_scan(Scan(), 2 * truth, probability > 0.5, probability)
    assert (scored.candidates, scored.peaks) == (found, peaks)


def test_lesions_are_numbered_over_both_views():
    truth = np.zeros((4, 8), bool)
    truth[0, 0] = truth[3, 3] = truth[2, 6] = True
    found, _ = find_candidates(truth, np.where(truth, 0.5, 0.0))
    assert [one.lesion for one in found] == [0, 1, 2]


def test_a_probability_everywhere_marks_one_lesion_at_most():
    truth = np.zeros((9, 18), bool)
    truth[0, 0] = truth[0, 8] = truth[8, 0] = truth[4, 13] = True
    found, _ = find_candidates(truth, np.full(truth.shape, 0.6))
    assert [(one.row, one.column, one.lesion) for one in found] == [(4, 4, None), (4, 13, 3)]
    assert find_candidates(truth, np.zeros(truth.shape))[0] == ()


def test_curve_by_hand():
    """Two scans with three lesions; one is detected at 0.9 and again at 0.4, one at 0.5, one never."""
    scans = [
        (2, [candidate(0.9, 0), candidate(0.8), candidate(0.5, 1), candidate(0.4, 0)]),
        (1, [candidate(0.8), candidate(0.3)]),
    ]
    curve = froc(scans)
    assert (curve.lesions, curve.scans) == (3, 2)
    assert curve.thresholds == (0.9, 0.8, 0.5, 0.4, 0.3)
    assert curve.false_positives == (0, 1, 1, 1, 1.5)
    assert curve.sensitivity == pytest.approx((1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3))
    assert [curve.sensitivity_at(x) for x in (0, 0.99, 1, 4)] == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    # 1/3 from 0 to 1, 2/3 from 1 to 4.
    assert curve.area == pytest.approx((1 / 3 + 3 * 2 / 3) / 4)
    content = curve.to_json()
    assert content["curve"][1] == [0.8, 1.0, 1 / 3] and content["sensitivity_at"]["1"] == curve.sensitivity_at(1)


def test_ends():
    assert froc([(0, [candidate(0.5)])]) is None
    silent = froc([(2, [])])
    assert (silent.area, silent.sensitivity_at(4.0)) == (0.0, 0.0)
    assert froc([(1, [candidate(0.2, 0)])]).area == 1.0
    # Every lesion lies behind five false positives a scan: beyond the limit of the area.
    late = froc([(1, [candidate(0.5)] * 5 + [candidate(0.4, 0)])])
    assert (late.area, late.sensitivity_at(5)) == (0.0, 1.0)


def short_froc(images, at, limit=4.0):
    """Sensitivities and area by the definition, threshold by threshold, with SciPy's components."""
    corners = np.ones((3, 3))
    false, best, lesions = [], [], 0
    for truth, probability in images:
        true, number = ndimage.label(truth, corners)
        scores = np.zeros(number + 1)
        areas, count = ndimage.label(probability >= 0.1, corners)
        for area in range(1, count + 1):
            place = ndimage.maximum_position(probability, areas, area)
            if true[place]:
                scores[true[place]] = max(scores[true[place]], probability[place])
            else:
                false.append(probability[place])
        best += list(scores[1:])
        lesions += number
    points = [
        (np.sum(np.array(false) >= t) / (len(images) / 2), np.sum(np.array(best) >= t) / lesions)
        for t in sorted({*false, *(one for one in best if one)}, reverse=True)
    ]

    # A hair apart, so that no two points have the same number of false positives.
    x = [0.0, *(x_of_point + 1e-9 * k for k, (x_of_point, _) in enumerate(points))]
    y = [0.0, *(y_of_point for _, y_of_point in points)]
    grid = np.unique([*(one for one in x if one < limit), limit])
    return np.interp(at, x, y), auc(grid, np.interp(grid, x, y)) / limit


def test_agrees_with_a_short_computation():
    rng = np.random.default_rng(3)
    scans, images = [], []
    for _ in range(6):
        noise = ndimage.gaussian_filter(rng.random((40, 40)), (1.5, 1.5))
        probability = np.clip(4 * (noise - noise.mean()), 0, 1) ** 0.5
        probability[:, 19:21] = 0
        truth = ndimage.gaussian_filter(rng.random((40, 40)), 1.5) + 0.5 * noise > 0.8
        truth[:, 19:21] = False
        candidates, _ = find_candidates(truth, probability)
        number = ndimage.label(truth, np.ones((3, 3)))[1]
        scans.append((number, candidates))
        images += [(truth[:, :20], probability[:, :20]), (truth[:, 20:], probability[:, 20:])]
    curve, at = froc(scans), (0.1, 0.25, 0.55, 1.1, 2.05, 3.9)
    expected, area = short_froc(images, at)
    assert 0.05 < area < 0.95 and len(set(expected)) > 2, "a comparison that proves something"
    assert [curve.sensitivity_at(x) for x in at] == pytest.approx(expected, abs=1e-6)
    assert curve.area == pytest.approx(area, abs=1e-6)


def test_equal_scores_count_as_in_random_order():
    curve = froc([(1, [candidate(1.0, 0), candidate(1.0)])])
    assert [curve.sensitivity_at(x) for x in (0, 0.5, 1, 3)] == [0.0, 0.5, 1.0, 1.0]
    assert curve.area == pytest.approx((0.5 + 3) / 4)
