"""The network against the facts of the original code: counts, inventory, skip order, link, heads."""

import collections
import subprocess
import sys

import keras
import numpy as np
import pytest
from small_network import small_network

from doubleunet_bs.errors import SettingsError
from doubleunet_bs.network import double_unet
from doubleunet_bs.network.layers import class_head, multiply_by_classes


@pytest.fixture(scope="module")
def softmax_network():
    return double_unet((64, 32, 3), classes=3)


@pytest.fixture(scope="module")
def sigmoid_network():
    return double_unet((32, 32, 3), classes=1)


def _count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def test_parameters(softmax_network, sigmoid_network):
    assert sigmoid_network.count_params() == 29_297_570
    assert _count(sigmoid_network.trainable_weights) == 29_290_274
    assert softmax_network.count_params() == 29_299_430


def test_layer_inventory(softmax_network):
    kinds = collections.Counter(type(layer).__name__ for layer in softmax_network.layers)
    assert (kinds["Conv2D"], kinds["BatchNormalization"], kinds["Dense"]) == (54, 36, 24)
    assert kinds["Lambda"] == 0
    assert (
        len([layer for layer in softmax_network.layers if layer.name.startswith("block")]) == 16 + 4
    )  # and 4 poolings
    assert "block5_pool" not in {layer.name for layer in softmax_network.layers}


def test_encoder_is_trainable(softmax_network):
    assert all(softmax_network.get_layer(f"block{block}_conv1").trainable for block in range(1, 6))


def _sources(network, name):
    return [tensor._keras_history.operation.name for tensor in network.get_layer(name).input]


@pytest.mark.parametrize(
    ("level", "vgg_skip", "own_skip"),
    [
        (1, "block4_conv4", "encoder2_level4_se_scale"),
        (2, "block3_conv4", "encoder2_level3_se_scale"),
        (3, "block2_conv2", "encoder2_level2_se_scale"),
        (4, "block1_conv2", "encoder2_level1_se_scale"),
    ],
)
def test_skip_order(softmax_network, level, vgg_skip, own_skip):
    assert _sources(softmax_network, f"decoder1_level{level}_concat") == [f"decoder1_level{level}_up", vgg_skip]
    assert _sources(softmax_network, f"decoder2_level{level}_concat") == [
        f"decoder2_level{level}_up",
        vgg_skip,
        own_skip,
    ]


def test_aspp_order_and_biases(softmax_network):
    for network in ("aspp1", "aspp2"):
        assert _sources(softmax_network, f"{network}_concat") == [
            f"{network}_pool_broadcast",
            *(f"{network}_{branch}_relu" for branch in ("conv1", "rate6", "rate12", "rate18")),
        ]
        assert softmax_network.get_layer(f"{network}_pool_conv").use_bias
        for branch in ("conv1", "rate6", "rate12", "rate18", "project"):
            assert not softmax_network.get_layer(f"{network}_{branch}").use_bias
        assert [softmax_network.get_layer(f"{network}_rate{rate}").dilation_rate for rate in (6, 12, 18)] == [
            (6, 6),
            (12, 12),
            (18, 18),
        ]
    assert softmax_network.get_layer("aspp1_pool").input._keras_history.operation.name == "block5_conv4"


def test_filters(softmax_network):
    for decoder in ("decoder1", "decoder2"):
        assert [softmax_network.get_layer(f"{decoder}_level{k}_conv1").filters for k in range(1, 5)] == [
            256,
            128,
            64,
            32,
        ]
    assert [softmax_network.get_layer(f"encoder2_level{k}_conv2").filters for k in range(1, 5)] == [32, 64, 128, 256]


def test_image_is_multiplied_with_each_class_map_class_by_class():
    image, maps = keras.Input((2, 2, 3)), keras.Input((2, 2, 3))
    link = keras.Model([image, maps], multiply_by_classes(image, maps, "link"))
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 2, 2, 3), np.float32), rng.random((2, 2, 2, 3), np.float32)
    expected = np.concatenate([x * y[..., k : k + 1] for k in range(3)], axis=-1)
    np.testing.assert_allclose(link.predict([x, y], verbose=0), expected, rtol=1e-6)


@pytest.mark.slow
def test_network_2_trains_network_1_through_the_link(softmax_network):
    import tensorflow as tf

    image = tf.random.stateless_uniform((1, 64, 32, 3), (1, 2))
    with tf.GradientTape() as tape:
        second = softmax_network(image, training=False)["output2"][..., 2]
        total = tf.reduce_sum(second)
    assert np.abs(tape.gradient(total, softmax_network.get_layer("output1_logits").kernel)).max() > 0


