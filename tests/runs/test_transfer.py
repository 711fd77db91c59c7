"""Pre-training on another cohort: nobody in both, prepared alike, and a part of it kept for validation."""

import dataclasses

import pytest
from synthetic_shards import SyntheticShards

from doubleunet_bs.errors import DatasetError
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.runs.cohorts import check_cohorts
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.training.stages import pretraining_cases


@pytest.fixture
def prostate():
    return SyntheticShards(scans=30, seed=1, patient="other")


def changed_case(shards, index, **changes):
    cases = list(shards.cases)
    cases[index] = dataclasses.replace(cases[index], **changes)
    shards.cases = tuple(cases)


def test_two_cohorts_without_anything_in_common(synthetic_shards, prostate):
    check_cohorts(synthetic_shards, prostate)


@pytest.mark.parametrize("attribute", ["patient", "pixel_sha256", "source_sha256"])
def test_a_patient_or_scan_in_both_is_refused(synthetic_shards, prostate, attribute):
    changed_case(synthetic_shards, 7, source_sha256="ab" * 32)
    changed_case(prostate, 11, **{attribute: getattr(synthetic_shards.cases[7], attribute)})
    what = {"patient": "patient", "pixel_sha256": "scan", "source_sha256": "source file"}[attribute]
    with pytest.raises(DatasetError, match=f"other-shards: case-011 is of the same {what} as case-007"):
        check_cohorts(synthetic_shards, prostate)


@pytest.mark.parametrize("here, there", [("a", "b"), ("a", "a"), ("a", None), (None, "b"), (None, None)])
def test_pseudonyms_of_two_keys_are_refused_until_the_user_confirms(synthetic_shards, prostate, here, there):
    synthetic_shards.key_mark, prostate.key_mark = here, there
    if here and there and here != there:
        with pytest.raises(DatasetError, match="other-shards: prepared with another key .*--assume-disjoint-patients"):
            check_cohorts(synthetic_shards, prostate)
        check_cohorts(synthetic_shards, prostate, other_patients=True)
    else:
        check_cohorts(synthetic_shards, prostate)


def test_the_confirmation_does_not_hide_a_scan_in_both(synthetic_shards, prostate):
    synthetic_shards.key_mark, prostate.key_mark = "a", "b"
    changed_case(prostate, 11, pixel_sha256=synthetic_shards.cases[7].pixel_sha256)
    with pytest.raises(DatasetError, match="of the same scan as case-007"):
        check_cohorts(synthetic_shards, prostate, other_patients=True)


def test_scans_from_memory_have_no_source_file_in_common(synthetic_shards, prostate):
    assert synthetic_shards.cases[0].source_sha256 == prostate.cases[0].source_sha256 == ""
    check_cohorts(synthetic_shards, prostate)


def test_the_same_shards_twice_are_refused(synthetic_shards):
    with pytest.raises(DatasetError, match="the same shards"):
        check_cohorts(synthetic_shards, SyntheticShards())


def test_other_sizes_and_settings_are_refused_by_name(synthetic_shards, prostate):
    with pytest.raises(DatasetError, match="48 x 48 pixels, .* has 32 x 32"):
        check_cohorts(synthetic_shards, SyntheticShards(size=48, patient="other"))
    prostate.settings = PreparationSettings(background="log", brightness="per_view")
    with pytest.raises(DatasetError, match="background log there, otsu here; brightness per_view there, per_scan here"):
        check_cohorts(synthetic_shards, prostate)


@pytest.mark.parametrize("here, there", [(False, True), (True, False)])
def test_phantoms_and_patients_do_not_go_together(synthetic_shards, prostate, here, there):
    for shards, phantom in ((synthetic_shards, here), (prostate, there)):
        shards.cases = tuple(dataclasses.replace(case, phantom=phantom) for case in shards.cases)
    with pytest.raises(DatasetError, match="scans of the same kind"):
        check_cohorts(synthetic_shards, prostate)
    prostate.cases = tuple(dataclasses.replace(case, phantom=here) for case in prostate.cases)
    check_cohorts(synthetic_shards, prostate)


def test_the_labels_of_the_other_cohort_may_have_other_names(synthetic_shards, prostate):
    prostate.settings = PreparationSettings(classes={"metastase": 2, "benigno": 1})
    assert prostate.settings.to_json()["classes"] != synthetic_shards.settings.to_json()["classes"]
    check_cohorts(synthetic_shards, prostate)


@pytest.mark.parametrize("negatives", ["otsu", "none"])
def test_what_trains_and_what_validates(prostate, negatives):
    experiment = paper_experiment("dice-otsu-transfer", pretrain_negatives=negatives)
    train, validation = pretraining_cases(experiment, prostate)
    groups = [case.group for case in prostate.cases]
    assert train == sorted(train) and not set(train) & set(validation)
    # 25 positive scans in ten parts, of which one validates; five normal ones.
    assert len(validation) in (2, 3) and {groups[index] for index in validation} == {"positive"}
    assert len(train) == 25 - len(validation) + (5 if negatives == "otsu" else 0)
    assert pretraining_cases(experiment, prostate) == (train, validation)


def test_a_cohort_that_is_too_small(prostate):
    with pytest.raises(DatasetError, match="cannot pre-train: 2 patients"):
        pretraining_cases(paper_experiment("dice-otsu-transfer"), SyntheticShards(scans=2, patient="other"))
