"""The skeleton experiment: 13 classes, folds over all annotated skeletons, training, export, engines, evaluation."""

import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image
from small_network import small_network

from doubleunet_bs.__main__ import main
from doubleunet_bs.bsi import REGIONS
from doubleunet_bs.dataset.augmentation import mirror
from doubleunet_bs.dataset.joined_shards import SkeletonDataset
from doubleunet_bs.errors import DatasetError, RunError, SettingsError
from doubleunet_bs.phantom import make_cohort
from doubleunet_bs.preparation import PreparationSettings, open_shards
from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort
from doubleunet_bs.runs.experiments import Experiment, paper_experiment, parse_changes

SHORT = {"epochs": 1, "folds": 3, "encoder_weights": "none", "batch_size": 2, "bn_momentum": 0.5}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Five phantoms with skeletons, of which one has no metastases, and their shards."""
    folder = make_cohort(tmp_path_factory.mktemp("skeleton") / "phantoms", 5, positive_fraction=0.8, seed=9)
    (folder / "regions" / "phantom_0002_anterior.png").unlink()
    (folder / "regions" / "phantom_0002_posterior.png").unlink()
    settings = PreparationSettings(bin=4)
    job = CohortJob(folder / "scans", folder / "labels", folder / "shards", settings, regions=folder / "regions")
    assert prepare_cohort(job).written
    return folder


@pytest.fixture(scope="module")
def run(cohort):
    """Fold 1 trained for one epoch with a small network, and exported."""
    pytest.importorskip("tensorflow")
    from doubleunet_bs.training import build_network

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_network, "double_unet", small_network)
        arguments = ["--data", cohort / "shards", "--run", cohort / "run", "--experiment", "skeleton", "--fold", "1"]
        options = [f"--set={name}={value}" for name, value in SHORT.items()]
        assert main(["train", *map(str, arguments), *options, "--set=flip=per_view"]) == 0
    return cohort / "run"


def test_the_experiment_has_thirteen_classes_and_a_term_for_each_region():
    skeleton = paper_experiment("skeleton", loss="focal-tversky")
    assert (skeleton.classes, skeleton.loss_classes) == (13, tuple(range(1, 13))) and skeleton.is_skeleton
    assert skeleton.changed_settings() == {"loss": "focal-tversky"} and not paper_experiment("skeleton").is_paper_row
    assert Experiment.from_json(skeleton.to_json(), "file") == skeleton
    for changes, message in (
        ({"flip": "merged"}, "flip per_view"),
        ({"negatives": "otsu"}, "has none"),
        ({"transfer": True}, "does not pre-train"),
        ({"classes": 3, "loss_classes": (1, 2)}, "two experiments"),
        ({"loss_classes": (13,)}, "of 0 to 12 for skeleton"),
    ):
        with pytest.raises(SettingsError, match=message):
            paper_experiment("skeleton", **changes)
    with pytest.raises(SettingsError, match="some of 0, 1, 2, each once, and with --set classes=4 also 3$"):
        paper_experiment("dice", **parse_changes(["loss_classes=1,12"]))


def test_the_labels_are_regions_and_every_skeleton_counts(cohort):
    shards = open_shards(cohort / "shards")
    skeletons = SkeletonDataset.of(shards)
    assert [case.case for case in skeletons.cases] == [case.case for case in shards.cases if case.has_regions]
    assert len(skeletons) == 4 and {case.group for case in skeletons.cases} == {"positive"}
    # Index 1 of the skeletons is index 2 of the shards: the second scan has none.
    assert np.array_equal(skeletons.labels(1), shards.regions(2)) and np.array_equal(skeletons.grey(1), shards.grey(2))
    assert np.array_equal(skeletons.lesions(1), shards.labels(2))
    assert skeletons.cases[1].metastatic_pixels == np.count_nonzero(shards.regions(2))
    none = open_shards(cohort / "shards")
    none.cases = tuple(dataclasses.replace(case, has_regions=False) for case in none.cases)
    with pytest.raises(DatasetError, match="no skeleton is annotated"):
        SkeletonDataset.of(none)


def test_mirroring_each_view_leaves_the_sternum_in_front(cohort):
    labels = np.asarray(open_shards(cohort / "shards").regions(0))
    half = labels.shape[1] // 2
    shown = mirror(labels, "per_view")
    assert (shown[:, :half] == 5).any() and not (shown[:, half:] == 5).any()
    assert (mirror(labels, "merged")[:, half:] == 5).any()  # why this one is refused


def test_training_goes_on_from_a_skeleton_run_with_normal_patients(cohort, tmp_path):
    from doubleunet_bs.runs.create_run import create_run

    skeletons = SkeletonDataset.of(open_shards(cohort / "shards"))
    assert any(case.group == "negative" for case in open_shards(cohort / "shards").cases)
    first = create_run(tmp_path / "first", paper_experiment("skeleton", folds=3), skeletons)
    first.fold_path(1).mkdir()
    for name in ("model.keras", "best.weights.h5"):
        (first.fold_path(1) / name).touch()
    further = paper_experiment("skeleton", folds=3, start_from=str(first.fold_path(1)))
    second = create_run(tmp_path / "second", further, skeletons, 1)
    assert second.folds(skeletons).split(1).test == first.folds(skeletons).split(1).test
    with pytest.raises(DatasetError, match="whom fold 2 tests or validates"):
        create_run(tmp_path / "second", further, skeletons, 2)


@pytest.mark.slow
def test_training_export_and_engines_give_the_same_regions(cohort, run):
    from doubleunet_bs.inference import Predictor
    from doubleunet_bs.scans import read_scan

    scan = read_scan(cohort / "scans" / "phantom_0001.dcm")
    tensorflow = Predictor(run / "fold_01", "tensorflow", precision="float32", skeleton=True)
    described = tensorflow.description.to_json()
    assert described["class_names"][12] == "femora" and described["mask_values"]["5"] == "sternum"
    first = tensorflow.predict(scan)
    assert first.masks["anterior"].shape == (1024, 256) and 0 < first.masks["anterior"].max() <= 12
    second = Predictor(run / "fold_01" / "saved_model", "openvino", precision="float32", skeleton=True).predict(scan)
    for view in first.masks:
        assert (first.masks[view] != second.masks[view]).mean() < 1e-4
        assert np.allclose(first.probabilities[view], second.probabilities[view], atol=1e-4)
    # Neither kind of model passes for the other.
    with pytest.raises(RunError, match="a model of the skeleton: give one of lesions"):
        Predictor(run / "fold_01")
    # The raw views at once.
    import tensorflow as tf

    served = tf.saved_model.load(run / "fold_01" / "saved_model").signatures["raw_counts"]
    answer = served(counts=tf.constant(np.stack([scan.anterior, scan.posterior])[None]))
    assert np.array_equal(answer["mask"][0, 0].numpy(), first.masks["anterior"])
    assert set(answer) == {"mask", "region_probability", "gains", "body", "status"}


@pytest.mark.slow
def test_evaluation_gives_figures_of_every_region_and_view(cohort, run, capsys):
    assert main(["evaluate", str(run)]) == 0
    printed = capsys.readouterr().out
    assert all(region.name in printed for region in REGIONS) and "Mean Dice of the regions: " in printed
    scores = json.loads((run / "fold_01" / "scores.json").read_text())
    skeletons = SkeletonDataset.of(open_shards(cohort / "shards"))
    numbers = [index for index, case in enumerate(skeletons.cases) if case.case in scores["cases"]]
    truth = np.stack([skeletons.labels(index) for index in numbers])
    kept = run / "fold_01" / "predictions"
    masks = np.stack([np.array(Image.open(kept / f"{skeletons.cases[index].case}_regions.png")) for index in numbers])
    for region, entry in zip(REGIONS, scores["regions"], strict=True):
        for view, part in (("both", np.s_[:]), ("anterior", np.s_[:64]), ("posterior", np.s_[64:])):
            annotated, found = truth[..., part] == region.number, masks[..., part] == region.number
            expected = [int((a & b).sum()) for a, b in ((annotated, found), (~annotated, found), (annotated, ~found))]
            assert [entry["views"][view][name] for name in ("tp", "fp", "fn")] == expected
    page = (run / "report.html").read_text()
    assert "humeri" in page and "synthetic phantom" in page and "data:image/png" in page
    # After one epoch it finds hardly any bone.
    said = f"(fold 1: Dice {100 * scores['mean_dice']:.2f} %). Do not rely on its results."
    assert scores["mean_dice"] < 0.5
    assert f"Warning: Model not usable: Dice of the regions on the test scans is too low {said}" in printed
    assert 'class="box bad"><strong>Model not usable' in page and said in page
    assert (kept / f"{scores['cases'][0]}.png").is_file()


@pytest.mark.slow
def test_lesion_figures_are_refused_for_it(cohort, run, capsys):
    from doubleunet_bs.evaluation.evaluate import evaluate_run
    from doubleunet_bs.runs.create_run import create_run

    with pytest.raises(RunError, match="a run of the skeleton experiment"):
        evaluate_run(run)
    (run.parent / "other").symlink_to(run)
    assert main(["evaluate", str(run), str(run.parent / "other")]) in (1, 2)
    assert main(["evaluate", str(run), "--ensemble", "--data", str(cohort / "shards")]) == 1
    assert capsys.readouterr().err.count("run of the skeleton experiment") >= 1
    for name, dataset in (
        ("skeleton", open_shards(cohort / "shards")),
        ("dice", SkeletonDataset.of(open_shards(cohort / "shards"))),
    ):
        with pytest.raises(SettingsError, match="as SkeletonDataset"):
            create_run(cohort / "new", paper_experiment(name, folds=3), dataset)
    assert not (cohort / "new").exists()


@pytest.mark.slow
def test_predict_gives_the_bone_scan_index(cohort, run, tmp_path, capsys):
    from intensity_run import make_run

    from doubleunet_bs.bsi import WEIGHT_TABLES, bone_scan_index
    from doubleunet_bs.preparation.geometry import KEPT_ROWS
    from doubleunet_bs.runs.run_folder import open_run
    from doubleunet_bs.serving.export import export_fold

    lesions = make_run(tmp_path / "lesions", cohort / "shards", folds=(1,), experiment="dice")
    export_fold(open_run(lesions), 1)
    arguments = [
        str(cohort / "scans" / "phantom_0001.dcm"),
        "--model",
        str(lesions / "fold_01"),
        "--engine",
        "tensorflow",
    ]
    arguments += ["--skeleton", str(run / "fold_01"), "--outputs", "masks,report"]
    assert main(["predict", *arguments, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    [folder] = (tmp_path / "out").glob("case-*")
    result = json.loads((folder / "result.json").read_text())
    index = result["bone_scan_index"]
    assert index["table"] == "icrp110-female" and index["table_reason"] == "by the sex in the header"
    assert f"{index['value']:.2f} % by icrp110-female" in printed
    # After one epoch the model of the skeleton finds hardly any bone, and the result says so where warnings are.
    assert any("unreliable model of the skeleton" in line for line in result["warnings"])
    masks = {view: np.load(folder / f"mask_{view}.npy").astype(bool) for view in ("anterior", "posterior")}
    regions = {view: np.load(folder / f"regions_{view}.npy") for view in masks}
    for view in masks:
        assert np.array_equal(np.array(Image.open(folder / f"regions_{view}.png")), regions[view])
    rows = {view: result["views"][view]["window"]["top"] for view in masks}
    expected = bone_scan_index(
        masks,
        regions,
        WEIGHT_TABLES["icrp110-female"],
        tuple(result["pixel_spacing_mm"]),
        {view: (top, top + KEPT_ROWS) for view, top in rows.items()},
    )
    assert index["value"] == pytest.approx(expected.value, abs=1e-12) and index["views"] == expected.views
    page = (folder / "report.html").read_text()
    assert "Bone Scan Index by region" in page and "humeri" in page and "No cut-off" in page
    # The parts add up to the index, not to 100 %.
    assert "part of the index, points" in page and re.search(
        r"alone: anterior \d+\.\d\d %, posterior \d+\.\d\d %\.", page
    )
    # The same scan again is done; with another skeleton model, or none, it is not the same result.
    again = ["predict", *arguments, "--out", str(tmp_path / "out"), "--skip-existing"]
    assert main(again) == 0 and "done before" in capsys.readouterr().out
    without = [word for word in again if word not in ("--skeleton", str(run / "fold_01"))]
    assert main(without) == 1 and "another model of the skeleton" in capsys.readouterr().err
    chosen = ["--out", str(tmp_path / "male"), "--weights", "icrp110-male"]
    assert main(["predict", *arguments, *chosen]) == 0 and "by icrp110-male" in capsys.readouterr().out
    # Neither model passes for the other, and a table needs a skeleton.
    swapped = [str(run / "fold_01") if word == str(lesions / "fold_01") else word for word in arguments]
    assert main(["predict", *swapped, "--out", str(tmp_path / "no")]) == 1
    assert "a model of the skeleton: give one of lesions" in capsys.readouterr().err
    wrong = [word for word in arguments if word not in ("--skeleton", str(run / "fold_01"))]
    assert main(["predict", *wrong, "--out", str(tmp_path / "no"), "--weights", "spiers1968"]) == 2
