"""A run folder belongs to one experiment on one set of shards."""

import dataclasses
import json
import shutil
import threading

import pytest
from synthetic_shards import SyntheticShards

from doubleunet_bs.errors import DatasetError, RunError, SettingsError
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.runs.create_run import create_run, plan_run
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.runs.run_folder import KERAS_MODEL, open_run
from doubleunet_bs.training.stages import pretraining_cases


@pytest.fixture
def experiment():
    return paper_experiment("dice", folds=5, epochs=2)


def test_create_and_open(tmp_path, experiment, synthetic_shards):
    created = create_run(tmp_path / "run", experiment, synthetic_shards, fold=5)
    opened = open_run(tmp_path / "run")
    assert opened == created and opened.experiment == experiment
    content = json.loads((tmp_path / "run" / "experiment.json").read_text())
    assert content["is_paper_row"] is False and content["changed_settings"] == {"folds": 5, "epochs": 2}
    assert len(opened.folds(synthetic_shards)) == 5
    before = (tmp_path / "run" / "folds.json").read_bytes()
    create_run(tmp_path / "run", experiment, synthetic_shards)
    assert (tmp_path / "run" / "folds.json").read_bytes() == before


def test_a_row_on_scans_prepared_otherwise_is_not_the_papers(tmp_path, synthetic_shards):
    run = create_run(tmp_path / "row", paper_experiment("dice", folds=10), synthetic_shards)
    assert run.is_paper_row and open_run(run.path).is_paper_row
    synthetic_shards.settings = PreparationSettings(background="log", bin=4, classes={"tumour": 2})
    run = create_run(tmp_path / "coarse", paper_experiment("dice"), synthetic_shards)
    assert not run.is_paper_row
    assert run.changed_settings() == {"preparation.background": "log", "preparation.bin": 4}
    content = json.loads((run.path / "experiment.json").read_text())
    assert content["is_paper_row"] is False and content["changed_settings"] == run.changed_settings()


def test_another_experiment_is_refused_by_name_of_the_setting(tmp_path, experiment, synthetic_shards):
    create_run(tmp_path, experiment, synthetic_shards)
    other = paper_experiment("focal-tversky", folds=5, epochs=2)
    with pytest.raises(RunError, match=r"\(name dice there, focal-tversky here\): choose"):
        create_run(tmp_path, other, synthetic_shards)


def test_other_data_are_refused(tmp_path, experiment, synthetic_shards):
    run = create_run(tmp_path, experiment, synthetic_shards)
    with pytest.raises(RunError, match="not the shards"):
        create_run(tmp_path, experiment, SyntheticShards(seed=1))
    with pytest.raises(RunError, match="elsewhere: not the shards"):
        run.check_data(SyntheticShards(scans=30), "elsewhere")


def test_a_folder_with_something_else_is_left_alone(tmp_path, experiment, synthetic_shards):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty and not a run folder"):
        create_run(tmp_path, experiment, synthetic_shards)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("fold", [0, 6])
def test_an_impossible_fold_leaves_nothing_behind(tmp_path, experiment, synthetic_shards, fold):
    with pytest.raises(SettingsError, match="folds 1 to 5"):
        create_run(tmp_path / "run", experiment, synthetic_shards, fold)
    assert not (tmp_path / "run").exists()
    create_run(tmp_path / "run", experiment, synthetic_shards)
    with pytest.raises(SettingsError, match="folds 1 to 5"):
        create_run(tmp_path / "run", experiment, synthetic_shards, fold)


def test_a_folds_file_in_the_new_folder_counts(tmp_path, experiment, synthetic_shards):
    """`compare` tells users to copy one there."""
    first = create_run(tmp_path / "one", experiment, synthetic_shards)
    content = json.loads((first.path / "folds.json").read_text())
    content["parts"] = content["parts"][::-1]
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "folds.json").write_text(json.dumps(content))
    with pytest.raises(SettingsError, match="two/folds.json: has 5 parts, the experiment 10: set --folds"):
        create_run(tmp_path / "two", paper_experiment("dice"), synthetic_shards)
    planned = plan_run(tmp_path / "two", experiment, synthetic_shards)
    expected = first.folds(synthetic_shards).parts[::-1]
    assert planned.folds.parts == expected == planned.create().folds(synthetic_shards).parts


def test_what_is_no_run_folder_and_what_to_give(tmp_path, experiment, synthetic_shards):
    run = create_run(tmp_path / "run", experiment, synthetic_shards)
    run.fold_path(2).mkdir()
    with pytest.raises(RunError, match="gone: no such folder: give the --run folder"):
        open_run(tmp_path / "gone")
    for path in (tmp_path, run.fold_path(2)):
        with pytest.raises(RunError, match="not a run folder, it has no experiment.json: give the --run folder"):
            open_run(path)


