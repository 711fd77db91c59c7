"""The metadata that travels with a model: how its images are prepared, its classes, what it was trained on, its use.

What becomes a path, a size or a promise is checked when it is read.
"""

import dataclasses
import hashlib
import os
import re
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from doubleunet_bs import __version__
from doubleunet_bs.bsi.regions import REGIONS
from doubleunet_bs.constants import BENIGN_NAME, CANCERS, CLASS_NAMES
from doubleunet_bs.errors import DatasetError, RunError
from doubleunet_bs.files import read_json
from doubleunet_bs.inference.engines import describe_endpoints
from doubleunet_bs.preparation.records import MIXED, NOT_STATED, PATIENTS, PHANTOMS
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.runs.experiments import BENIGN_CLASSES, CHOICES, EXPERIMENTS, SKELETON_CLASSES

FORMAT = 1
DESCRIPTION = Path("assets.extra") / "model.json"
"""Inside a SavedModel folder, whose `assets.extra` holds files that do not belong to the graph."""
INTENDED_USE = (
    "Research software, not a medical device. "
    "Its output has not been validated for clinical use and must not be used for diagnosis or treatment."
)
MASK_VALUES = {"0": "not metastatic", "1": "metastatic"}
MASK_VALUES_BENIGN = {"0": "no lesion", "1": "metastatic", "2": "benign"}
REGION_NAMES = ("not bone", *(region.name for region in REGIONS))
USEFUL_F1 = 0.05
"""A fold with a lower F1 on its own validation scans finds nothing, or as good as nothing."""
USEFUL_BONE_F1 = 0.5
"""The same of a model of the skeleton. Bones are easier to find: the trained network of `bsi.md` has 95 %."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What an experiment, and a model on a server, may be called."""

_DEVICES = uuid.UUID("5d8a5bd5-6a3c-5b0e-9a4e-3f0d3f1c7f10")


def device_uid(weights_sha256: str) -> str:
    """The DICOM Device UID of a model: a UID under the 2.25 root, derived from the hash of its weights.

    Example:
        >>> device_uid("0" * 64)
        '2.25.146339877770346408700311673019782773791'
    """
    return f"2.25.{uuid.uuid5(_DEVICES, weights_sha256).int}"


