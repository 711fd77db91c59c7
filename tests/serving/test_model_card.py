"""The card beside a model: what it must say, what it must not, and phantoms named in every line with a figure."""

import dataclasses
import re
import shutil

import pytest
from intensity_run import make_run, make_shards

from doubleunet_bs.__main__ import main
from doubleunet_bs.errors import RunError
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.inference.model_folder import find_model
from doubleunet_bs.inference.saved_model_check import hash_files
from doubleunet_bs.runs.create_run import create_run
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.runs.run_folder import open_run
from doubleunet_bs.serving.export import export_ensemble, export_fold
from doubleunet_bs.serving.model_card import card_page, model_card, write_model_card


@pytest.fixture
def fold(trained_run, tmp_path):
    return shutil.copytree(trained_run, tmp_path / "run") / "fold_01"


def write_card(fold, **changes):
    found = find_model(fold)
    write_model_card(fold / "saved_model", dataclasses.replace(found.description, **changes), found.trained.run)
    return (fold / "saved_model" / "model_card.md").read_text(), read_json(fold / "saved_model" / "model_card.json")


def test_it_says_which_weights_a_training_started_from(fold):
    experiment = {**find_model(fold).description.experiment, "start_from": "run_2024"}
    page, _ = write_card(fold, experiment=experiment)
    assert "\n- started from the weights of: run_2024\n" in page


def test_what_it_says(trained_run):
    page = (trained_run / "fold_01" / "saved_model" / "model_card.md").read_text()
    content = read_json(trained_run / "fold_01" / "saved_model" / "model_card.json")
    description = find_model(trained_run / "fold_01").description
    for words in (
        "# Model card: focal-tversky-otsu (changed settings), fold 1",
        "must not be used for diagnosis or treatment",
        "- trained on: 2 scans of 2 patients (breast 2)",
        "- best epoch chosen on: 2 scans of 2 patients (breast 2)",
        "- all scans of the cross-validation: 7 scans of 7 patients (breast 7), 1 of the scans normal",
        "Not recorded. Write licence, citation and approval into `about_data.txt`",
        "| 1 | 3 | 60.0 % | - | not evaluated | not evaluated | not evaluated |",
        "- bin: 4",
        "doi:10.3390/diagnostics13193042",
        description.weights_sha256,
        content["device_uid"],
    ):
        assert words in page, words
    assert content["files_sha256"] == hash_files(trained_run / "fold_01" / "saved_model")
    assert content["weights_sha256"] == description.weights_sha256
    assert page == card_page(content)
    # Made from counts: no case, no patient.
    assert not re.search(r"(case|patient)-[0-9a-f]{4}", page + str(content))
    assert str(trained_run) not in page + str(content)


def test_every_figure_of_phantoms_says_phantoms(fold):
    page, _ = write_card(fold, trained_on="phantoms")
    assert "Phantoms computed by doubleunet_bs (Apache-2.0). No scan of a patient." in page
    quoted = [line for line in page.splitlines() if "%" in line or re.search(r"\d scans|F1", line)]
    assert len(quoted) > 4
    assert [line for line in quoted if "phantom" not in line.lower()] == []
    assert "patients" not in " ".join(quoted).replace("nothing about patients", "")
    mixed, _ = write_card(fold, trained_on="mixed")
    assert "of 2 patients and phantoms" in mixed


def test_a_model_of_the_skeleton_promises_no_lesions(fold):
    found = find_model(fold)
    model = dataclasses.replace(found.description, experiment=paper_experiment("skeleton").to_json())
    (fold / "scores.json").write_text("{}")  # Its scores have a form of their own.
    card = model_card(model, found.trained.run)
    page = card_page(card | {"files_sha256": {}})
    assert "Divides the skeleton" in page and "Bone pixels, pooled over the scans" in page
    assert "misses lesions" not in page and "may be bone metastases" not in page


def test_a_model_that_found_nothing(fold):
    page, content = write_card(fold, validation_f1=0.0)
    assert page.splitlines()[2] == f"**{content['quality_warning']}**"
    assert "found no metastasis" in page.splitlines()[2]


def test_the_users_words_on_the_data(fold, tmp_path, synthetic_shards):
    (fold.parent / "about_data.txt").write_text("CC BY 4.0. Cite: Nobody et al.\n")
    assert "## Licence and citation of the data\n\nCC BY 4.0. Cite: Nobody et al.\n" in write_card(fold)[0]
    (fold.parent / "about_data.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match="about_data.txt: not readable as UTF-8 text"):
        write_card(fold)
    # It may be there before the training.
    new = tmp_path / "new"
    new.mkdir()
    (new / "about_data.txt").write_text("Mine.")
    run = open_run(fold.parent)
    assert create_run(new, run.experiment, synthetic_shards).path == new


@pytest.mark.slow
def test_test_figures_enter_when_the_fold_is_packaged(tmp_path, tensorflow):
    pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")
    run = make_run(tmp_path / "run", make_shards(tmp_path / "shards", phantom=True))
    for fold in (1, 2):
        export_fold(open_run(run), fold)
    arguments = ["evaluate", str(run), "--no-report", "--no-pictures"]
    assert main(arguments) == 0
    assert main(["serve-package", str(run / "fold_01"), "--out", str(tmp_path / "models")]) == 0
    [path] = tmp_path.glob("models/*/1/model_card.json")
    [fold] = read_json(path)["figures_by_fold"]
    scores = read_json(run / "fold_01" / "scores.json")
    assert (fold["test"]["f1"], fold["test"]["scans"]) == (scores["pooled"]["f1"], len(scores["scans"]))
    row = next(line for line in path.with_suffix(".md").read_text().splitlines() if line.startswith("| 1 (phantoms)"))
    assert f"{100 * scores['pooled']['f1']:.1f} %" in row
    # Scores of other weights are not its own.
    scores["model"]["weights_sha256"] = "0" * 64
    write_json(run / "fold_01" / "scores.json", scores)
    found = find_model(run / "fold_01")
    assert model_card(found.description, found.trained.run)["figures_by_fold"][0]["test"] is None
    export_ensemble(open_run(run), tmp_path / "ensemble")
    folds = read_json(tmp_path / "ensemble" / "model_card.json")["figures_by_fold"]
    assert [(one["fold"], one["test"] is None) for one in folds] == [(1, True), (2, False)]
