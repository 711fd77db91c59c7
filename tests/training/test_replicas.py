"""Logical CPUs stand for GPUs: the same global batch must give the same losses, metrics and weights.

One number of replicas per process: collective operations of another group size cannot follow in the same one.
"""

from pathlib import Path

import numpy as np
import pytest
from forked import run_forked

pytestmark = pytest.mark.slow

START = """
import sys
from doubleunet_bs.tensorflow_setup import import_tensorflow
tf = import_tensorflow()
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4)
import keras, numpy as np
from synthetic_shards import SyntheticShards
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.training.devices import open_replicas
count = int(sys.argv[1])
replicas = open_replicas("cpu:" + ",".join(map(str, range(count))))

def save(found, weights):
    found |= {weight.path: keras.ops.convert_to_numpy(weight.value) for weight in weights}
    np.savez(sys.argv[2], **{key.replace("/", ":"): value for key, value in found.items()})
"""

# Plain gradient descent: unlike Adam it notices a gradient that is twice as large. Batches divide evenly, unevenly and
# not at all; one compiled step takes them all. The Dice loss alone: how replicas add up does not depend on the loss.
GRADIENTS = (
    START
    + """
import doubleunet_bs.training.steps as steps_module
from doubleunet_bs.dataset.pipeline import EpochPlan, training_micro_batches
guard = sys.argv[3]
if guard == "no sum over replicas":
    steps_module.sum_over_replicas = lambda sums: sums
shards = SyntheticShards(scans=12)

def network(synchronized):
    keras.utils.set_random_seed(3)
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="conv")(image)
    x = keras.layers.BatchNormalization(synchronized=synchronized, name="bn")(x)
    heads = {name: keras.layers.Conv2D(3, 1, activation="softmax", name=name)(x) for name in ("output1", "output2")}
    return keras.Model(image, heads)

with replicas.strategy.scope():
    model = network(synchronized=count > 1 and guard != "no synchronisation")
    optimizer = keras.optimizers.SGD(0.5)
    optimizer.build(model.trainable_variables)
steps = steps_module.Steps(model, optimizer, steps_module.make_loss(paper_experiment("dice")), replicas)
start, found = model.get_weights(), {}
for size in (3, 1, 4):
    model.set_weights(start)
    batches = training_micro_batches(shards, EpochPlan(range(size), size, seed=0), range(1), count)
    dataset = replicas.strategy.distribute_datasets_from_function(lambda context: batches)
    found[f"{size} loss"], found[f"{size} counts"], _ = steps.train(iter(dataset))
    found |= {f"{size} {weight.path}": keras.ops.convert_to_numpy(weight.value) for weight in model.weights}
save(found, [])
"""
)

# Ten scans in batches of four: three replicas have two, one and one images. The two images of the last batch are
# repeated until each replica has two, with a third of the weight. Five to validate: the last batch leaves two replicas
# empty. Adam. A network with what replicas share, normalised maps and a mean over each image, and with both outputs.
EPOCHS = (
    START
    + """
import dataclasses
from pathlib import Path
import doubleunet_bs.training.build_network as build_module
from doubleunet_bs.network.layers import Normalisation, class_head, conv_block, multiply_by_classes, upsample_concat
from doubleunet_bs.runs.history import read_history
from doubleunet_bs.training.trainer import Trainer
from doubleunet_bs.training.training_state import TrainingTask

def network(shape, classes=3, encoder_weights=None, head_bias=None, synchronized=False, bn_momentum=0.9):
    image = keras.Input(shape)
    skip = conv_block(image, 8, "encoder", Normalisation(bn_momentum, synchronized))
    x = upsample_concat(keras.layers.MaxPooling2D(2)(skip), [skip], "decoder")
    output1 = class_head(x, classes, "output1")
    x = keras.layers.Concatenate()([x, multiply_by_classes(image, output1, "link")])
    return keras.Model(image, {"output1": output1, "output2": class_head(x, classes, "output2")})

build_module.double_unet = network
experiment = paper_experiment(
    "focal-tversky-otsu", epochs=6, learning_rate=3e-2, encoder_weights="none", bn_momentum=0.9)
task = TrainingTask(Path(sys.argv[2]).with_suffix(""), "replicas", experiment, SyntheticShards(scans=20),
                    list(range(10)), [12, 13, 14, 15, 18])
trainer = Trainer(task, dataclasses.replace(replicas, precision=sys.argv[3]), show_progress=False)
path = trainer.train()
values = [list(vars(row).values())[:-1] for row in read_history(path / "history.csv")]
rows = np.array([[np.nan if value is None else value for value in row] for row in values], float)
save({"history": rows}, trainer.model.weights)
"""
)


def run(code: str, folder: Path, programs: list[tuple[int, str]]) -> list[dict[str, np.ndarray]]:
    """What `code` saved for each number of replicas and argument."""
    paths = [folder / f"{argument} {count}.npz" for count, argument in programs]
    run_forked(code, [(count, path, argument) for (count, argument), path in zip(programs, paths, strict=True)])
    results = []
    for path in paths:
        with np.load(path) as arrays:
            results.append({key: arrays[key] for key in arrays.files})
    return results


GUARDS = ("no sum over replicas", "no synchronisation")


@pytest.fixture(scope="module")
def gradients(tmp_path_factory):
    """Of one, two and four replicas, and of two without each of the guards."""
    programs = [(count, "guarded") for count in (1, 2, 4)] + [(2, guard) for guard in GUARDS]
    return run(GRADIENTS, tmp_path_factory.mktemp("gradients"), programs)


def test_gradients_of_one_two_and_four_replicas_are_equal(gradients):
    one, *others = gradients[:3]
    assert len(one) == 3 * (2 + 10)
    for other in others:
        for key, value in one.items():
            np.testing.assert_allclose(other[key], value, rtol=1e-5, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("guard", GUARDS)
def test_without_its_guard_a_gradient_differs(gradients, guard):
    """What the test above is worth: it would notice either omission."""
    one, two = gradients[0], gradients[3 + GUARDS.index(guard)]
    differing = [key for key, value in one.items() if not np.allclose(two[key], value, rtol=1e-3, atol=1e-5)]
    assert any("conv" in key for key in differing)


def test_epochs_of_one_and_three_replicas_are_equal(tmp_path):
    """In float64: float32 sums in another order differ in the last digit, and Adam makes that grow."""
    one, three = run(EPOCHS, tmp_path, [(count, "float64") for count in (1, 3)])
    history = one["history"]
    assert history.shape == (6, 10)
    assert history[-1, 1] < 0.8 * history[0, 1] and history[-1, 4] > 0.5, "it must have learnt something"
    np.testing.assert_allclose(three["history"], history, rtol=1e-5)
    for key, value in one.items():
        # Biases in front of a batch normalisation have no gradient but rounding: they stay below 1e-9.
        np.testing.assert_allclose(three[key], value, rtol=1e-5, atol=1e-9, err_msg=key)
