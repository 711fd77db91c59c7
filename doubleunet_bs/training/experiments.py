"""The paper's experiments as settings (paper, sections 2.5 to 3.3, Tables 1 and 2)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from doubleunet_bs.errors import RunError, SettingsError

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that decides what is trained. Defaults are the paper's, or decided here where it is silent.

    Attributes:
        name: the row of the paper, or what the user calls his own.
        classes: 1: the original one-class network with sigmoid heads (Table 1); 3: softmax over air, non-metastatic and
            metastatic after background removal (Table 2).
        loss: "dice" (equation 1) or "focal-tversky" (equation 2).
        negatives: "none", or "otsu": normal scans train with their Otsu mask as class 1 (section 2.5).
        loss_classes: the classes with a loss term of their own (decided here; air has none).
        smooth: pixels added to numerator and denominator of the losses (decided here).
        alpha, beta, gamma: of the Focal Tversky loss (stated).
        batch_size, epochs, learning_rate: 4, 500 and 1e-4 (stated, section 3.1). The optimiser is Adam (decided here).
        schedule: "plateau": see the next line; "cosine": the learning rate falls along half a cosine to zero at the last
            step, for runs too short for a plateau (decided here).
        plateau_factor, plateau_patience: the learning rate is multiplied by the factor when the validation loss has not
            improved for so many epochs (from the original Double U-Net code).
        early_stopping: stop after so many epochs without a better validation F1; 0: never, as in the paper.
        encoder_weights: "imagenet", "none" or a file.
        head_bias: "prior": the heads start at the class frequencies of the training labels (decided here); "zeros": the
            original start.
        freeze_encoder: the VGG19 encoder stays as it is for so many epochs; 0: it trains from the start, as in the original.
        accumulate: pieces a batch is taken in, to save memory (decided here). Losses and gradients are those of the whole
            batch; batch normalisation sees each piece by itself.
        bn_momentum: of the moving averages of batch normalisation; 0.99 as in the original. Short runs need less.
        folds: number of parts of the cross-validation (stated: 10).
        seed: governs folds, initial weights and the order of the scans.
    """

    name: str
    classes: int = 3
    loss: str = "dice"
    negatives: str = "none"
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
    freeze_encoder: int = 0
    accumulate: int = 1
    bn_momentum: float = 0.99
    folds: int = 10
    seed: int = 0

    def __post_init__(self):
        def require(condition: bool, message: str) -> None:
            if not condition:
                raise SettingsError(message)

        require(self.classes in (1, 3), f"classes {self.classes}: 1 or 3")
        require(self.loss in ("dice", "focal-tversky"), f"loss {self.loss}: dice or focal-tversky")
        require(self.negatives in ("none", "otsu"), f"negatives {self.negatives}: none or otsu")
        require(self.head_bias in ("prior", "zeros"), f"head bias {self.head_bias}: prior or zeros")
        require(self.batch_size >= 1, f"batch size {self.batch_size}: at least 1")
        require(self.epochs >= 1, f"epochs {self.epochs}: at least 1")
        require(0 < self.learning_rate < 1, f"learning rate {self.learning_rate}: between 0 and 1")
        require(self.schedule in ("plateau", "cosine"), f"schedule {self.schedule}: plateau or cosine")
        require(0 < self.plateau_factor <= 1, f"plateau factor {self.plateau_factor}: above 0, at most 1")
        require(self.plateau_patience >= 1, f"plateau patience {self.plateau_patience}: at least 1")
        require(self.early_stopping >= 0, f"early stopping {self.early_stopping}: 0 (never) or a number of epochs")
        require(self.freeze_encoder >= 0, f"frozen encoder for {self.freeze_encoder} epochs: 0 or more")
        require(
            1 <= self.accumulate <= self.batch_size,
            f"{self.accumulate} pieces for a batch of {self.batch_size}: at least 1, at most one an image",
        )
        require(0 < self.bn_momentum < 1, f"batch normalisation momentum {self.bn_momentum}: between 0 and 1")
        require(3 <= self.folds <= 99, f"folds {self.folds}: 3 to 99")
        require(0 <= self.seed < 2**32, f"seed {self.seed}: 0 to {2**32 - 1}")
        require(
            set(self.loss_classes) <= {0, 1, 2} and bool(self.loss_classes),
            f"loss classes {self.loss_classes}: some of 0, 1, 2",
        )

    @property
    def is_paper_row(self) -> bool:
        """Whether this is a row of the paper with none of its settings changed."""
        return PAPER_EXPERIMENTS.get(self.name) == self

    def changed_settings(self) -> dict[str, Any]:
        """The settings that differ from the paper's row of the same name; all of them when there is no such row."""
        row = PAPER_EXPERIMENTS.get(self.name)
        own = dataclasses.asdict(self)
        return (
            own
            if row is None
            else {key: own[key] for key, value in dataclasses.asdict(row).items() if own[key] != value}
        )

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON values."""
        return {**dataclasses.asdict(self), "loss_classes": list(self.loss_classes)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], source: str) -> "Experiment":
        """The inverse of `to_json`; `source` names the file in the error."""
        try:
            return cls(**{**content, "loss_classes": tuple(content["loss_classes"])})
        except (TypeError, KeyError, SettingsError) as cause:
            raise RunError(f"{source}: not the settings of an experiment ({cause})") from None


def _rows() -> dict[str, Experiment]:
    rows = [Experiment("baseline", classes=1)]
    for loss in ("dice", "focal-tversky"):
        rows += [Experiment(loss, loss=loss), Experiment(f"{loss}-otsu", loss=loss, negatives="otsu")]
    return {row.name: row for row in rows}


PAPER_EXPERIMENTS = _rows()


def paper_experiment(name: str, **changes: Any) -> Experiment:
    """The experiment of a row of the paper, with settings changed.

    Raises:
        SettingsError: for a name that is no row, or a setting out of its range.
    """
    if name not in PAPER_EXPERIMENTS:
        raise SettingsError(f"no experiment {name!r}; there are {', '.join(PAPER_EXPERIMENTS)}")
    return dataclasses.replace(PAPER_EXPERIMENTS[name], **changes)
