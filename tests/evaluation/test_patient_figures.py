"""Patients: sensitivity, specificity, area under the ROC curve, and what does not exist without normal scans."""

import numpy as np
import pytest
from score_makers import lesion, scan
from sklearn.metrics import recall_score, roc_auc_score

from doubleunet_bs.dataset.folds import Folds
from doubleunet_bs.evaluation.scorer import unseen_normals
from doubleunet_bs.evaluation.scores.scan_scores import score_patients
from doubleunet_bs.runs.experiments import paper_experiment


def test_by_hand():
    positives = [
        scan(1, lesions=[lesion(probability=0.9), lesion(probability=0.5)]),
        scan(2, lesions=[lesion(probability=0.6)]),
        scan(3),
    ]
    normals = [
        scan(4, group="negative", lesions=[lesion(probability=0.7), lesion(probability=0.4)]),
        scan(5, group="negative"),
    ]
    found = score_patients(positives, normals)
    assert (found.sensitivity, found.specificity) == (2 / 3, 1 / 2)
    assert found.false_positives_per_normal_scan == 1.0
    # Of six pairs: 0.9 beats 0.7 and 0, 0.6 beats 0, 0 ties with 0.
    assert found.auc == pytest.approx((2 + 1 + 0.5) / 6)
    assert found.reason is None


def test_patients_with_several_scans_count_once():
    positives = [scan(1, patient=1), scan(2, patient=1, lesions=[lesion(probability=0.8)]), scan(3, patient=2)]
    normals = [
        scan(4, patient=3, group="negative", lesions=[lesion(probability=0.1)]),
        scan(5, patient=3, group="negative", lesions=[lesion(probability=0.3)]),
        # A normal scan of a patient with metastases makes a wrong lesion, but no normal patient.
        scan(6, patient=1, group="negative", lesions=[lesion(probability=0.2)]),
    ]
    found = score_patients(positives, normals)
    assert (found.positives, found.detected, found.normals, found.cleared) == (2, 1, 1, 0)
    assert (found.normal_scans, found.false_positives) == (3, 3)
    assert found.auc == 0.5


def test_what_needs_normal_patients_is_undefined_without_with_a_reason():
    found = score_patients([scan(1, lesions=[lesion(probability=0.9)])], [], "they train")
    assert (found.sensitivity, found.specificity, found.auc) == (1.0, None, None)
    assert found.false_positives_per_normal_scan is None and found.to_json()["reason"] == "they train"
    assert score_patients([], []).sensitivity is None
    assert score_patients([scan(1)], []).reason == "no normal scan was scored"
    # False-positive lesions in normal scans of patients with metastases are counted all the same.
    normal = scan(2, patient=1, group="negative", lesions=[lesion(probability=0.2)])
    found = score_patients([scan(1, patient=1)], [normal])
    assert (found.normal_scans, found.false_positives_per_normal_scan) == (1, 1.0)
    assert (found.normals, found.specificity, found.auc) == (0, None, None)
    assert found.reason == "all normal scans are of patients with metastases"


def test_agrees_with_scikit_learn():
    rng = np.random.default_rng(5)
    scans, truth, chance = [], [], []
    for number in range(40):
        sick = number < 25
        chances = rng.beta(3 if sick else 2, 2, rng.integers(0, 4)).round(2)
        scans.append(
            scan(
                number,
                group="positive" if sick else "negative",
                lesions=[lesion(probability=float(value)) for value in chances],
            )
        )
        truth.append(sick)
        chance.append(max(chances, default=0.0))
    found = score_patients(scans[:25], scans[25:])
    called = [bool(one.predicted_lesions) for one in scans]
    assert found.sensitivity == pytest.approx(recall_score(truth, called))
    assert found.specificity == pytest.approx(recall_score(np.logical_not(truth), np.logical_not(called)))
    assert found.auc == pytest.approx(roc_auc_score(truth, chance))


FOLDS = Folds(
    parts=(("a",), ("b",), ("c",)),
    negatives=("n", "of-a"),
    patients={"a": "A", "b": "B", "c": "C", "n": "N", "of-a": "A"},
    seed=None,
)


def test_normal_scans_that_train_are_not_tested():
    cases, reason = unseen_normals(paper_experiment("dice-otsu"), FOLDS, 2)
    assert cases == () and "training data in every fold" in reason
    # The second normal scan belongs to the patient that fold 1 tests: there it does not train.
    assert unseen_normals(paper_experiment("dice-otsu"), FOLDS, 1) == (("of-a",), None)


def test_without_negatives_in_training_all_but_those_of_seen_patients_are_tested():
    assert unseen_normals(paper_experiment("dice"), FOLDS, 1) == (("n", "of-a"), None)
    assert unseen_normals(paper_experiment("dice"), FOLDS, 2) == (("n",), None)
    only = Folds(FOLDS.parts, ("of-a",), FOLDS.patients, None)
    cases, reason = unseen_normals(paper_experiment("dice"), only, 2)
    assert cases == () and "patient whose other scans" in reason
    none = Folds(FOLDS.parts, (), FOLDS.patients, None)
    assert unseen_normals(paper_experiment("dice"), none, 1) == ((), "the shards hold no normal scan")
