"""One training: what it is made from, how far it has come, and the file that it is continued from.

The file is a NumPy archive rather than a pickle: it is opened with `allow_pickle=False`, and the checksums of the zip
format find truncated or damaged content. It is replaced atomically.
"""

import dataclasses
import json
import math
import os
import platform
import struct
import subprocess
import zipfile
import zlib
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np

from doubleunet_bs.errors import RunError
from doubleunet_bs.files import read_json, replace_file
from doubleunet_bs.preparation.records import count_cohort
from doubleunet_bs.preparation.shards import Dataset, file_sha256
from doubleunet_bs.runs.experiments import Experiment
from doubleunet_bs.runs.history import Epoch
from doubleunet_bs.runs.run_folder import ENVIRONMENT
from doubleunet_bs.training.devices import Replicas, deterministic_kernels, gpu_models

FORMAT = 1
PACKAGES = ("doubleunet-bs", "tensorflow", "keras", "numpy", "pydicom", "opencv-python-headless", "scikit-learn")
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


@dataclasses.dataclass(frozen=True)
class TrainingTask:
    """One training: of a fold, of its mining model, or the pre-training.

    Attributes:
        path: the folder for the results.
        title: heads the progress bar and the picture: "fold 1".
        experiment: what is trained.
        dataset: opened shards.
        train_cases: indices into the dataset.
        validation_cases: indices into the dataset.
        initial_weights: weights of the whole network to start from. None: the experiment's own start.
        made_from: further facts that an interrupted training must share to be continued, by name: plain JSON values.
        augmented: show the training scans in the variants that the experiment asks for.
    """

    path: Path
    title: str
    experiment: Experiment
    dataset: Dataset
    train_cases: list[int]
    validation_cases: list[int]
    initial_weights: Path | None = None
    made_from: dict[str, Any] = dataclasses.field(default_factory=dict)
    augmented: bool = True


def training_fingerprint(task: TrainingTask, replicas: Replicas) -> dict[str, Any]:
    """What must be equal for a saved state to be continued, by name: plain JSON values. Files count by content."""
    dataset, encoder = task.dataset, task.experiment.encoder_weights
    own_encoder = task.initial_weights is None and encoder not in ("none", "imagenet")
    return {
        "experiment": task.experiment.to_json(),
        "data": dataset.fingerprint,
        "training scans": [dataset.cases[index].case for index in task.train_cases],
        "validation scans": [dataset.cases[index].case for index in task.validation_cases],
        "initial weights": None if task.initial_weights is None else file_sha256(task.initial_weights),
        "encoder weights": file_sha256(Path(encoder)) if own_encoder else None,
        "precision": replicas.precision,
        # These decide the last digits, and the last digits decide the rest of a training.
        "replicas": replicas.count,
        "deterministic": deterministic_kernels(),
        **task.made_from,
    }


def training_environment(task: TrainingTask, replicas: Replicas, fingerprint: dict[str, Any]) -> dict[str, Any]:
    """The content of `environment.json`: versions, devices, settings and hashes, without a path or a user's name.

    Versions and devices are those of the last start.
    """
    return {
        **describe_environment(),
        "devices": list(replicas.devices),
        "gpus": gpu_models(replicas),
        "replicas": replicas.count,
        "precision": replicas.precision,
        "deterministic": fingerprint["deterministic"],
        "experiment": task.experiment.public().to_json(),
        "scans": {"training": len(task.train_cases), "validation": len(task.validation_cases)},
        "cohorts": {
            name: count_cohort(task.dataset.cases[index] for index in cases)
            for name, cases in (("training", task.train_cases), ("validation", task.validation_cases))
        },
        "data_fingerprint": task.dataset.fingerprint,
        "initial_weights_sha256": fingerprint["initial weights"],
        "encoder_weights_sha256": fingerprint["encoder weights"],
        **task.made_from,
    }


def read_environment(path: Path) -> dict[str, Any]:
    """The `environment.json` of a training's folder; `RunError` where it is missing or damaged."""
    content = read_json(path / ENVIRONMENT, RunError, "description of a training environment")
    if not isinstance(content, dict):
        raise RunError(f"{path / ENVIRONMENT}: not a description of a training environment")
    return content


def check_made_from(path: Path, made_from: dict[str, Any]) -> dict[str, Any]:
    """Compare the folder of a finished training with what it must have been made from, and return its environment.

    Raises `RunError`: made for another fold, or from other scans or weights. The first difference is named.
    """
    content = read_environment(path)
    for key, value in made_from.items():
        if content.get(key) != value:
            raise RunError(f"{path}: made from another {key} than this fold needs: remove the folder to train it again")
    return content


def describe_environment() -> dict[str, Any]:
    """Versions of Python and the packages, the processor, and the git commit of the source if there is one.

    It holds no host name, user name, address or path.
    """
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "source": _git_state(),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Commit, and whether files differ from it. None outside a git checkout or without git."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit, status = (
            subprocess.run(
                ["git", "-C", root, *command], capture_output=True, text=True, timeout=10, check=True
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "modified": bool(status)}
