"""The paper's experiments as settings (paper, sections 2.5 to 3.3, Tables 1 to 3)."""

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from doubleunet_bs.bsi.regions import REGIONS
from doubleunet_bs.constants import BENIGN
from doubleunet_bs.errors import RunError, SettingsError

SKELETON_CLASSES = 1 + len(REGIONS)
"""Not bone, and the twelve regions."""
BENIGN_CLASSES = BENIGN + 1
"""The paper's three, and benign lesions."""

# The values of each setting: for the check, the message and `train --set help`.
CHOICES: dict[str, tuple[Any, ...]] = {
    "classes": (1, 3, BENIGN_CLASSES, SKELETON_CLASSES),
    "loss": ("dice", "focal-tversky"),
    "negatives": ("none", "otsu", "mining"),
    "mining_start": ("initial", "mined"),
    "pretrain_negatives": ("none", "otsu"),
    "flip": ("none", "merged", "per_view"),
    "variants_per_epoch": ("all", "one"),
    "schedule": ("plateau", "cosine"),
    "head_bias": ("prior", "zeros"),
}
_Rule = tuple[Callable[[Any], bool], str]
_NUMBERS: dict[str, _Rule] = {
    "pretrain_epochs": (lambda value: value >= 0, "0 (as many as epochs) or more"),
    "brightness_levels": (lambda value: 1 <= value <= 99 and value % 2 == 1, "an odd number, 1 to 99"),
    "brightness_reach": (lambda value: 0 < value <= 7, "above 0, at most 7"),
    "loss_classes": (
        lambda value: bool(value) and set(value) <= set(range(SKELETON_CLASSES)) and len(set(value)) == len(value),
        "some of 0, 1, 2, each once; also 3 with benign lesions; of 0 to 12 for skeleton",
    ),
    "smooth": (lambda value: 0 < value < math.inf, "a finite number above 0"),
    "alpha": (lambda value: 0 <= value < math.inf, "a finite number, 0 or more"),
    "beta": (lambda value: 0 <= value < math.inf, "a finite number, 0 or more"),
    "gamma": (lambda value: 0 < value < math.inf, "a finite number above 0"),
    "batch_size": (lambda value: value >= 1, "at least 1"),
    "epochs": (lambda value: value >= 1, "at least 1"),
    "learning_rate": (lambda value: 0 < value < 1, "between 0 and 1"),
    "plateau_factor": (lambda value: 0 < value <= 1, "above 0, at most 1"),
    "plateau_patience": (lambda value: value >= 1, "at least 1"),
    "early_stopping": (lambda value: value >= 0, "0 (never) or a number of epochs"),
    "accumulate": (lambda value: value >= 1, "at least 1, at most one an image"),
    "bn_momentum": (lambda value: 0 < value < 1, "between 0 and 1"),
    "folds": (lambda value: 3 <= value <= 99 or value == 1, "3 to 99, or 1 for a published split"),
    "seed": (lambda value: 0 <= value < 2**32, f"0 to {2**32 - 1}"),
}


def _label(name: str) -> str:
    return name.replace("_", " ")


def _either(choices: Sequence[Any]) -> str:
    *first, last = map(str, choices)
    return f"{', '.join(first)} or {last}"


