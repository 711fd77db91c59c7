"""The table of the twelve experiments on phantoms: by hand from score files, without training anything."""

import importlib
import re
from pathlib import Path

import pytest

from doubleunet_bs.evaluation.scores.fold_scores import FoldScores, ThresholdScore, write_scores
from doubleunet_bs.evaluation.scores.lesions import ScoredLesion
from doubleunet_bs.evaluation.scores.scan_scores import ScanScore
from doubleunet_bs.pixel_counts import PixelCounts
from doubleunet_bs.runs.experiments import PAPER_EXPERIMENTS

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def phantom_table(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("phantom_table")


def scan(number: int, tp: int, fp: int, fn: int, group: str = "positive", false_lesions: int = 0) -> ScanScore:
    views = {"anterior": PixelCounts(tp, fp, fn), "posterior": PixelCounts()}
    lesion = ScoredLesion("anterior", 1, 1.0, 0.0, 0.0, 0, 0.0, False, 0.9, 0.9)
    return ScanScore(f"case-{group}-{number}", f"patient-{group}-{number}", group, views, (), (lesion,) * false_lesions)


def write_row(run: Path, folds: dict[int, tuple], unseen: list[tuple] = (), false_lesions: int = 0) -> None:
    """`folds`: number -> counts of its one scan; `unseen`: counts of phantoms with metastases, beside two without."""
    none = ThresholdScore(None, None, None)
    for fold, counts in folds.items():
        write_scores(_made(run / f"fold_{fold:02d}"), FoldScores(fold, (scan(1, *counts),), none, {}))
    if unseen:
        scans = tuple(scan(number, *counts) for number, counts in enumerate(unseen))
        normals = (scan(1, 0, false_lesions, 0, "negative", false_lesions), scan(2, 0, 0, 0, "negative"))
        write_scores(_made(run / "ensemble" / "unseen"), FoldScores(0, scans, none, {}, normals=normals))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder / "scores.json"


def test_rows_and_steps_by_hand(tmp_path, phantom_table):
    # Dice 60 % and 40 % by fold, then 80 % and 50 %: +20 and +10.
    write_row(tmp_path / "mixed_bfloat16" / "baseline", {1: (6, 4, 4), 2: (4, 6, 6)}, [(5, 5, 5)] * 6, false_lesions=4)
    write_row(tmp_path / "mixed_bfloat16" / "dice", {1: (8, 2, 2), 2: (5, 5, 5)}, [(7, 3, 3)] * 6, false_lesions=1)
    write_row(tmp_path / "mixed_bfloat16" / "dice-otsu", {1: (8, 2, 2)})
    text = phantom_table.table(tmp_path, 4, {"mixed_bfloat16": [20]})
    assert "On phantoms" in text and "160 x 128 pixels, 20 epochs" in text
    cells = {
        line.split("|")[1].strip(" `"): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    }
    assert cells["baseline"] == ["1, 2", "50.0 ± 14.1", "50.0 ± 14.1", "50.0 ± 14.1", "50.0", "2.00", "0.25"]
    assert cells["dice-otsu"] == ["1", "80.0", "80.0", "80.0", "–", "–", "–"]
    step = cells["background removal (3 classes instead of 1)"]
    assert step[:5] == ["2", "+15.0 ± 7.1", "+15.0 ± 7.1", "+15.0 ± 7.1", "+20.0 (+20.0 to +20.0)"]
    # Six phantoms, all better: the smallest p that two sides can have, 2 / 2**6; the only step with other phantoms.
    assert step[5:] == ["0.031", "-1.50"]
    assert cells["Otsu negatives"] == ["1", "+0.0", "+0.0", "+0.0", "–", "–", "–"]
    assert "augmentation" not in cells and "float32" not in text


def test_precisions_fold_by_fold(tmp_path, phantom_table):
    write_row(tmp_path / "float32" / "dice", {1: (6, 4, 4), 2: (5, 5, 5)})
    write_row(tmp_path / "mixed_bfloat16" / "dice", {1: (7, 3, 3), 3: (5, 5, 5)})
    text = phantom_table.table(tmp_path, 4, {"float32": [10], "mixed_bfloat16": [10]})
    assert "dice, fold 1: F1 60.0 in float32, 70.0 in bfloat16 (+10.0)" in text
    assert re.search(r"bfloat16 - float32: \+10\.0 points \(mean ± SD of 1 pairs\)", text)


def test_steps_are_pairs_of_rows_that_one_setting_separates(phantom_table):
    settings = {
        name: {key: value for key, value in vars(row).items() if key != "name"}
        for name, row in PAPER_EXPERIMENTS.items()
    }
    for step, pairs in phantom_table.STEPS.items():
        changed = {
            tuple(key for key in settings[first] if settings[first][key] != settings[second][key])
            for first, second in pairs
        }
        assert len(changed) == 1, (step, changed)
        assert len(changed.pop()) == (2 if step == "augmentation" else 1)
