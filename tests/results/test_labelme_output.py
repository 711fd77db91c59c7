"""Predictions as annotations: drawn back exactly, corrected, prepared again, trained on."""

import base64
import csv
import io
import json
import math

import cv2
import numpy as np
import pytest
from handmade_prediction import make_prediction
from intensity_run import LEVEL, SETTINGS, intensity_model
from PIL import Image

from doubleunet_bs.__main__ import main
from doubleunet_bs.dicom_files.sources import Source
from doubleunet_bs.errors import RunError
from doubleunet_bs.findings.lesion_list import find_areas
from doubleunet_bs.preparation import prepare_scan
from doubleunet_bs.preparation.shards import open_shards
from doubleunet_bs.results.labelme_output import annotation_paths, class_label, lesion_shapes
from doubleunet_bs.results.result_files import JobSettings
from doubleunet_bs.results.result_folder import write_prediction
from doubleunet_bs.scans import read_scan
from doubleunet_bs.scans.labelme import draw_shapes, rasterize

CLASSES = {"metastasis": 2}


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.8, 2, 5])
def test_drawn_back_to_exactly_the_mask(sigma, tmp_path):
    rng = np.random.default_rng(1)
    noise = cv2.GaussianBlur(rng.normal(size=(300, 200)).astype(np.float32), (0, 0), sigma)
    mask = (noise > noise.std()).astype(np.uint8)
    shapes = lesion_shapes(find_areas(mask))
    assert np.array_equal(draw_shapes(tmp_path, shapes, mask.shape, CLASSES), 2 * mask)
    assert sum(shape["shape_type"] == "polygon" for shape in shapes) > 0.9 * len(shapes) > 0


def test_an_area_with_a_hole_is_a_mask_shape(tmp_path):
    mask = np.zeros((40, 40), np.uint8)
    mask[5:12, 5:12] = 1
    mask[8, 8] = 0
    mask[20:25, 3:9] = 1
    shapes = lesion_shapes(find_areas(mask))
    assert [shape["shape_type"] for shape in shapes] == ["mask", "polygon"]
    assert shapes[0]["points"] == [[5, 5], [11, 11]]
    assert np.array_equal(draw_shapes(tmp_path, shapes, mask.shape, CLASSES), 2 * mask)
    assert lesion_shapes(find_areas(np.zeros((40, 40), np.uint8))) == []


def test_label_of_the_users_own_class_map():
    assert class_label({"metastasis": 2, "a": 2}) == "metastasis"
    assert class_label({"filia": 2, "benign": 1}) == "filia"
    assert class_label({"benign": 1}) == "metastasis"


def test_files_beside_the_result(scan, tmp_path):
    written = write_prediction(JobSettings(tmp_path, outputs=("labelme",)), scan, make_prediction(scan))
    kinds = [lesion["annotation_shape"] for lesion in written.result["lesions"]]
    assert kinds and set(kinds) == {"polygon"}
    for view in ("anterior", "posterior"):
        path = written.folder / f"annotation_{view}.json"
        content = json.loads(path.read_text())
        with Image.open(written.folder / content["imagePath"]) as picture:
            assert (picture.size, picture.mode) == ((256, 1024), "L")
        assert content["imageData"] is None
        assert np.array_equal(rasterize(path, CLASSES), 2 * make_prediction(scan).masks[view])
        assert len(content["shapes"]) == sum(lesion["view"] == view for lesion in written.result["lesions"])


def test_names_that_prepare_understands(tmp_path):
    one = annotation_paths(tmp_path, [Source("deep/S.1.dcm")])
    assert [path.name for path in one.values()] == ["S.1_anterior.json", "S.1_posterior.json"]
    two = annotation_paths(tmp_path, [Source("A.dcm"), Source("x.zip", "in/B.ima")])
    assert [path.name for path in two.values()] == ["A_anterior.json", "B_posterior.json"]
    assert list(annotation_paths(tmp_path, [Source("A.dcm")], ["posterior"])) == ["posterior"]
    (tmp_path / "A_posterior.json").write_text("{}")
    with pytest.raises(RunError, match="A_posterior.json: exists already and may hold corrections"):
        annotation_paths(tmp_path, [Source("A.dcm")])


