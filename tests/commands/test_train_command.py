"""`doubleunet-bs train` and the scripts `train.py` and `evaluate.py`: their arguments."""

import runpy
from pathlib import Path

import pytest

from doubleunet_bs.__main__ import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["train", "--data", "x"],
        ["train", "--data", "x", "--run", "y", "--experiment", "dice", "--fold", "some"],
        ["demo", "--data", "x"],
        ["demo", "--epochs", "many"],
        ["demo", "--fold", "all"],
        ["demo", "--pretrain-data", "x"],
        ["demo", "--assume-disjoint-patients"],
        ["train", "--patients", "5"],
        ["evaluate"],
        ["surprise"],
    ],
)
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2 and "error:" in capsys.readouterr().err


def test_a_fold_that_is_no_number(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--data", "x", "--run", "y", "--experiment", "dice", "--fold", "some"])
    assert "argument --fold: 'some': give the number of a fold, all or pretrain" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "arguments", "verb_line"),
    [
        ("train.py", ["--data", "x", "--fold", "1"], ["train", "--data", "x", "--fold", "1"]),
        ("train.py", ["--demo"], ["demo"]),
        ("train.py", ["--demo", "dir", "--demo-patients", "9"], ["demo", "dir", "--demo-patients", "9"]),
        ("train.py", ["--epochs", "1", "--demo", "dir"], ["demo", "--epochs", "1", "dir"]),
        ("evaluate.py", ["run", "--fold", "1"], ["evaluate", "run", "--fold", "1"]),
    ],
)
def test_the_scripts_are_the_verbs(monkeypatch, script, arguments, verb_line):
    called = []
    monkeypatch.setattr("doubleunet_bs.__main__.main", lambda line: called.append(line) or 0)
    monkeypatch.setattr("sys.argv", [script, *arguments])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert stopped.value.code == 0 and called == [verb_line]
