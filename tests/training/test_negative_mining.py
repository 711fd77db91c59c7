"""Negative mining: false positives become class 1, are kept, and come from a model that has not seen them."""

import json

import numpy as np
import pytest
from intensity_run import intensity_model
from PIL import Image
from synthetic_shards import SyntheticShards

from doubleunet_bs.errors import RunError
from doubleunet_bs.files import write_json
from doubleunet_bs.runs.create_run import create_run
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.training.devices import open_replicas
from doubleunet_bs.training.negative_mining import MinedDataset, load_mined, mine_negatives, save_mined
from doubleunet_bs.training.stages import FoldStages

NORMAL = [5, 11, 17, 23]
LEVEL = 140


@pytest.fixture(scope="module")
def synthetic_shards():
    return SyntheticShards(columns=48)


@pytest.fixture(scope="module")
def model():
    return intensity_model(32, 48, level=LEVEL)


@pytest.fixture
def masks(synthetic_shards, model):
    return mine_negatives(model, synthetic_shards, NORMAL, 3)


@pytest.fixture
def saved(tmp_path, synthetic_shards, masks):
    save_mined(tmp_path / "mined", synthetic_shards, masks, "abc")
    return tmp_path / "mined"


def test_a_model_that_has_seen_held_out_scans_does_not_mine(tmp_path, synthetic_shards):
    run = create_run(tmp_path / "run", paper_experiment("dice-mining", folds=3), synthetic_shards)
    folds = run.folds(synthetic_shards)
    split = folds.split(1)
    stages = FoldStages(run, synthetic_shards, folds, 1, open_replicas("cpu"), show_progress=False)
    task = stages.mining_model().task
    for scans in (split.train + split.test[:1], split.train + split.validation[:1]):
        write_json(task.path / "environment.json", task.made_from | {"trained_on": sorted(scans)})
        with pytest.raises(RunError, match="mining_model: made from another trained_on than this fold needs"):
            stages.mine()


def test_what_the_model_finds_on_normal_scans(synthetic_shards, masks):
    assert sorted(masks) == NORMAL
    for index in NORMAL:
        np.testing.assert_array_equal(masks[index], synthetic_shards.grey(index) > LEVEL)
        assert 0 < masks[index].sum() < 200


def test_false_positives_become_class_1_and_the_rest_class_0(synthetic_shards, masks):
    mined = MinedDataset(synthetic_shards, masks)
    for index in NORMAL:
        labels = mined.labels(index)
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels, masks[index].astype(np.uint8))
        assert (labels != synthetic_shards.labels(index)).any(), "no longer the Otsu mask"
    # All else is untouched.
    np.testing.assert_array_equal(mined.labels(0), synthetic_shards.labels(0))
    np.testing.assert_array_equal(mined.grey(5), synthetic_shards.grey(5))
    np.testing.assert_array_equal(mined.counts(5), synthetic_shards.counts(5))
    for name in ("cases", "settings", "image_shape", "fingerprint"):
        assert getattr(mined, name) is getattr(synthetic_shards, name)


def test_they_are_kept_and_pictured(saved, synthetic_shards, masks):
    assert sorted(file.name for file in saved.iterdir()) == [
        *(f"case-{index:03d}.png" for index in NORMAL),
        "labels.npz",
        "mined.json",
    ]
    loaded = load_mined(saved, synthetic_shards, NORMAL, "abc")
    for index in NORMAL:
        np.testing.assert_array_equal(loaded[index], masks[index])
    pixels = json.loads((saved / "mined.json").read_text())["false_positive_pixels"]
    assert pixels == {f"case-{index:03d}": int(masks[index].sum()) for index in NORMAL}
    picture = np.asarray(Image.open(saved / "case-005.png"))[-64:]  # below the names
    assert picture.shape == (64, 96, 3)
    blue = (picture == (70, 130, 180)).all(axis=2)
    # The line lies just outside of what was found.
    assert blue.any() and not blue[masks[5].repeat(2, 0).repeat(2, 1)].any()


def test_a_model_that_finds_nothing_leaves_air(tmp_path, synthetic_shards):
    nothing = mine_negatives(intensity_model(32, 48, level=254), synthetic_shards, NORMAL, 4)
    save_mined(tmp_path / "mined", synthetic_shards, nothing, "abc")
    loaded = load_mined(tmp_path / "mined", synthetic_shards, NORMAL, "abc")
    assert not MinedDataset(synthetic_shards, loaded).labels(5).any()


def test_nothing_else_passes_for_them(saved, synthetic_shards):
    with pytest.raises(RunError, match="mined by another model"):
        load_mined(saved, synthetic_shards, NORMAL, "abd")
    with pytest.raises(RunError, match="of other scans"):
        load_mined(saved, synthetic_shards, NORMAL[:3], "abc")
    archive = (saved / "labels.npz").read_bytes()
    for damaged in (archive[:-30], b"", b"x" * 50):
        (saved / "labels.npz").write_bytes(damaged)
        with pytest.raises(RunError, match="damaged .*remove"):
            load_mined(saved, synthetic_shards, NORMAL, "abc")
    np.savez_compressed(saved / "labels.npz", **{synthetic_shards.cases[index].case: np.zeros(5) for index in NORMAL})
    with pytest.raises(RunError, match="damaged .*remove"):
        load_mined(saved, synthetic_shards, NORMAL, "abc")
    (saved / "mined.json").write_text("{}")
    with pytest.raises(RunError, match="format 1"):
        load_mined(saved, synthetic_shards, NORMAL, "abc")