def test_a_run_behind_links_opens(tmp_path, experiment, synthetic_shards):
    """The run, or a fold of it, may lie on another disk."""
    run = create_run(tmp_path / "run", experiment, synthetic_shards)
    (tmp_path / "scratch").mkdir()
    run.fold_path(1).symlink_to(tmp_path / "scratch")
    (tmp_path / "name").symlink_to(run.path)
    assert open_run(tmp_path / "name").experiment == experiment


DATA = r"experiment.json: the .* is (damaged|incomplete)"
SETTINGS = "not the settings of an experiment"


@pytest.mark.parametrize(
    ("part", "entry", "value", "message"),
    [
        ("data", "image_shape", [10**9, 10**9], DATA),
        ("data", "image_shape", [32], DATA),
        ("data", "image_shape", ["32", 32], DATA),
        ("data", "scans", "../../x", DATA),
        ("data", "parts", 3, DATA),
        ("data", "parts", [{"path": 1, "fingerprint": "x"}], DATA),
        ("data", "parts", None, DATA),
        ("data", "scans", None, DATA),
        ("data", "fingerprint", None, DATA),
        ("data", "cohort", None, DATA),
        ("experiment", "name", "../../victim", SETTINGS),
        ("experiment", "name", "x" * 101, SETTINGS),
        ("experiment", "name", "a\nb", SETTINGS),
        ("experiment", "epochs", 2.5, SETTINGS),
        ("experiment", "epochs", True, SETTINGS),
        ("experiment", "batch_size", "4", SETTINGS),
        ("experiment", "transfer", "no", SETTINGS),
        ("experiment", "encoder_weights", 7, SETTINGS),
        ("experiment", "loss_classes", ["2"], SETTINGS),
    ],
)
def test_what_comes_from_elsewhere_is_checked(tmp_path, experiment, synthetic_shards, part, entry, value, message):
    run = create_run(tmp_path / "run", experiment, synthetic_shards)
    content = json.loads((run.path / "experiment.json").read_text())
    content[part][entry] = value
    (run.path / "experiment.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=message):
        open_run(run.path)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format": 99}', '{"format": 1}', '{"format": 1, "data": {"path": "x"}}']
)
def test_a_damaged_description_is_refused(tmp_path, content):
    (tmp_path / "experiment.json").write_text(content)
    with pytest.raises(RunError, match="experiment.json"):
        open_run(tmp_path)


def test_trained_folds(tmp_path, experiment, synthetic_shards):
    run = create_run(tmp_path, experiment, synthetic_shards)
    assert run.trained_folds() == []
    for fold in (3, 1):
        run.fold_path(fold).mkdir()
        (run.fold_path(fold) / KERAS_MODEL).write_text("")
    run.fold_path(2).mkdir()
    assert run.trained_folds() == [1, 3]


def test_processes_that_make_the_same_run_at_once_find_the_same_run(tmp_path, experiment, synthetic_shards):
    """As the tasks of an array job do: each may meet what the others have half done."""
    start, runs, errors = threading.Barrier(6), [], []

    def make():
        start.wait()
        try:
            runs.append(create_run(tmp_path / "run", experiment, synthetic_shards))
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and all(run == runs[0] for run in runs) and len(runs) == 6
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["experiment.json", "folds.json"]


def test_a_folds_file_from_elsewhere(tmp_path, experiment, synthetic_shards):
    first = create_run(tmp_path / "one", experiment, synthetic_shards)
    content = json.loads((first.path / "folds.json").read_text())
    content["parts"] = content["parts"][::-1]
    own = tmp_path / "own.json"
    own.write_text(json.dumps(content))
    for _ in range(2):
        run = create_run(tmp_path / "two", experiment, synthetic_shards, folds_file=own)
        assert run.folds(synthetic_shards).parts == first.folds(synthetic_shards).parts[::-1]
    with pytest.raises(RunError, match="has other folds than"):
        create_run(tmp_path / "one", experiment, synthetic_shards, folds_file=own)
    # A folds.json that lies in the new folder counts as well: nothing is made of two that contradict each other.
    (tmp_path / "four").mkdir()
    shutil.copy(tmp_path / "one" / "folds.json", tmp_path / "four")
    with pytest.raises(RunError, match="four: has other folds than"):
        create_run(tmp_path / "four", experiment, synthetic_shards, folds_file=own)
    assert [file.name for file in (tmp_path / "four").iterdir()] == ["folds.json"]
    same = tmp_path / "one" / "folds.json"
    assert create_run(tmp_path / "four", experiment, synthetic_shards, folds_file=same).path.name == "four"
    with pytest.raises(SettingsError, match="own.json: has 5 parts, the experiment 10: set --folds"):
        create_run(tmp_path / "three", paper_experiment("dice"), synthetic_shards, folds_file=own)
    assert not (tmp_path / "three").exists()


