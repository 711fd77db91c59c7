"""Whole preparations that are interrupted, killed, or spread over processes: the same bytes in the end."""

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
    options = {"progress": False, "out": cohort.out} | others
    return prepare_cohort(CohortJob(cohort.scans, cohort.labels, **options))


def problems(result):
    return {(problem.path, problem.reason) for problem in result.problems}


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
    assert one.records == two.records and one.problems == two.problems
    assert len(everything(six.root / "one")) == 1 + 2 * 3


def test_an_interrupted_run_goes_on_where_it_stopped(six, monkeypatch):
    options = {"skip_invalid": True, "key": six.root / "key.json"}
    prepare(six, out=six.root / "whole", **options)
    read, prepare_task = [], module.prepare_task

    def interrupted(task, *arguments):
        if len(read) == 5:
            raise KeyboardInterrupt
        read.append(task.path)
        return prepare_task(task, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "prepare_task", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(six, **options)
    assert not six.out.exists() and len(read) == 5
    # Nothing in the hidden folder opens as a data set.
    with pytest.raises(BoneScanError):
        open_shards(six.root / ".shards.unfinished" / "shards")

    read.clear()
    monkeypatch.setattr(module, "prepare_task", lambda task, *rest: read.append(task.path) or prepare_task(task, *rest))
    result = prepare(six, **options)
    # scan0 to scan3 are in two finished shards; scan3x, which is refused, and what follows are read again.
    assert result.resumed == 4 and read == ["scan3x.dcm", "scan4.dcm", "scan5.dcm"]
    assert problems(result) == {("scan3x.dcm", "label-missing")}
    assert everything(six.out) == everything(six.root / "whole")
    assert not (six.root / ".shards.unfinished").exists()


def interrupt(six, monkeypatch, **options):
    """A run that is stopped after two finished shards."""
    prepare_task = module.prepare_task
    with monkeypatch.context() as patch:
        patch.setattr(
            module, "prepare_task", lambda task, *rest: 1 / 0 if "4" in task.path else prepare_task(task, *rest)
        )
        with pytest.raises(ZeroDivisionError):
            prepare(six, **options)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("settings", "the settings"),
        ("labels", "the annotations"),
        ("table", "the table of patients"),
        ("journal", "journal"),
    ],
)
def test_an_interrupted_run_starts_over_when_something_has_changed(six, monkeypatch, capsys, change, said):
    options = {"skip_invalid": True, "key": six.root / "key.json"}
    interrupt(six, monkeypatch, **options)
    assert capsys.readouterr().err == ""
    if change == "settings":
        options["settings"] = PreparationSettings(background="log")
    elif change == "labels":
        six.label("scan0_anterior", (130, 400), (150, 300))
    elif change == "table":
        six.declare("scan0,Ann,breast,yes")
    else:
        journal = six.root / ".shards.unfinished" / "journal.jsonl"
        journal.write_bytes(journal.read_bytes()[:20])
    result = prepare(six, **options)
    assert result.resumed == 0 and len(result.records) == 6
    [line] = capsys.readouterr().err.splitlines()
    assert "starts over" in line and line.endswith(said if change != "journal" else "damaged")
    assert result.records[0].metastatic_pixels == (242 if change == "labels" else 121)
    assert open_shards(six.out, verify=True).settings.background == ("log" if change == "settings" else "otsu")


def test_files_that_nobody_reads_do_not_matter(six, monkeypatch, capsys):
    options = {"skip_invalid": True}
    interrupt(six, monkeypatch, **options)
    # What operating systems and editors leave, and a refused file: none of it changes a shard.
    (six.scans / ".DS_Store").write_bytes(b"x")
    (six.scans / "Thumbs.db").write_bytes(b"x")
    (six.scans / "letter.txt").write_text("not DICOM")
    (six.labels / ".~lock.patients.csv#").write_text("x")
    (six.labels / ".#patients.csv").symlink_to("somebody@somewhere.1")
    (six.scans / ".#scan0.dcm").symlink_to("somebody@somewhere.1")
    result = prepare(six, **options)
    assert result.written and result.resumed == 4
    assert problems(result) == {("scan3x.dcm", "label-missing"), ("letter.txt", "not-dicom")}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
@pytest.mark.parametrize(("name", "resumed"), [("counts-00000.npy", 0), ("labels-00001.npy", 2)])
def test_a_damaged_shard_is_made_again(six, monkeypatch, capsys, damage, name, resumed):
    options = {"skip_invalid": True, "key": six.root / "key.json", "settings": PreparationSettings(bin=4)}
    prepare(six, out=six.root / "whole", **options)
    interrupt(six, monkeypatch, **options)
    path = six.root / ".shards.unfinished" / "shards" / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:1000] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    result = prepare(six, **options)
    assert result.resumed == resumed and everything(six.out) == everything(six.root / "whole")
    assert name in capsys.readouterr().err


@pytest.mark.parametrize("place", ["scans/key.json", "labels/below/key.json", "shards/key.json"])
def test_a_key_among_inputs_or_shards_is_refused(six, place):
    with pytest.raises(SettingsError, match="key.json: lies inside"):
        prepare(six, key=six.root / place)
    assert not (six.root / place).exists()
    assert prepare(six, key=six.labels / ".." / "key.json", skip_invalid=True).written


def test_nobody_else_reads_the_names_of_files(six, monkeypatch):
    hidden, listed = six.root / ".shards.unfinished", six.root / "shards.rejected.json"
    interrupt(six, monkeypatch, skip_invalid=True)
    assert "scan0" in (hidden / "journal.jsonl").read_text() and hidden.stat().st_mode & 0o777 == 0o700
    # An older version left it open to all.
    hidden.chmod(0o755)
    interrupt(six, monkeypatch, skip_invalid=True)
    assert hidden.stat().st_mode & 0o777 == 0o700
    modes, replace = [], os.replace

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


def test_a_killed_run_leaves_no_process_and_goes_on(six):
    key = six.root / "key.json"
    code = (
        "from pathlib import Path\n"
        "from doubleunet_bs.preparation import shards, cohort\n"
        "if __name__ == '__main__':\n"
        "    shards.CASES_PER_SHARD = 2\n"
        f"    root = Path({str(six.root)!r})\n"
        "    job = cohort.CohortJob(root / 'scans', root / 'labels', root / 'shards', key=root / 'key.json',\n"
        "                           skip_invalid=True, workers=2, pictures=True, progress=False)\n"
        "    cohort.prepare_cohort(job)\n"
    )
    script = six.root / "run.py"
    script.write_text(code)
    journal = six.root / ".shards.unfinished" / "journal.jsonl"
    run = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
    for _ in range(3000):
        if run.poll() is not None or (journal.exists() and journal.read_bytes().count(b"\n") >= 2):
            break
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, "it was done before it could be killed"
    assert not six.out.exists() and journal.exists()
    for _ in range(500):
        if not processes_of_session(run.pid):
            break
        time.sleep(0.02)
    assert processes_of_session(run.pid) == []
    options = {"skip_invalid": True, "key": key, "pictures": True}
    result = prepare(six, **options)
    assert result.resumed >= 2
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


def test_two_runs_at_once_do_not_mix(six):
    job = CohortJob(six.scans, six.labels, six.out)
    with module.open_unfinished(job.out, {"x": "x"}), pytest.raises(BoneScanError, match="another process"):
        prepare(six)
