"""Real processes, killed at random moments and resumed until they finish: the same bytes as an uninterrupted run.

The processes are forked from one that has imported TensorFlow and not yet started it, so that a kill costs a second and
not ten. DOUBLEUNET_BS_KILLS sets how many kills a run must survive (default 5).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TESTS = Path(__file__).resolve().parents[1]
KILLS = int(os.environ.get("DOUBLEUNET_BS_KILLS", "5"))

# Trains in forked children. A child that is to be killed gets SIGKILL (or SIGTERM) at a random moment of its life; what
# moment of the training that is, nobody knows beforehand. The last word is a child that is left alone.
KILLER = """
import json, os, random, signal, sys, time
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/training"]
from pathlib import Path
from doubleunet_bs.tensorflow_setup import import_tensorflow
tf = import_tensorflow()
import keras
import numpy as np
import doubleunet_bs.training.build_network as build_module
import doubleunet_bs.training.trainer as trainer_module
from synthetic_shards import SyntheticShards
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.runs.create_run import create_run
from trainers import fold_trainer
from two_convolutions import two_convolutions
build_module.double_unet = two_convolutions
out, kills, seed = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
rng = random.Random(seed)
shards = SyntheticShards(scans=18)
experiment = paper_experiment("focal-tversky-otsu", folds=3, epochs=10, learning_rate=1e-2, encoder_weights="none",
                              plateau_patience=1, bn_momentum=0.8)

def noted(run_path):
    return run_path.with_suffix(".validated")

def child(run_path):
    validate = trainer_module.Trainer._validate
    def noting(trainer):
        value = validate(trainer)
        with open(noted(run_path), "a") as file:
            file.write(f"{trainer.state.epoch + 1}\\n")
        return value
    trainer_module.Trainer._validate = noting
    tf.config.experimental.enable_op_determinism()
    run = create_run(run_path, experiment, shards)
    try:
        fold_trainer(run, shards, 1).train(resume=True)
    except trainer_module.Interrupted:
        os._exit(130)
    os._exit(0)

def start(run_path):
    pid = os.fork()
    if pid == 0:
        try:
            child(run_path)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(9)
    return pid

begin = time.monotonic()
pid = start(out / "whole")
assert os.waitpid(pid, 0)[1] == 0
life = time.monotonic() - begin

report, killed = [], 0
fold = out / "killed" / "fold_01"
state = fold / "state.npz"

def saved_epochs():
    # Whole epochs in the state; all of them when the result is there.
    if (fold / "model.keras").exists():
        return experiment.epochs
    if not state.exists():
        return 0
    with np.load(state, allow_pickle=False) as content:
        return json.loads(content["meta"].tobytes())["progress"]["position"]["epoch"]

def history_rows():
    history = fold / "history.csv"
    return len(history.read_text().splitlines()) - 1 if history.exists() else 0

def trained_epochs():
    # Whole epochs that any life so far has come to the end of, saved or not.
    path = noted(out / "killed")
    return max(map(int, path.read_text().split())) if path.exists() else 0

while True:
    begin = time.monotonic()
    pid = start(out / "killed")
    if killed < kills:
        # Start-up takes most of a life: moments before any epoch and moments between two writes must both be hit.
        moment = rng.uniform(0.25, 0.95) * life
        number = signal.SIGKILL if rng.random() < 0.75 else signal.SIGTERM
        # One kill waits for a saved epoch: by chance alone all may come before the first or after the last.
        while time.monotonic() - begin < moment or killed == 1 and not saved_epochs():
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            time.sleep(0.005)
        else:
            os.kill(pid, number)
            status = os.waitpid(pid, 0)[1]
            killed += 1
        left = sorted(file.name for file in (out / "killed" / "fold_01").glob("*")) if state.parent.exists() else []
        report.append([number.name, round(moment, 2), status, left, trained_epochs(), saved_epochs(), history_rows()])
        if os.waitstatus_to_exitcode(status) == 0:
            # Finished before its time: begin again, so that the number of kills is what was asked for. A life that was
            # resumed in the middle is a short one, so that only shorter ones than known so far correct the guess.
            life = min(life, max(time.monotonic() - begin, 0.8 * life))
            if killed < kills:
                import shutil
                shutil.rmtree(out / "killed")
                noted(out / "killed").unlink()
                report.append(None)
            else:
                break
        assert os.waitstatus_to_exitcode(status) in (0, 130, -signal.SIGKILL, -signal.SIGTERM), report
    else:
        assert os.waitpid(pid, 0)[1] == 0, report
        break
print(json.dumps({"report": report, "killed": killed}))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("kills")
    seed = int.from_bytes(os.urandom(4), "little")
    command = [sys.executable, "-c", KILLER, TESTS, out, str(KILLS), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-3000:]}"
    report = json.loads(done.stdout.splitlines()[-1])
    print(f"seed {seed}: {report}")
    return out, report, seed


def rows(path: Path) -> list[str]:
    """The lines of a history but for the seconds in their last column."""
    return [line.rpartition(",")[0] for line in path.read_text().splitlines()]


def test_killed_runs_end_with_the_same_bytes(runs):
    out, report, seed = runs
    whole, killed = out / "whole" / "fold_01", out / "killed" / "fold_01"
    assert report["killed"] == KILLS
    assert rows(killed / "history.csv") == rows(whole / "history.csv"), f"seed {seed}"
    assert len(rows(whole / "history.csv")) == 1 + 10
    assert (killed / "best.weights.h5").read_bytes() == (whole / "best.weights.h5").read_bytes(), f"seed {seed}"


def test_nothing_half_written_is_left(runs):
    out, _, _ = runs
    files = [sorted(file.name for file in (out / name / "fold_01").iterdir()) for name in ("whole", "killed")]
    assert files[0] == files[1]
    assert not [name for name in files[1] if name.startswith(".") or name == "state.npz"]


def test_an_epoch_that_was_saved_is_never_lost(runs):
    """From one start to the next the state only goes on; SIGKILL costs the epoch in progress and no other."""
    _, report, seed = runs
    lives = [life for life in report["report"] if life is not None]
    assert any(0 < epochs < 10 for *_, epochs, _ in lives), f"seed {seed}: no kill hit a run with a saved epoch"
    before = 0
    for life in report["report"]:
        if life is None:  # Begun again with an empty folder.
            before = 0
            continue
        *_, trained, epochs, rows_of_history = life
        assert before <= epochs <= 10 and rows_of_history <= epochs, f"seed {seed}: {report}"
        assert trained - epochs <= 1, f"seed {seed}: more than one epoch is lost, {report}"
        before = epochs
