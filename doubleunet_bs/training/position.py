"""Where a training run stands: everything besides the weights that decides how it goes on."""

import dataclasses
from typing import Any

from doubleunet_bs.training.history import Epoch


@dataclasses.dataclass
class Position:
    """A point of a training run, within an epoch or between two.

    Attributes:
        epoch: number of finished epochs.
        batch: batches already trained in the present epoch.
        losses: their losses. counts: their true positives, false positives and false negatives, summed.
        seconds: time spent on them.
        best: (F1, minus loss) of the best validation so far; None before the first.
        best_epoch: its epoch, counted from 1.
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
        """Account for one more batch."""
        self.batch += 1
        self.losses.append(loss)
        self.counts = [total + count for total, count in zip(self.counts, counts, strict=True)]
        self.seconds += seconds

    def end_epoch(self, row: Epoch) -> bool:
        """Account for a finished epoch; True when its validation is the best so far, see `Epoch.score`."""
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
    def from_json(cls, content: dict[str, Any]) -> "Position":
        """The inverse of `to_json`, after a round trip through a file."""
        best = content["best"]
        history = [Epoch(**row) for row in content["history"]]
        return cls(**{**content, "best": None if best is None else tuple(best), "history": history})
