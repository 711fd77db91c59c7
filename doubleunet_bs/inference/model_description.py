"""What travels with a model: how its images must be prepared, its classes, where it comes from, what it is for."""

import dataclasses
import hashlib
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from doubleunet_bs import __version__
from doubleunet_bs.constants import CLASS_NAMES
from doubleunet_bs.errors import BoneScanError, RunError
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.inference.endpoints import describe_endpoints
from doubleunet_bs.preparation.records import MIXED, PATIENTS, PHANTOMS, UNKNOWN
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.training.experiments import PAPER_EXPERIMENTS

FORMAT = 1
# Inside a SavedModel folder. `assets.extra` is for files that are no part of the graph.
DESCRIPTION = Path("assets.extra") / "model.json"
INTENDED_USE = (
    "Research software, not a medical device. "
    "Its output has not been validated for clinical use and must not be used for diagnosis or treatment."
)
MASK_VALUES = {"0": "not metastatic", "1": "metastatic"}
_HASH = re.compile(r"[0-9a-f]{64}\Z")


@dataclasses.dataclass(frozen=True)
class Member:
    """One fold of an ensemble; see `ModelDescription` for what the attributes mean."""

    fold: int
    weights_sha256: str
    best_epoch: int
    validation_f1: float | None


@dataclasses.dataclass(frozen=True)
class ModelDescription:
    """A model's papers.

    Attributes:
        experiment: all settings of the training; a file of encoder weights is named without its folder.
        fold: the fold of the cross-validation it is of, from 1; None for an ensemble.
        preparation: how a scan must be prepared for it.
        image_shape: (rows, columns) of its input.
        data_fingerprint: of the shards it was trained on.
        weights_sha256: SHA-256 of the weights file; of an ensemble, of its members' hashes one after the other.
        best_epoch: the epoch of the weights; None for an ensemble.
        validation_f1: F1 of the metastatic class on the validation scans after it, a fraction; None when undefined, and
            for an ensemble, which has no validation scans of its own.
        version: of the package that wrote the description.
        members: the folds of an ensemble, at least two; empty for a single fold.
        trained_on: "phantoms", "patients", "mixed" or "unknown".
    """

    experiment: dict[str, Any]
    fold: int | None
    preparation: PreparationSettings
    image_shape: tuple[int, int]
    data_fingerprint: str
    weights_sha256: str
    best_epoch: int | None
    validation_f1: float | None
    version: str = __version__
    members: tuple[Member, ...] = ()
    trained_on: str = UNKNOWN

    @property
    def is_paper_row(self) -> bool:
        """Whether the model was trained as a row of the paper's tables, with no setting changed."""
        row = PAPER_EXPERIMENTS.get(self.experiment["name"])
        same = row is not None and self.experiment.items() <= row.to_json().items()
        return same and not self.preparation.changes()

    @property
    def name(self) -> str:
        """One line for a person: experiment, whether it is the paper's, fold, and whether it knows phantoms only."""
        experiment = self.experiment["name"] + ("" if self.is_paper_row else " (changed settings)")
        folds = f"fold {self.fold}"
        if self.members:
            folds = f"ensemble of folds {', '.join(str(one.fold) for one in self.members)}"
        trained = {PHANTOMS: ", trained on phantoms", MIXED: ", trained on phantoms as well"}.get(self.trained_on, "")
        return f"{experiment}, {folds}{trained}"

    @property
    def served_name(self) -> str:
        """What a model server calls it unless the user chooses another name: "focal-tversky-otsu-fold-01"."""
        folds = [one.fold for one in self.members] or [self.fold]
        name = f"{self.experiment['name']}-fold{'s' if self.members else ''}"
        return "-".join([name, *(f"{fold:02d}" for fold in folds)])

    @property
    def class_names(self) -> list[str]:
        """The classes of the network's outputs in their order."""
        return list(CLASS_NAMES) if self.experiment["classes"] == len(CLASS_NAMES) else [CLASS_NAMES[-1]]

    def to_json(self) -> dict[str, Any]:
        """A JSON object without a path, a name of a user or anything of a patient."""
        members = {"members": [dataclasses.asdict(one) for one in self.members]} if self.members else {}
        return {
            "format": FORMAT,
            "version": self.version,
            "intended_use": INTENDED_USE,
            "experiment": self.experiment,
            "fold": self.fold,
            **members,
            "best_epoch": self.best_epoch,
            "validation_f1": self.validation_f1,
            "weights_sha256": self.weights_sha256,
            "data_fingerprint": self.data_fingerprint,
            "trained_on": self.trained_on,
            "preparation": self.preparation.to_json(),
            "image_shape": list(self.image_shape),
            "class_names": self.class_names,
            "mask_values": MASK_VALUES,
            "endpoints": describe_endpoints(self.image_shape, self.preparation),
        }


def write_description(path: str | os.PathLike, description: ModelDescription) -> None:
    """Write the description as JSON."""
    write_json(path, description.to_json())


def read_description(path: str | os.PathLike) -> ModelDescription:
    """The inverse of `write_description`.

    Raises:
        RunError: the file is missing, damaged, or of another format.
    """
    return parse_description(read_json(path, RunError, "model description"), str(path))


