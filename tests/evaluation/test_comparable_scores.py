"""Figures that other publications give: Dice of images, AUC of images and patients, and where they are undefined."""

import dataclasses

import numpy as np
import pytest
from score_makers import fold, scan
from sklearn.metrics import roc_auc_score

from doubleunet_bs.evaluation.comparable_scores import comparable_figures, comparable_scores
from doubleunet_bs.evaluation.froc import Candidate
from doubleunet_bs.evaluation.scores import scan_from_json
from doubleunet_bs.evaluation.summary import Summary
from doubleunet_bs.evaluation.tables import format_details
from doubleunet_bs.pixel_counts import PixelCounts


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
        "AUC of images, posterior": "all are without metastases",
    }


def test_agrees_with_scikit_learn():
    rng = np.random.default_rng(7)
    scans, truth, score = [], [], []
    for number in range(30):
        sick = bool(rng.random() < 0.6)
        peaks = rng.random(2).round(1)
        scans.append(seen(scan(number, tp=int(sick), group="positive" if sick else "negative"), *peaks))
        truth.append(sick)
        score.append(max(peaks))
    found = comparable_scores(scans)
    assert found.patient_auc == roc_auc_score(truth, score)
    assert found.image_auc["anterior"] == roc_auc_score(truth, [one.peaks["anterior"] for one in scans])


def test_a_missing_view_is_no_image():
    scans = [seen(scan(1, tp=1), 0.9), seen(scan(2, group="negative"), 0.1)]
    scans.append(dataclasses.replace(scans[0], patient="patient-3", peaks={"anterior": 0.05}))
    found = comparable_scores(scans)
    assert found.image_auc["anterior"] == pytest.approx(1 / 2)
    assert found.image_auc["both views"] == pytest.approx((3 + 2) / 6)  # negative images: 0.0, 0.0, 0.1


def test_without_probabilities_only_the_dice_is_left():
    found = comparable_scores([scan(1, tp=1), scan(2, group="negative")])
    assert found.dice_pooled["both views"] == 1.0
    assert (found.froc, found.patient_auc, set(found.image_auc.values())) == (None, None, {None})
    assert "evaluate again" in found.undefined["FROC and AUC"]
    assert comparable_scores([]).undefined == {}


def test_candidates_read_back_and_earlier_scores_stay_readable():
    one = seen(scan(1, tp=1), 0.9, 0.1, [Candidate("anterior", 3, 4, 0.9, None)])
    one = dataclasses.replace(one, case="case-0123456789ab", patient="patient-0123456789ab")
    content = one.to_json()
    assert scan_from_json(content) == one
    del content["candidates"], content["peaks"]
    assert scan_from_json(content).candidates is None


def test_means_over_folds_leave_out_what_is_undefined():
    first = fold(1, seen(scan(1, tp=1, fn=1), 0.9, 0.1), seen(scan(2, group="negative"), 0.2))
    second = fold(2, scan(3, tp=1))
    figures = {one.name: one for one in comparable_figures([first.comparable, second.comparable])}
    dice = figures["Dice, both views: pooled"]
    assert (dice.mean, dice.folds) == (pytest.approx((2 / 3 + 1) / 2), 2)
    assert (figures["AUC of patients"].mean, figures["AUC of patients"].folds) == (1.0, 1)
    text = format_details(Summary("dice", {}, 10, (first, second)))
    assert "AUC of patients" in text and "1.000 (1 of 2 folds)" in text
    assert "Undefined (fold 2), no probabilities" in text
    assert "Undefined (fold 1), all are without metastases: AUC of images, posterior." in text
