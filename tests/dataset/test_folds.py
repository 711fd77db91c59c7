"""Folds: by patient, stratified, reproducible, honoured when a user writes them."""

import dataclasses
import json
import time
from collections import namedtuple

import numpy as np
import pytest

from doubleunet_bs.dataset.folds import (
    count_lesions,
    folds_to_json,
    has_published_split,
    hold_out,
    in_training_part,
    load_folds,
    make_folds,
    published_folds,
)
from doubleunet_bs.errors import DatasetError, SettingsError
from doubleunet_bs.files import write_json

Case = namedtuple("Case", "case patient group metastatic_pixels part", defaults=[None])


def cohort(patients=30, negatives=5, scans_per_patient=1):
    cases = [
        Case(f"case-{p:03d}-{s}", f"patient-{p:03d}", "positive", 1 + p * p)
        for p in range(patients)
        for s in range(scans_per_patient)
    ]
    return cases + [Case(f"case-9{n}", f"healthy-{n}", "negative", 0) for n in range(negatives)]


def test_ten_folds_are_8_1_1_and_test_every_positive_once():
    folds = make_folds(cohort(90, 10), 10)
    tested = []
    for fold in range(1, 11):
        split = folds.split(fold)
        assert (len(split.train), len(split.validation), len(split.test), len(split.negatives)) == (72, 9, 9, 10)
        assert not set(split.train) & set(split.validation) and not set(split.train) & set(split.test)
        assert not set(split.validation) & set(split.test)
        tested += split.test
    assert sorted(tested) == [case.case for case in cohort(90, 0)]


def test_part_k_tests_and_the_next_validates():
    folds = make_folds(cohort(30), 10)
    assert folds.split(1).test == folds.parts[0] and folds.split(1).validation == folds.parts[1]
    assert folds.split(10).test == folds.parts[9] and folds.split(10).validation == folds.parts[0]


def test_all_scans_of_a_patient_stay_together():
    folds = make_folds(cohort(20, scans_per_patient=3), 5)
    for part in folds.parts:
        patients = [folds.patients[case] for case in part]
        assert all(patients.count(patient) == 3 for patient in patients)


def test_every_part_has_little_and_much_disease():
    # In another order than the names of the patients.
    cases = [case._replace(metastatic_pixels=1 + 7 * number % 40) for number, case in enumerate(cohort(40, 0))]
    pixels = {case.case: case.metastatic_pixels for case in cases}
    ordered = sorted(pixels.values())
    low, high = ordered[9], ordered[30]
    for seed in range(5):
        for part in make_folds(cases, 10, seed).parts:
            burden = [pixels[case] for case in part]
            assert min(burden) <= low and max(burden) >= high


def test_sizes_differ_by_at_most_one_patient():
    for patients in (11, 23, 37):
        sizes = [len(part) for part in make_folds(cohort(patients), 5).parts]
        assert max(sizes) - min(sizes) <= 1 and sum(sizes) == patients


def test_seed_and_order_of_the_cases():
    assert make_folds(cohort(), 10, 1).parts == make_folds(cohort()[::-1], 10, 1).parts
    assert make_folds(cohort(), 10, 1).parts != make_folds(cohort(), 10, 2).parts


def test_a_negative_scan_of_a_held_out_patient_does_not_train():
    cases = [*cohort(10, 2), Case("early-scan", "patient-004", "negative", 0)]
    folds = make_folds(cases, 5)
    for fold in range(1, 6):
        split = folds.split(fold)
        held_out = {folds.patients[case] for case in (*split.test, *split.validation)}
        assert ("early-scan" in split.negatives) == ("patient-004" not in held_out)
        assert {"case-90", "case-91"} <= set(split.negatives)


@pytest.mark.parametrize("fold", [0, -1, 11])
def test_fold_out_of_range(fold):
    with pytest.raises(SettingsError, match="there are folds 1 to 10"):
        make_folds(cohort(), 10).split(fold)