def did_you_mean(text: object, names: Iterable[Any]) -> str:
    """The nearest of some names as a question to append to a message; "" where none is near.

    >>> did_you_mean("focal_tversky", ["dice", "focal-tversky"])
    '; did you mean focal-tversky?'
    """
    near = difflib.get_close_matches(str(text).lower(), [str(name) for name in names], 1)
    return f"; did you mean {near[0]}?" if near else ""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that decides what is trained. Defaults are the paper's, or this project's where the paper is silent.

    Attributes:
        name: the row of the paper, "skeleton", or the user's own name.
        classes: 1: the original one-class network with sigmoid heads (Table 1); 3: softmax over air, non-metastatic and
            metastatic after background removal (Table 2); 4: also over benign lesions, for shards in which they are a
            class of their own; 13: softmax over the regions of the skeleton.
        loss: "dice" (equation 1) or "focal-tversky" (equation 2).
        negatives: what normal scans do in training (section 2.5). "none": nothing; "otsu": they train with their Otsu
            mask as class 1; "mining": with the false positives of a model trained on the positive scans as class 1.
        mining_start: from which weights the training with mined negatives starts. "initial": from those that the mining
            model started from, too, so that a row with mining differs from the others in its negatives alone (the
            paper adds the mined scans to the training set and says no more); "mined": from the mining model.
        transfer: train on another cohort first and start every fold from those weights (section 2.6).
        pretrain_negatives: of that cohort. "otsu": its normal scans train with their Otsu mask (the paper pre-trains
            with 100 prostate scans, of which 50 are normal), in rows with mining as well; "none": they do not take
            part.
        pretrain_epochs: of the pre-training; 0: as many as `epochs`.
        brightness_levels: mean intensities at which each training scan is shown, itself included; an odd number. 1: no
            other than its own; 7 in Table 3 (stated, section 2.7).
        brightness_reach: they lie in the open range (m - reach, m + reach) around the scan's own mean m; 5 (stated).
        flip: "none"; "merged": each training scan is also shown mirrored as a whole, which swaps its halves;
            "per_view": also with both views mirrored in their places.
        variants_per_epoch: "all": an epoch shows each training scan in all its variants, 14 of them in Table 3 (the
            paper calls the data set 14 times as large); "one": in one, drawn for each scan and epoch.
        pretrain_augmentation: whether the pre-training shows variants as well (no, so that Table 3
            differs from its row in Table 2 in the breast scans alone).
        loss_classes: the classes with a loss term of their own, each once, in any order (air has none).
        smooth: pixels added to numerator and denominator of the losses.
        alpha, beta, gamma: of the Focal Tversky loss (stated); gamma is above 0, as is one of alpha and beta.
        batch_size, epochs, learning_rate: 4, 500 and 1e-4 (stated, section 3.1). The optimiser is Adam.
        schedule: "plateau": see the next line; "cosine": the learning rate falls along half a cosine to zero at the
            last step, for runs too short for a plateau.
        plateau_factor, plateau_patience: the learning rate is multiplied by the factor when the validation loss has not
            improved for so many epochs (from the original Double U-Net code).
        early_stopping: stop after so many epochs without a better validation F1; 0: never, as in the paper.
        encoder_weights: "imagenet", "none" or a file.
        head_bias: "prior": heads start at the class frequencies of the training labels; "zeros": at zero (original).
        accumulate: micro-batches that a batch is taken in, to save memory. Losses and gradients are those of the
            whole batch; batch normalisation sees each micro-batch by itself.
        bn_momentum: of the moving averages of batch normalisation; 0.99 as in the original. Short runs need less.
        folds: number of parts of the cross-validation (stated: 10); 1: the published split of a public data set.
        seed: governs folds, initial weights, and the order of the scans and of their variants.
        start_from: a fold of another run whose weights the folds start from, or a run: each fold from its fold of the
            same number. "": the start that the other settings name.
    """

    name: str
    classes: int = 3
    loss: str = "dice"
    negatives: str = "none"
    mining_start: str = "initial"
    transfer: bool = False
    pretrain_negatives: str = "otsu"
    pretrain_epochs: int = 0
    brightness_levels: int = 1
    brightness_reach: float = 5.0
    flip: str = "none"
    variants_per_epoch: str = "all"
    pretrain_augmentation: bool = False
    loss_classes: tuple[int, ...] = (1, 2)
    smooth: float = 1.0
    alpha: float = 0.3
    beta: float = 0.7
    gamma: float = 0.75
    batch_size: int = 4
    epochs: int = 500
    learning_rate: float = 1e-4
    schedule: str = "plateau"
    plateau_factor: float = 0.1
    plateau_patience: int = 20
    early_stopping: int = 0
    encoder_weights: str = "imagenet"
    head_bias: str = "prior"
    accumulate: int = 1
    bn_momentum: float = 0.99
    folds: int = 10
    seed: int = 0
    start_from: str = ""

    def __post_init__(self):
        for name, kind in get_type_hints(type(self)).items():
            if isinstance(value := getattr(self, name), np.generic):
                object.__setattr__(self, name, value := value.item())
            if not _is_of_kind(value, kind):
                raise SettingsError(f"{_label(name)} {value!r:.60}: must be {_KINDS[kind]}")
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise SettingsError(f"{_label(name)} {value}: {_either(choices)}{did_you_mean(value, choices)}")
        for name, (is_right, values) in _NUMBERS.items():
            value = getattr(self, name)
            if not is_right(value):
                raise SettingsError(f"{_label(name)} {value}: {values}")
        # False positives become class 1, which the network of one class does not have.
        if self.negatives == "mining" and self.classes != 3:
            raise SettingsError("negatives mining: needs the network of 3 classes, without a benign class or skeleton")
        if not self.is_skeleton and max(self.loss_classes) >= max(self.classes, 3):
            raise SettingsError(
                f"loss classes {self.loss_classes}: some of 0, 1, 2, each once, and with --set classes=4 also 3"
            )
        if self.has_benign and BENIGN not in self.loss_classes:
            raise SettingsError(
                f"loss classes {self.loss_classes}: {BENIGN}, benign, is missing for a network of 4 classes: "
                "add it to loss_classes"
            )
        if self.is_skeleton:
            self._check_skeleton()
        if self.alpha + self.beta <= 0:
            raise SettingsError(f"alpha {self.alpha} and beta {self.beta}: one of them above 0")
        if self.transfer and self.start_from:
            raise SettingsError("--from takes the place of the pre-training: use --set transfer=no, or leave it out")
        if self.accumulate > self.batch_size:
            raise SettingsError(
                f"{self.accumulate} micro-batches for a batch of {self.batch_size}: at most one an image"
            )
        # The loss is the mean of their terms, in any order: 2,1 is no other experiment than 1,2.
        object.__setattr__(self, "loss_classes", tuple(sorted(self.loss_classes)))

    def _check_skeleton(self) -> None:
        if self.negatives != "none":
            raise SettingsError(f"negatives {self.negatives}: the skeleton experiment has none")
        if self.transfer:
            raise SettingsError("transfer yes: the skeleton experiment does not pre-train on another cohort")
        if self.flip == "merged":
            # In the other half of the image it would learn a posterior view with the numbers of an anterior one.
            raise SettingsError("flip merged swaps the views, and so their regions: use flip per_view")

    @property
    def is_skeleton(self) -> bool:
        """Whether the network segments the regions of the skeleton instead of lesions."""
        return self.classes == SKELETON_CLASSES

    @property
    def has_benign(self) -> bool:
        """Whether benign lesions are a class of their own."""
        return self.classes == BENIGN_CLASSES

    def with_benign(self) -> "Experiment":
        """The same with benign lesions as a class of its own.

        Raises:
            SettingsError: negative mining, whose false positives would be benign lesions.
        """
        if self.negatives == "mining":
            raise SettingsError("negative mining knows no benign class: prepare without --benign own")
        return dataclasses.replace(self, classes=BENIGN_CLASSES, loss_classes=(*self.loss_classes, BENIGN))

    @property
    def variants(self) -> int:
        """In how many ways each training scan is shown: 14 in Table 3, otherwise 1."""
        return self.brightness_levels * (1 if self.flip == "none" else 2)

    @property
    def is_paper_row(self) -> bool:
        """Whether this is a row of the paper with none of its settings changed."""
        return PAPER_EXPERIMENTS.get(self.name) == self

    def changed_settings(self) -> dict[str, Any]:
        """The settings that differ from the experiment of the same name; all of them when there is no such one."""
        own, row = dataclasses.asdict(self), EXPERIMENTS.get(self.name)
        return {key: value for key, value in own.items() if row is None or value != getattr(row, key)}

    def public(self) -> "Experiment":
        """The same without the folders of encoder weights and start, which tell where and who users are."""
        return dataclasses.replace(
            self, encoder_weights=Path(self.encoder_weights).name, start_from=Path(self.start_from).name
        )

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON values."""
        return {**dataclasses.asdict(self), "loss_classes": list(self.loss_classes)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], source: str) -> "Experiment":
        """The inverse of `to_json`; `source` names the file in the error."""
        try:
            if not _NAME.fullmatch(content["name"]):
                raise TypeError("name")
            return cls(**{**content, "loss_classes": tuple(content["loss_classes"])})
        except (TypeError, KeyError, SettingsError) as cause:
            raise RunError(f"{source}: not the settings of an experiment ({cause})") from None