@pytest.mark.slow
def test_correct_prepare_train(trained_run, tmp_path, monkeypatch, capsys):
    """The circle: predict, correct an outline by hand, prepare with the outlines, train on the shards."""
    from doubleunet_bs.phantom import make_cohort

    scans = make_cohort(tmp_path / "cohort", 3, positive_fraction=1.0, seed=5) / "scans"
    labels, out = tmp_path / "labels", tmp_path / "out"
    model = str(trained_run / "fold_01")
    arguments = ["predict", str(scans), "--model", model, "--out", str(out), "--labelme", str(labels)]
    assert main([*arguments, "--outputs", "masks"]) == 0
    files = sorted(path.name for path in labels.iterdir())
    assert files == [f"phantom_000{n}_{view}.json" for n in (1, 2, 3) for view in ("anterior", "posterior")]

    # A physician draws a lesion more and removes another one.
    corrected = labels / "phantom_0002_anterior.json"
    content = json.loads(corrected.read_text())
    with Image.open(io.BytesIO(base64.b64decode(content["imageData"]))) as picture:
        assert picture.size == (256, 1024)
    removed = content["shapes"].pop(0)
    points = [[100, 400], [140, 400], [140, 440], [100, 440]]
    content["shapes"].append({"label": "metastasis", "points": points, "shape_type": "polygon", "flags": {}})
    corrected.write_text(json.dumps(content))

    # Nothing overwrites what may have been corrected.
    assert main([*arguments, "--outputs", "masks", "--overwrite"]) == 1
    assert "may hold corrections" in capsys.readouterr().err
    assert json.loads(corrected.read_text()) == content

    with open(labels / "patients.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["scan", "patient", "cancer", "metastases"],
                *([f"phantom_000{n}", f"p{n}", "breast", "yes"] for n in (1, 2, 3)),
            ]
        )
    shards = tmp_path / "shards"
    arguments = ["--scans", scans, "--labels", labels, "--out", shards, "--bin", "4", "--key", tmp_path / "key.json"]
    assert main(["prepare", *map(str, arguments)]) == 0
    dataset = open_shards(shards)
    by_counts = {case.pixel_sha256: index for index, case in enumerate(dataset.cases)}
    for number in (1, 2, 3):
        scan = read_scan(scans / f"phantom_000{number}.dcm")
        prepared = prepare_scan(scan, settings=SETTINGS)
        expected = prepared.grey > LEVEL
        found = np.asarray(dataset.labels(by_counts[scan.pixel_sha256])) == 2
        if number != 2:
            assert np.array_equal(found, expected)
            continue
        place = prepared.placements["anterior"]
        drawn = np.s_[
            math.ceil((400 - place.top) / 4) : (440 - place.top) // 4,
            math.ceil((100 - place.left) / 4) : (140 - place.left) // 4,
        ]
        assert found[drawn].all() and not expected[drawn].all()
        column, row = removed["points"][0]
        assert not found[int(row - place.top) // 4, int(column - place.left) // 4]
        assert expected[int(row - place.top) // 4, int(column - place.left) // 4]

    monkeypatch.setattr(
        "doubleunet_bs.training.build_network.double_unet", lambda shape, *args, **kwargs: intensity_model(*shape[:2])
    )
    arguments = ["--data", shards, "--run", tmp_path / "run", "--experiment", "focal-tversky", "--fold", 1]
    arguments += ["--folds", 3, "--epochs", 1, "--encoder-weights", "none"]
    assert main(["train", *map(str, arguments)]) == 0
    fold = tmp_path / "run" / "fold_01"
    assert (fold / "best.weights.h5").is_file() and (fold / "saved_model" / "saved_model.pb").is_file()
