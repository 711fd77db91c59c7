"""What a folder with a model is: a trained fold in its run, a fold copied away from it, or an exported model.

TensorFlow is not imported.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.files import read_json
from doubleunet_bs.inference.model_description import (
    DESCRIPTION,
    ModelDescription,
    describe_saved_model,
    parse_description,
)
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.preparation.shards import file_sha256
from doubleunet_bs.runs import run_folder
from doubleunet_bs.runs.history import read_history
from doubleunet_bs.runs.run_folder import SAVED_MODEL, Run, open_run

_ADVICE = "give a fold such as RUN/fold_01, or an exported saved_model folder"


@dataclasses.dataclass(frozen=True)
class TrainedFold:
    """A fold of a run whose training has ended.

    Attributes:
        run: the run it belongs to.
        fold: its number, from 1.
        path: its folder.
        weights_sha256: SHA-256 of `best.weights.h5`, by which scores and exports know their model.
        folds_sha256: hash of the split it was trained with.
        best_epoch: the epoch of the weights.
        validation_f1: pooled F1 of the metastatic class on the validation scans after that epoch, a fraction; None when
            undefined.
        precision: of the training, "float32" or "mixed_bfloat16" for instance.
        cohorts: {"training", "validation"}: how many scans and patients, see `records.count_cohort`.
    """

    run: Run
    fold: int
    path: Path
    weights_sha256: str
    folds_sha256: str
    best_epoch: int
    validation_f1: float | None
    precision: str
    cohorts: dict[str, Any]

    @property
    def model_path(self) -> Path:
        """`model.keras`, the float32 network with the best weights."""
        return self.path / run_folder.KERAS_MODEL

    def describe(self) -> ModelDescription:
        """Its model metadata. Encoder weights are named without their folder.

        Raises:
            RunError: the run says something impossible.
        """
        description = ModelDescription(
            experiment=self.run.experiment.public().to_json(),
            fold=self.fold,
            preparation=PreparationSettings.from_json(self.run.data["preparation"]),
            image_shape=tuple(self.run.data["image_shape"]),
            data_fingerprint=self.run.data["fingerprint"],
            weights_sha256=self.weights_sha256,
            best_epoch=self.best_epoch,
            validation_f1=self.validation_f1,
            trained_on=self.run.data["scans"],
            training=self.cohorts["training"],
            validation=self.cohorts["validation"],
            cohort=self.run.data["cohort"],
            pretraining=(self.run.pretrain_data or {}).get("cohort"),
        )
        # A run may come from elsewhere as well: what it says is checked like an export.
        return parse_description(description.to_json(), str(self.path))


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
        raise RunError(f"{path}: not a trained fold, {run_folder.KERAS_MODEL} is missing: train it first")
    weights = path / run_folder.BEST_WEIGHTS
    if not weights.is_file():
        raise RunError(f"{path}: {run_folder.BEST_WEIGHTS} is missing: train the fold again")
    epochs = read_history(path / run_folder.HISTORY)
    if not epochs:
        raise RunError(f"{path / run_folder.HISTORY}: it has no epoch: train the fold again")
    best = max(epochs, key=lambda epoch: epoch.score)
    environment = path / "environment.json"
    content = read_json(environment, RunError, "training environment")
    known = content if isinstance(content, dict) else {}
    cohorts = known.get("cohorts")
    if (
        not all(isinstance(known.get(name), str) for name in ("folds_sha256", "precision"))
        or not isinstance(cohorts, dict)
        or not cohorts.keys() >= {"training", "validation"}
    ):
        raise RunError(f"{environment}: not a training environment: train the fold again")
    return TrainedFold(
        run=run,
        fold=fold,
        path=path,
        weights_sha256=file_sha256(weights),
        folds_sha256=known["folds_sha256"],
        best_epoch=best.epoch,
        validation_f1=best.val_f1,
        precision=known["precision"],
        cohorts=cohorts,
    )


def open_members(run: Run, folds: Sequence[int] | None = None) -> list[TrainedFold]:
    """The folds of an ensemble, in their order.

    Args:
        run: the opened run. folds: at least two trained folds; None: all trained folds.

    Raises:
        SettingsError: fewer than two folds, or one named twice.
        RunError: a fold is not trained or damaged, or they were trained on different splits.
    """
    folds = run.trained_folds() if folds is None else list(folds)
    if len(folds) < 2 or len(set(folds)) < len(folds):
        named = ", ".join(map(str, folds)) or "none"
        raise SettingsError(f"{run.path}: an ensemble needs two different trained folds or more, not {named}")
    members = [open_fold(run, fold) for fold in sorted(folds)]
    if len({member.folds_sha256 for member in members}) > 1:
        raise RunError(f"{run.path}: its folds were trained on different splits of the scans: train them again")
    return members


@dataclasses.dataclass(frozen=True)
class ModelFolder:
    """A model on disk.

    Attributes:
        path: the folder, as the user named it.
        description: its metadata.
        saved_model: the SavedModel folder; None when a fold has none, or one of other weights than it has now, and must
            be exported again.
        trained: the fold, when the folder is one in its run.
    """

    path: Path
    description: ModelDescription
    saved_model: Path | None
    trained: TrainedFold | None

    def export(self) -> Path:
        """The SavedModel folder; `RunError` where there is none of the present weights."""
        if self.saved_model is None:
            raise RunError(f"{self.path}: has no saved_model of its present weights: export it with serve-package")
        return self.saved_model


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (run_folder.KERAS_MODEL, "saved_model.pb"))


def find_model(path: Path) -> ModelFolder:
    """Find out what a folder named with --model is.

    Raises:
        RunError: it has no model, or one whose description is damaged or of another format.
    """
    if path.is_file():
        # A file of a model, of a fold or of its export.
        within = next((place for place in path.parents[:3] if _is_model(place)), None)
        raise RunError(f"{path}: is a file: {f'give its folder {within}' if within else _ADVICE}")
    if not path.is_dir():
        folds = [one for one in sorted(path.parent.glob("fold_*")) if _is_model(one)]
        there = f"trained folds are {', '.join(map(str, folds))}" if folds else _ADVICE
        raise RunError(f"{path}: no such model folder: {there}")
    exported = path if (path / "saved_model.pb").is_file() else path / SAVED_MODEL
    named = path if path.name else path.resolve()  # "." has no name
    number = named.name.removeprefix("fold_")
    if exported != path and (named.parent / "experiment.json").is_file() and number.isdecimal():
        trained = open_fold(open_run(named.parent), int(number))
        description = trained.describe()
        # A fold that was trained further after its export has other weights than the export.
        valid = (exported / DESCRIPTION).is_file() and (
            describe_saved_model(exported).weights_sha256 == description.weights_sha256
        )
        return ModelFolder(path, description, exported if valid else None, trained)
    if exported.is_dir():
        return ModelFolder(path, describe_saved_model(exported), exported, None)
    if (path / "experiment.json").is_file():
        raise RunError(f"{path}: a run, not a fold: give one such as {path / 'fold_01'}")
    raise RunError(f"{path}: not a model folder: {_ADVICE}")
