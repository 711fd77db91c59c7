"""`doubleunet-bs train` as people type it: resumed by the run's name alone, refused before TensorFlow is imported."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from intensity_run import make_run, make_shards

from doubleunet_bs.__main__ import main
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.stop_signals import Interrupted
from doubleunet_bs.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("no_export")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("data") / "shards")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, shards, tensorflow):
    """A run of three folds. The first is trained and exported, so to speak; the second is trained alone."""
    run = make_run(tmp_path_factory.mktemp("run") / "run", shards)
    (run / "fold_01" / "saved_model").mkdir()
    (run / "fold_01" / "saved_model" / "saved_model.pb").touch()
    return run


def train(*arguments):
    return main(["train", *map(str, arguments)])


@contextlib.contextmanager
def interrupted(epoch):
    """A signal comes at the start of the given epoch of a training."""
    train_epoch = Trainer._train_epoch

    def signalled(trainer, *arguments):
        if trainer.state.epoch + 1 == epoch:
            os.kill(os.getpid(), signal.SIGTERM)
        train_epoch(trainer, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_train_epoch", signalled)
        yield


@pytest.mark.slow
def test_the_run_alone_is_enough_to_resume(tmp_path, shards, small_network, capsys):
    """Settings, shards, fold and devices are those of the run, and the interruption printed the command."""
    run = tmp_path / "my run"
    options = ["--epochs", 2, "--folds", 3, "--encoder-weights", "none", "--set", "gamma=1", "--devices", "cpu"]
    with interrupted(2):
        new = ["--data", shards, "--run", run, "--experiment", "focal-tversky", "--fold", 2]
        assert train(*new, *options, "--precision", "auto") == 130
    said = capsys.readouterr().err
    assert f"interrupted: progress saved: continue with `doubleunet-bs train --run '{run}' --resume`" in said
    # Started once more by mistake, the same command comes again.
    assert train("--run", run, "--fold", 2) == 1
    assert f"continue with `doubleunet-bs train --run '{run}' --resume`" in capsys.readouterr().err
    assert train("--run", run, "--resume") == 0
    said = capsys.readouterr().out
    precision = read_json(run / "fold_02" / "environment.json")["precision"]  # bfloat16 where the processor has it
    assert f"precision   {precision} (fixed" in said and f"done: {run / 'fold_02'}" in said and "--fold 2" in said
    assert len((run / "fold_02" / "history.csv").read_text().splitlines()) == 3
    # Another fold of the run needs no more than its number.
    assert train("--run", run, "--fold", 1) == 0
    assert read_json(run / "fold_01" / "environment.json")["experiment"]["gamma"] == 1.0
    capsys.readouterr()
    # A finished fold says so.
    assert train("--run", run, "--fold", 1) == 1
    assert "fold_01: is trained already: choose another --fold, or a new --run" in capsys.readouterr().err
    assert train("--run", run, "--fold", 1, "--resume") == 0
    assert capsys.readouterr().out == "fold 1 is trained\n"
    assert train("--run", run, "--resume") == 1
    assert "nothing to resume (folds trained: 1, 2): start another with --fold" in capsys.readouterr().err


@pytest.mark.slow
def test_a_pretraining_that_was_interrupted_is_found_by_the_run_alone(tmp_path, shards, small_network, capsys):
    other = make_shards(tmp_path / "prostate", first=100)
    run = tmp_path / "run"
    new = ["--data", shards, "--pretrain-data", other, "--run", run, "--experiment", "dice-otsu-transfer", "--fold", 3]
    with interrupted(2):
        assert train(*new, "--epochs", 2, "--folds", 3, "--encoder-weights", "none") == 130
    assert f"continue with `doubleunet-bs train --run {run} --resume`" in capsys.readouterr().err
    # Fold 1 has not begun, and the pre-training of the run is not fold 1's own.
    assert train("--run", run, "--fold", 1, "--resume") == 1
    assert "nothing to resume, fold 1 has not begun: leave out --resume" in capsys.readouterr().err
    assert train("--run", run, "--resume") == 0
    assert (run / "fold_03" / "model.keras").is_file() and not (run / "fold_01").exists()


@pytest.mark.slow
def test_several_interrupted_folds_are_continued_in_turn(tmp_path, shards, small_network, capsys):
    run = tmp_path / "run"
    with interrupted(2):
        for fold in (1, 3):
            new = ["--data", shards, "--run", run, "--experiment", "dice", "--fold", fold, "--folds", 3]
            assert train(*new, "--epochs", 2, "--encoder-weights", "none") == 130
    assert f"`doubleunet-bs train --run {run} --fold 3 --resume`" in capsys.readouterr().err
    assert train("--run", run, "--resume") == 0
    assert [fold for fold in (1, 2, 3) if (run / f"fold_0{fold}" / "saved_model").is_dir()] == [1, 3]


def test_shards_that_have_moved_are_asked_for(tmp_path, shards, small_network, capsys):
    moved = shutil.copytree(shards, tmp_path / "moved")
    run = make_run(tmp_path / "run", moved, folds=(), epochs=1)
    moved.rename(tmp_path / "elsewhere")
    assert train("--run", run, "--fold", 1) == 1
    assert "moved: the shards of" in (said := capsys.readouterr().err) and "name them with --data" in said
    assert train("--run", run, "--fold", 1, "--data", shards) == 0


# A command, its exit code, and what it says.
WRONG = [
    ("{new} --fold 11", 2, "fold 11 is out of range: there are folds 1 to 3 (--folds 3)"),
    ("{new} --fold 0", 2, "fold 0 is out of range: there are folds 1 to 3 (--folds 3)"),
    ("{new} --fold 1 --folds 60", 2, "cannot fill 60 folds: prepare more scans, or lower --folds"),
    ("{new} --fold 1 --devices 0", 2, "--devices 0: this machine has 0 GPU(s)"),
    ("{new} --fold 1 --data {folder}/gone", 1, "gone: not a shard folder"),
    ("{new} --fold 1 --experiment dice-otsu-transfer", 2, "name its shards with --pretrain-data"),
    ("{new} --fold 1 --set transfer=yes --pretrain-data {folder}/gone", 1, "gone: not a shard folder"),
    ("{new} --fold 1 --encoder-weights {folder}/gone.h5", 1, "gone.h5: no such file"),
    ("{new} --fold 1 --from {folder}/gone", 1, "gone: not a run or a fold of one"),
    ("{new} --fold 1 --experiment focal_tversky", 2, "did you mean focal-tversky?"),
    ("{new} --fold 1 --set gama=1", 2, "did you mean gamma?"),
    ("train --run {folder}/new", 2, "a new one needs --data, --experiment and --fold"),
    ("{new} --fold 1 --resume", 1, "new: nothing to resume"),
    ("train --run {trained} --fold 3 --resume", 1, "nothing to resume, fold 3 has not begun"),
    ("train --run {trained}", 2, "give --fold"),
    ("train --run {trained} --fold 3 --epochs 7", 1, "epochs 500 there, 7 here"),
    ("train --run {trained} --fold 1 --epochs 7", 1, "run/fold_01 to start from its weights"),
    ("train --run {trained} --fold 3 --experiment dice", 1, "name focal-tversky-otsu there, dice here"),
    ("train --run {trained} --fold 3 --experiment dice-otsu-transfer", 2, "name its shards with --pretrain-data"),
    ("train --run {trained} --fold 1", 1, "or a new --run with --from "),
    ("evaluate {folder}/gone", 1, "gone: no such folder: give the --run folder"),
    ("evaluate {trained}n", 1, "no such folder"),
    ("evaluate {trained}/fold_01", 1, "not a run folder, it has no experiment.json: give "),
    ("evaluate {trained}/fold_1", 1, "fold_1: no such folder: give "),
    ("evaluate {shards}", 1, "not a run folder"),
    ("evaluate {trained} --fold 3", 1, "fold 3 is not trained"),
    ("evaluate {trained} --fold 11", 2, "fold 11 is out of range"),
    ("evaluate {folder}/damaged", 1, "folds.json: `parts` must be"),
    ("evaluate {trained} {folder}/damaged", 1, "folds.json: `parts` must be"),
    ("evaluate {trained} {trained}", 2, "a run is named twice"),
    ("evaluate {trained} --ensemble --data {shards}", 1, "holds the same scans as"),
]
NEW = "train --data {shards} --run {folder}/new --experiment dice --folds 3"


@pytest.fixture(scope="module")
def answers(tmp_path_factory, shards, trained):
    """Answers to wrong commands, all given in one process that must never import TensorFlow."""
    folder = tmp_path_factory.mktemp("wrong")
    damaged = folder / "damaged"
    shutil.copytree(trained, damaged)
    write_json(damaged / "folds.json", {"format": 1, "parts": []})
    places = {"shards": shards, "trained": trained, "folder": folder}
    places["new"] = NEW.format(**places)
    script = (
        "import contextlib, io, json, sys\n"
        "from doubleunet_bs.__main__ import main\n"
        "answers = {}\n"
        "for name, words in json.loads(sys.stdin.read()).items():\n"
        "    said = io.StringIO()\n"
        "    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):\n"
        "        code = main(words)\n"
        "    answers[name] = [code, said.getvalue(), 'tensorflow' in sys.modules or 'keras' in sys.modules]\n"
        "print(json.dumps(answers))\n"
    )
    words = {line: line.format(**places).split() for line, _, _ in WRONG}
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(words),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (folder / "new").exists()
    return json.loads(done.stdout)


@pytest.mark.parametrize(("line", "code", "message"), WRONG)
def test_wrong_commands_are_answered_before_tensorflow_is_imported(answers, line, code, message):
    found, said, imported = answers[line]
    assert (found, imported) == (code, False) and message in said and len(said.splitlines()) == 1, said


def test_the_settings_are_listed_without_anything_else(capsys):
    with pytest.raises(SystemExit) as stopped:
        train("--set", "help")
    said = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "flip                   none, merged or per_view" in said and "loss_classes" in said


def test_the_interruption_of_a_library_call_names_no_command():
    assert str(Interrupted()) == "progress saved: continue with the same command and --resume"
