"""The event file is read back with TensorBoard's own reader. Without the package nothing is written."""

import sys

import numpy as np
from synthetic_shards import SyntheticShards
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from doubleunet_bs.training.history import Epoch, TensorBoardLog


def test_figures_and_overlays_come_back(tmp_path):
    board = TensorBoardLog(tmp_path)
    for epoch in (1, 2):
        undefined = None if epoch == 1 else 0.5
        board.epoch(Epoch(epoch, 1.5 / epoch, undefined, 0.0, undefined, 1.6, 0.1, 0.2, 0.3, 1e-4, 2.0))
    shards = SyntheticShards(scans=3)
    grey, labels = (np.stack([part(index) for index in range(3)]) for part in (shards.grey, shards.labels))
    board.examples(2, grey, labels, labels == 1, shards.cases[:3])
    board.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()["tensors"]
    assert {"training/loss", "training/f1", "validation/loss", "validation/f1", "run/learning_rate"} <= set(tags)
    values = {
        tag: [
            (
                event.step,
                float(np.frombuffer(event.tensor_proto.tensor_content, np.float32)[0])
                if event.tensor_proto.tensor_content
                else event.tensor_proto.float_val[0],
            )
            for event in events.Tensors(tag)
        ]
        for tag in ("training/loss", "training/precision")
    }
    assert values == {"training/loss": [(1, 1.5), (2, 0.75)], "training/precision": [(2, 0.5)]}
    [pictures] = events.Tensors("validation")
    assert pictures.step == 2 and len(pictures.tensor_proto.string_val) == 2 + 3
    assert pictures.tensor_proto.string_val[0] == b"32"
    # Above the picture of 32 x 32 pixels stand the legend and the names.
    assert int(pictures.tensor_proto.string_val[1]) > 32


def test_without_the_package_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    board = TensorBoardLog(tmp_path)
    board.epoch(Epoch(1, 1.5, None, 0.0, None, 1.6, 0.1, 0.2, 0.3, 1e-4, 2.0))
    board.examples(1, *(np.zeros((1, 8, 8), np.uint8) for _ in range(3)), SyntheticShards().cases[:1])
    board.close()
    assert not list(tmp_path.iterdir())
