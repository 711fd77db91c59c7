"""Two logical CPUs stand for two GPUs: the same global batch must give the same losses, counts and weights."""

import json
import subprocess
import sys
from pathlib import Path

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

# 11 training scans in batches of 4, 4 and 3; 5 validation scans, so that the last batch leaves a replica empty.
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


@pytest.mark.slow
def test_one_and_two_replicas_agree(tmp_path):
    import numpy as np

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
