"""`--deterministic`: two runs in two processes give equal bytes. The seed governs weights and order."""

import re
import zipfile
from pathlib import Path

import pytest
from forked import run_forked

pytestmark = pytest.mark.slow

TRAIN = """
import sys
from pathlib import Path
from doubleunet_bs.tensorflow_setup import import_tensorflow
tf = import_tensorflow()
import doubleunet_bs.training.build_network as build_module
from small_network import small_network
from synthetic_shards import SyntheticShards
from doubleunet_bs.training.fast_kernels import can_train_in
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.training.devices import DeviceSettings, deterministic_kernels, open_devices
from doubleunet_bs.runs.create_run import create_run
from doubleunet_bs.training.run_training import train_fold
build_module.double_unet = small_network
experiment = paper_experiment(
    "focal-tversky-otsu", folds=3, epochs=2, learning_rate=1e-2, encoder_weights="none", seed=int(sys.argv[2])
)
shards = SyntheticShards(scans=12)
precision = "mixed_bfloat16" if can_train_in("bfloat16") else "float32"
settings = DeviceSettings(precision=precision, deterministic=True)
replicas = open_devices(experiment, shards.image_shape, settings)
train_fold(create_run(Path(sys.argv[1]), experiment, shards), shards, 1, replicas)
assert deterministic_kernels()
"""


def contents(path: Path) -> dict[str, bytes]:
    """What a run left, without what is a date by nature: durations, the clock in archives, event files.

    Keras numbers shared objects in `config.json` by their addresses in memory, which say nothing.
    """
    history = [line.rpartition(",")[0] for line in (path / "history.csv").read_text().splitlines()]
    found = {"history": "\n".join(history).encode(), "best": (path / "best.weights.h5").read_bytes()}
    with zipfile.ZipFile(path / "model.keras") as archive:
        found |= {name: archive.read(name) for name in archive.namelist() if name != "metadata.json"}
    found["config.json"] = re.sub(rb'"shared_object_id": \d+', b"", found["config.json"])
    return found


def test_two_runs_give_equal_bytes_and_another_seed_others(tmp_path):
    folders = [tmp_path / name for name in ("one", "again", "other")]
    run_forked(TRAIN, list(zip(folders, (3, 3, 4), strict=True)))
    one, again, other = (contents(folder / "fold_01") for folder in folders)
    assert one.keys() == again.keys() >= {"history", "best", "model.weights.h5", "config.json"}
    assert [name for name in one if one[name] != again[name]] == []
    assert all(one[name] != other[name] for name in ("history", "best", "model.weights.h5"))
