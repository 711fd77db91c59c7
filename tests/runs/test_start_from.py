"""A fold that starts from a fold of an earlier run: never on patients whom that fold has seen."""

import dataclasses
import shutil

import pytest
from intensity_run import make_run, make_shards

from doubleunet_bs.dataset.folds import load_folds
from doubleunet_bs.dataset.joined_shards import open_all_shards
from doubleunet_bs.errors import DatasetError, RunError, SettingsError
from doubleunet_bs.evaluation.evaluate import provenance_of_runs
from doubleunet_bs.evaluation.evaluate_ensemble import open_seen
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.preparation.shards import open_shards
from doubleunet_bs.runs.create_run import create_run, plan_run
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.runs.run_folder import open_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tensorflow):
    """A run whose folds 1 and 2 are trained; its shards; those of new patients with the same key and another one."""
    folder = tmp_path_factory.mktemp("earlier")
    make_shards(folder / "shards", key_mark="key")
    make_shards(folder / "new", first=100, key_mark="key")
    make_shards(folder / "stranger", first=200, key_mark="another")
    make_run(folder / "run", folder / "shards")
    return folder


def experiment(start, **changes):
    settings = {"folds": 3, "epochs": 1, "encoder_weights": "none", "negatives": "otsu"}
    return paper_experiment("focal-tversky", **{**settings, "start_from": str(start), **changes})


def plan(path, start, shards, numbers=(1,), other_patients=False, **changes):
    return plan_run(path, experiment(start, **changes), shards, numbers, other_patients=other_patients)


def test_patients_keep_their_parts_when_the_cohort_grows(folder, tmp_path):
    grown = open_all_shards([folder / "shards", folder / "new"])
    found = plan(tmp_path / "run", folder / "run", grown, (1, 2)).folds
    earlier = open_run(folder / "run").folds(open_shards(folder / "shards"))
    assert [set(part) & set(sum(earlier.parts, ())) for part in found.parts] == [set(part) for part in earlier.parts]
    assert sorted(len(part) for part in found.parts) == [4, 4, 4]
    assert set(found.negatives) > set(earlier.negatives)
    # None of these patients was in the earlier run.
    assert len(plan(tmp_path / "run", folder / "run", open_shards(folder / "new"), folds=4).folds) == 4


def test_each_fold_starts_from_its_own_or_is_refused(folder, tmp_path):
    shards = open_shards(folder / "shards")
    plan(tmp_path / "run", folder / "run", shards, (1, 2))
    plan(tmp_path / "run", folder / "run" / "fold_01", shards, (1,))
    # Fold 1 was trained on what fold 2 tests.
    with pytest.raises(DatasetError, match=r"fold_01: trained on the patient of case-.*, whom fold 2 tests .*--from"):
        plan(tmp_path / "run", folder / "run" / "fold_01", shards, (2,))
    with pytest.raises(RunError, match=r"fold_03: not a trained fold \(trained: 1, 2\)"):
        plan(tmp_path / "run", folder / "run", shards, (3,))
    assert not (tmp_path / "run").exists()


def test_another_scan_of_a_patient_who_was_trained_on_is_found(folder, tmp_path):
    """Not its own pixels: the pseudonym alone says so."""
    new = open_shards(folder / "new")
    old = open_shards(folder / "shards")
    earlier = open_run(folder / "run").folds(old).split(1)
    plan(tmp_path / "a", folder / "run" / "fold_01", new)
    patient = next(case.patient for case in old.cases if case.case == earlier.train[0])
    tested = plan(tmp_path / "a", folder / "run" / "fold_01", new).folds.split(1).test[0]
    new.cases = tuple(dataclasses.replace(case, patient=patient) if case.case == tested else case for case in new.cases)
    # As this patient is known, the folds are those of the run; with folds of one's own the scan would be tested.
    write_json(tmp_path / "folds.json", {"format": 1, "parts": _parts_with(new, tested), "negatives": _negatives(new)})
    with pytest.raises(DatasetError, match=f"trained on the patient of {tested}"):
        plan_run(
            tmp_path / "a",
            experiment(folder / "run" / "fold_01"),
            new,
            (1,),
            folds_file=tmp_path / "folds.json",
        )


def _parts_with(shards, first):
    others = [case.case for case in shards.cases if case.group == "positive" and case.case != first]
    return [[first], others[:2], others[2:]]


def _negatives(shards):
    return [case.case for case in shards.cases if case.group == "negative"]


def test_normal_scans_that_trained_the_start_are_not_tested_as_unseen(folder, tmp_path):
    shards = open_shards(folder / "shards")
    with pytest.raises(DatasetError, match="trained on the patient of case-"):
        plan(tmp_path / "run", folder / "run", shards, negatives="none")


