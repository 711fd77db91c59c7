"""What a training shows of itself: `history.csv`, `progress.png`, a line an epoch, and TensorBoard.

`history.csv` and `progress.png` are replaced as a whole. TensorBoard is optional: without the package `tensorboard`
(`pip install doubleunet-bs[tensorboard]`) nothing is written for it.
"""

import csv
import dataclasses
import importlib.util
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from doubleunet_bs.constants import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE
from doubleunet_bs.display import clinical_display, paint_errors, with_names
from doubleunet_bs.errors import RunError
from doubleunet_bs.files import replace_file, write_text
from doubleunet_bs.preparation.records import CaseRecord


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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for epoch in epochs:
        writer.writerow(["" if value is None else value for value in dataclasses.astuple(epoch)])
    write_text(path, text.getvalue())


def read_history(path: str | os.PathLike) -> list[Epoch]:
    """Read what `write_history` wrote, to the last digit.

    Raises:
        RunError: the file is missing or not such a table.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        if tuple(rows[0]) != COLUMNS:
            raise ValueError("other columns")
        return [Epoch(int(row[0]), *(float(cell) if cell else None for cell in row[1:])) for row in rows[1:]]  # type: ignore[arg-type]
    except (OSError, ValueError, IndexError, TypeError) as cause:
        raise RunError(f"{path}: not a training history ({cause})") from None


def epoch_line(epochs: Sequence[Epoch], planned: int, best: bool) -> str:
    """The last epoch as a line for the terminal, with the time left until the last of `planned` epochs."""
    row = epochs[-1]
    left = sum(epoch.seconds for epoch in epochs) / len(epochs) * (planned - row.epoch)
    return (
        f"epoch {row.epoch:>3}/{planned}  loss {row.loss:.4f}  F1 {_percent(row.f1)}  |  "
        f"validation loss {row.val_loss:.4f}  F1 {_percent(row.val_f1)}  |  {row.seconds:.1f} s, "
        f"{tqdm.format_interval(left)} left{'  best' if best else ''}"
    )


def _percent(value: float | None) -> str:
    return "  –   " if value is None else f"{100 * value:5.1f} %"


def draw_progress(path: str | os.PathLike, epochs: Sequence[Epoch], title: str) -> None:
    """Draw losses and metastatic F1 over the epochs as PNG, with the best validation epoch marked."""
    # Imported here, since what reads a history needs no matplotlib.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    left, right = figure.subplots(1, 2)
    x = [epoch.epoch for epoch in epochs]
    marker = "o" if len(epochs) < 2 else None
    left.plot(x, [epoch.loss for epoch in epochs], label="training", color="#4477aa", marker=marker)
    left.plot(x, [epoch.val_loss for epoch in epochs], label="validation", color="#cc6677", marker=marker)
    left.set_ylabel("loss")
    for values, label, colour in (("f1", "training", "#4477aa"), ("val_f1", "validation", "#cc6677")):
        y = [float("nan") if getattr(epoch, values) is None else 100 * getattr(epoch, values) for epoch in epochs]
        right.plot(x, y, label=label, color=colour, marker=marker)
    if epochs:
        best = max(epochs, key=lambda epoch: epoch.score)
        # An epoch that found nothing is no best one.
        height = 100 * best.val_f1 if best.val_f1 else float("nan")
        label = f"best: epoch {best.epoch}" if best.val_f1 else f"nothing found; kept: epoch {best.epoch}"
        right.plot(best.epoch, height, "*", color="#117733", markersize=11, label=label)
    right.set_ylabel("metastatic F1 (%)")
    right.set_ylim(0, 100)
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.set_xlim(0.5, 0.5 + max(len(epochs), 1))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    replace_file(path, lambda temporary: figure.savefig(temporary, dpi=110, metadata={"Software": None}))


EXAMPLES = 3
"""Validation scans shown in TensorBoard at every epoch that is the best so far."""
_TENSORBOARD_GROUP = {"learning_rate": "run", "seconds": "run"}


class TensorBoardLog:
    """An event file in `folder`/tensorboard, flushed after every epoch. A resumed training adds another file.

    Without the package `tensorboard` all methods do nothing.
    """

    def __init__(self, folder: Path):
        # Imported here, since what reads a history needs no TensorFlow.
        import tensorflow

        self._summary = tensorflow.summary
        installed = importlib.util.find_spec("tensorboard") is not None
        self._writer = self._summary.create_file_writer(str(folder / "tensorboard")) if installed else None

    def epoch(self, row: Epoch) -> None:
        """Write the figures of an epoch, without those that are undefined."""
        if self._writer is None:
            return
        with self._writer.as_default():
            for name, value in dataclasses.asdict(row).items():
                if name != "epoch" and value is not None:
                    group = "validation" if name.startswith("val_") else _TENSORBOARD_GROUP.get(name, "training")
                    self._summary.scalar(f"{group}/{name.removeprefix('val_')}", value, step=row.epoch)
        self._writer.flush()

    def examples(
        self, step: int, grey: np.ndarray, labels: np.ndarray, mask: np.ndarray, records: Sequence[CaseRecord]
    ) -> None:
        """Write pictures of scans with the errors of their prediction coloured, and the names of what is shown.

        Args:
            step: number of the epoch.
            grey: (n, rows, columns) uint8 prepared images.
            labels: (n, rows, columns) uint8 classes.
            mask: (n, rows, columns) bool, True where metastatic is predicted.
            records: of the n scans.
        """
        if self._writer is None:
            return
        legend = [("TP", TRUE_POSITIVE), ("FP", FALSE_POSITIVE), ("FN", FALSE_NEGATIVE)]
        phantom = any(record.phantom for record in records)  # for all: pictures of one event have one size
        pictures = np.stack(
            [
                with_names(paint_errors(clinical_display(image), *case), record.warnings, phantom, legend)
                for image, *case, record in zip(grey, labels, mask, records, strict=True)
            ]
        )
        with self._writer.as_default():
            self._summary.image("validation", pictures, step=step, max_outputs=len(pictures))
        self._writer.flush()

    def close(self) -> None:
        """End the event file."""
        if self._writer is not None:
            self._writer.close()
