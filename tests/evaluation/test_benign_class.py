"""Benign lesions as a class of their own, from the annotation to the result of a scan."""

import dataclasses
import json

import numpy as np
import pytest
from intensity_run import SETTINGS, intensity_model, make_run, make_shards
from PIL import Image
from public_layouts import write_masks, write_pictures

from doubleunet_bs.__main__ import main
from doubleunet_bs.constants import BENIGN
from doubleunet_bs.errors import DatasetError, RunError, SettingsError
from doubleunet_bs.evaluation.scores.fold_scores import read_scores
from doubleunet_bs.files import read_json
from doubleunet_bs.phantom import make_cohort, make_phantom
from doubleunet_bs.preparation import open_shards, prepare_scan
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.runs.create_run import create_run
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.runs.run_folder import open_run
from doubleunet_bs.scans import BoneScan
from doubleunet_bs.scans.labels import load_class_map

OWN = dataclasses.replace(SETTINGS, benign="own")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("benign") / "shards", settings=OWN, phantom=False)


@pytest.fixture(scope="module")
def run(shards, tmp_path_factory, tensorflow):
    changes = {"classes": 4, "loss_classes": (1, 2, 3)}
    return make_run(tmp_path_factory.mktemp("benign") / "run", shards, folds=(1,), **changes)


@pytest.mark.parametrize("bin", [1, 4])
def test_an_outlined_benign_lesion_is_a_class_of_its_own(bin):
    phantom = make_phantom(0, 0)
    scan = BoneScan(phantom.anterior, phantom.posterior, None, "case")
    lesions = {"anterior": np.zeros((1024, 256), np.uint8)}
    lesions["anterior"][300:340, 100:140] = 1
    lesions["anterior"][320:360, 120:160] = 2
    usual = prepare_scan(scan, lesions, PreparationSettings(bin=bin))
    own = prepare_scan(scan, lesions, PreparationSettings(bin=bin, benign="own"))
    assert own.benign_pixels == np.count_nonzero(own.labels == BENIGN) == 1200 / bin**2
    assert not usual.benign_pixels and usual.labels.max() == 2
    np.testing.assert_array_equal(np.where(own.labels == BENIGN, 1, own.labels), usual.labels)
    assert lesions["anterior"].max() == 2 and not own.warnings


def test_all_uptake_outlined_as_benign_is_a_warning():
    phantom = make_phantom(0, 0)
    everything = {view: (getattr(phantom, view) > 0).astype(np.uint8) for view in ("anterior", "posterior")}
    scan = BoneScan(phantom.anterior, phantom.posterior, None, "case")
    assert any("outline lesions alone" in line for line in prepare_scan(scan, everything, OWN).warnings)


def test_a_class_map_may_say_benign(tmp_path):
    path = tmp_path / "classes.json"
    path.write_text('{"spur": "benign"}')
    assert load_class_map(path)["spur"] == 1


def test_the_label_benign_is_known_with_a_class_of_its_own(tmp_path, capsys):
    made = make_cohort(tmp_path / "made", 1, positive_fraction=1, seed=1)
    path = next((made / "labels").glob("*_anterior.json"))
    content = json.loads(path.read_text())
    corners = [[100, 300], [140, 300], [140, 340], [100, 340]]
    content["shapes"].append({**content["shapes"][0], "label": "Benign", "shape_type": "polygon", "points": corners})
    path.write_text(json.dumps(content))
    arguments = ["prepare", "--scans", str(made / "scans"), "--labels", str(made / "labels"), "--bin", "4"]
    assert main([*arguments, "--out", str(tmp_path / "usual")]) == 1
    assert "'Benign'" in capsys.readouterr().out
    assert main([*arguments, "--out", str(tmp_path / "own"), "--benign", "own"]) == 0
    assert "benign           a class of its own, in 1 scan\n" in capsys.readouterr().out
    [record] = open_shards(tmp_path / "own").cases
    assert 80 < record.benign_pixels < 121


def test_losses_and_first_biases_of_four_classes_by_hand(shards, tensorflow):
    from doubleunet_bs.network import DiceLoss
    from doubleunet_bs.training.build_network import starting_head_bias

    labels, answer = np.array([[[3, 3, 2]]]), np.eye(4, dtype="float32")[[[[3, 2, 2]]]]
    # Class 1 is neither there nor predicted; of 2 there is one false positive, of 3 one false negative.
    assert float(DiceLoss((1, 2, 3))(labels, answer)) == pytest.approx((0 + 1 / 4 + 1 / 4) / 3)
    dataset = open_shards(shards)
    pixels = np.bincount(dataset.labels(0).ravel(), minlength=4)
    assert pixels.tolist() == [0, 160 * 128 - 24 - 16, 24, 16]
    biases = starting_head_bias(paper_experiment("dice").with_benign(), dataset, [0])
    assert biases == pytest.approx(np.log(np.maximum(pixels, 1) / (pixels.sum() + 1)), abs=1e-9)
    assert starting_head_bias(paper_experiment("baseline"), dataset, [0]) == pytest.approx(
        [np.log(24 / (160 * 128 - 24 + 1))], abs=1e-9
    )