def of_public_data(folder, part):
    """New patients in the three parts of a published split; the normal scan of the earlier run is in `part`, too."""
    [known] = [case.patient for case in open_shards(folder / "shards").cases if case.group == "negative"]
    shards = open_shards(folder / "new")
    *positive, other, normal = shards.cases
    cases = [
        dataclasses.replace(case, part=own)
        for case, own in zip(positive, ("train", "train", "train", "validation", "test"), strict=True)
    ]
    other = dataclasses.replace(other, group="negative", part="train")
    shards.cases = (*cases, other, dataclasses.replace(normal, patient=known, part=part))
    return shards


@pytest.mark.parametrize("negatives", ["none", "otsu"])
def test_a_published_split_tests_the_normal_scans_of_its_test_part(folder, tmp_path, negatives):
    start = folder / "run" / "fold_01"
    plan(tmp_path / "run", start, of_public_data(folder, "train"), folds=1, negatives=negatives)
    tested = of_public_data(folder, "test")
    with pytest.raises(DatasetError, match=f"trained on the patient of {tested.cases[-1].case}, whom fold 1 tests"):
        plan(tmp_path / "run", start, tested, folds=1, negatives=negatives)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"classes": 1, "negatives": "none"}, RunError, "a network of 3 classes, not 1"),
        ({"folds": 4}, SettingsError, "has 3 folds of these patients: give --folds 3"),
    ],
)
def test_another_network_or_number_of_folds(folder, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        plan(tmp_path / "run", folder / "run", open_shards(folder / "shards"), **changes)


def test_patients_that_cannot_be_compared_need_a_confirmation_once(folder, tmp_path):
    stranger = open_shards(folder / "stranger")
    start = experiment(folder / "run" / "fold_01")
    with pytest.raises(DatasetError, match="prepared with another key .*--assume-disjoint-patients"):
        create_run(tmp_path / "run", start, stranger)
    run = create_run(tmp_path / "run", start, stranger, other_patients=True)
    create_run(tmp_path / "run", start, stranger, fold=2)  # Confirmed for the run.
    assert any("--assume-disjoint-patients" in note for note in provenance_of_runs([run], stranger).notes)
    compared = dataclasses.replace(run, disjoint_patients=False)
    assert not any("--assume-disjoint-patients" in note for note in provenance_of_runs([compared], stranger).notes)


def test_shards_that_are_gone_need_a_confirmation(folder, tmp_path):
    copy = shutil.copytree(folder / "run", tmp_path / "earlier")
    content = read_json(copy / "experiment.json")
    content["data"]["parts"][0]["path"] = str(tmp_path / "gone")
    write_json(copy / "experiment.json", content)
    new = open_shards(folder / "new")
    with pytest.raises(DatasetError, match="gone: the shards that trained .*earlier are not there"):
        plan(tmp_path / "run", copy / "fold_01", new)
    plan(tmp_path / "run", copy / "fold_01", new, other_patients=True)


def test_what_the_start_started_from_counts_as_well(folder, tmp_path):
    """A chain of three runs: the last may not test whom the first was trained on."""
    new, old = open_shards(folder / "new"), open_shards(folder / "shards")
    second = create_run(tmp_path / "second", experiment(folder / "run" / "fold_01"), new)
    shutil.copytree(folder / "run" / "fold_01", second.fold_path(1))
    with pytest.raises(DatasetError, match="trained on the patient of case-"):
        plan(tmp_path / "third", second.fold_path(1), old, (2,))
    seen = open_seen(second)
    assert {stage: [one.fingerprint for one in found] for stage, found in seen.items()} == {
        "training": [new.fingerprint],
        "earlier training": [old.fingerprint],
    }


@pytest.mark.slow
def test_the_start_and_its_folds_stay_with_the_run(folder, tmp_path, small_training, capsys):
    """From the command line: the weights that train are those of the earlier fold, and the run is no paper row."""
    from doubleunet_bs.__main__ import main

    run = tmp_path / "run"
    new = ["--data", folder / "shards", folder / "new", "--run", run, "--experiment", "focal-tversky-otsu"]
    options = ["--from", folder / "run", "--folds", 3, "--epochs", 1, "--encoder-weights", "none"]
    assert main(["train", *map(str, [*new, *options, "--fold", 1])]) == 0
    assert f"encoder     from {folder / 'run'}, like all layers\n" in capsys.readouterr().out
    environment = read_json(run / "fold_01" / "environment.json")
    assert environment["initial_weights_sha256"] == environment["start_sha256"] is not None
    assert str(folder) not in (run / "fold_01" / "environment.json").read_text()
    opened = open_run(run)
    assert opened.changed_settings()["start_from"] == str(folder / "run") and len(opened.parts) == 2
    # The run alone gives both shards and the start.
    assert main(["train", "--run", str(run), "--fold", "2"]) == 0
    assert main(["evaluate", str(run)]) == 0
    assert load_folds(run / "folds.json", open_all_shards([folder / "shards", folder / "new"]).cases)


@pytest.fixture
def small_training(monkeypatch):
    from intensity_run import intensity_model

    monkeypatch.setattr(
        "doubleunet_bs.training.build_network.double_unet", lambda shape, *args, **kwargs: intensity_model(*shape[:2])
    )
