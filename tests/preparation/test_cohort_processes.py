"""Whole preparations over several processes, interrupted, killed or at the same time: the same bytes, or nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from doubleunet_bs.errors import BoneScanError, DatasetError, SettingsError
from doubleunet_bs.preparation import PreparationSettings, shards
from doubleunet_bs.preparation import cohort as module
from doubleunet_bs.preparation.shards import open_shards, patients_comparable


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
    one = six.prepare(out=six.root / "one", **options)
    two = six.prepare(out=six.root / "two", workers=2, **options)
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
            six.prepare(skip_invalid=True)
    assert sorted(six.root.rglob("*")) == before
    assert six.prepare(skip_invalid=True).written


def test_a_folder_that_appears_meanwhile_is_left_alone(six, monkeypatch):
    prepare_task, options = module.prepare_task, {"skip_invalid": True, "key": six.root / "key.json"}
    module.Pseudonyms.new().save(options["key"])

    def with_another(task, **others):
        with monkeypatch.context() as patch:
            patch.setattr(module, "prepare_task", prepare_task)
            if not six.out.exists():
                six.prepare(**options)
        return prepare_task(task, **others)

    monkeypatch.setattr(module, "prepare_task", with_another)
    with pytest.raises(BoneScanError, match="shards: Directory not empty"):
        six.prepare(**options)
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
        six.prepare(key=six.root / place)
    assert not (six.root / place).exists()
    assert six.prepare(key=six.labels / ".." / "key.json", skip_invalid=True).written


def test_nobody_else_reads_the_names_of_files(six, monkeypatch):
    listed, modes, replace = six.root / "shards.rejected.json", [], os.replace

    def spy(source, target):
        modes.append((os.path.basename(target), os.stat(source).st_mode & 0o777))
        replace(source, target)

    monkeypatch.setattr(os, "replace", spy)
    mask = os.umask(0o022)
    try:
        six.prepare(skip_invalid=True)
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
    six.prepare(**options)
    six.prepare(out=six.root / "whole", **options)
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


@pytest.fixture
def breast(cohort):
    return cohort


@pytest.fixture
def prostate(cohort, tmp_path):
    other = type(cohort)(tmp_path / "prostate")
    other.positive("prostate", 7, "PROSTATE-ID")
    return other


def meanwhile(monkeypatch, name, work):
    """Do `work` while the scan `name` is being prepared."""
    prepare_task, results = module.prepare_task, []

    def with_work(task, **others):
        if name in task.path:
            monkeypatch.setattr(module, "prepare_task", prepare_task)
            results.append(work())
        return prepare_task(task, **others)

    monkeypatch.setattr(module, "prepare_task", with_work)
    return results


def test_two_preparations_at_once_keep_each_others_patients(tmp_path, breast, prostate, monkeypatch):
    key = tmp_path / "key.json"
    module.Pseudonyms.new().save(key)
    breast.positive("breast", 2, "BREAST-ID")
    other = meanwhile(monkeypatch, "breast", lambda: prostate.prepare(key=key))
    results = [breast.prepare(key=key), *other]
    assert [result.written for result in results] == [True, True]
    table = json.loads(key.read_text())
    assert sorted(table["patients"].values()) == ["BREAST-ID", "PROSTATE-ID"]
    for result in results:
        assert result.records[0].case in table["cases"] and result.records[0].patient in table["patients"]
    assert key.stat().st_mode & 0o777 == 0o600


def test_shards_say_whether_their_patients_can_be_compared(tmp_path, breast, prostate):
    breast.positive("breast", 2, "BREAST-ID")
    for folder, key in ((breast, "one.json"), (prostate, "two.json")):
        assert folder.prepare(key=tmp_path / key).written
    one, two = open_shards(breast.out), open_shards(prostate.out)
    assert patients_comparable(one, two) is False
    shutil.rmtree(prostate.out)
    assert prostate.prepare(key=tmp_path / "one.json").written
    assert patients_comparable(one, open_shards(prostate.out)) is True
    assert json.loads((tmp_path / "one.json").read_text())["key"] not in (breast.out / "dataset.json").read_text()
    # Shards that do not know their key, as those made without one.
    content = json.loads((breast.out / "dataset.json").read_text())
    for content["key_mark"], says in ((None, None), (5, "damaged")):
        (breast.out / "dataset.json").write_text(json.dumps(content))
        if says:
            with pytest.raises(DatasetError, match="`key_mark` is damaged"):
                open_shards(breast.out)
        else:
            assert patients_comparable(open_shards(breast.out), two) is None


def test_a_key_that_is_used_meanwhile_outlives_a_preparation_with_problems(tmp_path, breast, prostate, monkeypatch):
    key = tmp_path / "key.json"
    breast.scan("forgotten", 2)
    other = meanwhile(monkeypatch, "forgotten", lambda: prostate.prepare(key=key))
    assert not breast.prepare(key=key).written and other[0].written
    assert other[0].records[0].patient in json.loads(key.read_text())["patients"]


def test_a_key_that_is_named_is_made_at_once_and_any_other_only_with_shards(tmp_path, breast):
    key = tmp_path / "key.json"
    breast.scan("forgotten", 2)
    assert not breast.prepare(key=None).written
    assert not list(breast.root.glob("*.identities.json"))
    assert not breast.prepare(key=key).written
    made = key.read_text()
    assert not breast.prepare(key=key).written and key.read_text() == made