def test_too_few_patients_or_folds():
    with pytest.raises(SettingsError, match="9 patients with outlined metastases cannot fill 10 folds"):
        make_folds(cohort(9), 10)
    with pytest.raises(SettingsError, match="at least 3"):
        make_folds(cohort(9), 2)


def test_what_is_saved_is_what_is_loaded(tmp_path):
    made = make_folds(cohort(), 10, seed=4)
    write_json(tmp_path / "folds.json", folds_to_json(made))
    again = load_folds(tmp_path / "folds.json", cohort()[::-1])
    assert again.parts == made.parts and again.negatives == made.negatives and again.seed == 4
    assert again.sha256() == made.sha256() != make_folds(cohort(), 10, seed=5).sha256()


def test_the_users_own_file_is_honoured(tmp_path):
    cases = cohort(6, 1)
    parts = [[f"case-{p:03d}-0" for p in group] for group in ((0, 5), (1, 2), (3, 4))]
    (tmp_path / "folds.json").write_text(json.dumps({"format": 1, "parts": parts, "negatives": ["case-90"]}))
    folds = load_folds(tmp_path / "folds.json", cases)
    assert folds.split(2).test == ("case-001-0", "case-002-0") and folds.seed is None


def test_a_folds_file_of_many_scans_is_read_at_once(tmp_path):
    """Comparing every scan with every other took minutes for these."""
    cases = cohort(40_000, 2_000)
    names = [case.case for case in cases[:40_000]]
    parts, negatives = [names[place::10] for place in range(10)], [case.case for case in cases[40_000:]]
    (tmp_path / "folds.json").write_text(json.dumps({"format": 1, "parts": parts, "negatives": negatives}))
    start = time.process_time()
    assert load_folds(tmp_path / "folds.json", cases).parts[0][1] == names[10]
    assert time.process_time() - start < 5


def _edited(tmp_path, edit, cases):
    path = tmp_path / "folds.json"
    write_json(path, folds_to_json(make_folds(cases, 5)))
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["parts"][0].append(c["parts"][1][0]), "twice"),
        (lambda c: c["parts"][0].pop(), "is not in it"),
        (lambda c: c["parts"][0].append("case-999"), "not a positive case"),
        (lambda c: c["negatives"].append("Anna"), "a name in it is no name of a case: they look like [^A]*$"),
        (lambda c: c["negatives"].append(c["parts"][0].pop()), "not a negative case|not in it"),
        (lambda c: c["negatives"].pop(), "is not in it"),
        (lambda c: c.update(format=2), "format 1"),
        (lambda c: c.update(parts="all"), "lists of cases"),
        (lambda c: c["parts"].append([]), "none empty"),
        (lambda c: c["parts"].append(7), "lists of cases"),
        (lambda c: c["parts"][0].append(7), "lists of cases"),
    ],
)
def test_a_folds_file_that_does_not_fit_is_refused(tmp_path, edit, message):
    cases = cohort(10, 2)
    with pytest.raises(DatasetError, match=message):
        load_folds(_edited(tmp_path, edit, cases), cases)


def test_a_patient_in_two_parts_is_refused(tmp_path):
    cases = cohort(10, 0, scans_per_patient=2)

    def tear(content):
        content["parts"][1].append(content["parts"][0].pop())

    with pytest.raises(DatasetError, match="parts 1 and 2 share a patient"):
        load_folds(_edited(tmp_path, tear, cases), cases)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "folds.json").write_text("{")
    with pytest.raises(DatasetError, match="folds.json: not a readable folds file"):
        load_folds(tmp_path / "folds.json", cohort())


def test_every_part_has_scans_of_few_and_of_many_lesions():
    """Also where many lesions are small ones, so that pixels would sort the patients the other way round."""
    cases = cohort(40, 2)
    lesions = {case.case: 40 - number for number, case in enumerate(cases[:40])} | {"case-90": 0, "case-91": 0}
    for seed in range(5):
        for part in make_folds(cases, 10, seed, lesions).parts:
            numbers = sorted(lesions[case] for case in part)
            assert numbers[0] <= 10 and numbers[-1] > 30 and len(part) == 4
    # Among patients with equally many lesions the pixels decide.
    assert make_folds(cases, 10, 3, dict.fromkeys(lesions, 1)).parts == make_folds(cases, 10, 3).parts


