"""The epochs of a training: `history.csv`, a line an epoch, and the time that is left."""

import csv
import dataclasses
import os
from collections.abc import Sequence
from statistics import median

from tqdm import tqdm

from doubleunet_bs.errors import RunError
from doubleunet_bs.files import csv_text, write_text


@dataclasses.dataclass(frozen=True)
class Epoch:
    """One row of `history.csv`. Figures are fractions. They are None where undefined, for example without a prediction.

    `loss` is the mean over the training batches, before each update. `val_loss` is the loss of the whole validation set
    taken as one batch. Precision, sensitivity and F1 are those of metastatic pixels, pooled over the epoch.
    """

    epoch: int
    loss: float
    precision: float | None
    sensitivity: float | None
    f1: float | None
    val_loss: float
    val_precision: float | None
    val_sensitivity: float | None
    val_f1: float | None
    learning_rate: float
    seconds: float

    @property
    def score(self) -> tuple[float, float]:
        """Chooses the best epoch, the first with the highest score: validation F1, then the lower loss.

        An undefined F1 counts as zero. The loss decides while F1 is still zero.
        """
        return self.val_f1 or 0.0, -self.val_loss


COLUMNS = tuple(field.name for field in dataclasses.fields(Epoch))


def write_history(path: str | os.PathLike, epochs: Sequence[Epoch]) -> None:
    """Write `history.csv`, one row an epoch. An undefined figure is an empty cell."""
    write_text(path, csv_text([COLUMNS, *map(dataclasses.astuple, epochs)]))


def read_history(path: str | os.PathLike) -> list[Epoch]:
    """Read what `write_history` wrote, to the last digit; `RunError` where it is missing or not such a table."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        if tuple(rows[0]) != COLUMNS:
            raise ValueError("other columns")
        return [Epoch(int(row[0]), *(float(cell) if cell else None for cell in row[1:])) for row in rows[1:]]  # type: ignore[arg-type]
    except (OSError, ValueError, IndexError, TypeError) as cause:
        raise RunError(f"{path}: not a training history ({cause})") from None


def epoch_line(epochs: Sequence[Epoch], planned: int, searched: str = "metastatic") -> str:
    """The last of some epochs as a line for the terminal, with the time left until the last of `planned` epochs.

    The time is the median's: the first epoch, in which TensorFlow compiles, soon has no say. While no `searched` pixel
    was found on the validation scans, that is said. No epoch is the best then.
    """
    row, seconds = epochs[-1], median(epoch.seconds for epoch in epochs)
    best = max(epochs, key=lambda epoch: epoch.score)
    note = f"  no {searched} pixel found yet" if not best.val_f1 else "  best" if best is row else ""
    return (
        f"epoch {row.epoch:>3}/{planned}  loss {row.loss:.4f}  F1 {_percent(row.f1)}  |  "
        f"validation loss {row.val_loss:.4f}  F1 {_percent(row.val_f1)}  |  {row.seconds:.1f} s, "
        f"{tqdm.format_interval((planned - row.epoch) * seconds)} left{note}"
    )


def _percent(value: float | None) -> str:
    return "  –   " if value is None else f"{100 * value:5.1f} %"
