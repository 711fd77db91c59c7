"""The faster kernels against Keras' own layers and Adam: the same outputs, gradients, moving averages and updates."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_network import small_network

from doubleunet_bs.network import double_unet
from doubleunet_bs.training import fast_kernels
from doubleunet_bs.training.fast_kernels import FusedAdam, can_train_in, kernel_gradient, kernel_works, use_fast_kernels

IMAGES = np.random.default_rng(0).random((3, 48, 32, 3), np.float32)


def pair(policy="float32", **settings):
    """Two equal networks; the second one with the faster kernels."""
    keras.config.set_dtype_policy(policy)
    try:
        plain, fast = (small_network((48, 32, 3), **settings) for _ in range(2))
    finally:
        keras.config.set_dtype_policy("float32")
    fast.set_weights(plain.get_weights())
    return plain, fast, use_fast_kernels(fast)


def step(model, images=IMAGES):
    """Output 2, gradients by variable, moving averages after one step in training."""

    @tf.function
    def run(images):
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
            # Uneven weights: the sum of a softmax by itself has no gradient.
            total = tf.add_n([tf.reduce_mean(value * [0.2, 1.0, 3.0]) for value in outputs.values()])
        return outputs["output2"], tape.gradient(total, model.trainable_variables)

    output, gradients = run(images)
    averages = [keras.ops.convert_to_numpy(value) for value in model.non_trainable_variables]
    return np.asarray(output), [np.asarray(value) for value in gradients], averages


def distance(values, others):
    """Largest difference, relative to the largest value of its array and at least 1e-3 of the largest of all."""
    floor = 1e-3 * max(np.abs(value).max() for value in values)
    return max(
        np.abs(value - other).max() / max(np.abs(value).max(), floor)
        for value, other in zip(values, others, strict=True)
    )


@pytest.mark.slow
def test_the_layers_of_the_network_are_found(monkeypatch):
    # 36 batch normalisations, 8 doublings, and per pyramid the rates 6, 12 and 18.
    dilated = 6 if kernel_works(fast_kernels._convolve, "float32") else 0
    model = double_unet((32, 32, 3))
    # 16 convolutions in the encoder of VGG19, two on each of 12 other levels.
    for alone, convolutions in ((False, 0), (True, 16 + 24)):
        monkeypatch.setattr(fast_kernels, "has_avx2_alone", lambda alone=alone: alone)
        assert use_fast_kernels(model) == 36 + 8 + dilated + convolutions


@pytest.mark.slow
def test_synchronised_normalisation_and_float64_stay_with_keras():
    model = small_network((48, 32, 3), synchronized=True)
    use_fast_kernels(model)
    kinds = {type(layer).__name__ for layer in model.layers if "call" in vars(layer)}
    assert kinds - {"Conv2D"} == {"UpSampling2D"}
    assert pair("float64")[2] == 0


@pytest.mark.slow
def test_a_kernel_is_tried_in_the_precision_of_its_layer(monkeypatch):
    """On AVX2 the gradient of a dilated convolution exists in float32 and not in bfloat16."""
    works = fast_kernels.kernel_works
    monkeypatch.setattr(
        fast_kernels,
        "kernel_works",
        lambda call, dtype, device: call is not fast_kernels._convolve or dtype == "float32",
    )
    for policy, kinds in (("float32", {"Conv2D"}), ("mixed_bfloat16", set())):
        fast = pair(policy)[1]
        changed = {type(layer).__name__ for layer in fast.layers if "call" in vars(layer)}
        assert changed == {"BatchNormalization", "UpSampling2D"} | kinds
    # The trial says what TensorFlow really does with such a layer.
    for dtype in ("float32", "bfloat16", "float16"):
        image, kernel = tf.ones((1, 8, 8, 4), dtype), tf.ones((3, 3, 4, 4), dtype)
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            try:
                total = tf.reduce_sum(tf.nn.conv2d(image, kernel, 1, "SAME", dilations=6))
                found = tape.gradient(total, kernel) is not None
            except tf.errors.OpError:
                found = False
        assert works(fast_kernels._convolve, dtype) == found


def test_the_switch_keeps_the_layers_of_keras(monkeypatch):
    monkeypatch.setenv("DOUBLEUNET_BS_FAST_KERNELS", "off")
    assert pair()[2] == 0


# For each named switch, as JSON: in each precision that works, by how much each of two training steps lowers the loss;
# and the precision that "auto" chooses. At this learning rate the loss falls by 6 %, so that a wrong gradient shows.
STEPS = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from doubleunet_bs.tensorflow_setup import import_tensorflow
tf = import_tensorflow()
import keras, numpy as np
from small_network import small_network
from doubleunet_bs.errors import SettingsError
from doubleunet_bs.training.devices import choose_precision, open_replicas
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.training.steps import Steps, make_loss

replicas, all_found = open_replicas("cpu"), {}
grey = np.random.default_rng(0).integers(0, 256, (4, 32, 32)).astype(np.uint8)
batch = {"grey": grey, "labels": grey // 86, "weights": np.ones(4, np.float32), "index": np.arange(4, dtype=np.int32)}
data = tf.data.Dataset.from_tensors(batch).repeat()
for switch in sys.argv[2:]:
    os.environ["DOUBLEUNET_BS_FAST_KERNELS"] = switch
    found = all_found[switch] = {}
    for precision in ("float32", "mixed_bfloat16"):
        try:
            choose_precision(replicas, precision)
        except SettingsError as error:
            found[precision] = str(error)
            continue
        keras.utils.set_random_seed(1)
        keras.config.set_dtype_policy(precision)
        with replicas.strategy.scope():
            model = small_network((32, 32, 3))
            optimizer = keras.optimizers.SGD(2.0)
            optimizer.build(model.trainable_variables)
        steps = Steps(model, optimizer, make_loss(paper_experiment("dice")), replicas)
        iterator = iter(replicas.strategy.distribute_datasets_from_function(lambda context: data))
        losses = [float(steps.train(iterator)[0]) for _ in range(3)]
        found[precision] = [before - after for before, after in zip(losses, losses[1:], strict=False)]
        layers = [layer for layer in model.layers if "call" in vars(layer)]
        found[precision + " kernels"] = sorted({type(layer).__name__ for layer in layers})
    found["auto"] = choose_precision(replicas, "auto").precision
print(json.dumps(all_found))
"""

