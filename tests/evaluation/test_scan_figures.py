"""Pictures: overlays of scans, which scans a report shows, maps of errors, charts."""

import dataclasses
import types

import numpy as np
import pytest
from PIL import Image
from score_makers import scan

from doubleunet_bs.constants import FALSE_NEGATIVE, FALSE_POSITIVE, MIRRORED_WARNING, TRUE_POSITIVE, TRUTH
from doubleunet_bs.display import place_names
from doubleunet_bs.evaluation.charts import f1_chart, write_figures
from doubleunet_bs.evaluation.scan_figures import chosen_scans, draw_case, error_maps, tinted
from doubleunet_bs.runs.history import Epoch


def scans_of(*percents):
    return [(1, scan(number, value, 200 - 2 * value, 0)) for number, value in enumerate(percents)]


@pytest.mark.parametrize(
    ("percents", "expected"),
    [
        ((10, 20, 30, 40, 50, 60, 70), ["best 70", "best 60", "median 50", "median 40", "worst 10", "worst 20"]),
        ((10, 20, 30), ["best 30", "median 20", "worst 10"]),
        ((10, 20), ["best 20", "worst 10"]),
        ((10,), ["best 10"]),
        ((), []),
    ],
)
def test_best_median_and_worst(percents, expected):
    found = chosen_scans(scans_of(*percents))
    assert [f"{what} {round(100 * one.dice)}" for what, _, one in found] == expected


def test_scans_without_dice_are_not_shown():
    empty = (1, scan(9))
    assert [one.case for _, _, one in chosen_scans([empty, *scans_of(40)])] == ["case-000"]
    assert chosen_scans([empty]) == []


def test_error_maps_show_where_the_errors_are():
    assert error_maps([]) == []
    labels, mask = np.zeros((80, 64), np.uint8), np.zeros((80, 64), bool)
    labels[10:14, 10:14], mask[60:64, 50:54] = 2, True
    wrong = np.full((80, 64), 50, np.uint8), labels, mask
    (name, _, positives, _), (other, _, negatives, _) = error_maps([wrong, wrong])
    assert (name, other) == ("False positives", "False negatives")
    # Smoothed, and each in its place: neither spreads to the other view.
    assert np.unravel_index(positives.argmax(), positives.shape) in {(61, 51), (61, 52), (62, 51), (62, 52)}
    assert 0 < positives.max() < 1 and not positives[:, :32].any() and not negatives[:, 32:].any()
    assert positives.sum() == pytest.approx(16, rel=0.01)
    right = np.zeros((80, 64), np.uint8), labels, labels == 2
    assert error_maps([wrong, right])[0][2].max() == pytest.approx(positives.max() / 2)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "begin"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_the_same_figure_gives_the_same_file(tmp_path, kind, begin):
    written = []
    for _ in range(2):
        write_figures(tmp_path, {"f1": f1_chart([(1, [])])}, kind)
        written.append((tmp_path / f"f1.{kind}").read_bytes())
    assert written[0] == written[1] and written[0].startswith(begin)


def test_the_axis_of_epochs_has_whole_numbers():
    """Also for one epoch. One that found nothing has no star."""
    for count in (1, 2, 3, 12):
        epochs = [Epoch(number + 1, 1.0, 0.5, 0.5, 0.5, 1.0, 0.0, 0.0, 0.0, 1e-4, 1.0) for number in range(count)]
        axes = f1_chart([(1, epochs)]).axes[0]
        ticks = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
        assert ticks and all(tick == round(tick) for tick in ticks)
        assert not [line for line in axes.lines if line.get_marker() == "*"]
    best = dataclasses.replace(epochs[4], val_f1=0.5)
    [star] = [line for line in f1_chart([(1, [*epochs, best])]).axes[0].lines if line.get_marker() == "*"]
    assert star.get_xydata().tolist() == [[5, 50]] and star.get_label() == "best: epoch 5"


def test_weak_probabilities_are_not_drawn():
    picture = tinted(np.array([[0.0, 0.04, 0.5, 1.0]]))
    assert picture[0, :, 3].tolist() == [0, 0, 136, 255]
    assert picture[0, 2].tolist() == [230, 130, 0, 136] and picture[0, 0].tolist() == [0, 0, 0, 0]


def record(phantom=None, warnings=()):
    return types.SimpleNamespace(case="case-0", phantom=phantom, warnings=warnings)


@pytest.mark.parametrize("shape", [(160, 128), (32, 32)])
def test_every_kind_of_pixel_has_its_colour_and_size(tmp_path, shape):
    labels = np.ones(shape, np.uint8)
    mask = np.zeros(shape, np.uint8)
    labels[12:14, 2:8] = 2  # 12 true pixels ...
    mask[12:14, 2:5] = 1  # ... 6 of them found
    mask[20:22, 2:4] = 1  # and 4 wrong ones
    path = tmp_path / "case.png"
    draw_case(path, record(), np.full(shape, 40, np.uint8), labels, mask)
    assert set(Image.open(path).info) <= {"dpi"}
    picture = np.asarray(Image.open(path).convert("RGB"))
    scale = 960 // shape[0]
    # Legend patches have the same colours: look at the panels only.
    panels = picture[: int(picture.shape[0] * 0.94)]
    for rgb, pixels in ((TRUE_POSITIVE, 6), (FALSE_POSITIVE, 4), (FALSE_NEGATIVE, 6), (TRUTH, 12)):
        assert np.all(panels == rgb, axis=2).sum() == pixels * scale**2


def test_phantoms_are_called_so_and_no_side_is_stated_where_it_is_in_doubt(tmp_path):
    """In the title, and nowhere else does the picture of a phantom change."""
    path, pictures = tmp_path / "case.png", {}
    for name, of in (
        ("plain", record(phantom=False, warnings=["few counts"])),
        ("unknown", record()),
        ("phantom", record(phantom=True)),
        ("doubtful", record(warnings=[MIRRORED_WARNING])),
    ):
        draw_case(path, of, *np.zeros((3, 32, 32), np.uint8))
        pictures[name] = np.asarray(Image.open(path).convert("L")).astype(int)
    plain = pictures["plain"]
    assert (plain == pictures["unknown"]).all() and (plain != pictures["doubtful"]).any()
    rows, columns = np.nonzero(pictures["phantom"] != plain)
    assert rows.size and rows.max() < 0.06 * len(plain) and columns.max() < 0.6 * plain.shape[1]
    places = [(round(x), text) for x, text in place_names(100)]
    assert places == [(3, "R"), (25, "anterior"), (47, "L"), (53, "L"), (75, "posterior"), (97, "R")]
    assert [text for _, text in place_names(100, [MIRRORED_WARNING])] == ["?", "anterior", "?", "?", "posterior", "?"]