def four_classes(shape, classes, *args, **kwargs):
    assert classes == 4
    return intensity_model(*shape[:2], classes=4)


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """Public masks, prepared with a benign class, and one epoch of training."""
    root = tmp_path_factory.mktemp("public")
    pictures, masks = write_pictures(root / "pictures"), write_masks(root / "masks")
    arguments = ["--dataset", "bs80k-masks", "--scans", str(pictures), "--labels", str(masks), "--bin", "4"]
    assert main(["prepare", *arguments, "--benign", "own", "--out", str(root / "shards")]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("doubleunet_bs.training.build_network.double_unet", four_classes)
        train = ["train", "--data", str(root / "shards"), "--run", str(root / "run"), "--fold", "1"]
        short = ["--epochs", "1", "--encoder-weights", "none", "--batch-size", "2"]
        assert main([*train, "--experiment", "focal-tversky-otsu", *short]) == 0
    return root


@pytest.mark.slow
def test_public_masks_train_four_classes(public, capsys):
    dataset = open_shards(public / "shards")
    # A block of 6 x 6 pixels in each picture that has a mask.
    assert sum(record.benign_pixels > 0 for record in dataset.cases) == len(dataset.cases)
    experiment = open_run(public / "run").experiment
    assert (experiment.classes, experiment.loss_classes) == (4, (1, 2, 3)) and not experiment.is_paper_row
    assert main(["evaluate", str(public / "run")]) == 0
    said = capsys.readouterr().out
    assert "Benign Dice, both views: pooled" in said and "changed: " in said and "classes" in said
    model = read_json(public / "run" / "fold_01" / "saved_model" / "assets.extra" / "model.json", RunError, "model")
    assert model["class_names"] == ["air", "non-metastatic", "metastatic", "benign"]
    assert model["mask_values"] == {"0": "no lesion", "1": "metastatic", "2": "benign"}
    card = (public / "run" / "fold_01" / "saved_model" / "model_card.md").read_text()
    assert "outlines benign lesions as well" in card and "benign: own" in card
    assert "2 where benign is" in model["endpoints"]["serving_default"]["outputs"]["mask"]["meaning"]


@pytest.mark.parametrize("experiment", ["dice", "baseline"])
def test_the_classes_of_network_and_shards_go_together(shards, tmp_path, experiment):
    """The baseline of one class sees benign lesions as the rest that is not metastatic."""
    settings = {"folds": 3, "encoder_weights": "none"}
    if experiment == "baseline":
        assert create_run(tmp_path / "run", paper_experiment("baseline", **settings), open_shards(shards))
        return
    with pytest.raises(SettingsError, match="has a benign class: leave out --set classes=3"):
        create_run(tmp_path / "run", paper_experiment("dice", **settings), open_shards(shards))
    with pytest.raises(SettingsError, match="has no benign class: prepare it with --benign own"):
        own = paper_experiment("dice", **settings).with_benign()
        create_run(tmp_path / "run", own, open_shards(make_shards(tmp_path / "usual")))
    with pytest.raises(SettingsError, match="^negative mining knows no benign class: prepare without --benign own$"):
        paper_experiment("dice-mining").with_benign()
    with pytest.raises(SettingsError, match="3, benign, is missing for a network of 4 classes: add it to loss_classes"):
        paper_experiment("dice", classes=4)


def test_scores_of_benign_lesions_by_hand(run, shards, capsys):
    assert main(["evaluate", str(run)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    scores = read_scores(run / "fold_01" / "scores.json")
    for scan in (*scores.scans, *scores.normals):
        assert scan.benign and dataclasses.astuple(scan.benign.counts) == (16, 8, 0)
        assert dataclasses.astuple(scan.benign.lesions) == (1, 1, 2, 1)
        # Of metastatic pixels as without the class.
        assert scan.counts.fn == (8 if scan.group == "positive" else 0)
    benign = scores.benign
    assert benign.dice_pooled["both views"] == pytest.approx(32 / 40) and benign.dice_mean["both views"] == 0.5
    assert (benign.lesion_sensitivity, benign.false_positives_per_scan) == (1.0, 1.0)
    for line in (
        "Benign lesions: in test scans and normal scans",
        "Benign Dice, anterior: pooled 100.00 %",
        "Benign lesions: false positives per scan 1.000",
    ):
        assert line in said
    assert "Benign Dice, both views: pooled" in (run / "report.html").read_text()
    figures = read_json(run / "summary.json", RunError, "summary")["comparable"]["figures"]
    assert {one["name"]: one["mean"] for one in figures}["Benign Dice, both views: pooled"] == pytest.approx(0.8)


def test_masks_of_another_program_may_have_four_classes(run, shards, tmp_path, capsys):
    dataset = open_shards(shards)
    folder = tmp_path / "nnU-Net" / "fold_01"
    folder.mkdir(parents=True)
    for index, case in enumerate(dataset.cases):
        Image.fromarray(dataset.labels(index)).save(folder / f"{case.case}.png")
    assert main(["evaluate", str(run), "--predictions", str(folder.parent)]) == 0
    assert "Benign Dice, both views: pooled 100.00 %" in " ".join(capsys.readouterr().out.split())
    assert main(["export-nnunet", str(shards), "--run", str(run), "--out", str(tmp_path / "export")]) == 0
    raw = tmp_path / "export" / "nnUNet_raw" / "Dataset501_BoneScan"
    assert read_json(raw / "dataset.json", DatasetError, "")["labels"]["benign"] == 3
    image = Image.fromarray(np.full(dataset.image_shape, 4, np.uint8))
    for path in folder.glob("case-*.png"):
        image.save(path)
    assert main(["evaluate", str(run), "--predictions", str(folder.parent)]) == 1
    assert "values must be 0, 1, 2 and 3" in capsys.readouterr().err


@pytest.fixture(scope="module")
def saved(run):
    """The SavedModel of fold 1."""
    from doubleunet_bs.serving.export import export_fold

    export_fold(open_run(run), 1)
    return open_run(run).fold_path(1) / "saved_model"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
def test_an_exported_model_predicts_both_kinds_of_lesions(saved, engine):
    from doubleunet_bs.inference.predictor import Predictor

    predictor = Predictor(saved, engine=engine)
    assert predictor.description.largest_mask == 2 and predictor.description.has_benign
    phantom = make_phantom(0, 0)
    scan = BoneScan(phantom.anterior, phantom.posterior, None, "case")
    prepared = predictor.prepare(scan)
    prediction = predictor.segment([prepared])[0]
    grey = prepared.map_back(prepared.grey)
    for view in ("anterior", "posterior"):
        np.testing.assert_array_equal(prediction.masks[view] == 1, grey[view] > 150)
        np.testing.assert_array_equal(prediction.benign[view] == 1, (grey[view] > 100) & (grey[view] <= 150))
    strict = Predictor(saved, engine=engine, threshold=0.999999).segment([prepared])[0]
    assert strict.lesion_pixels["anterior"] <= prediction.lesion_pixels["anterior"]
    for view in ("anterior", "posterior"):
        np.testing.assert_array_equal(strict.benign[view], prediction.benign[view])


@pytest.mark.slow
def test_raw_counts_answer_with_both_kinds(saved, tensorflow):
    endpoint = tensorflow.saved_model.load(str(saved)).signatures["raw_counts"]
    phantom = make_phantom(0, 0)
    counts = np.stack([phantom.anterior, phantom.posterior])[None]
    mask = endpoint(counts=tensorflow.constant(counts))["mask"].numpy()[0]
    prepared = prepare_scan(BoneScan(phantom.anterior, phantom.posterior, None, "case"), settings=OWN)
    grey = prepared.map_back(prepared.grey)
    expected = np.stack([np.where(grey[view] > 150, 1, np.where(grey[view] > 100, 2, 0)) for view in grey])
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.slow
def test_a_result_tells_both_kinds_apart(saved, tmp_path, capsys):
    from doubleunet_bs.results.stored_result import read_result
    from doubleunet_bs.scans.labelme import rasterize

    [scan] = (make_cohort(tmp_path / "made", 1, seed=1) / "scans").iterdir()
    outputs = ["--outputs", "masks,overlay,labelme,report", "--out", str(tmp_path / "out")]
    assert main(["predict", str(scan), "--model", str(saved.parent), *outputs]) == 0
    [folder] = [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    result = read_json(folder / "result.json", RunError, "result")
    assert result["mask_values"]["2"] == "benign"
    for view in ("anterior", "posterior"):
        mask = np.load(folder / f"mask_{view}.npy")
        assert np.count_nonzero(mask == 2) == result["benign"][view]["pixels"] > 0
        assert np.count_nonzero(mask == 1) == result["views"][view]["metastatic_pixels"]
        drawn = rasterize(folder / f"annotation_{view}.json", result["model"]["preparation"]["classes"])
        np.testing.assert_array_equal(drawn, np.array([0, 2, 1], np.uint8)[mask])
    benign = "anterior {areas}".format(**result["benign"]["anterior"])
    assert f"benign areas        {benign}" in capsys.readouterr().out
    assert "areas predicted as benign" in (folder / "report.html").read_text()
    earlier = read_result(folder)
    areas = {view: sum(np.count_nonzero(area.inside) for area in earlier.areas[view]) for view in earlier.areas}
    assert areas == {view: result["views"][view]["metastatic_pixels"] for view in areas}
