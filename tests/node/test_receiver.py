"""Who may send, what is acknowledged and with which status, and the watch folder."""

import dataclasses

import pydicom
import pytest
from hospital import send
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage
from pynetdicom import AE

from doubleunet_bs.errors import RunError
from doubleunet_bs.node.receiver import Receiver, WatchFolder
from doubleunet_bs.node.settings import Peer


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
    assert spool.figures()["counters"] == {"received": 1, "received_again": 1}
    said = str(events.seen)
    assert "PLANTED" not in said and str(pydicom.dcmread(path).StudyInstanceUID) not in said


@pytest.mark.parametrize(("caller", "called"), [("OTHER", "BONESCAN"), ("CAMERA", "OTHER"), ("CAMERA2", "BONESCAN")])
def test_nobody_else_may_send(caller, called, receiver, settings, spool, study_files):
    assert send(study_files(), settings.receive.port, caller, called) == []
    assert spool.figures()["counters"] == {"rejected_associations": 1} and spool.next_study() is None


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


def test_another_class_than_announced(receiver, settings, spool, study_files):
    [path] = study_files()
    dataset = pydicom.dcmread(path)
    entity = AE("CAMERA")
    entity.add_requested_context(SecondaryCaptureImageStorage, dataset.file_meta.TransferSyntaxUID)
    entity.add_requested_context(CTImageStorage)
    association = entity.associate("127.0.0.1", settings.receive.port, ae_title="BONESCAN")
    assert [one.abstract_syntax for one in association.accepted_contexts] == [SecondaryCaptureImageStorage]
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    assert association.send_c_store(dataset).Status == 0
    association.release()
    spool.finish(spool.next_study(), {}, [])
    # pynetdicom sends by the class in the data set: a sender that contradicts itself is imitated in the spool's call.
    taken = spool.copy_in(str(path))
    with pytest.raises(Exception, match="another SOP class"):
        spool.receive(taken, 0, str(CTImageStorage))


def test_a_full_disk_is_refused_in_time(settings, spool, study_files, events):
    full = dataclasses.replace(settings, min_free_mb=1 << 40)
    receiver = Receiver(full, spool, events)
    try:
        assert send(study_files(), full.receive.port) == [0xA700]
    finally:
        receiver.stop()
    assert spool.next_study() is None and spool.figures()["counters"] == {"refused_A700": 1}
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
    assert spool.figures()["counters"] == {"passed_over": 1, "received": 1}
