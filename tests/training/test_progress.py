"""The event file is read back with TensorBoard's own reader. Without the package nothing is written."""

import io
import sys

import numpy as np
from PIL import Image
from synthetic_shards import SyntheticShards
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from doubleunet_bs.constants import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE
from doubleunet_bs.runs.history import Epoch
from doubleunet_bs.training.progress import TensorBoardLog


def test_figures_and_overlays_come_back(tmp_path):
    board = TensorBoardLog(tmp_path)
    for epoch in (1, 2):
        undefined = None if epoch == 1 else 0.5
        board.epoch(Epoch(epoch, 1.5 / epoch, undefined, 0.0, undefined, 1.6, 0.1, 0.2, 0.3, 1e-4, 2.0))
    shards = SyntheticShards(scans=3)
    grey, labels = (np.stack([part(index) for index in range(3)]) for part in (shards.grey, shards.labels))
    board.examples(2, grey, labels, labels == 1, shards.cases[:3])
    board.close()
    logs = {}
    for series in ("training", "validation"):
        logs[series] = EventAccumulator(str(tmp_path / "tensorboard" / series), size_guidance={"tensors": 0})
        logs[series].Reload()
    figures = {"loss", "precision", "sensitivity", "f1"}
    # Equal names: one chart.
    assert {series: set(events.Tags()["tensors"]) for series, events in logs.items()} == {
        "training": {*figures, "learning_rate", "seconds"},
        "validation": {*figures, "validation"},
    }

    def values(series, tag):
        found = [(event.step, event.tensor_proto) for event in logs[series].Tensors(tag)]
        return [(step, np.frombuffer(one.tensor_content, "f4").sum() + sum(one.float_val)) for step, one in found]

    assert values("training", "loss") == [(1, 1.5), (2, 0.75)]
    assert values("training", "precision") == [(2, 0.5)]
    assert [step for step, _ in values("validation", "loss")] == [1, 2]
    [pictures] = logs["validation"].Tensors("validation")
    width, height, *pngs = pictures.tensor_proto.string_val
    assert pictures.step == 2 and len(pngs) == 3 and int(width) == 32 and int(height) > 32
    with Image.open(io.BytesIO(pngs[0])) as image:
        found = image.convert("RGB").getcolors(1 << 20)
    assert {TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE} <= {colour for _, colour in found}


def test_without_the_package_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    board = TensorBoardLog(tmp_path)
    board.epoch(Epoch(1, 1.5, None, 0.0, None, 1.6, 0.1, 0.2, 0.3, 1e-4, 2.0))
    board.examples(1, *(np.zeros((1, 8, 8), np.uint8) for _ in range(3)), SyntheticShards().cases[:1])
    board.close()
    assert not list(tmp_path.iterdir())
