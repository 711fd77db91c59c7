"""assets/cluster/slurm_array.sh run by a real Slurm: tiny phantom runs, one task killed, twice, and queued again.

Opt-in, since it starts daemons and takes some minutes: DOUBLEUNET_BS_SLURM=1 pytest tests/cluster, with slurm-wlm and munge
installed.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from one_node_slurm import OneNodeSlurm, missing_programs

from doubleunet_bs.phantom import make_cohort
from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort
from doubleunet_bs.preparation.settings import PreparationSettings

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "assets" / "cluster" / "slurm_array.sh"
OPTIONS = "--encoder-weights none --epochs 3 --batch-size 2 --devices cpu --deterministic"
EXPERIMENTS = ("dice", "focal-tversky-mining-transfer")
# Fold 1 of both, and fold 2 of the second, which needs the same pre-training as its fold 1.
TASKS = {
    "0": "dice/fold_01",
    "1": "focal-tversky-mining-transfer/fold_01",
    "3": "focal-tversky-mining-transfer/fold_02",
}
SECONDS = 1800

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2 * SECONDS),
    pytest.mark.skipif(os.environ.get("DOUBLEUNET_BS_SLURM") != "1", reason="set DOUBLEUNET_BS_SLURM=1 to run a Slurm"),
    pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {', '.join(missing_programs())}"),
]


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    """Tiny shards of breast and of prostate phantoms, prepared with one key as real ones should be."""
    folder = tmp_path_factory.mktemp("cohorts")
    for cancer in ("breast", "prostate"):
        cohort = make_cohort(folder / f"{cancer}-phantoms", 6, cancer, positive_fraction=0.8, progress=False)
        job = CohortJob(
            scans=cohort / "scans",
            labels=cohort / "labels",
            out=folder / cancer,
            settings=PreparationSettings(bin=4),
            key=folder / "key.json",
        )
        assert prepare_cohort(job).written
    return folder / "breast", folder / "prostate"


@pytest.fixture
def slurm():
    # Sockets have short paths: not below pytest's folder.
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as folder,
        OneNodeSlurm(Path(folder), os.cpu_count() or 1) as slurm,
    ):
        yield slurm


def result(fold: Path):
    """Weights and history without times."""
    import h5py

    weights = {}
    with h5py.File(fold / "best.weights.h5") as file:
        file.visititems(lambda name, item: weights.update({name: item[()].tobytes()} if hasattr(item, "dtype") else {}))
    with open(fold / "history.csv", newline="") as file:
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    return weights, rows


def test_array_job_with_a_killed_task(slurm, cohorts, tmp_path):
    runs = tmp_path / "runs"
    (tmp_path / "logs").mkdir()
    settings = {
        "DATA": cohorts[0],
        "PRETRAIN_DATA": cohorts[1],
        "RUNS": runs,
        "EXPERIMENTS": " ".join(EXPERIMENTS),
        "FOLDS": 3,
        "OPTIONS": OPTIONS,
        "PYTHON": sys.executable,
        "PROJECT": ROOT,
    }
    submit = ("sbatch", "--parsable", f"--chdir={tmp_path}", f"--array={','.join(TASKS)}", SCRIPT)
    job = slurm.run(*submit, **settings).strip()
    fold = runs / "dice" / "fold_01"
    wait_for(lambda: (fold / "state.npz").exists(), lambda: logs(tmp_path))
    # Without any warning, as by the kernel when memory runs out.
    lock = runs / "dice" / "locks" / "fold_01.1.lock"
    os.kill(json.loads(lock.read_text())["pid"], signal.SIGKILL)
    states = slurm.wait(job, SECONDS)
    assert states == {"0": "FAILED", "1": "COMPLETED", "3": "COMPLETED"}, logs(tmp_path)
    assert not (fold / "model.keras").exists() and (fold / "state.npz").exists()
    assert lock.exists(), "SIGKILL leaves the lock"

    # Again, and cancelled as soon as it has taken the lock over.
    queue_again(slurm, f"{job}_0")
    wait_for((runs / "dice" / "locks" / "fold_01.2.lock").exists, lambda: logs(tmp_path))
    slurm.run("scancel", "--signal=KILL", f"{job}_0")
    assert slurm.wait(job, SECONDS)["0"] == "CANCELLED", logs(tmp_path)
    assert not (fold / "model.keras").exists()
    queue_again(slurm, f"{job}_0")
    assert slurm.wait(job, SECONDS)["0"] == "COMPLETED", logs(tmp_path) + slurm.logs()
    for path in TASKS.values():
        assert (runs / path / "saved_model" / "saved_model.pb").is_file(), logs(tmp_path)
        assert not any((runs / path).parent.joinpath("locks").iterdir())
    # The task that came second waited for the pre-training of the first: there is one, and both start from it.
    assert "waiting: " in logs(tmp_path) and "works on pretrain" in logs(tmp_path)
    transfer = [json.loads((runs / TASKS[task] / "environment.json").read_text()) for task in ("1", "3")]
    assert transfer[0]["pretrain_sha256"] == transfer[1]["pretrain_sha256"]
    for task in ("1", "3"):
        assert (runs / TASKS[task] / "mined_negatives" / "mined.json").is_file()

    # The same fold without Slurm and without an interruption has the same result.
    command = [
        sys.executable,
        ROOT / "train.py",
        "--data",
        cohorts[0],
        "--run",
        tmp_path / "alone",
        "--experiment",
        "dice",
    ]
    subprocess.run([*command, "--fold", "1", "--folds", "3", *OPTIONS.split()], check=True, capture_output=True)
    assert result(tmp_path / "alone" / "fold_01") == result(fold)

    # Submitted once more, everything is found done.
    before = {path: (runs / path / "best.weights.h5").stat().st_mtime_ns for path in TASKS.values()}
    again = slurm.run(*submit, **settings).strip()
    assert set(slurm.wait(again, SECONDS).values()) == {"COMPLETED"}, logs(tmp_path)
    assert {path: (runs / path / "best.weights.h5").stat().st_mtime_ns for path in TASKS.values()} == before


def queue_again(slurm, task):
    slurm.run("scontrol", "requeue", task)
    # Slurm waits for two minutes before it starts a task again; a test need not. (At once would be too early: the node
    # refuses a task whose last run it is still clearing away.)
    slurm.run("scontrol", "update", f"JobId={task}", "StartTime=now+20")


def wait_for(condition, what):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.2)


def logs(path: Path) -> str:
    return "\n".join(
        f"{file.name}: {file.read_text()[:3000]}\n...\n{file.read_text()[-1500:]}"
        for file in sorted((path / "logs").iterdir())
    )