_NAME = re.compile(r"[\w .,+()=-]{1,100}")


def _is_of_kind(value: Any, kind: Any) -> bool:
    """Whether a value is of the kind of a setting. A bool is no number here, a whole number is a float."""
    if kind in (int, float, bool, str):
        return type(value) is kind or (kind is float and type(value) is int)
    return isinstance(value, list | tuple) and all(type(part) is int for part in value)


def _rows() -> dict[str, Experiment]:
    rows = [Experiment("baseline", classes=1)]
    for loss in ("dice", "focal-tversky"):
        rows.append(Experiment(loss, loss=loss))
        for negatives in ("otsu", "mining"):
            for transfer in (False, True):
                name = f"{loss}-{negatives}{'-transfer' if transfer else ''}"
                rows.append(Experiment(name, loss=loss, negatives=negatives, transfer=transfer))
    best = next(row for row in rows if row.name == "focal-tversky-otsu-transfer")
    rows.append(dataclasses.replace(best, name=f"{best.name}-augmented", brightness_levels=7, flip="merged"))
    return {row.name: row for row in rows}


PAPER_EXPERIMENTS = _rows()
"""Name -> row: `baseline` is Table 1, `focal-tversky-otsu-transfer-augmented` Table 3, the ten others Table 2."""
EXPERIMENTS = PAPER_EXPERIMENTS | {
    "skeleton": Experiment("skeleton", classes=SKELETON_CLASSES, loss_classes=tuple(range(1, SKELETON_CLASSES)))
}
"""The paper's rows, and `skeleton`, which segments the regions that the Bone Scan Index needs."""
_NOT_SET = ("name", "start_from")
_TABLE_NOTES = (
    "The rows of --experiment set classes, loss, negatives, transfer, brightness_levels and flip.",
    """What each means: python -c "help('doubleunet_bs.runs.experiments.Experiment')\"""",
)
_KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "yes or no",
    str: 'a text, such as "none"',
    tuple[int, ...]: "class numbers: 1,2",
}
_OF_PRETRAINING = ("pretrain_epochs", "pretrain_negatives", "pretrain_augmentation")


