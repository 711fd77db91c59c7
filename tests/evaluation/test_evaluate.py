"""evaluate.py on a run whose scores are known by hand: see `intensity_run`."""

import csv
import json
import shutil

import pytest
from intensity_run import FALSE_PIXELS, intensity_model, make_run, make_shards, write_fold

from doubleunet_bs.errors import DatasetError, RunError, SettingsError
from doubleunet_bs.evaluation.evaluate import evaluate_run, score_fold
from doubleunet_bs.evaluation.paper_tables import PAPER_ROWS, provenance
from doubleunet_bs.evaluation.scorer import EvaluationSettings
from doubleunet_bs.evaluation.scores.fold_scores import read_scores
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.pixel_counts import PixelCounts
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.preparation.shards import open_shards
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.runs.run_folder import open_run

QUICK = {"pictures": False, "report": False, "show_progress": False}


def wrong_pixels(case):
    return FALSE_PIXELS[int(case.removeprefix("case-"), 16)]


@pytest.fixture(scope="module")
def evaluated(trained_run, tmp_path_factory):
    path = shutil.copytree(trained_run, tmp_path_factory.mktemp("evaluated") / "run")
    return path, evaluate_run(path, show_progress=False, batch_size=3)


def test_scores_by_hand(evaluated):
    path, _ = evaluated
    folds = json.loads((path / "folds.json").read_text())
    for number in (1, 2):
        content = json.loads((path / f"fold_0{number}" / "scores.json").read_text())
        test = folds["parts"][number - 1]
        assert [scan["case"] for scan in content["scans"]] == test
        for scan in content["scans"]:
            assert (scan["tp"], scan["fp"], scan["fn"]) == (16, wrong_pixels(scan["case"]), 8)
            assert scan["sensitivity"] == 16 / 24
        wrong = sum(map(wrong_pixels, test))
        pooled = content["pooled"]
        assert (pooled["tp"], pooled["fp"], pooled["fn"]) == (32, wrong, 16)
        assert pooled["f1"] == 64 / (64 + wrong + 16)
        # Grey levels of at least 100 take in both lesions and all wrong pixels; no other level does better.
        threshold = content["threshold"]
        assert (threshold["value"], threshold["tp"], threshold["fp"], threshold["fn"]) == (100, 48, wrong, 0)
        validating = folds["parts"][number]
        assert content["validation_scans"] == validating
        assert threshold["validation_f1"] == 96 / (96 + sum(map(wrong_pixels, validating)))


def test_scores_say_what_they_belong_to(evaluated, shards):
    path, _ = evaluated
    content = json.loads((path / "fold_02" / "scores.json").read_text())
    assert (content["fold"], content["experiment"], content["version"]) == (2, "focal-tversky-otsu", "0.1.0")
    assert content["image"] == {"rows": 160, "columns": 128, "bin": 4}
    assert content["data_fingerprint"] == open_shards(shards).fingerprint
    # Of the two epochs with F1 0.6 the one with the lower loss.
    assert (content["model"]["best_epoch"], content["model"]["validation_f1"]) == (3, 0.6)


def test_summary(evaluated):
    path, summary = evaluated
    content = json.loads((path / "summary.json").read_text())
    assert content == json.loads(json.dumps(summary.to_json()))
    first, second = content["folds"]
    assert content["mean"]["precision"] == pytest.approx((first["precision"] + second["precision"]) / 2)
    assert content["mean"]["sensitivity"] == pytest.approx(2 / 3)
    assert content["threshold_mean"]["sensitivity"] == 1.0
    assert content["cross_validation_folds"] == 3
    rows = list(csv.DictReader((path / "summary.csv").read_text().splitlines()))
    assert float(rows[0]["f1"]) == summary.folds[0].pooled.f1
    assert r"\bottomrule" in (path / "table.tex").read_text()
    assert (path / "report.html").stat().st_size < 1_000_000


def test_a_changed_preparation_is_among_the_changed_settings(evaluated):
    path, summary = evaluated
    changed = {"encoder_weights": "none", "folds": 3, "preparation.bin": 4}
    assert summary.changed_settings == changed
    for file in (path / "summary.json", path / "fold_01" / "scores.json"):
        assert json.loads(file.read_text())["changed_settings"] == changed


