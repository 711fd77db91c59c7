"""Kept predictions: what is read back, and when they no longer count."""

import json

import numpy as np
import pytest

from doubleunet_bs.errors import RunError
from doubleunet_bs.evaluation.stored_predictions import StoredPredictions, complete, read_prediction

SHAPE = (6, 8)


def prediction(case, seed=0):
    rng = np.random.default_rng(seed)
    return case, (rng.random(SHAPE) < 0.3).astype(np.uint8), rng.random(SHAPE).astype(np.float32)


@pytest.fixture
def stored(tmp_path):
    return StoredPredictions(tmp_path / "predictions", ("weights",), "data")


def predict(cases):
    return [prediction(case, number) for number, case in enumerate(cases)]


def test_there_and_back(stored):
    assert complete(stored, ["a", "b"], predict) == ["a", "b"]
    for case, mask, probability in predict(["a", "b"]):
        kept, chance = stored.read(case, SHAPE)
        np.testing.assert_array_equal(kept, mask.astype(bool))
        assert chance.dtype == np.float32
        np.testing.assert_allclose(chance, probability, atol=1 / 510 + 1e-6)


def test_nothing_is_predicted_twice(stored):
    complete(stored, ["a", "b"], predict)
    assert complete(stored, ["b", "a"], lambda cases: pytest.fail("predicted again")) == []
    # A new case alone; the others stay.
    assert complete(stored, ["b", "c"], predict) == ["c"]
    assert stored.missing(["a", "b", "c", "d"]) == ["d"]
    assert complete(stored, ["a"], predict, again=True) == ["a"]
    assert stored.missing(["a", "b"]) == ["b"]


def test_other_weights_and_other_shards_make_them_worthless(stored):
    complete(stored, ["a", "b"], predict)
    for other in (
        StoredPredictions(stored.folder, ("other",), "data"),
        StoredPredictions(stored.folder, ("weights", "more"), "data"),
        StoredPredictions(stored.folder, ("weights",), "other"),
    ):
        assert other.missing(["a", "b"]) == ["a", "b"]
    complete(StoredPredictions(stored.folder, ("other",), "data"), ["a"], predict)
    # What the first weights predicted is gone, not left lying beside.
    assert sorted(path.name for path in stored.folder.rglob("*.png")) == ["a.png", "a.png"]


def test_an_interrupted_prediction_is_not_taken_for_a_whole_one(stored):
    def stops(cases):
        yield prediction(cases[0])
        raise KeyboardInterrupt

    stored.folder.mkdir()
    (stored.folder / "a.png").touch()
    with pytest.raises(KeyboardInterrupt):
        complete(stored, ["a", "b"], stops)
    assert not (stored.folder / "a.png").exists()
    assert stored.missing(["a", "b"]) == ["a", "b"]


def test_a_picture_goes_with_the_prediction_it_shows(stored):
    complete(stored, ["a", "b"], predict)
    for case in "ab":
        (stored.folder / f"{case}.png").touch()
    (stored.folder / "mask" / "a.png").unlink()
    complete(stored, ["a", "b"], predict)
    assert [path.name for path in stored.folder.glob("*.png")] == ["b.png"]
    stored.clear()
    assert not list(stored.folder.rglob("*.png"))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1, "cases": 3}'])
def test_an_unreadable_index_means_predicting_again(stored, content):
    complete(stored, ["a"], predict)
    (stored.folder / "predictions.json").write_text(content)
    assert stored.missing(["a"]) == ["a"]


def test_a_lost_picture_is_predicted_again_and_a_damaged_one_is_named(stored):
    complete(stored, ["a", "b"], predict)
    (stored.folder / "mask" / "a.png").unlink()
    assert stored.missing(["a", "b"]) == ["a"]
    (stored.folder / "mask" / "b.png").write_bytes(b"no picture")
    with pytest.raises(RunError, match=r"b\.png: not a kept prediction of 6 x 8 pixels; evaluate with --again"):
        read_prediction(stored.folder, "b", SHAPE)
    with pytest.raises(RunError, match="7 x 8"):
        stored.read("b", (7, 8))


def test_the_index_says_what_it_belongs_to(stored):
    complete(stored, ["a"], predict)
    content = json.loads((stored.folder / "predictions.json").read_text())
    assert content == {"format": 1, "weights_sha256": ["weights"], "data_fingerprint": "data", "cases": ["a"]}
