"""The queue on disk: states of a study, what a kill leaves, what is known to have been sent."""

import dataclasses
import os
import sqlite3
import types

import pydicom
import pytest

from doubleunet_bs.errors import RunError, ScanError
from doubleunet_bs.node.monitor import list_studies, unsent_text
from doubleunet_bs.node.run_node import _Node
from doubleunet_bs.node.settings import Destination
from doubleunet_bs.node.spool import CRASH_PAUSE, Spool


def receive(spool, paths, quiet=0.0):
    return [spool.receive(spool.copy_in(str(path)), quiet) for path in paths]


def results(spool, study, *uids):
    folder = spool.results(study.number)
    folder.mkdir(parents=True, exist_ok=True)
    return {uid: folder / f"{uid}.dcm" for uid in uids}


@pytest.fixture
def clock(monkeypatch):
    """The spool's time, which passes only when a test says so."""
    now = [1000.0]
    monkeypatch.setattr("doubleunet_bs.node.spool.time", types.SimpleNamespace(time=lambda: now[0]))
    return now


def test_a_study_becomes_due_when_it_is_quiet(spool, study_files, clock):
    first, second = study_files("two-files")
    receive(spool, [first], quiet=30)
    clock[0] += 29
    assert spool.next_study() is None
    receive(spool, [second], quiet=30)
    clock[0] += 29
    # The second file began the wait anew.
    assert spool.next_study() is None
    clock[0] += 1
    study = spool.next_study()
    assert len(list(study.folder.iterdir())) == 2 and spool.next_study() is None
    assert list(spool.incoming.iterdir()) == []


def test_the_same_file_again_starts_nothing_that_has_its_results(spool, study_files):
    paths = study_files()
    assert receive(spool, paths) == [(1, True)]
    study = spool.next_study()
    assert receive(spool, paths) == [(1, False)]
    spool.finish(study, {}, "why")
    # Something of it has no result: whoever sends it again has repaired the cause.
    assert receive(spool, paths) == [(1, True)]
    study = spool.next_study()
    spool.finish(study, results(spool, study, "1.2"))
    assert receive(spool, paths) == [(1, False)] and spool.next_study() is None


def test_a_changed_file_takes_the_place_of_the_first(spool, study_files):
    [path] = study_files()
    receive(spool, [path])
    study = spool.next_study()
    spool.finish(study, {}, "missing-view")
    dataset = pydicom.dcmread(path)
    dataset.StudyDescription = "corrected"
    dataset.save_as(path)
    assert receive(spool, [path]) == [(1, True)]
    again = spool.next_study()
    assert (again.number, again.attempts) == (1, 0)
    [kept] = again.folder.iterdir()
    assert pydicom.dcmread(kept).StudyDescription == "corrected"


def test_results_are_sent_once_and_survive(spool, study_files, reopen):
    receive(spool, study_files())
    study = spool.next_study()
    assert spool.finish(study, results(spool, study, "1.2", "1.3")) == "sending"
    first, second = spool.deliveries("a")
    spool.delivered(first, "sent")
    # Killed here.
    reopen()
    assert [one.uid for one in spool.deliveries("a")] == [second.uid]
    spool.delivered(second, "sent")
    for one in spool.deliveries("b"):
        assert spool.figures()["studies"] == {"sending": 1}
        spool.delivered(one, "refused")
    assert spool.figures()["studies"] == {"done": 1}
    # What was refused is offered again by the next start; what was sent is not.
    reopen()
    assert len(spool.deliveries("b")) == 2 and spool.deliveries("a") == []


def test_a_kill_during_the_prediction_repeats_it_after_the_others(spool, study_files, reopen, clock):
    receive(spool, study_files())
    receive(spool, study_files(seed="2"))
    first = spool.next_study()
    assert first.attempts == 0
    reopen()
    second = spool.next_study()
    assert second.number != first.number and spool.next_study() is None
    clock[0] += CRASH_PAUSE
    again = spool.next_study()
    assert (again.number, again.attempts) == (first.number, 1)


def test_results_that_could_not_be_noted_are_made_again(spool, study_files, clock, monkeypatch):
    """The disk was full at that moment: the study must not stay marked as being predicted."""
    receive(spool, study_files())
    study = spool.next_study()
    with monkeypatch.context() as broken:
        broken.setattr(spool, "_database", FullDisk())
        with pytest.raises(OSError, match="full"):
            spool.finish(study, {}, "why")
    assert spool.next_study() is None and spool.figures()["studies"] == {"receiving": 1}
    clock[0] += CRASH_PAUSE
    again = spool.next_study()
    assert (again.number, again.attempts) == (study.number, 1)
    assert spool.finish(again, {}, "why") == "aside"


class FullDisk:
    """A database that cannot be written."""

    in_transaction = False

    def execute(self, *_):
        raise sqlite3.OperationalError("database or disk is full")


def test_a_file_that_comes_during_the_prediction(spool, study_files):
    first, second = study_files("two-files")
    receive(spool, [first])
    study = spool.next_study()
    receive(spool, [second])
    assert spool.finish(study, results(spool, study, "1.2")) == "receiving"
    assert spool.deliveries("a") == [] and spool.next_study().number == study.number


def test_results_that_are_the_same_are_not_sent_again(spool, study_files):
    [path] = study_files()
    for uids in (["1.2"], ["1.2", "1.3"]):
        dataset = pydicom.dcmread(path)
        dataset.StudyDescription = uids[-1]
        dataset.save_as(path)
        receive(spool, [path])
        study = spool.next_study()
        spool.finish(study, results(spool, study, *uids))
        assert [one.uid for one in spool.deliveries("a")] == [uids[-1]]
        spool.delivered(spool.deliveries("a")[0], "sent")


