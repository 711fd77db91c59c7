"""All folds together: the average by hand, and that no scan the folds have seen gets in."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from intensity_run import SETTINGS, intensity_model, make_run, make_shards, write_fold

from doubleunet_bs.errors import DatasetError, RunError
from doubleunet_bs.evaluation.evaluate_ensemble import evaluate_ensemble, open_seen
from doubleunet_bs.evaluation.scorer import EvaluationSettings, open_model
from doubleunet_bs.evaluation.scores.fold_scores import read_scores
from doubleunet_bs.evaluation.tables import summary_text
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.preparation.shards import open_shards
from doubleunet_bs.runs.run_folder import open_run

QUICK = EvaluationSettings(pictures=False, show_progress=False)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("others") / "hospital_b", first=100, phantom=True)


@pytest.fixture(scope="module")
def scored(trained_run, others, tmp_path_factory):
    run = shutil.copytree(trained_run, tmp_path_factory.mktemp("ensemble") / "run")
    return run, *evaluate_ensemble(run, others, QUICK)


def test_equal_folds_together_are_as_good_as_one(scored):
    run, summary, folder = scored
    assert folder == run / "ensemble" / "hospital_b"
    pooled = summary.folds[0].pooled
    assert (pooled.tp, pooled.fp, pooled.fn) == (6 * 16, 4 + 8 + 12 + 16 + 20 + 24, 6 * 8)
    # The normal scan was never trained on.
    found = summary.folds[0].detection
    assert (found.sensitivity, found.specificity, found.auc) == (1.0, 1.0, 1.0)
    assert summary.folds[0].threshold.value == 100
    assert summary.folds[0].postprocessed is None


def test_files_name_members_and_shards(scored, others):
    """An ensemble's scans are not those the run was trained on: the report names both."""
    run, summary, folder = scored
    content = json.loads((folder / "scores.json").read_text())
    assert read_scores(folder / "scores.json").to_json() == content
    assert [member["fold"] for member in content["ensemble"]] == [1, 2] and content["scans_are"] == "phantoms"
    assert json.loads((folder / "summary.json").read_text()) == json.loads(json.dumps(summary.to_json()))
    names = "predictions report.html scores.json summary.csv summary.json table.tex"
    assert sorted(path.name for path in folder.iterdir()) == names.split()
    own, shown = open_run(run).data["fingerprint"][:16], open_shards(others).fingerprint[:16]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert own != shown and "averaged" in page
    assert f"shards of these scans {shown}…, trained on the shards {own}…" in page


def test_nothing_is_predicted_twice(scored, others, monkeypatch):
    run, summary, _ = scored
    monkeypatch.setattr(
        "doubleunet_bs.evaluation.scorer.open_model", lambda *_: pytest.fail("the networks were loaded")
    )
    assert evaluate_ensemble(run, others, QUICK, report=False)[0].to_json() == summary.to_json()


def test_probabilities_are_averaged(tmp_path, tensorflow):
    """One fold calls grey above 100 metastatic, the other above 104; both are equally sure: together above 102."""
    paths = []
    for number, level in enumerate((100, 104)):
        model = intensity_model(32, 128, level=level)
        paths.append(tmp_path / f"{number}.keras")
        model.save(paths[-1])
    grey = np.tile(np.arange(128, dtype=np.uint8)[None] + 60, (32, 1))[None]
    probability, mask = open_model(paths)(grey)
    assert probability.dtype == np.float32 and mask.dtype == np.uint8
    single = [1 / (1 + np.exp(-(grey.astype(float) - (level + 0.5)))) for level in (100, 104)]
    np.testing.assert_allclose(probability, np.mean(single, axis=0), atol=2e-5)
    np.testing.assert_array_equal(mask, (grey >= 103).astype(np.uint8))


