"""A run folder belongs to one experiment on one set of shards."""

import json

import pytest
from synthetic_shards import SyntheticShards

from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.training.experiments import paper_experiment
from doubleunet_bs.training.run_folder import KERAS_MODEL, create_run, open_run


@pytest.fixture
def experiment():
    return paper_experiment("dice", folds=5, epochs=2)


def test_create_and_open(tmp_path, experiment, synthetic_shards):
    created = create_run(tmp_path / "run", experiment, synthetic_shards, "shards", fold=5)
    opened = open_run(tmp_path / "run")
    assert opened == created and opened.experiment == experiment
    content = json.loads((tmp_path / "run" / "experiment.json").read_text())
    assert content["is_paper_row"] is False and content["changed_settings"] == {"folds": 5, "epochs": 2}
    assert len(opened.folds(synthetic_shards)) == 5
    before = (tmp_path / "run" / "folds.json").read_bytes()
    create_run(tmp_path / "run", experiment, synthetic_shards, "shards")
    assert (tmp_path / "run" / "folds.json").read_bytes() == before


def test_another_experiment_is_refused_by_name_of_the_setting(tmp_path, experiment, synthetic_shards):
    create_run(tmp_path, experiment, synthetic_shards, "shards")
    other = paper_experiment("focal-tversky", folds=5, epochs=2)
    with pytest.raises(RunError, match="name dice there, focal-tversky here; loss dice there, focal-tversky here"):
        create_run(tmp_path, other, synthetic_shards, "shards")


def test_other_data_are_refused(tmp_path, experiment, synthetic_shards):
    run = create_run(tmp_path, experiment, synthetic_shards, "shards")
    with pytest.raises(RunError, match="not the shards"):
        create_run(tmp_path, experiment, SyntheticShards(seed=1), "shards")
    with pytest.raises(RunError, match="elsewhere: not the shards"):
        run.check_data(SyntheticShards(scans=30), "elsewhere")


def test_a_folder_with_something_else_is_left_alone(tmp_path, experiment, synthetic_shards):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty and not a run folder"):
        create_run(tmp_path, experiment, synthetic_shards, "shards")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("fold", [0, 6])
def test_an_impossible_fold_leaves_nothing_behind(tmp_path, experiment, synthetic_shards, fold):
    with pytest.raises(SettingsError, match="folds 1 to 5"):
        create_run(tmp_path / "run", experiment, synthetic_shards, "shards", fold)
    assert not (tmp_path / "run").exists()


def test_the_users_own_folds_are_honoured(tmp_path, experiment, synthetic_shards):
    first = create_run(tmp_path / "one", experiment, synthetic_shards, "shards")
    parts = json.loads((first.path / "folds.json").read_text())
    parts["parts"] = parts["parts"][::-1]
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "folds.json").write_text(json.dumps(parts))
    second = create_run(tmp_path / "two", experiment, synthetic_shards, "shards")
    assert second.folds(synthetic_shards).parts == first.folds(synthetic_shards).parts[::-1]


def test_not_a_run_folder(tmp_path):
    with pytest.raises(RunError, match="not a run folder"):
        open_run(tmp_path)
    with pytest.raises(RunError, match="not a run folder"):
        open_run(tmp_path / "gone")


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format": 99}', '{"format": 1}', '{"format": 1, "data": {"path": "x"}}']
)
def test_a_damaged_description_is_refused(tmp_path, content):
    (tmp_path / "experiment.json").write_text(content)
    with pytest.raises(RunError, match="experiment.json"):
        open_run(tmp_path)


def test_trained_folds(tmp_path, experiment, synthetic_shards):
    run = create_run(tmp_path, experiment, synthetic_shards, "shards")
    assert run.trained_folds() == []
    for fold in (3, 1):
        run.fold_path(fold).mkdir()
        (run.fold_path(fold) / KERAS_MODEL).write_text("")
    run.fold_path(2).mkdir()
    assert run.trained_folds() == [1, 3]
