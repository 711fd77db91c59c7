"""The state file of an unfinished run: exact, and refused when anything is wrong with it."""

import keras
import numpy as np
import pytest

from doubleunet_bs.errors import RunError
from doubleunet_bs.training.training_state import load_state, save_state


def small_model(units=3, seed=0):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(units, name="dense"), keras.layers.BatchNormalization(name="bn")],
        name="small",
    )
    optimizer = keras.optimizers.Adam(1e-2, name="adam")
    optimizer.build(model.trainable_variables)
    return model, optimizer


def values(model, optimizer):
    return [
        keras.ops.convert_to_numpy(variable.value).copy()
        for owner in (model, optimizer)
        for variable in owner.variables
    ]


@pytest.fixture
def saved(tmp_path):
    model, optimizer = small_model()
    optimizer.apply([keras.ops.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)
    path = tmp_path / "state.npz"
    save_state(path, model, optimizer, {"epoch": 3, "best": [0.5, -1.0]})
    return path, values(model, optimizer)


def test_everything_comes_back(saved):
    path, expected = saved
    model, optimizer = small_model(seed=1)
    assert load_state(path, model, optimizer) == {"epoch": 3, "best": [0.5, -1.0]}
    for found, value in zip(values(model, optimizer), expected, strict=True):
        np.testing.assert_array_equal(found, value)


def test_another_model_is_refused_and_left_alone(saved):
    model, optimizer = small_model(units=5)
    before = values(model, optimizer)
    with pytest.raises(RunError, match="of shape"):
        load_state(saved[0], model, optimizer)
    for found, value in zip(values(model, optimizer), before, strict=True):
        np.testing.assert_array_equal(found, value)


def test_another_optimizer_is_refused(saved):
    model, _ = small_model()
    optimizer = keras.optimizers.SGD(1e-2, name="sgd")
    optimizer.build(model.trainable_variables)
    with pytest.raises(RunError, match="another optimizer"):
        load_state(saved[0], model, optimizer)


def test_a_truncated_file_is_refused_wherever_it_was_cut(saved):
    path, _ = saved
    content = path.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(RunError, match="state.npz"):
            load_state(path, *small_model())


def test_other_settings_or_data_are_refused_by_name(tmp_path):
    model, optimizer = small_model()
    path, identity = tmp_path / "state.npz", {"experiment": {"epochs": 2, "seed": 0}, "data_fingerprint": "a"}
    save_state(path, model, optimizer, {"identity": identity})
    assert load_state(path, model, optimizer, identity)["identity"] == identity
    for other, message in (
        ({"experiment": {"epochs": 2, "seed": 1}}, r"\(seed was 0, is 1\): restore them"),
        ({"data_fingerprint": "b"}, r"\(data_fingerprint was a, is b\): restore them"),
    ):
        with pytest.raises(RunError, match=message):
            load_state(path, model, optimizer, identity | other)


@pytest.mark.slow
def test_flipped_bytes_are_found(saved):
    path, expected = saved
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for position in rng.integers(0, len(content), 40):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        model, optimizer = small_model(seed=2)
        try:
            load_state(path, model, optimizer)
        except RunError:
            refused += 1
        else:  # a byte that carries nothing, such as a time stamp
            for found, value in zip(values(model, optimizer), expected, strict=True):
                np.testing.assert_array_equal(found, value)
    assert refused > 20


def test_other_files_are_refused(tmp_path):
    with pytest.raises(RunError, match="nothing to resume"):
        load_state(tmp_path / "gone.npz", *small_model())
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(RunError, match="damaged checkpoint"):
        load_state(tmp_path / "array.npy", *small_model())
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(RunError, match="other.npz"):
        load_state(tmp_path / "other.npz", *small_model())
