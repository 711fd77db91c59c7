"""ImageNet weights from a file of Keras' own VGG19 no-top layout, made on the spot."""

import h5py
import keras
import numpy as np
import pytest

from doubleunet_bs.errors import RunError
from doubleunet_bs.network import double_unet
from doubleunet_bs.network.encoder_weights import CONV_LAYERS

CHANNELS = (3, 64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512, 512)


def write_weights(path, change=lambda arrays: None):
    """A file as Keras publishes it: one group a layer, attribute weight_names, kernel and bias datasets."""
    rng = np.random.default_rng(0)
    arrays = {
        name: {f"{name}_W_1:0": rng.random((3, 3, a, b), np.float32), f"{name}_b_1:0": rng.random(b, np.float32)}
        for name, a, b in zip(CONV_LAYERS, CHANNELS[:-1], CHANNELS[1:], strict=True)
    }
    change(arrays)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in arrays]
        for name, weights in arrays.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [key.encode() for key in weights]
            for key, value in weights.items():
                group[key] = value
    return arrays


def test_file_fills_all_sixteen_convolutions(tmp_path):
    arrays = write_weights(tmp_path / "vgg19.h5")
    network = double_unet((32, 32, 3), encoder_weights=tmp_path / "vgg19.h5")
    assert len(arrays) == 16
    for name, weights in arrays.items():
        for found, expected in zip(network.get_layer(name).get_weights(), weights.values(), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_missing_layer_is_named(tmp_path):
    write_weights(tmp_path / "short.h5", lambda arrays: arrays.pop("block4_conv2"))
    with pytest.raises(RunError, match="short.h5: layer block4_conv2 is missing"):
        double_unet((32, 32, 3), encoder_weights=tmp_path / "short.h5")


def test_a_wrong_shape_is_named(tmp_path):
    def transpose(arrays):
        key = "block2_conv1_W_1:0"
        arrays["block2_conv1"][key] = arrays["block2_conv1"][key].transpose(3, 2, 1, 0)

    write_weights(tmp_path / "other.h5", transpose)
    with pytest.raises(RunError, match="other.h5: layer block2_conv1 has the shapes"):
        double_unet((32, 32, 3), encoder_weights=tmp_path / "other.h5")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(RunError, match="text.h5: not an HDF5 file"):
        double_unet((32, 32, 3), encoder_weights=tmp_path / "text.h5")
    with pytest.raises(RunError, match="gone.h5: no such file"):
        double_unet((32, 32, 3), encoder_weights=tmp_path / "gone.h5")


def test_failed_download_says_what_to_do_and_does_not_fall_back(monkeypatch):
    def unreachable(*args, **kwargs):
        raise Exception("URL fetch failure: [Errno -2] Name or service not known")

    monkeypatch.setattr(keras.utils, "get_file", unreachable)
    with pytest.raises(RunError, match="could not be downloaded.*--encoder-weights FILE.*--encoder-weights none"):
        double_unet((32, 32, 3), encoder_weights="imagenet")


def test_imagenet_uses_the_file_keras_downloads(monkeypatch, tmp_path):
    arrays = write_weights(tmp_path / "cached.h5")
    asked = {}

    def from_cache(name, url, **kwargs):
        asked.update(name=name, url=url, **kwargs)
        return str(tmp_path / "cached.h5")

    monkeypatch.setattr(keras.utils, "get_file", from_cache)
    network = double_unet((32, 32, 3), encoder_weights="imagenet")
    np.testing.assert_array_equal(
        network.get_layer("block1_conv1").get_weights()[0], arrays["block1_conv1"]["block1_conv1_W_1:0"]
    )
    # The same URL and checksum as keras.applications, so that an existing cache is used.
    from keras.src.applications import vgg19

    assert asked["url"] == vgg19.WEIGHTS_PATH_NO_TOP and asked["cache_subdir"] == "models"
    assert asked["file_hash"] in open(vgg19.__file__).read()


def test_random_start_keeps_the_signal_through_all_sixteen_layers():
    """With Keras' own start of these layers the bottleneck is a thousand times weaker than the first layer."""
    network = double_unet((64, 64, 3))
    image = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    layers = [network.get_layer(name).output for name in ("block1_conv2", "block5_conv4")]
    first, last = (np.std(value) for value in keras.Model(network.input, layers).predict(image, verbose=0))
    assert 0.2 < last / first < 5
