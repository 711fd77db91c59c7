"""Logical CPUs stand for GPUs: the same global batch must give the same loss, counts and updated weights."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TESTS = Path(__file__).resolve().parents[1]

# Plain gradient descent: unlike Adam it notices a gradient that is twice as large. Batches that divide evenly, unevenly and not at all.
GRADIENTS = """
import sys
sys.path.insert(0, sys.argv[1])
from doubleunet_bs.quiet import import_tensorflow
tf = import_tensorflow()
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4)
import keras, numpy as np
from synthetic_shards import SyntheticShards
from doubleunet_bs.dataset.pipeline import training_pieces
from doubleunet_bs.training.experiments import paper_experiment
from doubleunet_bs.training.replicas import open_replicas
from doubleunet_bs.training.steps import Steps, make_loss

shards = SyntheticShards(scans=12)

def network(synchronized):
    keras.utils.set_random_seed(3)
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="conv")(image)
    x = keras.layers.BatchNormalization(synchronized=synchronized, name="bn")(x)
    heads = {name: keras.layers.Conv2D(3, 1, activation="softmax", name=name)(x) for name in ("output1", "output2")}
    return keras.Model(image, heads)

# One number of replicas per process: collective operations of another group size cannot follow.
count = int(sys.argv[2])
replicas = open_replicas("cpu:" + ",".join(map(str, range(count))))
found = {}
for name, sizes in (("dice", (3,)), ("focal-tversky", (1, 4))):
    for size in sizes:
        with replicas.strategy.scope():
            model = network(synchronized=count > 1)
            optimizer = keras.optimizers.SGD(0.5)
            optimizer.build(model.trainable_variables)
        steps = Steps(model, optimizer, make_loss(paper_experiment(name)), replicas)
        pieces = training_pieces(shards, range(size), size, count, seed=0, first_epoch=0, last_epoch=1)
        dataset = replicas.strategy.distribute_datasets_from_function(lambda context: pieces)
        loss, counts, _ = steps.train(iter(dataset))
        found[f"{name} {size} loss"], found[f"{name} {size} counts"] = loss, counts
        for weight in model.weights:
            found[f"{name} {size} {weight.path}"] = keras.ops.convert_to_numpy(weight.value)
np.savez(sys.argv[3], **{key.replace("/", ":"): value for key, value in found.items()})
"""


@pytest.mark.slow
def test_gradients_of_one_two_and_four_replicas_are_equal(tmp_path):
    results = []
    for count in (1, 2, 4):
        command = [sys.executable, "-c", GRADIENTS, TESTS, str(count), tmp_path / f"{count}.npz"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        with np.load(tmp_path / f"{count}.npz") as arrays:
            results.append({key: arrays[key] for key in arrays.files})
    assert len(results[0]) == 3 * (2 + 10)
    for other in results[1:]:
        for key, value in results[0].items():
            np.testing.assert_allclose(other[key], value, rtol=1e-5, atol=1e-6, err_msg=key)
