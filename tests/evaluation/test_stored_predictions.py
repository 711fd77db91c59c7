"""Kept predictions: what is read back, and when they no longer count."""

import json

import numpy as np
import pytest

from doubleunet_bs.errors import RunError
from doubleunet_bs.evaluation.stored_predictions import (
    StoredPredictions,
    decode_probability,
    encode_probability,
)

SHAPE = (6, 8)


def prediction(case, seed=0):
    rng = np.random.default_rng(seed)
    return case, (rng.random(SHAPE) < 0.3).astype(np.uint8), rng.random(SHAPE).astype(np.float32)


@pytest.fixture
def stored(tmp_path):
    return StoredPredictions(tmp_path / "predictions", ("weights",), "data")


def predict(cases):
    return [prediction(case, number) for number, case in enumerate(cases)]


def complete(stored, cases):
    """Predict what is missing, and say what that was."""
    missing = stored.missing(cases)
    stored.keep(predict(missing))
    return missing


def test_there_and_back(stored):
    assert complete(stored, ["case-a", "case-b"]) == ["case-a", "case-b"]
    for case, mask, probability in predict(["case-a", "case-b"]):
        kept, chance, _ = stored.read(case, SHAPE)
        np.testing.assert_array_equal(kept, mask.astype(bool))
        assert chance.dtype == np.float32
        np.testing.assert_allclose(chance, probability, atol=1e-4)
    content = json.loads((stored.folder / "predictions.json").read_text())
    known = {"format": 3, "weights_sha256": ["weights"], "data_fingerprint": "data", "cases": ["case-a", "case-b"]}
    assert content == known


def test_probabilities_close_to_0_and_1_stay_apart(stored):
    """Equal steps of the probability would make one of them: 8 bits call all above 0.998 the same."""
    high = [0.9990, 0.9991, 0.9999, 0.99999, 0.999999, 0.9999999, 1.0]
    values = np.array([high, np.subtract(1, high), np.linspace(0, 1, len(high))], np.float32)
    stored.keep([("case-a", np.ones(values.shape, bool), values)])
    _, kept, _ = stored.read("case-a", values.shape)
    for row, direction in zip(kept, (1, -1, 1), strict=True):
        assert (np.diff(row) * direction > 0).all()
    assert (kept == 0).tolist() == (values == 0).tolist() and (kept == 1).tolist() == (values == 1).tolist()
    np.testing.assert_allclose(kept, values, atol=1e-4)


def test_every_float32_between_is_close_and_in_order():
    below = np.linspace(0, 1, 1_000_001, dtype=np.float32)
    nearest = np.nextafter(np.float32(1), np.float32(0))
    values = np.concatenate([[0, 1e-30, 1e-9, 1e-7], below[1:-1], [nearest, 1, 1.5]]).astype(np.float32)
    kept = decode_probability(encode_probability(values))
    assert kept.dtype == np.float32 and (np.diff(kept) >= 0).all()
    np.testing.assert_allclose(kept, np.clip(values, 0, 1), atol=1e-4)
    # Only 0 and 1 themselves become 0 and 1; twice through changes nothing.
    assert np.flatnonzero(kept == 0).tolist() == [0] and np.flatnonzero(kept == 1).tolist() == [
        len(kept) - 2,
        len(kept) - 1,
    ]
    assert np.array_equal(decode_probability(encode_probability(kept)), kept)


def test_nothing_is_predicted_twice(stored):
    complete(stored, ["case-a", "case-b"])
    assert stored.missing(["case-b", "case-a"]) == []
    # A new case alone; the others stay.
    assert complete(stored, ["case-b", "case-c"]) == ["case-c"]
    assert stored.missing(["case-a", "case-b", "case-c", "case-d"]) == ["case-d"]
    stored.clear()
    assert stored.missing(["case-a"]) == ["case-a"]


def test_other_weights_and_other_shards_make_them_worthless(stored):
    complete(stored, ["case-a", "case-b"])
    for other in (
        StoredPredictions(stored.folder, ("other",), "data"),
        StoredPredictions(stored.folder, ("weights", "more"), "data"),
        StoredPredictions(stored.folder, ("weights",), "other"),
    ):
        assert other.missing(["case-a", "case-b"]) == ["case-a", "case-b"]
    complete(StoredPredictions(stored.folder, ("other",), "data"), ["case-a"])
    # What the first weights predicted is gone, not left lying beside.
    assert [path.name for path in stored.folder.glob("*.npz")] == ["case-a.npz"]


def test_an_interrupted_prediction_is_not_taken_for_a_whole_one(stored):
    def stops():
        yield prediction("case-a")
        raise KeyboardInterrupt

    stored.folder.mkdir()
    (stored.folder / "case-a.png").touch()
    with pytest.raises(KeyboardInterrupt):
        stored.keep(stops())
    assert not (stored.folder / "case-a.png").exists()
    assert stored.missing(["case-a", "case-b"]) == ["case-a", "case-b"]


def test_a_picture_goes_with_the_prediction_it_shows(stored):
    complete(stored, ["case-a", "case-b"])
    for case in ("case-a", "case-b"):
        (stored.folder / f"{case}.png").touch()
    (stored.folder / "case-a.npz").unlink()
    complete(stored, ["case-a", "case-b"])
    assert [path.name for path in stored.folder.glob("*.png")] == ["case-b.png"]
    stored.clear()
    assert not list(stored.folder.iterdir())


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 3, "cases": 3}'])
def test_an_unreadable_index_means_predicting_again(stored, content):
    complete(stored, ["case-a"])
    (stored.folder / "predictions.json").write_text(content)
    assert stored.missing(["case-a"]) == ["case-a"]


def test_a_lost_prediction_is_recomputed_and_a_damaged_one_is_named(stored):
    complete(stored, ["case-a", "case-b"])
    (stored.folder / "case-a.npz").unlink()
    assert stored.missing(["case-a", "case-b"]) == ["case-a"]
    with pytest.raises(RunError, match="7 x 8"):
        stored.read("case-b", (7, 8))
    path = stored.folder / "case-b.npz"
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    for content in (b"", b"no archive", whole[:-40], bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(RunError, match=r"b\.npz: not a kept prediction of 6 x 8 pixels; evaluate with --recompute"):
            stored.read("case-b", SHAPE)
    for arrays in ({"mask": np.ones(SHAPE, bool)}, {"mask": np.ones(SHAPE), "probability": np.ones(SHAPE, np.uint16)}):
        np.savez_compressed(path, **arrays)
        with pytest.raises(RunError, match="not a kept prediction"):
            stored.read("case-b", SHAPE)
