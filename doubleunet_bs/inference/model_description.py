"""The metadata that travels with a model: how its images are prepared, its classes, where it comes from, its use."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from doubleunet_bs import __version__
from doubleunet_bs.constants import CLASS_NAMES
from doubleunet_bs.errors import DatasetError, RunError
from doubleunet_bs.files import read_json
from doubleunet_bs.inference.endpoints import describe_endpoints
from doubleunet_bs.preparation.records import MIXED, PATIENTS, PHANTOMS, UNKNOWN
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.training.experiments import PAPER_EXPERIMENTS

FORMAT = 1
DESCRIPTION = Path("assets.extra") / "model.json"
"""Inside a SavedModel folder, whose `assets.extra` holds files that do not belong to the graph."""
INTENDED_USE = (
    "Research software, not a medical device. "
    "Its output has not been validated for clinical use and must not be used for diagnosis or treatment."
)
MASK_VALUES = {"0": "not metastatic", "1": "metastatic"}


@dataclasses.dataclass(frozen=True)
class Member:
    """One fold of an ensemble; see `ModelDescription` for what the attributes mean."""

    fold: int
    weights_sha256: str
    best_epoch: int
    validation_f1: float | None


@dataclasses.dataclass(frozen=True)
class ModelDescription:
    """The metadata of a model.

    Attributes:
        experiment: all settings of the training; a file of encoder weights is named without its folder.
        fold: number of the fold in the cross-validation, from 1; None for an ensemble.
        preparation: how a scan must be prepared for it.
        image_shape: (rows, columns) of its input.
        data_fingerprint: fingerprint of the shards it was trained on.
        weights_sha256: SHA-256 of the weights file; for an ensemble, of its members' hashes one after the other.
        best_epoch: the epoch of the weights; None for an ensemble.
        validation_f1: F1 of the metastatic class on the validation scans after that epoch, a fraction; None when
            undefined, and for an ensemble, which has no validation scans of its own.
        version: version of the package that wrote the description.
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
        """One line for a person: experiment, whether its settings are the paper's, fold, phantoms in its training."""
        experiment = self.experiment["name"] + ("" if self.is_paper_row else " (changed settings)")
        folds = f"fold {self.fold}"
        if self.members:
            folds = f"ensemble of folds {', '.join(str(one.fold) for one in self.members)}"
        trained = {PHANTOMS: ", trained on phantoms", MIXED: ", trained on phantoms as well"}.get(self.trained_on, "")
        return f"{experiment}, {folds}{trained}"

    @property
    def served_name(self) -> str:
        """Its default name on a model server, "focal-tversky-otsu-fold-01" for instance."""
        folds = [one.fold for one in self.members or (self,)]
        name = f"{self.experiment['name']}-fold{'s' if self.members else ''}"
        return "-".join([name, *(f"{fold:02d}" for fold in folds)])

    @property
    def class_names(self) -> list[str]:
        """The classes of the network's outputs in their order."""
        return list(CLASS_NAMES) if self.experiment["classes"] == len(CLASS_NAMES) else [CLASS_NAMES[-1]]

    def to_json(self) -> dict[str, Any]:
        """A JSON object without paths, user names or patient data."""
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


def read_description(path: str | os.PathLike) -> ModelDescription:
    """Read a `model.json`: see `parse_description`."""
    return parse_description(read_json(path, RunError, "model description"), str(path))


def describe_saved_model(path: Path) -> ModelDescription:
    """The description inside a SavedModel folder.

    Raises:
        RunError: not a SavedModel folder of this package, or of another format.
    """
    if not (path / DESCRIPTION).is_file():
        raise RunError(f"{path}: not a model exported by this package, {DESCRIPTION} is missing")
    return read_description(path / DESCRIPTION)


def parse_description(content: Any, path: str) -> ModelDescription:
    """The inverse of `ModelDescription.to_json`.

    Args:
        content: what JSON gave.
        path: where it is from, for the messages.

    Raises:
        RunError: it is damaged, which names the field, or it has another format.
    """
    if not isinstance(content, dict) or "format" not in content:
        raise RunError(f"{path}: not a model description of this package")
    if content["format"] != FORMAT:
        raise RunError(
            f"{path}: format {str(content['format'])[:20]} of package version {str(content.get('version'))[:20]}; "
            f"version {__version__} reads format {FORMAT}: export the fold again with it"
        )
    content = {"members": [], "trained_on": UNKNOWN, **content}
    single = not content["members"]
    folds = [content] if single else content["members"]
    wrong = [name for name, possible in _FIELDS.items() if not possible(content.get(name))]
    if not wrong and not single:
        wrong = [name for name in ("fold", "best_epoch", "validation_f1") if content.get(name, "") is not None]
    wrong = wrong or [name for fold in folds for name, possible in _FOLD.items() if not possible(fold.get(name, ""))]
    if wrong:
        raise RunError(f"{path}: damaged, {wrong[0]} is missing or impossible: export the fold again")
    try:
        preparation = PreparationSettings.from_json(content["preparation"])
    except DatasetError as cause:
        raise RunError(f"{path}: damaged, {cause}: export the fold again") from None
    own = {field.name: content[field.name] for field in dataclasses.fields(ModelDescription)}
    members = tuple(Member(**{name: fold[name] for name in _FOLD}) for fold in content["members"])
    shape = tuple(content["image_shape"])
    return ModelDescription(**own | {"preparation": preparation, "image_shape": shape, "members": members})


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


# Field -> whether a value is possible: of every description, and of a fold, single or in an ensemble.
_FIELDS: dict[str, Callable[[Any], bool]] = {
    "version": lambda value: isinstance(value, str),
    "experiment": lambda value: (
        isinstance(value, dict) and isinstance(value.get("name"), str) and value.get("classes") in (1, len(CLASS_NAMES))
    ),
    "weights_sha256": _is_hash,
    "data_fingerprint": lambda value: isinstance(value, str),
    "trained_on": lambda value: value in (PHANTOMS, PATIENTS, MIXED, UNKNOWN),
    "preparation": lambda value: isinstance(value, dict),
    "image_shape": lambda value: (
        isinstance(value, list) and len(value) == 2 and all(type(length) is int and length > 0 for length in value)
    ),
    "members": lambda value: (
        isinstance(value, list) and len(value) != 1 and all(isinstance(fold, dict) for fold in value)
    ),
}
_FOLD: dict[str, Callable[[Any], bool]] = {
    "fold": lambda value: type(value) is int and value >= 1,
    "weights_sha256": _is_hash,
    "best_epoch": lambda value: type(value) is int,
    "validation_f1": lambda value: value is None or (type(value) in (int, float) and 0 <= value <= 1),
}


def describe_ensemble(members: Sequence[ModelDescription]) -> ModelDescription:
    """The description of an ensemble of folds.

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
                raise RunError(f"{first.name} and {other.name} have different {what} and cannot form one ensemble")
    hashes = "".join(member.weights_sha256 for member in members)
    return dataclasses.replace(
        first,
        fold=None,
        best_epoch=None,
        validation_f1=None,
        weights_sha256=hashlib.sha256(hashes.encode()).hexdigest(),
        members=tuple(Member(**{name: getattr(one, name) for name in _FOLD}) for one in members),
    )