@pytest.mark.slow
def test_softmax_outputs(softmax_network):
    outputs = softmax_network.predict(np.random.default_rng(0).random((2, 64, 32, 3), np.float32), verbose=0)
    assert list(outputs) == ["output1", "output2"]
    for output in outputs.values():
        assert output.shape == (2, 64, 32, 3) and output.dtype == np.float32
        np.testing.assert_allclose(output.sum(-1), 1, rtol=1e-5)


@pytest.mark.slow
def test_sigmoid_output_is_both_outputs_concatenated(sigmoid_network):
    output = sigmoid_network.predict(np.zeros((1, 32, 32, 3), np.float32), verbose=0)
    assert output.shape == (1, 32, 32, 2)
    assert _sources(sigmoid_network, "outputs") == ["output1", "output2"]


@pytest.mark.slow
def test_head_bias_sets_both_heads(softmax_network):
    network = double_unet((32, 32, 3), classes=3, head_bias=[-0.5, -1.0, -6.0])
    for name in ("output1_logits", "output2_logits"):
        np.testing.assert_allclose(network.get_layer(name).get_weights()[1], [-0.5, -1.0, -6.0])
    assert not softmax_network.get_layer("output1_logits").get_weights()[1].any()


@pytest.mark.parametrize("shape", [(640, 500, 3), (0, 512, 3), (16, 16, 3), (640, 512, 1), (640, 512), (None, 512, 3)])
def test_impossible_shapes_are_refused(shape):
    with pytest.raises(SettingsError, match="divisible by 16|three times|rows, columns"):
        double_unet(shape)


@pytest.mark.parametrize("classes", [0, 2, -1])
def test_impossible_numbers_of_classes_are_refused(classes):
    with pytest.raises(SettingsError, match="classes"):
        double_unet((32, 32, 3), classes=classes)


def test_head_bias_of_wrong_length_is_refused():
    with pytest.raises(SettingsError, match="2 starting biases for 3 classes"):
        double_unet((32, 32, 3), head_bias=[0.0, 1.0])


@pytest.mark.slow
def test_keras_file_opens_without_this_package(tmp_path, softmax_network):
    """A small network of the same layers: their kinds matter, not their number."""
    network = small_network((32, 32, 3))
    assert {type(layer) for layer in softmax_network.layers} == {type(layer) for layer in network.layers}
    network.save(tmp_path / "network.keras")
    image = np.random.default_rng(1).random((1, 32, 32, 3), np.float32)
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "expected.npy", network.predict(image, verbose=0)["output2"])
    script = (
        "import sys, keras, numpy as np\n"
        f"d = {str(tmp_path)!r}\n"
        "m = keras.models.load_model(d + '/network.keras')\n"
        "out = m.predict(np.load(d + '/image.npy'), verbose=0)['output2']\n"
        "np.testing.assert_allclose(out, np.load(d + '/expected.npy'), atol=1e-5)\n"
        "assert not any(name.startswith('doubleunet_bs') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, capture_output=True)


def test_network_and_losses_do_not_import_tensorflow_themselves():
    from pathlib import Path

    import doubleunet_bs.network as package

    sources = list(Path(package.__file__).parent.glob("*.py"))
    assert len(sources) >= 5
    assert not [
        path.name for path in sources if "tensorflow as" in path.read_text() or "import tensorflow" in path.read_text()
    ]


@pytest.mark.parametrize(("policy", "features"), [("mixed_bfloat16", "bfloat16"), ("mixed_float16", "float16")])
def test_the_convolution_of_a_head_computes_in_float32(policy, features):
    keras.config.set_dtype_policy(policy)
    try:
        image = keras.Input((4, 4, 16), dtype=features)
        model = keras.Model(image, class_head(image, 3, "head"))
    finally:
        keras.config.set_dtype_policy("float32")
    values = np.random.default_rng(0).normal(size=(1, 4, 4, 16))
    kernel, bias = model.get_weights()
    exact = np.asarray(keras.ops.cast(values, features), np.float64) @ kernel[0, 0].astype(np.float64) + bias
    found = model(keras.ops.cast(values, features))
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_allclose(found, keras.ops.softmax(exact.astype(np.float32)), rtol=1e-5)
