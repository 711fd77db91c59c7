"""`doubleunet-bs demo` and what its shards are then trained with, on a network of one convolution."""

import re
from pathlib import Path

import pytest

from doubleunet_bs.__main__ import main
from doubleunet_bs.files import read_json


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.mark.slow
def test_demo_does_the_whole_job_and_every_path_it_prints_exists(tmp_path, small_network, capsys):
    demo = tmp_path / "demo"
    assert run("demo", demo, "--patients", 10, "--folds", 3, "--epochs", 1) == 0
    said = capsys.readouterr().out
    for text in ("Reduced against the paper", "10 phantoms instead", "best threshold", "says nothing about patients"):
        assert text in said
    printed = [word for line in said.splitlines() for word in line.split()[:1] if word.startswith(str(demo))]
    assert len(printed) >= 6 and all(Path(path).exists() for path in printed)
    scores = read_json(demo / "run" / "fold_01" / "scores.json")
    f1 = [scores[which]["f1"] for which in ("pooled", "threshold")]
    assert f"{abs(100 * (f1[0] - f1[1])):.1f} points" in said and ("did not teach it" in said) == (f1[0] <= f1[1])
    assert f"doubleunet-bs evaluate {demo / 'run'}" in said
    # A second start touches nothing; --resume finds everything done.
    assert run("demo", demo) == 2
    assert "--resume" in capsys.readouterr().err
    before = (demo / "run" / "fold_01" / "best.weights.h5").stat().st_mtime_ns
    assert run("demo", demo, "--patients", 10, "--folds", 3, "--epochs", 1, "--resume") == 0
    assert (demo / "run" / "fold_01" / "best.weights.h5").stat().st_mtime_ns == before
    capsys.readouterr()
    # Without the number it is that of the phantoms that are there; another one is refused.
    assert run("demo", demo, "--folds", 3, "--epochs", 1, "--resume") == 0
    assert "10 phantoms instead" in capsys.readouterr().out
    assert run("demo", demo, "--patients", 11, "--folds", 3, "--epochs", 1, "--resume") == 2
    assert "phantoms: has 10 phantoms, not 11" in capsys.readouterr().err

    # The same shards with the plain command: another fold of the same experiment.
    common = ["--data", demo / "shards", "--encoder-weights", "none", "--epochs", 1, "--folds", 3]
    new = ["--run", tmp_path / "run", "--experiment", "dice"]
    assert run("train", *common, *new, "--fold", 4) == 2
    assert not (tmp_path / "run").exists()
    assert run("train", *common, *new, "--fold", 2) == 0
    assert (tmp_path / "run" / "fold_02" / "saved_model" / "saved_model.pb").exists()
    # Damaged shards are found before anything is trained.
    labels = demo / "shards" / "labels-00000.npy"
    content = bytearray(labels.read_bytes())
    content[-1] = 77
    labels.write_bytes(content)
    assert run("train", *common, "--run", tmp_path / "x", "--experiment", "dice", "--fold", 1) == 1
    assert "labels-00000.npy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--folds", 11), "10 patients, 9 with metastases, cannot fill 11 folds"),
        (("--folds", 3, "--fold", 4), "folds 1 to 3"),
        (("--folds", 3, "--patients", 0), "0 patients"),
        (("--folds", 3, "--patients", 9), "9 patients, all with metastases: .* at least 10"),
        (("--folds", 3, "--set", "transfer=yes"), "leave out --set transfer=yes"),
        (("--folds", 3, "--devices", 7), "this machine has"),
        (("--folds", 3, "--encoder-weights", "gone.h5"), "gone.h5: no such file"),
    ],
)
def test_demo_refuses_the_impossible_before_it_makes_anything(tmp_path, capsys, options, message):
    assert run("demo", tmp_path / "demo", "--patients", 10, *options) in (1, 2)
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "demo").exists()
