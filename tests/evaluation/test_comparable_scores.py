"""Figures that other publications give: Dice of images, AUC of images and patients, and where they are undefined."""

import dataclasses
import types

import numpy as np
import pytest
from score_makers import fold, scan

from doubleunet_bs.evaluation.paper_tables import PUBLISHED_SCORES, provenance
from doubleunet_bs.evaluation.scores.comparable_scores import BenignScores, comparable_figures, comparable_scores
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
    assert "evaluate again" in found.undefined["FROC and AUC"]
    assert comparable_scores([]).undefined == {}


def test_means_over_folds_leave_out_what_is_undefined():
    first = fold(1, seen(scan(1, tp=1, fn=1), 0.9, 0.1), seen(scan(2, group="negative"), 0.2))
    second = fold(2, scan(3, tp=1))
    figures = {one.name: one for one in comparable_figures([first.comparable, second.comparable])}
    dice = figures["Dice, both views: pooled"]
    assert (dice.mean, dice.folds) == (pytest.approx((2 / 3 + 1) / 2), 2)
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
    assert comparable_table(summary).head == ["", "this run", "published"]
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
    assert summary.published is None and comparable_table(summary).head == ["", ""]
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
