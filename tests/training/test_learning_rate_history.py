"""The learning-rate rule against Keras' own, and the history file."""

import dataclasses

import keras
import matplotlib.axes
import numpy as np
import pytest
from matplotlib.figure import Figure

from doubleunet_bs.errors import RunError
from doubleunet_bs.runs.curves import draw_curves
from doubleunet_bs.runs.history import COLUMNS, Epoch, epoch_line, read_history, write_history
from doubleunet_bs.training.progress import draw_progress
from doubleunet_bs.training.training_state import Plateau, TrainingState, cosine


def test_learning_rate_follows_keras_reduce_lr_on_plateau():
    losses = np.round(np.random.default_rng(0).random(200).cumsum() / np.arange(1, 201), 3)  # falls, stalls, rises
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    callback = keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.1, patience=4, verbose=0)
    callback.set_model(model)
    callback.on_train_begin()
    plateau, rate = Plateau(factor=0.1, patience=4), 1.0
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"val_loss": loss})
        rate = plateau.learning_rate(loss, rate)
        assert rate == pytest.approx(float(model.optimizer.learning_rate), rel=1e-5)
    assert rate < 1e-10, "the sequence must have triggered the rule"


def test_cosine_falls_from_the_start_to_zero():
    rates = [cosine(2e-3, step / 10) for step in range(11)]
    assert rates[0] == 2e-3 and rates[5] == pytest.approx(1e-3) and rates[10] == pytest.approx(0, abs=1e-12)
    assert all(a > b for a, b in zip(rates, rates[1:], strict=False))


ROWS = [
    Epoch(1, 1.5, None, 0.0, 0.0, 1.6, None, 0.0, 0.0, 1e-3, 12.5),
    Epoch(2, 1 / 3, 0.1, 0.2, 2 / 15, 0.7, 0.5, 0.25, 1 / 3, 1e-4, 11.0),
]


def test_history_round_trip_to_the_last_digit(tmp_path):
    write_history(tmp_path / "history.csv", ROWS)
    assert read_history(tmp_path / "history.csv") == ROWS
    assert (tmp_path / "history.csv").read_text().splitlines()[0] == ",".join(COLUMNS)


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", ",".join(COLUMNS) + "\n1,2\n", ",".join(COLUMNS) + "\nx" + ",1" * 10]
)
def test_other_tables_are_refused(tmp_path, text):
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(RunError, match="not a training history"):
        read_history(tmp_path / "history.csv")


@pytest.mark.parametrize("rows", [ROWS[:1], ROWS])
def test_progress_picture(tmp_path, rows):
    from PIL import Image

    draw_progress(tmp_path / "progress.png", rows, "dice, fold 1")
    with Image.open(tmp_path / "progress.png") as image:
        assert image.size[0] > 800 and len(image.convert("RGB").getcolors(1 << 20)) > 50
    assert [path.name for path in tmp_path.iterdir()] == ["progress.png"]


@pytest.mark.parametrize(
    ("figures", "best", "what"),
    [
        ([(None, 1.0), (0.0, 0.9), (None, 0.8), (0.0, 0.85)], 3, "nothing found; kept"),
        ([(0.2, 1.0), (0.5, 0.9), (0.5, 0.8), (0.5, 0.8)], 3, "best"),
        ([(None, 0.5), (0.0, 0.5)], 1, "nothing found; kept"),
    ],
)
def test_the_picture_marks_the_epoch_whose_weights_are_kept(tmp_path, monkeypatch, figures, best, what):
    rows = [
        Epoch(number, 1.0, None, 0.0, 0.0, loss, None, 0.0, f1, 1e-4, 1.0)
        for number, (f1, loss) in enumerate(figures, start=1)
    ]
    state = TrainingState()
    for row in rows:
        state.end_epoch(row)
    labels, legend = [], matplotlib.axes.Axes.legend

    def noting(axes, **options):
        labels.extend(axes.get_legend_handles_labels()[1])
        return legend(axes, **options)

    monkeypatch.setattr(matplotlib.axes.Axes, "legend", noting)
    draw_progress(tmp_path / "progress.png", rows, "dice, fold 1")
    assert state.best_epoch == best and labels[-1] == f"{what}: epoch {best}"


def test_an_f1_of_zero_is_not_drawn_onto_the_frame():
    axes = Figure().subplots()
    draw_curves(axes, [ROWS], f1=True)
    low, high = axes.get_ylim()
    assert low < 0 and high > 100


def test_the_line_of_an_epoch():
    rows = [
        Epoch(number, 1.0, 0.5, 0.5, 0.5, 0.75, 0.25, 0.25, 0.25, 1e-4, 30.0 + 60 * (number == 1))
        for number in range(1, 5)
    ]
    said = "epoch   4/10  loss 1.0000  F1  50.0 %  |  validation loss 0.7500  F1  25.0 %  |  30.0 s, 03:00 left"
    assert epoch_line(rows, 10) == said, "the first epoch, with the compiler's time, has no say"
    rows[3] = dataclasses.replace(rows[3], val_loss=0.5)
    assert epoch_line(rows, 10) == f"{said.replace('0.7500', '0.5000')}  best"
    undefined = Epoch(1, 1.5, None, 0.0, None, 1.25, None, None, None, 1e-4, 50.0)
    assert "F1   –     |" in epoch_line([undefined], 10)
    for found in (None, 0.0):
        nothing = [dataclasses.replace(row, val_f1=found) for row in rows]
        assert epoch_line(nothing, 10).endswith("  no metastatic pixel found yet")
        assert epoch_line(nothing[:1], 10, "bone").endswith("  no bone pixel found yet")
