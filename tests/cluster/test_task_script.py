"""assets/cluster: which task trains what, and the parts of the files that a machine can check here."""

import argparse
import os
import subprocess
from pathlib import Path

import pytest

from doubleunet_bs.commands import train
from doubleunet_bs.runs.experiments import PAPER_EXPERIMENTS

CLUSTER = Path(__file__).resolve().parents[2] / "assets" / "cluster"
PRINT_ARGUMENTS = "#!/bin/bash\nprintf 'argument %s\\n' \"$@\"\n"


@pytest.fixture
def task(tmp_path):
    """Run task.sh with a program in place of Python that prints its arguments."""
    program = tmp_path / "python"
    program.write_text(PRINT_ARGUMENTS)
    program.chmod(0o755)

    def run(*arguments, **settings):
        environment = {"PATH": os.environ["PATH"], "PYTHON": str(program), "DATA": "/d", "RUNS": "/r", **settings}
        command = ["bash", CLUSTER / "task.sh", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        printed = [line.removeprefix("argument ") for line in done.stdout.splitlines() if line.startswith("argument ")]
        return done.returncode, printed if done.returncode == 0 else done.stderr

    return run


@pytest.mark.slow
def test_120_tasks_are_every_fold_of_every_row_once(task):
    found = []
    for index in range(120):
        code, arguments = task(str(index), PRETRAIN_DATA="/p")
        assert code == 0 and "--resume" not in arguments
        value = {name: arguments[arguments.index(name) + 1] for name in ("--experiment", "--fold", "--run", "--data")}
        rows = list(PAPER_EXPERIMENTS)
        assert value["--experiment"] == rows[index % 12] and int(value["--fold"]) == index // 12 + 1
        assert value["--run"] == f"/r/{value['--experiment']}" and value["--data"] == "/d"
        transfer = PAPER_EXPERIMENTS[value["--experiment"]].transfer
        assert ("--pretrain-data" in arguments) == transfer
        found.append((value["--experiment"], value["--fold"]))
    assert len(set(found)) == 120


def test_train_understands_its_arguments(task):
    _, arguments = task("5", EXPERIMENTS="dice dice-otsu-transfer", FOLDS="3", PRETRAIN_DATA="/p", OPTIONS="--epochs 2")
    assert arguments[:3] == ["-m", "doubleunet_bs", "train"]
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    parsed = parser.parse_args(arguments[3:])
    assert (parsed.experiment, parsed.fold, parsed.folds, parsed.epochs) == ("dice-otsu-transfer", 3, 3, 2)
    assert parsed.pretrain_data == "/p" and not parsed.resume


def test_a_fold_that_has_begun_is_continued_and_no_other(task, tmp_path):
    settings = {"EXPERIMENTS": "dice", "FOLDS": "3", "RUNS": str(tmp_path)}
    fold = tmp_path / "dice" / "fold_02"
    fold.mkdir(parents=True)
    assert ["--resume" in task(str(index), **settings)[1] for index in range(3)] == [False, False, False]
    (fold / "stages.json").touch()
    assert ["--resume" in task(str(index), **settings)[1] for index in range(3)] == [False, True, False]


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (["120"], {}, "give 0 to 119"),
        (["-1"], {}, "does not exist"),
        (["x"], {}, "does not exist"),
        (["0120"], {}, "task 120 does not exist: give 0 to 119"),
        ([], {}, "task number is missing"),
        (["3"], {}, "dice-otsu-transfer needs PRETRAIN_DATA"),
        (["0"], {"DATA": ""}, "DATA"),
        (["0"], {"OPTIONS": "--set transfer=yes"}, "baseline needs PRETRAIN_DATA"),
    ],
)
def test_wrong_tasks(task, arguments, settings, message):
    code, error = task(*arguments, **settings)
    assert code != 0 and message in error


@pytest.mark.parametrize("index", ["08", "8"])
def test_a_number_with_zeros_before_it_is_a_decimal_one(task, index):
    code, arguments = task(index, EXPERIMENTS="dice", FOLDS="10")
    assert code == 0 and arguments[arguments.index("--fold") + 1] == "9"


@pytest.mark.parametrize(
    ("experiment", "options", "given"),
    [
        ("dice", "--epochs 2 --set transfer=yes", True),
        ("dice", "--set epochs=2", False),
        ("dice-otsu-transfer", "--set transfer=no", False),
        ("dice-otsu-transfer", "", True),
    ],
)
def test_the_other_cohort_goes_with_transfer_however_it_is_set(task, experiment, options, given):
    code, arguments = task("0", EXPERIMENTS=experiment, OPTIONS=options, PRETRAIN_DATA="/p")
    assert code == 0 and ("--pretrain-data" in arguments) == given


def test_kubernetes_gives_the_number_in_its_environment(task):
    _, arguments = task(JOB_COMPLETION_INDEX="12", PRETRAIN_DATA="/p")
    assert arguments[arguments.index("--experiment") + 1] == "baseline"
    assert arguments[arguments.index("--fold") + 1] == "2"


def test_the_kubernetes_job_has_what_an_indexed_job_needs():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    [job] = yaml.safe_load_all((CLUSTER / "kubernetes_job.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == 10 * len(PAPER_EXPERIMENTS)
    # Retries for each index need restartPolicy Never, as does a podFailurePolicy.
    pod = spec["template"]["spec"]
    assert spec["backoffLimitPerIndex"] >= 1 and "backoffLimit" not in spec and pod["restartPolicy"] == "Never"
    [container] = pod["containers"]
    rules = spec["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["Ignore", "FailIndex"]
    assert rules[1]["onExitCodes"]["containerName"] == container["name"]
    # Values of environment variables and extended resources must be strings.
    assert all(isinstance(entry["value"], str) for entry in container["env"])
    assert isinstance(container["resources"]["limits"]["nvidia.com/gpu"], str)
    settings = {entry["name"] for entry in container["env"]}
    assert {"DATA", "RUNS", "PRETRAIN_DATA"} <= settings
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts)
    assert all(
        entry["value"].startswith(mounts["data"]) for entry in container["env"] if entry["name"] in ("DATA", "RUNS")
    )


def test_the_image_holds_the_project_and_nothing_else():
    root = CLUSTER.parents[1]
    copied = [
        line.split()[1:-1] for line in (CLUSTER / "Dockerfile").read_text().splitlines() if line.startswith("COPY")
    ]
    names = {name for line in copied for name in line}
    assert names == {"pyproject.toml", "setup.cfg", "README.md", "LICENSE", "doubleunet_bs", "assets/cluster/task.sh"}
    assert all((root / name).exists() for name in names)


@pytest.mark.parametrize(
    ("code", "queued"), [(0, False), (1, False), (2, False), (130, True), (137, False), (143, True)]
)
def test_what_a_signal_has_stopped_is_queued_again(tmp_path, code, queued):
    """With programs in place of Slurm's."""
    for name, text in (("srun", f"exit {code}"), ("scontrol", f'echo "$@" >> {tmp_path}/queued')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3", "SLURM_SUBMIT_DIR": str(tmp_path)}
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **slurm}
    done = subprocess.run(["bash", CLUSTER / "slurm_array.sh"], env=environment, check=False)
    assert done.returncode == code
    assert (tmp_path / "queued").exists() == queued
    if queued:
        assert (tmp_path / "queued").read_text() == "requeue 17_3\n"


def test_the_slurm_script_is_shell():
    for name in ("slurm_array.sh", "task.sh"):
        subprocess.run(["bash", "-n", CLUSTER / name], check=True)
