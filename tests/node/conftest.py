"""A spool, and a receiving node without a model, in this process."""

import dataclasses

import pytest

pytest.importorskip("pynetdicom", reason="no DICOM network: the extra node is missing")

import pydicom
from hospital import make_study
from orthanc import free_port
from pydicom.uid import SecondaryCaptureImageStorage

from doubleunet_bs.node.settings import NodeSettings, Peer, Receive
from doubleunet_bs.node.spool import Spool


@pytest.fixture
def settings(tmp_path):
    """Of a node that accepts CAMERA at 127.0.0.1 and sends nowhere."""
    receive = Receive("BONESCAN", free_port(), (Peer("CAMERA", "127.0.0.1"),))
    return NodeSettings(tmp_path / "spool", "none", receive=receive, quiet_seconds=1e-3, min_free_mb=1)


@pytest.fixture
def spool(settings):
    opened = Spool(settings.spool, ("a", "b"))
    yield opened
    opened.close()


@pytest.fixture
def reopen(spool):
    """Close the spool and open it again, as a node does that was killed."""

    def again():
        spool.close()
        spool.__init__(spool.folder, spool.destinations)
        return spool

    return again


@pytest.fixture
def study_files(phantoms, tmp_path):
    """Make the files of a study: `study_files("two-files", "7")`."""

    def make(kind="two-frames", seed="1"):
        return make_study(phantoms / "phantom_0001.dcm", kind, tmp_path / "studies" / f"{kind}{seed}", seed)

    return make


@pytest.fixture
def finished_study(spool, study_files):
    """Make the result of a study, a secondary capture for the destination "pacs"; returns its file."""

    def make(syntax=None):
        path = study_files()[0]
        spool.receive(spool.copy_in(str(path)), 0)
        study = spool.next_study()
        dataset = pydicom.dcmread(path)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        if syntax:
            dataset.compress(syntax, generate_instance_uid=False)
        target = spool.results(study.number) / "overlay.dcm"
        target.parent.mkdir(parents=True)
        dataset.save_as(target)
        spool.destinations = ("pacs",)
        spool.finish(study, {dataset.SOPInstanceUID: target})
        return target

    return make


@pytest.fixture
def events():
    """A log that keeps its events."""

    @dataclasses.dataclass
    class Events:
        seen: list = dataclasses.field(default_factory=list)

        def __call__(self, event, **fields):
            self.seen.append({"event": event, **fields})

    return Events()