@dataclasses.dataclass(frozen=True)
class Member:
    """One fold of an ensemble; see `ModelDescription` for what the attributes mean."""

    fold: int
    weights_sha256: str
    best_epoch: int
    validation_f1: float | None
    training: dict[str, Any] | None = None
    validation: dict[str, Any] | None = None


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
        trained_on: "phantoms", "patients" or "mixed".
        version: version of the package that wrote the description.
        members: the folds of an ensemble, at least two; empty for a single fold.
        training, validation: the scans of the fold, from `records.count_cohort`; None for an ensemble.
        cohort, pretraining: the same of all scans of the cross-validation, and of the other cohort of a transfer.
    """

    experiment: dict[str, Any]
    fold: int | None
    preparation: PreparationSettings
    image_shape: tuple[int, int]
    data_fingerprint: str
    weights_sha256: str
    best_epoch: int | None
    validation_f1: float | None
    trained_on: str
    version: str = __version__
    members: tuple[Member, ...] = ()
    training: dict[str, Any] | None = None
    validation: dict[str, Any] | None = None
    cohort: dict[str, Any] | None = None
    pretraining: dict[str, Any] | None = None

    @property
    def is_paper_row(self) -> bool:
        """Whether the model was trained as a row of the paper's tables, or `skeleton`, with no setting changed."""
        row = EXPERIMENTS.get(self.experiment["name"])
        same = row is not None and self.experiment.items() <= row.to_json().items()
        return same and not self.preparation.changes()

    @property
    def folds(self) -> tuple[Member, ...]:
        """Its folds: the members of an ensemble, or the one fold that it is."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(Member)}
        return self.members or (Member(**own),)

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
    def quality(self) -> str:
        """One line: the validation F1 of each fold, and on what. "validation F1 51.0 % on phantoms (fold 1 of 3)"."""
        figures = ", ".join(with_unit(one.validation_f1) for one in self.folds)
        on = {PHANTOMS: " on phantoms", MIXED: " on patients and phantoms"}.get(self.trained_on, "")
        numbers = ", ".join(str(one.fold) for one in self.folds)
        total = self.experiment.get("folds")
        of = f" of {total}" if isinstance(total, int) else ""
        return f"validation F1 {figures}{on} (fold{'s' if self.members else ''} {numbers}{of})"

    @property
    def training_summary(self) -> str:
        """One line: how many scans of whom it was trained on, pre-training and start included."""
        counts = self.cohort if self.members else self.training
        assert counts is not None
        text = describe_cohort(counts, self.trained_on)
        text = f"folds of {text}" if self.members else text
        if self.pretraining:
            text += f"; pre-trained on {describe_cohort(self.pretraining, self.trained_on)}"
        if start := self.experiment.get("start_from"):
            text += f"; started from the weights of {start}"
        return text

    @property
    def quality_warning(self) -> str | None:
        """A sentence where a fold found nothing, or as good as nothing, on its own validation scans; else None."""
        if (found := self._poor_result()) is None:
            return None
        return f"This model found {found}. Do not rely on its results."

    def check_quality(self, source: str | os.PathLike, advice: str) -> None:
        """Raises `RunError`, which names `source` and gives `advice`, where there is a `quality_warning`."""
        if (found := self._poor_result()) is not None:
            raise RunError(f"{source}: found {found}: {advice}, or use --force")

    def _poor_result(self) -> str | None:
        useful, searched = (USEFUL_BONE_F1, "bone") if self.is_skeleton else (USEFUL_F1, "metastasis")
        poor = [one for one in self.folds if (one.validation_f1 or 0.0) < useful]
        if not poor:
            return None
        figures = ", ".join(f"fold {one.fold}: F1 {with_unit(one.validation_f1)}" for one in poor)
        of = " of phantoms" if self.trained_on == PHANTOMS else ""
        some = any(one.validation_f1 for one in poor)
        amount = "no" if not some else "too little" if self.is_skeleton else "almost no"
        return f"{amount} {searched} on its own validation scans{of} ({figures})"

    @property
    def served_name(self) -> str:
        """Its default name on a model server, "focal-tversky-otsu-fold-01" for instance."""
        name = f"{self.experiment['name']}-fold{'s' if self.members else ''}"
        return "-".join([name, *(f"{one.fold:02d}" for one in self.folds)])

    @property
    def class_names(self) -> list[str]:
        """The classes of the network's outputs in their order."""
        if self.is_skeleton:
            return list(REGION_NAMES)
        if self.has_benign:
            return [*CLASS_NAMES, BENIGN_NAME]
        return list(CLASS_NAMES) if self.experiment["classes"] == len(CLASS_NAMES) else [CLASS_NAMES[-1]]

    @property
    def is_skeleton(self) -> bool:
        """Whether it segments the regions of the skeleton instead of lesions."""
        return self.experiment["classes"] == SKELETON_CLASSES

    def check_kind(self, source: str | os.PathLike, skeleton: bool) -> None:
        """Raises `RunError`, which names `source`: it is no model of the skeleton, or none of lesions."""
        if self.is_skeleton != skeleton:
            kind, other = ("the skeleton", "lesions") if self.is_skeleton else ("lesions", "the skeleton")
            raise RunError(f"{source}: a model of {kind}: give one of {other}")

    @property
    def has_benign(self) -> bool:
        """Whether benign lesions are a class of its own."""
        return self.experiment["classes"] == BENIGN_CLASSES

    @property
    def mask_values(self) -> dict[str, str]:
        """What the values of its masks mean."""
        if self.is_skeleton:
            return {str(number): name for number, name in enumerate(REGION_NAMES)}
        return MASK_VALUES_BENIGN if self.has_benign else MASK_VALUES

    @property
    def largest_mask(self) -> int:
        """The greatest value of its masks: 1 for lesions, 2 with benign ones, 12 for regions."""
        return len(self.mask_values) - 1

    def to_json(self) -> dict[str, Any]:
        """A JSON object without paths, user names or patient data."""
        return {
            "format": FORMAT,
            "version": self.version,
            "intended_use": INTENDED_USE,
            "experiment": self.experiment,
            "fold": self.fold,
            "members": [dataclasses.asdict(one) for one in self.members],
            "best_epoch": self.best_epoch,
            "validation_f1": self.validation_f1,
            "weights_sha256": self.weights_sha256,
            "device_uid": device_uid(self.weights_sha256),
            "data_fingerprint": self.data_fingerprint,
            "trained_on": self.trained_on,
            "training": self.training,
            "validation": self.validation,
            "cohort": self.cohort,
            "pretraining": self.pretraining,
            "quality_warning": self.quality_warning,
            "preparation": self.preparation.to_json(),
            "image_shape": list(self.image_shape),
            "class_names": self.class_names,
            "mask_values": self.mask_values,
            "endpoints": describe_endpoints(self.image_shape, self.preparation, self.is_skeleton, self.has_benign),
        }


def with_unit(fraction: float | None) -> str:
    """A fraction as "12.3 %"; None is "undefined"."""
    return "undefined" if fraction is None else f"{100 * fraction:.1f} %"