def test_lesions_are_connected_areas_within_a_view():
    labels = np.zeros((12, 20), np.uint8)
    assert count_lesions(labels) == 0
    labels[1:3, 1:3] = 2
    labels[3, 3] = 2  # touches the first by a corner
    labels[6, 6] = 2
    labels[6, 5] = 1
    labels[9, 8:12] = 2  # lies across the line between the views: one in each
    assert count_lesions(labels) == 4


def test_hold_out_keeps_one_part_by_patient():
    cases = [*cohort(20, 4, scans_per_patient=2), Case("early-scan", "patient-004", "negative", 0)]
    for seed in range(6):
        split = hold_out(cases, 10, seed)
        assert len(split.validation) == 4 and len(split.train) == 36 and not split.test
        patient = {case.case: case.patient for case in cases}
        held_out = {patient[case] for case in split.validation}
        assert not held_out & {patient[case] for case in (*split.train, *split.negatives)}
        assert ("early-scan" in split.negatives) == ("patient-004" not in held_out)
    # A cohort of fewer patients than parts validates on one of them.
    assert len(hold_out(cohort(3), 10).validation) == 1
    with pytest.raises(SettingsError, match="2 patients with metastases: at least 3"):
        hold_out(cohort(2, 5), 10)


def published_cases():
    """Two with metastases and one normal in each part of a published split."""
    return [
        Case(f"case-{place}-{number}", f"patient-{place}{number}", group, 9 * (group == "positive"), part)
        for place, part in enumerate(("train", "validation", "test"))
        for number, group in enumerate(("positive", "positive", "negative"))
    ]


def test_a_published_split_is_one_fold_whose_normal_scans_keep_their_part(tmp_path):
    cases = published_cases()
    folds = published_folds(cases[::-1])
    split = folds.split(1)
    assert len(folds) == 1 and has_published_split(cases)
    assert split.train == ("case-0-0", "case-0-1") and split.negatives == ("case-0-2",)
    assert split.validation == ("case-1-0", "case-1-1") and split.test == ("case-2-0", "case-2-1")
    assert folds.negative_parts[0] == ("case-2-2",)
    with pytest.raises(SettingsError, match="the published split is fold 1"):
        folds.split(2)
    write_json(tmp_path / "folds.json", folds_to_json(folds))
    again = load_folds(tmp_path / "folds.json", cases)
    assert again == folds and again.sha256() == folds.sha256() != dataclasses.replace(folds, negative_parts=()).sha256()


def test_a_cross_validation_on_request_leaves_the_published_test_alone(tmp_path):
    cases = [*published_cases(), Case("case-0-3", "patient-03", "positive", 9, "train")]
    folds = make_folds(in_training_part(cases), 3)
    assert {case for part in folds.parts for case in part} == {"case-0-0", "case-0-1", "case-0-3"}
    assert folds.negatives == ("case-0-2",) and not folds.is_published
    write_json(tmp_path / "folds.json", folds_to_json(folds))
    assert load_folds(tmp_path / "folds.json", cases).parts == folds.parts


def test_a_published_split_must_be_of_all_scans_and_hold_no_patient_twice(tmp_path):
    cases = published_cases()
    other = Case("case-x", "patient-x", "positive", 9)
    assert not has_published_split([*cases, other]) and not has_published_split(cases[:6])
    with pytest.raises(SettingsError, match="set --folds"):
        published_folds([*cases, other])
    twice = [case._replace(patient="patient-00") if case.case == "case-2-2" else case for case in cases]
    write_json(tmp_path / "folds.json", folds_to_json(published_folds(twice)))
    with pytest.raises(DatasetError, match="parts 1 and 3 share a patient"):
        load_folds(tmp_path / "folds.json", twice)