def test_own_results_that_come_back_start_nothing(spool, study_files):
    first, second = study_files(), study_files(seed="2")
    receive(spool, first)
    study = spool.next_study()
    spool.finish(study, results(spool, study, pydicom.dcmread(second[0]).SOPInstanceUID))
    assert receive(spool, second) == [(study.number, False)]
    assert spool.next_study() is None and spool.figures()["studies"] == {"sending": 1}


def test_a_server_that_is_away_costs_no_attempt(spool, study_files):
    receive(spool, study_files())
    spool.postpone(spool.next_study(), 0, count=False)
    study = spool.next_study()
    assert study.attempts == 0
    spool.postpone(study, 0)
    assert spool.next_study().attempts == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.write_bytes(b"no DICOM at all" * 50), "not-dicom"),
        (lambda path: _delete(path, "StudyInstanceUID"), "no-uid"),
    ],
)
def test_what_is_not_received(change, reason, spool, study_files):
    [path] = study_files()
    change(path)
    with pytest.raises(ScanError) as caught:
        receive(spool, [path])
    assert caught.value.reason == reason and spool.figures()["studies"] == {}


def _delete(path, keyword):
    dataset = pydicom.dcmread(path)
    del dataset[keyword]
    dataset.save_as(path)


def test_old_files_go_and_may_come_again(spool, study_files, clock):
    spool.destinations = ("a",)
    paths = study_files()
    receive(spool, paths)
    study = spool.next_study()
    found = results(spool, study, "1.2")
    spool.finish(study, found)
    clock[0] += 86400
    assert spool.remove_old(0.5) == 0
    spool.delivered(spool.deliveries("a")[0], "sent")
    clock[0] += 86400
    assert spool.remove_old(2) == 0 and spool.remove_old(0.5) == 1
    assert not study.folder.exists() and not spool.results(study.number).exists()
    assert receive(spool, paths) == [(1, True)]
    study = spool.next_study()
    assert study.folder.is_dir()
    spool.finish(study, found)
    # What was sent before is not sent again.
    assert spool.deliveries("a") == [] and spool.figures()["studies"] == {"done": 1}


def test_refused_results_that_were_removed_are_not_offered_again(spool, study_files, reopen, clock):
    spool.destinations = ("a",)
    receive(spool, study_files())
    study = spool.next_study()
    spool.finish(study, results(spool, study, "1.2"))
    spool.delivered(spool.deliveries("a")[0], "refused")
    clock[0] += 86400
    assert spool.remove_old(0.5) == 1
    reopen()
    assert spool.deliveries("a") == [] and spool.figures()["studies"] == {"done": 1}


def test_a_destination_that_is_no_longer_configured_holds_up_nothing(
    settings, spool, study_files, reopen, events, clock
):
    receive(spool, study_files())
    study = spool.next_study()
    spool.finish(study, results(spool, study, "1.2"))
    spool.delivered(spool.deliveries("a")[0], "sent")
    reopen()
    assert spool.figures()["studies"] == {"sending": 1}
    spool.destinations = ("a",)
    reopen()
    assert spool.deliveries("b") == [] and spool.figures()["studies"] == {"done": 1}
    # Not without a word: the log of the node says it at every start, and so do --check and --list.
    event = {"event": "destination no longer configured", "destination": "b", "unsent_results": 1}
    for log in (events, again := type(events)()):
        _Node(settings, spool, log)
        reopen()
    assert events.seen == again.seen == [event]
    chosen = dataclasses.replace(settings, destinations=(Destination("a"),))
    said = "unsent    1 result for b, which is no longer configured: add a [[send]] with this name "
    said += "before keep_days (7) have passed\n"
    assert unsent_text(chosen) == said and unsent_text(dataclasses.replace(chosen, spool=spool.folder / "new")) == ""
    # It is sent when the destination is back, unless the files are gone by then.
    spool.destinations = ("a", "b")
    reopen()
    assert [one.uid for one in spool.deliveries("b")] == ["1.2"] and spool.deliveries("a") == []
    assert spool.unsent == {} and spool.figures()["studies"] == {"sending": 1}
    spool.destinations = ("a",)
    reopen()
    clock[0] += 8 * 86400
    assert spool.remove_old(7) == 1 and unsent_text(chosen) == ""


def test_a_queue_that_is_damaged_is_named(settings, spool):
    spool.close()
    (spool.folder / "queue.sqlite").write_text("no database")
    for read in (lambda: list_studies(spool.folder), lambda: unsent_text(settings)):
        with pytest.raises(RunError, match=r"queue\.sqlite: cannot be read \(file is not a database\)"):
            read()


def test_the_spool_is_for_one_node_and_its_owner(spool, study_files):
    with pytest.raises(RunError, match="another node uses this spool"):
        Spool(spool.folder, ())
    receive(spool, study_files())
    assert os.stat(spool.folder).st_mode & 0o777 == 0o700
    for where, _, names in os.walk(spool.folder):
        # Hashes: no name, ID or UID of a patient is in a path.
        assert not any("PLANTED" in name or "1.2.826" in name for name in (where, *names))
    assert "receiving" in list_studies(spool.folder)
    with pytest.raises(RunError, match="no node has worked in this folder yet"):
        list_studies(spool.folder / "elsewhere")


def test_reasons_are_explained_below_the_list(spool, study_files):
    receive(spool, study_files("two-files"))
    assert "inspect" not in list_studies(spool.folder)
    spool.finish(spool.next_study(), {}, "unreferable")
    *_, general, own = list_studies(spool.folder).splitlines()
    assert general.startswith("`doubleunet-bs inspect FOLDER` says") and own.startswith("unreferable: results cannot")
    assert "predict FOLDER --model MODEL --out NEW --keep-identity --dry-run" in own