@pytest.mark.slow
def test_results_say_in_which_precision_the_folds_were_trained(evaluated, own_run):
    """As `environment.json` does."""
    path, before = evaluated
    assert [read_json(path / name)["arithmetic"] for name in ("summary.json", "fold_01/scores.json")] == ["float32"] * 2
    environment = own_run / "fold_01" / "environment.json"
    write_json(environment, {**read_json(environment), "precision": "mixed_bfloat16"})
    summary = evaluate_run(own_run, pictures=False, show_progress=False)
    assert read_json(own_run / "fold_01" / "scores.json")["arithmetic"] == "mixed_bfloat16"
    assert read_json(own_run / "fold_02" / "scores.json")["arithmetic"] == "float32"
    assert read_json(own_run / "summary.json")["arithmetic"] == summary.training_precision == "mixed_bfloat16, float32"
    assert "training precision mixed_bfloat16, float32</p>" in (own_run / "report.html").read_text()
    assert summary.changed_settings == before.changed_settings


def test_scores_read_back_and_each_test_scan_has_a_picture(evaluated):
    path, _ = evaluated
    for number in (1, 2):
        source = path / f"fold_0{number}" / "scores.json"
        scores = read_scores(source)
        assert scores.to_json() == json.loads(source.read_text())
        pictures = {file.name for file in (path / f"fold_0{number}" / "predictions").glob("*.png")}
        assert pictures == {f"{scan.case}.png" for scan in scores.scans}


def test_lesions_by_hand(evaluated):
    """Two true lesions, one of them found; two predicted, one of them wrong; on every scan."""
    path, summary = evaluated
    for number in (1, 2):
        content = json.loads((path / f"fold_0{number}" / "scores.json").read_text())
        assert (content["area_unit"], content["lesion_overlap"]) == ("mm2", 0.0)
        counts = content["lesions"]
        assert (counts["true"], counts["found"], counts["predicted"], counts["right"]) == (4, 2, 4, 2)
        for scan in content["scans"]:
            found, missed = scan["true_lesions"]
            assert (found["view"], found["pixels"], found["common"], found["matched"]) == ("anterior", 16, 16, True)
            # Pixels of 2.4 x 2.4 mm, binned 4 x 4.
            assert found["area"] == pytest.approx(16 * 2.4**2 * 16)
            assert (missed["view"], missed["pixels"], missed["matched"]) == ("posterior", 8, False)
            right, wrong = scan["predicted_lesions"]
            assert (right["overlap"], right["matched"]) == (1.0, True)
            # Probabilities are promised to 1e-5 only: some processors round softmax to 0.99999994.
            assert right["probability"] == pytest.approx(1.0, abs=1e-5)
            assert (wrong["pixels"], wrong["matched"]) == (wrong_pixels(scan["case"]), False)
            assert scan["views"]["posterior"]["tp"] == 0 and scan["views"]["posterior"]["fn"] == 8
    assert [(row.true, row.found) for row in (summary.lesions,)] == [(8, 4)]


def test_the_filter_is_learnt_on_the_validation_scans(evaluated):
    path, _ = evaluated
    for number in (1, 2):
        content = json.loads((path / f"fold_0{number}" / "scores.json").read_text())
        after = content["postprocessed"]
        wrong = [wrong_pixels(case) for case in content["validation_scans"]]
        # The right lesions have 16 pixels: dropping wrong ones below that helps, dropping more does not.
        smallest = after["filter"]["smallest"]
        if min(wrong) < 16:
            expected = 16 if max(wrong) < 16 else min(size for size in (*wrong, 16) if size > min(wrong))
            assert smallest == pytest.approx(expected * 2.4**2 * 16)
            assert after["filter"]["validation_f1"] > after["filter"]["validation_f1_raw"]
        else:
            assert smallest is None and after["pooled"] == content["pooled"]
        limit = 0 if smallest is None else smallest / (2.4**2 * 16) - 1e-6
        kept = sum(size for size in (wrong_pixels(scan["case"]) for scan in content["scans"]) if size >= limit)
        assert (after["pooled"]["tp"], after["pooled"]["fp"], after["pooled"]["fn"]) == (32, kept, 16)
        # The raw figures stay where they were.
        assert content["pooled"]["fp"] == sum(wrong_pixels(scan["case"]) for scan in content["scans"])


def test_normal_scans_that_trained_give_no_specificity(evaluated):
    path, _ = evaluated
    content = json.loads((path / "fold_01" / "scores.json").read_text())
    assert content["normals"]["scans"] == []
    found = content["detection"]
    assert (found["sensitivity"], found["specificity"], found["auc"]) == (1.0, None, None)
    assert "training data in every fold" in found["reason"]


def test_normal_scans_that_did_not_train_are_scored(tmp_path, shards, tensorflow):
    run = make_run(tmp_path / "run", shards, folds=(1,), experiment="dice")
    summary = evaluate_run(run, **QUICK)
    found = summary.folds[0].detection
    assert [scan.case for scan in summary.folds[0].normals] == ["case-000000000006"]
    assert (found.specificity, found.auc, found.false_positives_per_normal_scan, found.reason) == (1.0, 1.0, 0.0, None)
    without = evaluate_run(run, normals=False, **QUICK)
    assert without.folds[0].detection.specificity is None
    assert without.folds[0].detection.reason == "normal scans were not scored, as asked"


