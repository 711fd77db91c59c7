"""Whole preparations that are spread over processes, interrupted or killed: the same bytes, or nothing."""

import os
import signal
import subprocess
import sys
import time

import pytest

from doubleunet_bs.errors import BoneScanError, SettingsError
from doubleunet_bs.preparation import PreparationSettings, shards
from doubleunet_bs.preparation import cohort as module
from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort
from doubleunet_bs.preparation.shards import open_shards


def prepare(cohort, **others):
    options = {"out": cohort.out} | others
    return prepare_cohort(CohortJob(cohort.scans, cohort.labels, **options))


def everything(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def six(cohort, monkeypatch):
    monkeypatch.setattr(shards, "CASES_PER_SHARD", 2)
    for number in range(6):
        cohort.positive(f"scan{number}", number)
    cohort.scan("scan3x", 33)
    return cohort


def test_the_result_does_not_depend_on_the_number_of_workers(six):
    options = {"skip_invalid": True, "key": six.root / "key.json", "settings": PreparationSettings(bin=4)}
    one = prepare(six, out=six.root / "one", **options)
    two = prepare(six, out=six.root / "two", workers=2, **options)
    assert everything(six.root / "one") == everything(six.root / "two")
    assert one.records == two.records and one.rejected == two.rejected
    assert len(everything(six.root / "one")) == 1 + 2 * 3


def test_an_interrupted_run_leaves_nothing(six, monkeypatch):
    prepare_task, before = module.prepare_task, sorted(six.root.rglob("*"))

    def interrupted(task, **others):
        if "4" in task.path:
            # A shard is written by now, in a hidden folder that does not open as a data set.
            [hidden] = six.root.glob(".shards-*")
            assert len(list(hidden.glob("counts-*.npy"))) == 1 and hidden.stat().st_mode & 0o777 == 0o700
            with pytest.raises(BoneScanError):
                open_shards(hidden)
            raise KeyboardInterrupt
        return prepare_task(task, **others)

    with monkeypatch.context() as patch:
        patch.setattr(module, "prepare_task", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(six, skip_invalid=True)
    assert sorted(six.root.rglob("*")) == before
    assert prepare(six, skip_invalid=True).written


def test_a_folder_that_appears_meanwhile_is_left_alone(six, monkeypatch):
    prepare_task, options = module.prepare_task, {"skip_invalid": True, "key": six.root / "key.json"}
    module.Pseudonyms.new().save(options["key"])

    def with_another(task, **others):
        with monkeypatch.context() as patch:
            patch.setattr(module, "prepare_task", prepare_task)
            if not six.out.exists():
                prepare(six, **options)
        return prepare_task(task, **others)

    monkeypatch.setattr(module, "prepare_task", with_another)
    with pytest.raises(BoneScanError, match="shards: Directory not empty"):
        prepare(six, **options)
    assert len(open_shards(six.out, verify=True)) == 6 and not list(six.root.glob(".shards*"))


def test_a_killed_worker_is_one_line(six):
    """The real pool, with a worker that ends itself."""
    (six.root / "run.py").write_text(
        "import os, signal\n"
        "from pathlib import Path\n"
        "from doubleunet_bs.preparation import cohort\n"
        "def killed(task, **others):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "if __name__ == '__main__':\n"
        f"    root = Path({str(six.root)!r})\n"
        "    cohort.prepare_task = killed\n"
        "    cohort.prepare_cohort(cohort.CohortJob(root / 'scans', root / 'labels', root / 'shards', workers=2))\n"
    )
    run = subprocess.run([sys.executable, str(six.root / "run.py")], capture_output=True, text=True)
    assert run.stderr.splitlines()[-1].endswith(
        "BoneScanError: a worker process was killed, most likely out of memory: retry with fewer --workers"
    )
    assert not six.out.exists() and not list(six.root.glob(".shards*"))


@pytest.mark.parametrize("place", ["scans/key.json", "labels/below/key.json", "shards/key.json"])
def test_a_key_among_inputs_or_shards_is_refused(six, place):
    with pytest.raises(SettingsError, match="key.json: lies inside"):
        prepare(six, key=six.root / place)
    assert not (six.root / place).exists()
    assert prepare(six, key=six.labels / ".." / "key.json", skip_invalid=True).written


def test_nobody_else_reads_the_names_of_files(six, monkeypatch):
    listed, modes, replace = six.root / "shards.rejected.json", [], os.replace

    def spy(source, target):
        modes.append((os.path.basename(target), os.stat(source).st_mode & 0o777))
        replace(source, target)

    monkeypatch.setattr(os, "replace", spy)
    mask = os.umask(0o022)
    try:
        prepare(six, skip_invalid=True)
    finally:
        os.umask(mask)
    assert (listed.name, 0o600) in modes and listed.stat().st_mode & 0o777 == 0o600
    assert six.out.stat().st_mode & 0o777 == 0o755


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_and_no_shards(six):
    key = six.root / "key.json"
    code = (
        "from pathlib import Path\n"
        "from doubleunet_bs.preparation import shards, cohort\n"
        "if __name__ == '__main__':\n"
        "    shards.CASES_PER_SHARD = 2\n"
        f"    root = Path({str(six.root)!r})\n"
        "    job = cohort.CohortJob(root / 'scans', root / 'labels', root / 'shards', key=root / 'key.json',\n"
        "                           skip_invalid=True, workers=2, pictures=True)\n"
        "    cohort.prepare_cohort(job)\n"
    )
    script = six.root / "run.py"
    script.write_text(code)
    run = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
    for _ in range(3000):
        if run.poll() is not None or list(six.root.glob(".shards-*/labels-00000.npy")):
            break
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, "it was done before it could be killed"
    assert not six.out.exists()
    for _ in range(500):
        if not processes_of_session(run.pid):
            break
        time.sleep(0.02)
    assert processes_of_session(run.pid) == []
    # It starts again.
    options = {"skip_invalid": True, "key": key, "pictures": True}
    prepare(six, **options)
    prepare(six, out=six.root / "whole", **options)
    assert everything(six.out) == everything(six.root / "whole")


def processes_of_session(session):
    """Living processes of a session (Linux: /proc)."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry))
    return found