def describe_saved_model(path: str | os.PathLike) -> ModelDescription:
    """The description inside a SavedModel folder.

    Raises:
        RunError: not a SavedModel folder of this package, or of another format.
    """
    path = Path(path)
    if not (path / DESCRIPTION).is_file():
        raise RunError(f"{path}: not a model exported by this package ({DESCRIPTION} is missing)")
    return read_description(path / DESCRIPTION)


def parse_description(content: Any, path: str) -> ModelDescription:
    """The inverse of `ModelDescription.to_json`.

    Args:
        content: what JSON gave.
        path: where it is from, for the messages.

    Raises:
        RunError: it is damaged or of another format.
    """
    if not isinstance(content, dict) or "format" not in content:
        raise RunError(f"{path}: not a model description of this package")
    if content["format"] != FORMAT:
        raise RunError(
            f"{path}: format {str(content['format'])[:20]} of package version {str(content.get('version'))[:20]}; "
            f"this is version {__version__} and reads format {FORMAT}: "
            "export the fold again with it, or install the other version"
        )
    try:
        description = ModelDescription(
            experiment=content["experiment"],
            fold=content["fold"],
            preparation=PreparationSettings.from_json(content["preparation"]),
            image_shape=tuple(content["image_shape"]),
            data_fingerprint=content["data_fingerprint"],
            weights_sha256=content["weights_sha256"],
            best_epoch=content["best_epoch"],
            validation_f1=content["validation_f1"],
            version=content["version"],
            members=tuple(Member(**one) for one in content.get("members", ())),
            trained_on=content.get("trained_on", UNKNOWN),
        )
        _check(description)
    except (KeyError, TypeError, ValueError, BoneScanError) as cause:
        reason = f"{cause} is missing" if isinstance(cause, KeyError) else str(cause)
        raise RunError(f"{path}: damaged ({reason}); export the fold again") from None
    return description


def _check(description: ModelDescription) -> None:
    experiment = description.experiment
    checks = {
        "experiment": isinstance(experiment, dict)
        and isinstance(experiment.get("name"), str)
        and experiment.get("classes") in (1, len(CLASS_NAMES)),
        "image_shape": len(description.image_shape) == 2
        and all(type(length) is int and length > 0 for length in description.image_shape),
        "data_fingerprint": isinstance(description.data_fingerprint, str),
        "version": isinstance(description.version, str),
        "trained_on": description.trained_on in (PHANTOMS, PATIENTS, MIXED, UNKNOWN),
    }
    if description.members:
        checks |= {
            "members": len(description.members) > 1,
            "fold": description.fold is None,
            "best_epoch": description.best_epoch is None,
            "validation_f1": description.validation_f1 is None,
            "weights_sha256": _is_hash(description.weights_sha256),
        }
    for fold in description.members or (description,):
        for name, right in _check_fold(fold).items():
            checks[name] = checks.get(name, True) and right
    wrong = [name for name, right in checks.items() if not right]
    if wrong:
        raise ValueError(f"{wrong[0]} is impossible")


def _check_fold(fold: ModelDescription | Member) -> dict[str, bool]:
    f1 = fold.validation_f1
    return {
        "fold": type(fold.fold) is int and fold.fold >= 1,
        "weights_sha256": _is_hash(fold.weights_sha256),
        "best_epoch": type(fold.best_epoch) is int,
        "validation_f1": f1 is None or (isinstance(f1, float | int) and math.isfinite(f1) and 0 <= f1 <= 1),
    }


def _is_hash(text: Any) -> bool:
    return isinstance(text, str) and bool(_HASH.match(text))


def describe_fold(trained) -> ModelDescription:
    """The description of a trained fold.

    Args:
        trained: an `evaluation.trained_fold.TrainedFold`.
    """
    run = trained.run
    return ModelDescription(
        experiment=run.experiment.public().to_json(),
        fold=trained.fold,
        preparation=PreparationSettings.from_json(run.data["preparation"]),
        image_shape=tuple(run.data["image_shape"]),
        data_fingerprint=run.data["fingerprint"],
        weights_sha256=trained.weights_sha256,
        best_epoch=trained.best_epoch,
        validation_f1=trained.validation_f1,
        trained_on=run.data.get("scans", UNKNOWN),
    )


def describe_ensemble(members: Sequence[ModelDescription]) -> ModelDescription:
    """The description of several folds that answer as one.

    Args:
        members: at least two folds.

    Raises:
        RunError: they differ in what an ensemble must share: preparation, size of the images, classes.
    """
    first = members[0]
    for other in members[1:]:
        for what, one, two in (
            ("preparation settings", first.preparation, other.preparation),
            ("image sizes", first.image_shape, other.image_shape),
            ("classes", first.class_names, other.class_names),
        ):
            if one != two:
                raise RunError(f"{first.name} and {other.name} have different {what}: they cannot be one ensemble")
    hashes = "".join(member.weights_sha256 for member in members)
    return dataclasses.replace(
        first,
        fold=None,
        best_epoch=None,
        validation_f1=None,
        weights_sha256=hashlib.sha256(hashes.encode()).hexdigest(),
        members=tuple(Member(one.fold, one.weights_sha256, one.best_epoch, one.validation_f1) for one in members),
    )