def test_what_is_predicted_already_needs_no_network(evaluated, monkeypatch):
    path, before = evaluated
    monkeypatch.setattr("doubleunet_bs.evaluation.scorer.open_model", lambda *_: pytest.fail("the network was loaded"))
    after = evaluate_run(path, show_progress=False)
    assert after.to_json() == before.to_json()
    # Another rule for lesions changes lesions, and nothing else.
    stricter = evaluate_run(path, overlap=0.9, **QUICK)
    assert stricter.mean == before.mean
    evaluate_run(path, **QUICK)


def test_predicting_again_is_possible(own_run):
    evaluate_run(own_run, fold=1, **QUICK)
    kept = next((own_run / "fold_01" / "predictions").glob("*.npz"))
    content = kept.read_bytes()
    kept.write_bytes(b"damaged")
    with pytest.raises(RunError, match="evaluate with --recompute"):
        evaluate_run(own_run, fold=1, **QUICK)
    evaluate_run(own_run, fold=1, recompute=True, **QUICK)
    assert kept.read_bytes() == content


def test_a_picture_never_shows_the_prediction_of_other_weights(own_run, shards):
    """New weights are predicted and scored without pictures; the next run draws them, though it predicts nothing."""
    evaluate_run(own_run, fold=1, report=False, show_progress=False)
    folder = own_run / "fold_01" / "predictions"
    before = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    assert len(before) == 2
    run, dataset = open_run(own_run), open_shards(shards)
    shutil.rmtree(own_run / "fold_02")
    write_fold(run, dataset, 2, intensity_model(*dataset.image_shape, level=250))
    for name in ("model.keras", "best.weights.h5"):
        shutil.copy(own_run / "fold_02" / name, own_run / "fold_01" / name)
    summary = evaluate_run(own_run, fold=1, **QUICK)
    assert summary.folds[0].pooled == PixelCounts(0, 0, 48)
    assert not list(folder.glob("*.png"))
    evaluate_run(own_run, fold=1, report=False, show_progress=False)
    after = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in before)


def test_folds_scored_by_different_rules_are_not_put_together(own_run):
    evaluate_run(own_run, fold=1, **QUICK)
    with pytest.raises(RunError, match=r"lesion overlap of 0, not 0\.5: evaluate all folds again"):
        evaluate_run(own_run, fold=2, overlap=0.5, **QUICK)
    with pytest.raises(RunError, match=r"fold_01.scores\.json: scored with normal scans, unlike now: evaluate all"):
        evaluate_run(own_run, fold=2, normals=False, **QUICK)
    # Refused before anything was done.
    assert not (own_run / "fold_02" / "scores.json").exists() and not (own_run / "fold_02" / "predictions").exists()
    evaluate_run(own_run, normals=False, **QUICK)
    before = (own_run / "fold_02" / "scores.json").read_bytes()
    with pytest.raises(RunError, match=r"fold_01.scores\.json: scored without normal scans, unlike now"):
        evaluate_run(own_run, fold=2, **QUICK)
    assert (own_run / "fold_02" / "scores.json").read_bytes() == before


def test_where_the_scans_come_from(tmp_path, tensorflow):
    """Phantoms or patients; the paper's row needs patients and the paper's settings."""
    for phantom, expected in ((True, "phantoms"), (False, "patients")):
        dataset = open_shards(make_shards(tmp_path / expected, phantom=phantom))
        found = provenance(paper_experiment("dice"), dataset.cases, dataset.settings)
        assert (found.scans, found.changed_preparation, found.row) == (expected, {"bin": 4}, None)
        usual = PreparationSettings(classes={"meta": 2})
        unchanged = provenance(paper_experiment("dice"), dataset.cases, usual)
        assert unchanged.row == PAPER_ROWS["dice"]
        assert unchanged.paper == (PAPER_ROWS["dice"] if expected == "patients" else None)
        assert provenance(paper_experiment("dice", epochs=3), dataset.cases, usual).row is None
    one, other = (open_shards(tmp_path / name).cases for name in ("phantoms", "patients"))
    assert provenance(paper_experiment("dice"), (*one, *other), usual).scans == "mixed"


def test_pictures_of_other_scans_go(own_run, shards):
    folder = own_run / "fold_01" / "predictions"
    folder.mkdir()
    (folder / "case-of-before.png").touch()
    (folder / "notes.txt").touch()
    run, dataset = open_run(own_run), open_shards(shards)
    score_fold(run, dataset, run.folds(dataset), 1, EvaluationSettings(show_progress=False))
    assert not (folder / "case-of-before.png").exists()
    assert (folder / "notes.txt").exists()