# Environment and switches of each process. A mask of AVX2 changes nothing where there is no more than that.
PROCESSES = (
    ({}, {"on": "as it is", "off": "switched off"}),
    ({"TF_ENABLE_ONEDNN_OPTS": "0"}, {"on": "without oneDNN"}),
    *([] if fast_kernels.has_avx2_alone() else [({"ONEDNN_MAX_CPU_ISA": "AVX2"}, {"on": "AVX2"})]),
)
MASKS = [mask for _, masks in PROCESSES for mask in masks.values()]


@pytest.fixture(scope="module")
def steps_by_mask():
    """What `STEPS` found under each of the masks."""
    unset = {
        name: value for name, value in os.environ.items() if name not in set().union(*(one for one, _ in PROCESSES))
    }
    command = [sys.executable, "-c", STEPS, str(Path(__file__).resolve().parents[1])]
    processes = [
        subprocess.Popen(
            [*command, *masks],
            env={**unset, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for environment, masks in PROCESSES
    ]
    found = {}
    for process, (environment, masks) in zip(processes, PROCESSES, strict=True):
        output, errors = process.communicate()
        assert process.returncode == 0, f"{environment}: {errors[-2000:]}"
        answers = json.loads(output.splitlines()[-1])
        found |= {mask: answers[switch] for switch, mask in masks.items()}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("mask", MASKS)
def test_a_step_in_each_precision_on_lesser_processors(steps_by_mask, mask):
    """Equal steps, whatever kernels there are. Without instructions for bfloat16, "auto" means float32."""
    found, expected = steps_by_mask[mask], steps_by_mask["switched off"]
    assert found["float32"] == pytest.approx(expected["float32"], rel=1e-3)
    assert min(found["float32"]) > 0.06
    if mask == "switched off":
        assert found["float32 kernels"] == found["mixed_bfloat16 kernels"] == []
    else:
        assert {"BatchNormalization", "UpSampling2D"} <= set(found["float32 kernels"])
    if isinstance(found["mixed_bfloat16"], str):
        # TensorFlow asks the processor itself, oneDNN obeys the mask: bfloat16 falls between the two.
        assert mask == "AVX2" and "use --precision float32" in found["mixed_bfloat16"]
    else:
        assert found["mixed_bfloat16"] == pytest.approx(expected["float32"], rel=2e-2)
    if mask in ("AVX2", "without oneDNN") or fast_kernels.has_avx2_alone():
        assert found["auto"] == "float32"
        assert "Conv2D" not in found.get("mixed_bfloat16 kernels", ())


@pytest.mark.slow
def test_equal_in_float32():
    plain, fast, changed = pair()
    assert changed > 10
    for expected, found in zip(step(plain)[1:], step(fast)[1:], strict=True):
        assert distance(expected, found) < 1e-3
    expected, found = (np.asarray(model(IMAGES, training=False)["output2"]) for model in (plain, fast))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("channels", "filters"), [(2, 5), (5, 2), (3, 3)])
def test_the_gradient_by_products_is_that_of_the_convolution(channels, filters):
    """Two images of odd size, and maps that are wider before or behind the convolution."""
    rng = np.random.default_rng(2)
    images, upstream = (rng.random((2, 7, 5, width), np.float32) for width in (channels, filters))
    expected = tf.raw_ops.Conv2DBackpropFilter(
        input=images,
        filter_sizes=[3, 3, channels, filters],
        out_backprop=upstream,
        strides=[1, 1, 1, 1],
        padding="SAME",
    )
    found = kernel_gradient(tf.constant(images), tf.constant(upstream))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_with_avx2_alone_convolutions_in_float32_become_products(monkeypatch):
    monkeypatch.setattr(fast_kernels, "has_avx2_alone", lambda: True)
    keras.utils.set_random_seed(3)
    image = keras.Input((8, 8, 2))
    # Two layers: the gradient of the first goes through the images of the second.
    maps = keras.layers.Conv2D(3, 3, padding="same", activation="relu", name="conv1")(image)
    model = keras.Model(image, keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv2")(maps))
    inputs = np.random.default_rng(3).random((2, 8, 8, 2), np.float32)

    def gradients():
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(model(inputs, training=True) ** 2)
        return tape.gradient(total, model.trainable_variables)

    expected = gradients()
    assert use_fast_kernels(model, "GPU:0") == 0
    assert use_fast_kernels(model) == 2
    for one, other in zip(expected, gradients(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4)


def test_products_copy_no_maps_before_the_gradient_is_there():
    """The graph would make the copies in the forward pass of every layer, and hold them all."""

    @tf.function(autograph=False)
    def gradients(images, kernel):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            total = tf.reduce_sum(fast_kernels._convolution(images, kernel) ** 2)
        return tape.gradient(total, kernel)

    graph = gradients.get_concrete_function(tf.ones((2, 8, 8, 3)), tf.ones((3, 3, 3, 4))).graph
    operations = graph.get_operations()
    needed = {}
    for operation in operations:  # In the order they were made: what an operation needs comes before it.
        before = [*(tensor.op for tensor in operation.inputs), *operation.control_inputs]
        needed[operation.name] = {one.name for one in before}.union(*(needed[one.name] for one in before))
    (convolution,) = (operation.name for operation in operations if operation.type == "Conv2D")
    copies = [operation.name for operation in operations if operation.type in ("Pad", "ConcatV2")]
    assert copies and all(convolution in needed[name] for name in copies)


@pytest.mark.slow
@pytest.mark.skipif(not can_train_in("bfloat16"), reason="no convolution in bfloat16 works here")
def test_as_near_to_float32_in_bfloat16_as_keras():
    exact, _, _ = pair()
    plain, fast, _ = pair("mixed_bfloat16")
    for model in (plain, fast):
        model.set_weights(exact.get_weights())
    expected = step(exact)
    for index in (0, 2):
        wanted = expected[index] if index else [expected[0]]
        theirs, ours = (step(model)[index] for model in (plain, fast))
        theirs, ours = (value if index else [value] for value in (theirs, ours))
        assert distance(wanted, ours) < 1.5 * distance(wanted, theirs) + 1e-3


def test_moving_averages_are_those_of_the_values():
    """The kernel gives the variance of a sample: with 3 x 4 x 4 values it is 48/47 times that of the values."""
    layer = keras.layers.BatchNormalization(momentum=0.0, name="bn")
    image = keras.Input((4, 4, 2))
    model = keras.Model(image, layer(image))
    assert use_fast_kernels(model) == 1
    values = np.random.default_rng(1).random((3, 4, 4, 2), np.float32)
    model(values, training=True)
    np.testing.assert_allclose(layer.moving_mean, values.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, values.var((0, 1, 2)), rtol=1e-5)


def test_a_single_image_of_one_pixel_has_finite_averages():
    layer = keras.layers.BatchNormalization()
    image = keras.Input((1, 1, 2))
    model = keras.Model(image, layer(image))
    use_fast_kernels(model)
    assert np.isfinite(model(np.ones((1, 1, 1, 2), np.float32), training=True)).all()
    assert np.isfinite(layer.moving_variance).all()


@pytest.mark.slow
def test_a_saved_model_is_that_of_keras(tmp_path):
    plain, fast, _ = pair()
    fast.save(tmp_path / "fast.keras")
    again = keras.models.load_model(tmp_path / "fast.keras")
    assert not [layer.name for layer in again.layers if "call" in vars(layer)]
    np.testing.assert_allclose(again(IMAGES)["output2"], plain(IMAGES)["output2"], atol=1e-6)


def test_adam_makes_the_updates_of_keras():
    rng = np.random.default_rng(2)
    start = rng.normal(size=(5, 7)).astype(np.float32)
    gradients = rng.normal(size=(6, 5, 7)).astype(np.float32) * np.logspace(-8, 0, 7, dtype=np.float32)
    results, names = [], []
    for kind in (keras.optimizers.Adam, FusedAdam):
        variable = keras.Variable(start, name="kernel")
        optimizer = kind(1e-2, name="adam")
        optimizer.build([variable])
        for gradient in gradients:
            optimizer.apply([tf.constant(gradient)], [variable])
        results.append([keras.ops.convert_to_numpy(value) for value in (variable, *optimizer.variables)])
        names.append([value.path for value in optimizer.variables])
    assert names[0] == names[1]
    for expected, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-9)
    assert np.abs(results[0][0] - start).max() > 1e-2


def test_adam_refuses_what_its_kernel_lacks():
    with pytest.raises(ValueError, match="amsgrad"):
        FusedAdam(amsgrad=True)
