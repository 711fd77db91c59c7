"""Masks of another program are scored as our own: the same masks give the same figures."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from doubleunet_bs.__main__ import main
from doubleunet_bs.errors import RunError
from doubleunet_bs.evaluation.evaluate import evaluate_predictions, evaluate_run
from doubleunet_bs.evaluation.stored_predictions import read_prediction
from doubleunet_bs.runs.run_folder import open_run


@pytest.fixture(scope="module")
def scored(trained_run, tmp_path_factory):
    """A scored run, its summary, and the masks of its fold as another program would write them."""
    run = shutil.copytree(trained_run, tmp_path_factory.mktemp("others") / "run")
    summary = evaluate_run(run, report=False, pictures=False)
    folder = run.parent / "masks" / "fold_01"
    folder.mkdir(parents=True)
    for scan in summary.folds[0].scans:
        mask, *_ = read_prediction(run / "fold_01" / "predictions", scan.case, (160, 128))
        Image.fromarray(np.where(mask, 2, 1).astype(np.uint8)).save(folder / f"{scan.case}.png")
    return run, summary, folder.parent


def test_the_same_masks_give_the_same_figures(scored):
    run, ours, masks = scored
    theirs = evaluate_predictions(run, masks)
    mine, [other] = ours.folds[0], theirs.folds
    assert mine.pooled.tp > 0 and other.pooled == mine.pooled
    assert (other.lesions, other.threshold) == (mine.lesions, mine.threshold)
    assert json.loads((masks / "fold_01" / "scores.json").read_text())["experiment"] == "masks"
    assert (masks / "table.tex").is_file() and theirs.provenance.row is None


def test_the_command(scored, capsys):
    run, _, masks = scored
    assert main(["evaluate", str(run), "--predictions", str(masks)]) == 0
    said = capsys.readouterr().out
    # Under its own name, and never under that of our network.
    assert "predictions masks" in said and "Double U-Net" not in said
    for name in ("summary.csv", "table.tex", "summary.json"):
        assert "Double U-Net" not in (masks / name).read_text()
    assert main(["evaluate", str(run), "--predictions", str(masks), "--fold", "1"]) == 2


def _smaller(path):
    Image.fromarray(np.zeros((80, 64), np.uint8)).save(path)


def _colour(path):
    Image.fromarray(np.zeros((160, 128, 3), np.uint8)).save(path)


def _grey(path):
    Image.fromarray(np.full((160, 128), 255, np.uint8)).save(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.unlink(), "missing: predict all test scans"),
        (_smaller, "a mask of 80 x 64 pixels; the prepared image has 160 x 128"),
        (_colour, "not a class mask"),
        (_grey, "values must be 0, 1 and 2"),
        (lambda path: path.write_bytes(path.read_bytes()[:60]), "not a readable PNG"),
    ],
)
def test_a_bad_mask_writes_nothing(change, said, scored, tmp_path):
    run, summary, masks = scored
    copy = shutil.copytree(masks, tmp_path / "copy")
    for path in (copy / "fold_01" / "scores.json", copy / "summary.json"):
        path.unlink(missing_ok=True)
    change(copy / "fold_01" / f"{summary.folds[0].scans[-1].case}.png")
    with pytest.raises(RunError, match=said):
        evaluate_predictions(run, copy)
    assert not (copy / "summary.json").exists() and not (copy / "fold_01" / "scores.json").exists()


def test_no_fold(scored, tmp_path):
    run, _, _ = scored
    with pytest.raises(RunError, match="no folder fold_01 ... fold_03"):
        evaluate_predictions(open_run(run).path, tmp_path)