def test_another_cohort_goes_with_transfer_and_only_with_it(tmp_path, synthetic_shards):
    row = paper_experiment("dice-otsu-transfer", folds=5)
    prostate = SyntheticShards(seed=1, patient="other")
    with pytest.raises(SettingsError, match="--pretrain-data"):
        create_run(tmp_path / "run", row, synthetic_shards)
    with pytest.raises(SettingsError, match="dice does not pre-train"):
        create_run(tmp_path / "run", paper_experiment("dice"), synthetic_shards, pretrain=prostate)
    assert not (tmp_path / "run").exists()
    run = create_run(tmp_path / "run", row, synthetic_shards, pretrain=prostate)
    assert open_run(run.path) == run and run.pretrain_data["fingerprint"] == prostate.fingerprint
    with pytest.raises(RunError, match="not the shards that .* pre-trains on"):
        third = SyntheticShards(seed=2, patient="third")
        create_run(tmp_path / "run", row, synthetic_shards, pretrain=third)
    content = json.loads((run.path / "experiment.json").read_text())
    content["pretrain_data"] = None
    (run.path / "experiment.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match="pre-training is incomplete"):
        open_run(run.path)


def without_normal_scans(shards: SyntheticShards) -> SyntheticShards:
    """The same with the cases that have metastases alone, as a cohort prepared without a patients.csv."""
    shards.cases = tuple(case for case in shards.cases if case.group == "positive")
    shards.fingerprint += "-positive"
    return shards


@pytest.mark.parametrize("name", ["dice-otsu", "focal-tversky-mining"])
def test_a_row_with_normal_scans_needs_normal_scans(tmp_path, synthetic_shards, name):
    row = paper_experiment(name, folds=5)
    without_normal_scans(synthetic_shards)
    with pytest.raises(SettingsError, match=f"^patient-shards: no normal scans to train {name} with: .*patients"):
        create_run(tmp_path / "run", row, synthetic_shards)
    assert not (tmp_path / "run").exists()
    run = create_run(tmp_path / "run", dataclasses.replace(row, negatives="none"), synthetic_shards)
    assert run.changed_settings()["negatives"] == "none" and not run.is_paper_row
    # The same where the run folder exists already.
    content = json.loads((run.path / "experiment.json").read_text())
    content["experiment"]["negatives"] = row.negatives
    (run.path / "experiment.json").write_text(json.dumps(content))
    with pytest.raises(SettingsError, match="no normal scans to train"):
        create_run(run.path, row, synthetic_shards)


def test_each_fold_needs_a_normal_scan_of_its_own(tmp_path, synthetic_shards):
    held_out = next(case.patient for case in synthetic_shards.cases if case.group == "positive")
    synthetic_shards.cases = tuple(
        dataclasses.replace(case, patient=held_out) if case.group == "negative" else case
        for case in synthetic_shards.cases
    )
    with pytest.raises(
        SettingsError, match="all normal scans are of patients who test or validate in fold [1-5]: prepare"
    ):
        create_run(tmp_path / "run", paper_experiment("dice-otsu", folds=5), synthetic_shards)
    assert not (tmp_path / "run").exists()


def test_a_pre_training_with_normal_scans_needs_normal_scans(tmp_path, synthetic_shards):
    row = paper_experiment("dice-otsu-transfer", folds=5)
    prostate = without_normal_scans(SyntheticShards(seed=1, patient="other"))
    with pytest.raises(SettingsError, match="^other-shards: no normal scans to pre-train dice-otsu-transfer with"):
        create_run(tmp_path / "run", row, synthetic_shards, pretrain=prostate)
    assert not (tmp_path / "run").exists()
    with pytest.raises(DatasetError, match="cannot pre-train: no normal scan is left"):
        pretraining_cases(row, prostate)
    row = dataclasses.replace(row, pretrain_negatives="none")
    run = create_run(tmp_path / "run", row, synthetic_shards, pretrain=prostate)
    assert run.changed_settings() == {"folds": 5, "pretrain_negatives": "none"}
