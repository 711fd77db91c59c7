"""Who may send, what is acknowledged and with which status, and the watch folder."""

import dataclasses
import os
import subprocess

import pydicom
import pytest
from hospital import send, tiny_disk, wait_for

from doubleunet_bs.errors import RunError
from doubleunet_bs.node.receiver import Receiver, WatchFolder
from doubleunet_bs.node.settings import Peer
from doubleunet_bs.node.spool import Spool


@pytest.fixture
def receiver(settings, spool, events):
    opened = Receiver(settings, spool, events)
    yield opened
    opened.stop()


def change(path, **values):
    dataset = pydicom.dcmread(path)
    for keyword, value in values.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)


def test_what_is_stored_is_what_was_sent(receiver, settings, spool, study_files, events):
    [path] = study_files()
    assert send([path, path], settings.receive.port) == [0, 0]
    study = spool.next_study()
    [kept] = study.folder.iterdir()
    assert pydicom.dcmread(kept) == pydicom.dcmread(path)
    assert [event["event"] for event in events.seen] == ["received", "received again"]
    said = str(events.seen)
    assert "PLANTED" not in said and str(pydicom.dcmread(path).StudyInstanceUID) not in said


@pytest.mark.parametrize(("caller", "called"), [("OTHER", "BONESCAN"), ("CAMERA", "OTHER"), ("CAMERA2", "BONESCAN")])
def test_nobody_else_may_send(caller, called, receiver, settings, spool, study_files, events):
    assert send(study_files(), settings.receive.port, caller, called) == []
    assert spool.next_study() is None
    # It is logged after the answer.
    wait_for(lambda: [event["event"] for event in events.seen] == ["association rejected"])


def test_a_queue_that_cannot_be_written_is_out_of_resources(receiver, settings, spool, study_files):
    spool._database.execute("PRAGMA max_page_count = 1")
    spool._database.execute("PRAGMA query_only = 1")
    assert send(study_files(), settings.receive.port) == [0xA700]
    spool._database.execute("PRAGMA query_only = 0")
    spool._database.execute("PRAGMA max_page_count = 100000")
    assert send(study_files(), settings.receive.port) == [0]


@pytest.mark.slow
def test_a_disk_that_is_really_full(settings, events, study_files):
    """A disk of 4 MB, of which 2 must stay free: scans of 1 MB are refused before it is full."""
    if not tiny_disk(settings.spool, 4):
        pytest.skip("no disk of 4 MB can be mounted (needs root)")
    try:
        spool = Spool(settings.spool, ())
        tight = dataclasses.replace(settings, min_free_mb=2)
        receiver = Receiver(tight, spool, events)
        try:
            answers = [send(study_files(seed=str(number)), tight.receive.port) for number in range(4)]
        finally:
            receiver.stop()
        stored = answers.index([0xA700])
        assert stored >= 1 and answers == [[0]] * stored + [[0xA700]] * (4 - stored)
        assert len(list((settings.spool / "received").iterdir())) == stored
        spool.close()
    finally:
        subprocess.run(["umount", str(settings.spool)], check=True)


def test_a_listed_title_from_another_address(settings, spool, study_files, events):
    peers = (Peer("CAMERA", "10.0.0.5"), Peer("OTHER", "127.0.0.1"))
    receive = dataclasses.replace(settings.receive, peers=peers)
    receiver = Receiver(dataclasses.replace(settings, receive=receive), spool, events)
    try:
        assert send(study_files(), receive.port) == []
    finally:
        receiver.stop()
    assert spool.next_study() is None


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"StudyInstanceUID": None}, 0xC000),
        ({"StudyInstanceUID": ""}, 0xC000),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "TOMO", "EMISSION"]}, 0),
    ],
)
def test_status_of_what_is_damaged_or_foreign(changes, status, receiver, settings, spool, study_files):
    [path] = study_files()
    change(path, **changes)
    assert send([path], settings.receive.port) == [status]
    # What is no bone scan is accepted; the prediction sets it aside.
    assert (spool.next_study() is None) == bool(status)


def test_a_full_disk_is_refused_in_time(settings, spool, study_files, events):
    full = dataclasses.replace(settings, min_free_mb=1 << 40)
    receiver = Receiver(full, spool, events)
    try:
        assert send(study_files(), full.receive.port) == [0xA700]
    finally:
        receiver.stop()
    assert spool.next_study() is None and len(events.seen) == 1
    assert {"event": "refused", "status": "A700", "reason": "disk-full"}.items() <= events.seen[-1].items()


def test_a_port_that_is_taken(receiver, settings, spool, events):
    with pytest.raises(RunError, match=f"cannot listen on 127.0.0.1 port {settings.receive.port}"):
        Receiver(settings, spool, events)


def test_the_watch_folder_waits_until_a_file_is_whole(settings, spool, study_files, events, tmp_path):
    folder = tmp_path / "export" / "deep"
    folder.mkdir(parents=True)
    watch = WatchFolder(dataclasses.replace(settings, watch=tmp_path / "export"), spool, events)
    data = study_files()[0].read_bytes()
    growing = folder / "scan.dcm"
    (folder / "notes.txt").write_text("no scan")
    growing.write_bytes(data[:1000])
    watch.look()
    growing.write_bytes(data)
    watch.look()
    assert spool.next_study() is None
    watch.look()
    assert spool.next_study() is not None
    assert growing.read_bytes() == data
    watch.look()
    assert sorted(event["event"] for event in events.seen) == ["passed over", "received"]


def test_the_watch_folder_takes_any_file_name_and_keeps_none(settings, spool, study_files, events, tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    watch = WatchFolder(dataclasses.replace(settings, watch=folder), spool, events)
    data = study_files()[0].read_bytes()
    with open(os.path.join(os.fsencode(folder), b"M\xfcller.dcm"), "wb") as file:
        file.write(data)
    watch.look()
    watch.look()
    assert spool.next_study() is not None
    assert b"ller" not in b"".join(path.read_bytes() for path in spool.folder.glob("queue.sqlite*"))
    (folder / "x").mkdir()
    os.rename(folder, tmp_path / "gone")
    with pytest.raises(OSError, match="No such file"):
        watch.look()