@pytest.mark.slow
def test_one_fold_keeps_the_scores_of_the_others_unless_their_weights_were_replaced(own_run):
    evaluate_run(own_run, fold=2, **QUICK)
    assert not (own_run / "fold_01" / "scores.json").exists()
    assert [fold.fold for fold in evaluate_run(own_run, fold=1, **QUICK).folds] == [1, 2]
    with open(own_run / "fold_02" / "best.weights.h5", "ab") as file:
        file.write(b"other")
    assert [fold.fold for fold in evaluate_run(own_run, fold=1, **QUICK).folds] == [1]


@pytest.mark.parametrize(
    ("fold", "error", "message"),
    [(0, SettingsError, "1 to 3"), (4, SettingsError, "1 to 3"), (3, RunError, "fold 3 is not trained; trained: 1, 2")],
)
def test_impossible_folds(trained_run, fold, error, message):
    with pytest.raises(error, match=message):
        evaluate_run(trained_run, fold=fold, show_progress=False)


def test_no_run_another_format_and_nothing_trained(own_run, tmp_path):
    with pytest.raises(RunError, match="not a run folder"):
        evaluate_run(tmp_path)
    for fold in (1, 2):
        shutil.rmtree(own_run / f"fold_0{fold}")
    with pytest.raises(RunError, match="no fold is trained yet: use `doubleunet-bs train --run [^ ]* --fold 1`"):
        evaluate_run(own_run)
    (own_run / "fold_02").mkdir()
    (own_run / "fold_02" / "state.npz").touch()
    with pytest.raises(RunError, match="no fold is trained yet: use `doubleunet-bs train --run [^ ]* --resume`"):
        evaluate_run(own_run)
    write_json(own_run / "experiment.json", {**read_json(own_run / "experiment.json"), "format": 99})
    with pytest.raises(RunError, match=r"experiment\.json: not a run description of format"):
        evaluate_run(own_run)


@pytest.mark.slow
def test_shards_that_moved_or_are_others(own_run, shards, tmp_path):
    content = read_json(own_run / "experiment.json")
    content["data"]["parts"][0]["path"] = str(tmp_path / "gone")
    write_json(own_run / "experiment.json", content)
    with pytest.raises(DatasetError, match="--data"):
        evaluate_run(own_run)
    moved = shutil.copytree(shards, tmp_path / "moved")
    assert evaluate_run(own_run, fold=1, data=moved, **QUICK).folds
    whole = (moved / "labels-00000.npy").read_bytes()
    (moved / "labels-00000.npy").write_bytes(whole[:-1] + b"\2")
    with pytest.raises(DatasetError, match="labels-00000.npy: its content has changed"):
        evaluate_run(own_run, data=moved)
    (moved / "labels-00000.npy").write_bytes(whole)
    (moved / "dataset.json").write_text((moved / "dataset.json").read_text().replace("patient-", "patient-9"))
    with pytest.raises(RunError, match="not the shards"):
        evaluate_run(own_run, data=moved)


def test_folds_that_changed_since_training(own_run, shards):
    folds = read_json(own_run / "folds.json")
    folds["parts"] = folds["parts"][1:] + folds["parts"][:1]
    write_json(own_run / "folds.json", folds)
    with pytest.raises(RunError, match="not the split"):
        evaluate_run(own_run, show_progress=False)
    (own_run / "folds.json").unlink()
    with pytest.raises(RunError, match="folds.json is missing"):
        evaluate_run(own_run, show_progress=False)
    assert not (own_run / "folds.json").exists()


def test_damaged_parts_are_named(own_run):
    (own_run / "fold_01" / "model.keras").write_bytes(b"not a model")
    with pytest.raises(RunError, match="model.keras: not a readable Keras model"):
        evaluate_run(own_run, show_progress=False)
    assert not (own_run / "fold_01" / "scores.json").exists()
    (own_run / "fold_01" / "history.csv").unlink()
    with pytest.raises(RunError, match="history.csv"):
        evaluate_run(own_run, show_progress=False)


@pytest.mark.parametrize("content", ["[]", "{}", '{"format": 1}', '{"format": 2}', '{"format": 3}'])
def test_damaged_score_file(tmp_path, content):
    (tmp_path / "scores.json").write_text(content)
    what = r"damaged \(KeyError" if "3" in content else "not a score file of format 3: evaluate all folds again"
    with pytest.raises(RunError, match=f"scores.json: {what}"):
        read_scores(tmp_path / "scores.json")
