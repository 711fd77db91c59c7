"""The state of an unfinished training: how far it has come, its learning rate, and the file that it is continued from.

The file is a NumPy archive rather than a pickle: it is opened with `allow_pickle=False`, and the checksums of the zip
format find truncated or damaged content. It is replaced atomically.
"""

import dataclasses
import json
import math
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np

from doubleunet_bs.errors import RunError
from doubleunet_bs.files import replace_file
from doubleunet_bs.runs.history import Epoch

FORMAT = 1
DAMAGED_ARCHIVE = (
    *(OSError, ValueError, LookupError, TypeError, EOFError, MemoryError),
    *(OverflowError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error),
)
"""What NumPy and zipfile raise on a damaged archive; RuntimeError where a byte says that it is encrypted."""


@dataclasses.dataclass
class TrainingState:
    """How far a training has come, within an epoch or between two.

    Attributes:
        epoch: number of finished epochs.
        batch: number of batches trained in the current epoch.
        losses: losses of those batches.
        counts: their true positives, false positives and false negatives, summed.
        seconds: time spent on them.
        best: (F1, minus loss) of the best validation so far. None before the first.
        best_epoch: epoch of that validation, counted from 1.
        history: the finished epochs.
    """

    epoch: int = 0
    batch: int = 0
    losses: list[float] = dataclasses.field(default_factory=list)
    counts: list[int] = dataclasses.field(default_factory=lambda: [0, 0, 0])
    seconds: float = 0.0
    best: tuple[float, float] | None = None
    best_epoch: int = 0
    history: list[Epoch] = dataclasses.field(default_factory=list)

    def add_batch(self, loss: float, counts: list[int], seconds: float) -> None:
        """Add a trained batch."""
        self.batch += 1
        self.losses.append(loss)
        self.counts = [total + count for total, count in zip(self.counts, counts, strict=True)]
        self.seconds += seconds

    def end_epoch(self, row: Epoch) -> bool:
        """Add a finished epoch and return whether its validation is the best so far, see `Epoch.score`."""
        self.history.append(row)
        self.epoch, self.batch, self.losses, self.counts, self.seconds = row.epoch, 0, [], [0, 0, 0], 0.0
        if self.best is not None and row.score <= self.best:
            return False
        self.best, self.best_epoch = row.score, row.epoch
        return True

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "TrainingState":
        """The inverse of `to_json`, after a round trip through a file."""
        best = content["best"]
        history = [Epoch(**row) for row in content["history"]]
        return cls(**{**content, "best": None if best is None else tuple(best), "history": history})


@dataclasses.dataclass
class Plateau:
    """Lowers the learning rate when the validation loss stops improving. Its fields are all its state.

    Attributes:
        factor: what the learning rate is multiplied with.
        patience: epochs without improvement before that happens.
        min_delta: how much lower the loss must be to count as better (Keras' ReduceLROnPlateau: 1e-4).
        best: lowest loss so far.
        wait: epochs since then, or since the last reduction.
    """

    factor: float
    patience: int
    min_delta: float = 1e-4
    best: float = math.inf
    wait: int = 0

    def learning_rate(self, val_loss: float, current: float) -> float:
        """The learning rate of the next epoch, given the validation loss of this one."""
        if val_loss < self.best - self.min_delta:
            self.best, self.wait = val_loss, 0
            return current
        self.wait += 1
        if self.wait < self.patience:
            return current
        self.wait = 0
        return current * self.factor


def cosine(start: float, done: float) -> float:
    """The learning rate after a fraction `done` of all steps, falling from `start` to 0 along half a cosine.

    >>> cosine(1e-3, 0.5)
    0.0005
    """
    return start * 0.5 * (1.0 + math.cos(math.pi * done))


def save_state(
    path: str | os.PathLike, model: keras.Model, optimizer: keras.optimizers.Optimizer, progress: dict
) -> None:
    """Write all variables of model and built optimiser, and `progress` of plain JSON values, to `path`."""
    arrays = {f"model/{index:04d}": keras.ops.convert_to_numpy(value) for index, value in enumerate(_values(model))}
    arrays |= {
        f"optimizer/{index:04d}": keras.ops.convert_to_numpy(value) for index, value in enumerate(_values(optimizer))
    }
    meta = {"format": FORMAT, "paths": {"model": _paths(model), "optimizer": _paths(optimizer)}, "progress": progress}
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)

    replace_file(path, write)


def load_state(
    path: str | os.PathLike,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    fingerprint: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Load a saved state into model and optimiser and return its `progress`. Nothing changes unless everything fits.

    Raises:
        RunError: the file is missing, truncated, damaged or of another format, its variables are not those of this
            model and optimiser, or "identity" in its `progress` is not `fingerprint`. The difference is named.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        meta = json.loads(arrays["meta"].tobytes())
        paths, progress, known = meta["paths"], meta["progress"], meta["format"] == FORMAT
    except FileNotFoundError:
        raise RunError(f"{path}: no such checkpoint: there is nothing to resume") from None
    except DAMAGED_ARCHIVE as cause:
        raise RunError(f"{path}: damaged checkpoint ({cause}): remove it to start this training again") from None
    if not known:
        raise RunError(f"{path}: not a checkpoint of format {FORMAT}")
    _check_fingerprint(path, progress, fingerprint)
    loaded = []
    for kind, owner in (("model", model), ("optimizer", optimizer)):
        if paths.get(kind) != _paths(owner):
            raise RunError(f"{path}: saved from another {kind}: use the settings and version that it was saved with")
        for index, variable in enumerate(owner.variables):
            value = arrays.get(f"{kind}/{index:04d}")
            if value is None or value.shape != tuple(variable.shape):
                raise RunError(f"{path}: has no {variable.path} of shape {tuple(variable.shape)}: start another --run")
            loaded.append((variable, value))
    for variable, value in loaded:
        variable.assign(value)
    return progress


def _check_fingerprint(path, progress: dict[str, Any], fingerprint: dict[str, Any] | None) -> None:
    saved = progress.get("identity", {})
    for key, value in json.loads(json.dumps(fingerprint or {})).items():
        old = saved.get(key)
        if old == value:
            continue
        detail = key
        if isinstance(old, dict) and isinstance(value, dict):
            detail = "; ".join(
                f"{name} was {old.get(name)}, is {value[name]}" for name in value if old.get(name) != value[name]
            )
        elif not any(isinstance(side, dict | list) for side in (old, value)):
            detail = f"{key} was {old}, is {value}"
        raise RunError(
            f"{path}: saved with other settings or data ({detail}): restore them, or choose a new --run folder"
        )


def _values(owner) -> list:
    return [variable.value for variable in owner.variables]


def _paths(owner) -> list[str]:
    return [variable.path for variable in owner.variables]
