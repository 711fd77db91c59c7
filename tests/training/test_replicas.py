"""Two logical CPUs stand for two GPUs: the same global batch must give the same losses, counts and weights."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TESTS = Path(__file__).resolve().parents[1]

SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from doubleunet_bs.quiet import import_tensorflow
tf = import_tensorflow()
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, numpy as np
from synthetic_shards import SyntheticShards
from doubleunet_bs.training.experiments import paper_experiment
from doubleunet_bs.training.replicas import open_replicas
from doubleunet_bs.training.run_folder import create_run
from doubleunet_bs.training.trainer import train_fold

# 8 training scans in two batches; 5 validation scans, so that the last batch leaves a replica empty.
shards = SyntheticShards(scans=18)
settings = {"folds": 3, "epochs": 2, "learning_rate": 1e-4, "encoder_weights": "none"}
results = {}
for devices in ("cpu:0", "cpu:0,1"):
    run = create_run(f"{sys.argv[2]}/{devices[4:]}", paper_experiment(sys.argv[3], **settings), shards, "shards")
    path = train_fold(run, shards, 1, open_replicas(devices), show_progress=False)
    model = keras.models.load_model(path / "model.keras")
    results[devices] = {
        "history": [row.split(",")[:-1] for row in (path / "history.csv").read_text().splitlines()[1:]],
        "weights": [float(np.abs(w.numpy()).sum()) for w in model.weights],
    }
    np.savez(f"{sys.argv[2]}/{devices[4:]}.npz", *[w.numpy() for w in model.weights])
print(json.dumps(results))
"""

# Plain gradient descent: unlike Adam it notices a gradient that is twice as large. All batch sizes from 1 to 5.
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

for name in ("dice", "focal-tversky"):
    for size in range(1, 6):
        found = []
        for count in (1, 2, 4):
            replicas = open_replicas("cpu:" + ",".join(map(str, range(count))))
            with replicas.strategy.scope():
                model = network(synchronized=count > 1)
                optimizer = keras.optimizers.SGD(0.5)
                optimizer.build(model.trainable_variables)
            steps = Steps(model, optimizer, make_loss(paper_experiment(name)), replicas)
            pieces = training_pieces(shards, range(size), size, count, seed=0, first_epoch=0, last_epoch=1)
            dataset = replicas.strategy.distribute_datasets_from_function(lambda context: pieces)
            loss, counts, _ = steps.train(iter(dataset))
            found.append((loss, counts, [keras.ops.convert_to_numpy(w.value) for w in model.weights]))
        for loss, counts, weights in found[1:]:
            np.testing.assert_allclose(loss, found[0][0], rtol=1e-5)
            assert counts == found[0][1], (name, size, counts, found[0][1])
            for one, other in zip(found[0][2], weights):
                np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)
print("agreed")
"""


@pytest.mark.slow
def test_gradients_of_one_two_and_four_replicas_are_equal():
    done = subprocess.run([sys.executable, "-c", GRADIENTS, TESTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "agreed"


@pytest.mark.slow
def test_one_and_two_replicas_agree(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, TESTS, tmp_path, "focal-tversky-otsu"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(done.stdout.splitlines()[-1])
    one, two = (results[key]["history"] for key in ("cpu:0", "cpu:0,1"))
    assert len(one) == len(two) == 2
    for a, b in zip(one, two, strict=True):
        assert [float(x or -1) for x in a] == pytest.approx([float(x or -1) for x in b], rel=1e-4)
    with np.load(tmp_path / "0.npz") as first, np.load(tmp_path / "0,1.npz") as second:
        assert len(first.files) == len(second.files) > 200
        for name in first.files:
            difference = np.linalg.norm(first[name] - second[name]) / max(np.linalg.norm(first[name]), 1e-6)
            assert difference < 1e-3, name
