"""ImageNet weights from a file of Keras' own VGG19 no-top layout, made on the spot."""

import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from doubleunet_bs import imagenet_file
from doubleunet_bs.errors import RunError
from doubleunet_bs.network import double_unet
from doubleunet_bs.network.double_unet import CONV_LAYERS, check_encoder_weights

CHANNELS = (3, 64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512, 512)


def write_weights(path, change=lambda arrays: None):
    """A file as Keras publishes it: one group a layer, attribute weight_names, kernel and bias datasets."""
    rng = np.random.default_rng(0)
    arrays = {
        name: {f"{name}_W_1:0": rng.random((3, 3, a, b), np.float32), f"{name}_b_1:0": rng.random(b, np.float32)}
        for name, a, b in zip(CONV_LAYERS, CHANNELS[:-1], CHANNELS[1:], strict=True)
    }
    change(arrays)
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in arrays]
        for name, weights in arrays.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [key.encode() for key in weights]
            for key, value in weights.items():
                group[key] = value
    return arrays


@pytest.mark.slow
def test_file_fills_all_sixteen_convolutions(tmp_path):
    arrays = write_weights(tmp_path / "vgg19.h5")
    network = double_unet((32, 32, 3), encoder_weights=tmp_path / "vgg19.h5")
    assert len(arrays) == 16
    for name, weights in arrays.items():
        for found, expected in zip(network.get_layer(name).get_weights(), weights.values(), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_missing_layer_is_named(tmp_path):
    write_weights(tmp_path / "short.h5", lambda arrays: arrays.pop("block4_conv2"))
    with pytest.raises(RunError, match="short.h5: not the VGG19 .*layer block4_conv2 is missing"):
        double_unet((32, 32, 3), encoder_weights=tmp_path / "short.h5")


def test_a_wrong_shape_is_named(tmp_path):
    def transpose(arrays):
        key = "block2_conv1_W_1:0"
        arrays["block2_conv1"][key] = arrays["block2_conv1"][key].transpose(3, 2, 1, 0)

    write_weights(tmp_path / "other.h5", transpose)
    with pytest.raises(
        RunError, match="other.h5: not the VGG19 .*layer #2 .named block2_conv1.*Received saved weight with shape"
    ):
        double_unet((32, 32, 3), encoder_weights=tmp_path / "other.h5")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(RunError, match="text.h5: not the VGG19 no-top file"):
        double_unet((32, 32, 3), encoder_weights=tmp_path / "text.h5")
    with pytest.raises(RunError, match="gone.h5: no such file"):
        double_unet((32, 32, 3), encoder_weights=tmp_path / "gone.h5")


@pytest.mark.slow
def test_imagenet_is_the_published_file_in_the_cache(monkeypatch, tmp_path):
    arrays = write_weights(tmp_path / "models" / imagenet_file.URL.rsplit("/", 1)[1])
    content = next((tmp_path / "models").iterdir()).read_bytes()
    monkeypatch.setattr(imagenet_file, "MD5", hashlib.md5(content).hexdigest())
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    network = double_unet((32, 32, 3), encoder_weights="imagenet")
    np.testing.assert_array_equal(
        network.get_layer("block1_conv1").get_weights()[0], arrays["block1_conv1"]["block1_conv1_W_1:0"]
    )
    check_encoder_weights("imagenet")


def test_address_and_checksum_are_those_of_keras():
    from keras.src.applications import vgg19

    assert vgg19.WEIGHTS_PATH_NO_TOP == imagenet_file.URL
    assert f'"{imagenet_file.MD5}"' in Path(vgg19.__file__).read_text()
