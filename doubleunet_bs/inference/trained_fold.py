"""A fold whose training has ended: what its folder says of the model."""

import dataclasses
from pathlib import Path
from typing import Any

from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.files import read_json
from doubleunet_bs.preparation.shards import file_sha256
from doubleunet_bs.training import run_folder
from doubleunet_bs.training.history import read_history
from doubleunet_bs.training.run_folder import Run


@dataclasses.dataclass(frozen=True)
class TrainedFold:
    """A trained fold of a run.

    Attributes:
        run: the run it belongs to.
        fold: its number, from 1.
        path: its folder.
        weights_sha256: SHA-256 of `best.weights.h5`, by which scores and exports know their model.
        folds_sha256: hash of the division it was trained with, None when the folder does not say.
        best_epoch: the epoch of the weights.
        validation_f1: pooled F1 of the metastatic class on the validation scans after that epoch, None when undefined.
        arithmetic: "float32" or "mixed_bfloat16" for instance, in which it was trained; None when the folder does not say.
    """

    run: Run
    fold: int
    path: Path
    weights_sha256: str
    folds_sha256: str | None
    best_epoch: int
    validation_f1: float | None
    arithmetic: str | None = None

    @property
    def model_path(self) -> Path:
        """`model.keras`, the float32 network with the best weights."""
        return self.path / run_folder.KERAS_MODEL


def open_fold(run: Run, fold: int) -> TrainedFold:
    """Open a trained fold.

    Raises:
        SettingsError: a number below 1.
        RunError: the fold is not trained, or something of it is missing or damaged.
    """
    if fold < 1:
        raise SettingsError(f"fold {fold} is out of range: folds are counted from 1")
    path = run.fold_path(fold)
    if not (path / run_folder.KERAS_MODEL).is_file():
        raise RunError(f"{path}: not a trained fold ({run_folder.KERAS_MODEL} is missing); train it first")
    weights = path / run_folder.BEST_WEIGHTS
    if not weights.is_file():
        raise RunError(f"{path}: {run_folder.BEST_WEIGHTS} is missing; train the fold again")
    epochs = read_history(path / run_folder.HISTORY)
    if not epochs:
        raise RunError(f"{path / run_folder.HISTORY}: no epoch is in it; train the fold again")
    best = max(epochs, key=lambda epoch: epoch.score)
    environment = path / "environment.json"
    content: Any = None
    if environment.exists():
        content = read_json(environment, RunError, "description of a training environment")
    said = content if isinstance(content, dict) else {}
    return TrainedFold(
        run=run,
        fold=fold,
        path=path,
        weights_sha256=file_sha256(weights),
        folds_sha256=said.get("folds_sha256"),
        best_epoch=best.epoch,
        validation_f1=best.val_f1,
        arithmetic=said.get("precision"),
    )