def describe_cohort(counts: dict[str, Any], trained_on: str) -> str:
    """One line on `count_cohort`'s result; every line about phantoms says so.

    Example:
        >>> counts = {"patients": 70, "scans": 72, "normal_scans": 2, "cancers": {"breast": 70}}
        >>> describe_cohort(counts, "patients")
        '72 scans of 70 patients (breast 70), 2 of the scans normal'
        >>> describe_cohort(counts, "phantoms")
        '72 scans of 70 phantoms (breast 70), 2 of the scans normal'
    """
    whom = {PHANTOMS: "phantoms", MIXED: "patients and phantoms"}.get(trained_on, "patients")
    cancers = ", ".join(f"{name} {number}" for name, number in counts["cancers"].items())
    normal = f", {counts['normal_scans']} of the scans normal" if counts["normal_scans"] else ""
    return f"{counts['scans']} scans of {counts['patients']} {whom} ({cancers}){normal}"


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
        training=None,
        validation=None,
        weights_sha256=hashlib.sha256(hashes.encode()).hexdigest(),
        members=tuple(one.folds[0] for one in members),
    )


def describe_saved_model(path: Path) -> ModelDescription:
    """The description inside a SavedModel folder; `RunError` where it has none, or as for `parse_description`."""
    source = path / DESCRIPTION
    if not source.is_file():
        raise RunError(f"{path}: not a model exported by this package, {DESCRIPTION} is missing")
    return parse_description(read_json(source, RunError, "model description"), str(source))


def parse_description(content: Any, path: str) -> ModelDescription:
    """The inverse of `ModelDescription.to_json`, from JSON of the file at `path`.

    Raises `RunError`: it has another format, or the field that is missing or impossible is named.
    """
    if not isinstance(content, dict) or "format" not in content:
        raise RunError(f"{path}: not a model description of this package")
    if content["format"] != FORMAT:
        raise RunError(
            f"{path}: format {str(content['format'])[:20]} of package version {str(content.get('version'))[:20]}; "
            f"version {__version__} reads format {FORMAT}: export the fold again with it"
        )
    # An ensemble has no validation scans of its own.
    undefined = ("fold", "best_epoch", "validation_f1", "training", "validation") if content.get("members") else ()
    own = _checked(ModelDescription, content, path, **dict.fromkeys(undefined, lambda value: value is None))
    members = [_checked(Member, one, path) for one in content["members"]]
    try:
        own["preparation"] = PreparationSettings.from_json(content["preparation"])
    except DatasetError as cause:
        raise RunError(f"{path}: damaged, {cause}: export the fold again") from None
    own |= {"image_shape": tuple(content["image_shape"]), "members": tuple(Member(**one) for one in members)}
    return ModelDescription(**own)


def _checked(kind: type, content: dict[str, Any], path: str, **other: Callable) -> dict[str, Any]:
    """The fields of a dataclass in JSON, each by its rule in `_IS_POSSIBLE`, or in `other`."""
    rules = {**_IS_POSSIBLE, **other}
    names = [field.name for field in dataclasses.fields(kind)]
    for name in names:
        if name not in content or not rules[name](content[name]):
            raise RunError(f"{path}: damaged, {name} is missing or impossible: export the fold again")
    return {name: content[name] for name in names}


def _is_experiment(value: Any) -> bool:
    """The name becomes part of a path on a model server."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not NAME.fullmatch(value["name"]):
        return False
    return type(value.get("classes")) is int and value["classes"] in CHOICES["classes"] and len(str(value)) < 10_000


def _is_cohort(value: Any) -> bool:
    """From `count_cohort`."""
    if not isinstance(value, dict) or set(value) != {"patients", "scans", "normal_scans", "cancers"}:
        return False
    cancers = value["cancers"]
    if not isinstance(cancers, dict) or not set(cancers) <= {*CANCERS, NOT_STATED}:
        return False
    numbers = [*(value[name] for name in value if name != "cancers"), *cancers.values()]
    return all(type(number) is int and 0 <= number < 10**9 for number in numbers)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 128 and value.isprintable()


_IS_POSSIBLE: dict[str, Callable[[Any], bool]] = {
    "experiment": _is_experiment,
    "fold": lambda value: type(value) is int and 1 <= value <= 999,
    "preparation": lambda value: isinstance(value, dict),
    "image_shape": lambda value: (
        isinstance(value, list) and len(value) == 2 and all(type(one) is int and 0 < one <= 2048 for one in value)
    ),
    "data_fingerprint": _is_text,
    "weights_sha256": lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None,
    "best_epoch": lambda value: type(value) is int,
    "validation_f1": lambda value: value is None or (type(value) in (int, float) and 0 <= value <= 1),
    "version": _is_text,
    "members": lambda value: (
        isinstance(value, list) and len(value) != 1 and all(isinstance(one, dict) for one in value)
    ),
    "trained_on": lambda value: value in (PHANTOMS, PATIENTS, MIXED),
    "training": _is_cohort,
    "validation": _is_cohort,
    "cohort": _is_cohort,
    "pretraining": lambda value: value is None or _is_cohort(value),
}