def test_networks_of_one_class_and_of_different_sizes(tmp_path, tensorflow):
    paths = []
    for size in (32, 48):
        paths.append(tmp_path / f"{size}.keras")
        intensity_model(size, size, level=100, classes=1).save(paths[-1])
    _, mask = open_model([paths[0], paths[0]])(np.full((1, 32, 32), 120, np.uint8))
    assert mask.all()
    with pytest.raises(RunError, match="images of different sizes"):
        open_model(paths)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("case", "of the same case as case-000000000006"),
        ("patient", "of the same patient as case-000000000006"),
        # Other pseudonyms, since the key is another, but the same counts.
        ("pixel_sha256", "of the same scan as case-000000000006"),
    ],
)
def test_scans_that_were_seen_are_refused(trained_run, shards, others, tmp_path, entry, message):
    copy = shutil.copytree(others, tmp_path / "copy")
    content = read_json(copy / "dataset.json")
    content["cases"][3][entry] = read_json(shards / "dataset.json")["cases"][6][entry]
    write_json(copy / "dataset.json", content)
    with pytest.raises(DatasetError, match=message):
        evaluate_ensemble(trained_run, copy, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize(("here", "there", "said"), [("a", "b", True), ("a", "a", False), (None, "b", False)])
def test_the_tables_say_that_patients_could_not_be_compared(tmp_path, here, there, said):
    shards = make_shards(tmp_path / "own", key_mark=here)
    others = make_shards(tmp_path / "others", first=100, key_mark=there)
    run = make_run(tmp_path / "run", shards)
    summary, folder = evaluate_ensemble(run, others, QUICK)
    sentence = "The shards of the training have pseudonyms of another key"
    assert (sentence in summary_text(summary)) is said
    # The CSV file holds figures only, which spreadsheets and pandas read.
    for name in ("summary.json", "table.tex", "report.html"):
        assert (sentence in (folder / name).read_text(encoding="utf-8")) is said


@pytest.mark.slow
def test_they_say_so_where_the_pre_training_alone_has_another_key(tmp_path):
    keys = {"own": "a", "prostate": "b", "others": "a"}
    shards = {
        name: make_shards(tmp_path / name, first=100 * n, key_mark=key) for n, (name, key) in enumerate(keys.items())
    }
    run = make_run(tmp_path / "run", shards["own"])
    content = read_json(run / "experiment.json")
    prostate = open_shards(shards["prostate"])
    content["pretrain_data"] = {"path": str(prostate.path), "fingerprint": prostate.fingerprint}
    write_json(run / "experiment.json", content)
    summary, _ = evaluate_ensemble(run, shards["others"], QUICK, report=False)
    assert summary.provenance.trained_elsewhere == "pre-training"
    # What was seen in the pre-training is refused as well.
    with pytest.raises(DatasetError, match="prostate: holds the same scans as .*prostate: name other shards"):
        evaluate_ensemble(run, shards["prostate"], QUICK)


def test_the_runs_own_shards_are_refused(trained_run, shards):
    with pytest.raises(DatasetError, match="holds the same scans as .*: name other shards"):
        evaluate_ensemble(trained_run, shards, QUICK)


def test_scans_prepared_otherwise_are_refused(trained_run, tmp_path):
    other = make_shards(tmp_path / "log", first=200, settings=PreparationSettings(bin=SETTINGS.bin, background="log"))
    with pytest.raises(DatasetError, match=r"other settings than .* \(background log there, otsu here\)"):
        evaluate_ensemble(trained_run, other, QUICK)


def test_shards_that_moved(trained_run, others, shards, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run")
    content = read_json(run / "experiment.json")
    content["data"]["parts"][0]["path"] = str(tmp_path / "gone")
    write_json(run / "experiment.json", content)
    with pytest.raises(DatasetError, match="gone"):
        evaluate_ensemble(run, others, QUICK)
    summary, _ = evaluate_ensemble(run, others, QUICK, trained_on=[shards], report=False)
    assert summary.folds[0].pooled.tp == 96


def test_a_new_fold_makes_another_ensemble(trained_run, others, shards, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run")
    evaluate_ensemble(run, others, QUICK, report=False)
    dataset = open_shards(shards)
    write_fold(open_run(run), dataset, 3, intensity_model(*dataset.image_shape, level=250))
    summary, _ = evaluate_ensemble(run, others, QUICK, report=False)
    assert len(summary.folds[0].about["ensemble"]) == 3
    # Two of three networks still call 200 metastatic.
    assert summary.folds[0].pooled.tp == 96


def test_shards_of_one_name_do_not_replace_each_other(trained_run, others, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run")
    _, first = evaluate_ensemble(run, others, QUICK, report=False)
    before = {path.name: path.read_bytes() for path in first.iterdir() if path.is_file()}
    other = make_shards(tmp_path / "elsewhere" / others.name, first=300)
    _, second = evaluate_ensemble(run, other, QUICK, report=False)
    assert second.name == f"{others.name}-{open_shards(other).fingerprint[:8]}"
    assert {path.name: path.read_bytes() for path in first.iterdir() if path.is_file()} == before
    # Each is found again.
    assert evaluate_ensemble(run, others, QUICK, report=False)[1] == first
    assert evaluate_ensemble(run, other, QUICK, report=False)[1] == second


def test_without_a_positive_scan_there_is_nothing_to_find(trained_run, others, tmp_path):
    copy = shutil.copytree(others, tmp_path / "copy")
    content = read_json(copy / "dataset.json")
    for case in content["cases"]:
        case["group"] = "negative"
    write_json(copy / "dataset.json", content)
    with pytest.raises(DatasetError, match="no scan with metastases"):
        evaluate_ensemble(trained_run, copy, QUICK)
    run = make_run(tmp_path / "untrained", others, folds=())
    with pytest.raises(RunError, match="no fold is trained"):
        evaluate_ensemble(run, others, QUICK)


def test_scans_of_the_pretraining_were_seen_as_well(trained_run, shards, others, tmp_path):
    """A run with transfer has noted two sets of shards."""
    own, other = open_shards(shards), open_shards(others)
    noted = {"path": str(others), "fingerprint": other.fingerprint}

    def paths(run, *trained_on):
        return {stage: [one.path for one in found] for stage, found in open_seen(run, trained_on).items()}

    run = dataclasses.replace(open_run(trained_run), pretrain_data=noted)
    assert paths(run) == {"training": [own.path], "pre-training": [other.path]}
    moved = shutil.copytree(others, tmp_path / "moved")
    run = dataclasses.replace(run, pretrain_data=noted | {"path": str(tmp_path / "gone")})
    with pytest.raises(DatasetError, match="gone: the shards that .* are gone: name them with --trained"):
        open_seen(run)
    assert paths(run, moved) == {"training": [own.path], "pre-training": [moved]}
    with pytest.raises(RunError, match="was not trained on it"):
        open_seen(open_run(trained_run), [moved])
    run = dataclasses.replace(run, pretrain_data=noted | {"fingerprint": "another"})
    with pytest.raises(RunError, match="not the shards"):
        open_seen(run)
