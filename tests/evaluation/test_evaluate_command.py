"""The command `evaluate`: what it prints, and its exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from doubleunet_bs.__main__ import main

SCRIPT = Path(__file__).resolve().parents[2] / "evaluate.py"


def script(*arguments):
    return main(["evaluate", *map(str, arguments)])


@pytest.mark.slow
def test_script_prints_the_scores(own_run, capsys):
    assert script(own_run, "--fold", 1, "--no-pictures") == 0
    row = next(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("fold 1 "))
    content = json.loads((own_run / "fold_01" / "scores.json").read_text())
    model = [content["pooled"][name] for name in ("precision", "sensitivity", "f1")]
    expected = [*model, content["threshold"]["f1"], content["postprocessed"]["pooled"]["f1"]]
    assert [float(word) / 100 for word in row[3:]] == pytest.approx(expected, abs=0.0001) and row[2] == "2"


def test_script_exit_codes(trained_run, tmp_path, capsys):
    assert script(tmp_path) == 1
    assert script(trained_run, "--fold", 4) == 2
    assert script(trained_run, "--batch-size", 0) == 2
    assert capsys.readouterr().err.count("error: ") == 3


_OF_OUR_PREDICTIONS = ("--no-normals", "--recompute", "--no-pictures", "--no-report")


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--overlap", "1"],
        ["run", "--threads", "0"],
        ["run", "--ensemble"],
        ["a", "b", "--ensemble", "--data", "shards"],
        ["run", "--trained-on", "shards"],
        ["run", "--out", "folder"],
        ["run", "--weights", "spiers1968"],
        ["run", "--predictions", "folder", "--figures", "pdf"],
        *(["run", "--predictions", "folder", option] for option in _OF_OUR_PREDICTIONS),
        *(["run", "--predictions", "folder", option, "2"] for option in ("--batch-size", "--threads")),
        ["a", "b", "--no-report"],
    ],
)
def test_wrong_arguments(capsys, arguments):
    assert script(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.slow
def test_threads(own_run):
    """In a process of its own: TensorFlow takes the number of threads once."""
    code = (
        "import runpy, sys\n"
        "sys.argv = sys.argv[1:]\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end:\n    assert end.code == 0, end.code\n"
        "import tensorflow as tf\n"
        "threading = tf.config.threading\n"
        "print(threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads())"
    )
    options = ["--threads", "1", "--fold", "1", "--no-pictures", "--no-report"]
    done = subprocess.run(
        [sys.executable, "-c", code, SCRIPT, own_run, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "1 1"
    assert (own_run / "fold_01" / "scores.json").exists()