def paper_experiment(name: str, **changes: Any) -> Experiment:
    """The experiment of a row of the paper, with settings changed.

    Raises:
        SettingsError: for a name that is no row, a setting out of its range, or one without effect.
    """
    if name not in EXPERIMENTS:
        near = did_you_mean(name, EXPERIMENTS) or f"; there are {', '.join(EXPERIMENTS)}"
        raise SettingsError(f"no experiment {name!r}{near}")
    experiment = dataclasses.replace(EXPERIMENTS[name], **changes)
    if experiment.is_skeleton != EXPERIMENTS[name].is_skeleton:
        raise SettingsError(f"{name} with {experiment.classes} classes: lesions and skeleton are two experiments")
    _check_effect(experiment)
    return experiment


def _check_effect(experiment: Experiment) -> None:
    """Refuse what would be taken for part of the experiment and change nothing."""
    needed = (
        (experiment.transfer, "pre-training (transfer=yes)", _OF_PRETRAINING),
        (experiment.negatives == "mining", "mining (negatives=mining)", ("mining_start",)),
        (experiment.loss == "focal-tversky", "Focal Tversky (loss=focal-tversky)", ("alpha", "beta", "gamma")),
        (experiment.schedule == "plateau", "plateaus (schedule=plateau)", ("plateau_factor", "plateau_patience")),
        (experiment.brightness_levels > 1, "more brightness levels (brightness_levels=7)", ("brightness_reach",)),
        (experiment.variants > 1, "variants (brightness_levels=7)", ("variants_per_epoch", "pretrain_augmentation")),
    )
    for field, what in ((field, what) for is_there, what, fields in needed if not is_there for field in fields):
        value = getattr(experiment, field)
        if value != getattr(EXPERIMENTS[experiment.name], field):
            shown = "yes" if value is True else value
            raise SettingsError(f"{field}={shown} has no effect without {what}; leave it out")


def parse_changes(assignments: Sequence[str]) -> dict[str, Any]:
    """Settings given as text, "flip=per_view", to the arguments of `paper_experiment`.

    Booleans are yes or no; several loss classes stand with commas between them.

    Raises:
        SettingsError: no such setting, one twice, or a value of another kind.
    """
    kinds = get_type_hints(Experiment)
    names = [name for name in kinds if name not in _NOT_SET]
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name, text = name.strip().replace("-", "_"), text.strip()
        if not equals or name not in names:
            near = "" if name in names else did_you_mean(name, names)
            raise SettingsError(f"--set {assignment}: not NAME=VALUE of a setting{near or '; --set help lists them'}")
        if name in changes:
            raise SettingsError(f"{name} is set twice")
        try:
            changes[name] = _parse(kinds[name], text)
        except (ValueError, LookupError):
            raise SettingsError(f"{name} {text!r}: must be {_KINDS[kinds[name]]}") from None
    return changes


def settings_table() -> str:
    """Every setting with its values and its default, as text for `train --set help`."""
    rows = [("NAME", "VALUES", "DEFAULT")]
    kinds = get_type_hints(Experiment)
    for field in dataclasses.fields(Experiment):
        name, default = field.name, field.default
        if name in _NOT_SET:
            continue
        values = _NUMBERS[name][1] if name in _NUMBERS else _KINDS[kinds[name]]
        if name in CHOICES:
            values = _either(CHOICES[name])
        if name == "encoder_weights":
            values = "imagenet, none or a file"
        if kinds[name] is bool:
            default = "yes" if default else "no"
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        rows.append((name, values, shown))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"{name:<{widths[0]}}  {values:<{widths[1]}}  {default}" for name, values, default in rows]
    return "\n".join([*lines, "", *_TABLE_NOTES])


def _parse(kind: Any, text: str) -> Any:
    if kind is bool:
        return {"yes": True, "no": False}[text.lower()]
    if kind in (int, float, str):
        return kind(text)
    return tuple(int(part) for part in text.split(","))
