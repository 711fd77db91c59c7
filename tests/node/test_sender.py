"""What destinations get, what they refuse, and what happens while they are away."""

import json
import threading
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import pydicom
import pytest
from hospital import wait_for
from orthanc import free_port, running_orthanc
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, SecondaryCaptureImageStorage
from pynetdicom import AE, evt

from doubleunet_bs.node.sender import Sender, UnavailableError
from doubleunet_bs.node.settings import Destination


class Pacs:
    """A receiver of C-STORE that answers as it is told."""

    def __init__(self, *syntaxes, status=0):
        self.port, self.status, self.stored = free_port(), status, []
        self.statuses, self.abort = [], False
        entity = AE("PACS")
        entity.add_supported_context(SecondaryCaptureImageStorage, list(syntaxes))
        self.entity = entity
        entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])

    def _store(self, event):
        if self.abort:
            event.assoc.abort()
        self.stored.append(pydicom.dcmread(BytesIO(event.encoded_dataset())))
        return self.statuses.pop(0) if self.statuses else self.status

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.entity.shutdown()


@pytest.fixture(autouse=True)
def datasets_in_memory(monkeypatch):
    from pynetdicom import _config

    monkeypatch.setattr(_config, "STORE_RECV_CHUNKED_DATASET", False)


@pytest.fixture
def result(finished_study):
    """A result for the destination "pacs", compressed."""
    return finished_study(RLELossless)


def sender(settings, spool, events, **destination):
    return Sender(Destination("pacs", **destination), settings, spool, events, threading.Event())


@pytest.mark.parametrize("syntaxes", [(RLELossless, ImplicitVRLittleEndian), (ExplicitVRLittleEndian,)])
def test_a_pacs_gets_the_file_as_it_can_read_it(syntaxes, settings, spool, result, events):
    with Pacs(*syntaxes) as pacs:
        one = sender(settings, spool, events, ae_title="PACS", host="127.0.0.1", port=pacs.port)
        one._send_dicom(spool.deliveries("pacs"))
    [stored] = pacs.stored
    assert stored.file_meta.TransferSyntaxUID == syntaxes[0]
    sent = pydicom.dcmread(result)
    assert stored.SOPInstanceUID == sent.SOPInstanceUID and (stored.pixel_array == sent.pixel_array).all()
    assert spool.figures()["studies"] == {"done": 1}


@pytest.mark.parametrize(("status", "state"), [(0xB007, "sent"), (0xC123, "refused"), (0xA901, "refused")])
def test_answers_of_a_pacs(status, state, settings, spool, result, events):
    with Pacs(RLELossless, status=status) as pacs:
        one = sender(settings, spool, events, ae_title="PACS", host="127.0.0.1", port=pacs.port)
        one._send_dicom(spool.deliveries("pacs"))
    assert spool.figures()["deliveries"] == {("pacs", state): 1}


def test_a_pacs_that_is_full_or_away_gets_it_later(settings, spool, result, events):
    with Pacs(RLELossless, status=0xA700) as pacs:
        one = sender(settings, spool, events, ae_title="PACS", host="127.0.0.1", port=pacs.port)
        with pytest.raises(UnavailableError, match="status A700"):
            one._send_dicom(spool.deliveries("pacs"))
    with pytest.raises(UnavailableError, match="no connection"):
        one._send_dicom(spool.deliveries("pacs"))
    assert spool.figures()["deliveries"] == {("pacs", "waiting"): 1}


def test_a_pacs_that_takes_none_of_our_classes(settings, spool, result, events):
    entity, port = AE("PACS"), free_port()
    entity.add_supported_context("1.2.840.10008.1.1")
    entity.start_server(("127.0.0.1", port), block=False)
    one = sender(settings, spool, events, ae_title="PACS", host="127.0.0.1", port=port)
    with pytest.raises(UnavailableError, match="none of our SOP classes accepted"):
        one._send_dicom(spool.deliveries("pacs"))
    entity.shutdown()
    assert spool.figures()["deliveries"] == {("pacs", "waiting"): 1}


@pytest.mark.slow
def test_stow_to_orthanc(settings, spool, result, events, tmp_path):
    with running_orthanc(tmp_path / "orthanc") as server:
        one = sender(settings, spool, events, url=f"{server.url}/dicom-web")
        waiting = spool.deliveries("pacs")
        one._send_web(waiting)
        assert spool.figures()["studies"] == {"done": 1}
        # Once more, as after a kill between the answer and its note.
        one._send_web(waiting)
        [stored] = server.get("/instances")
        assert server.get(f"/instances/{stored}/simplified-tags")["SOPInstanceUID"] == waiting[0].uid
    with pytest.raises(UnavailableError, match="ConnectionError"):
        one._send_web(waiting)


_FAILED = """<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">
<DicomAttribute tag="00081198" vr="SQ" keyword="FailedSOPSequence"><Item number="1">
<DicomAttribute tag="00081197" vr="US" keyword="FailureReason"><Value number="1">42752</Value></DicomAttribute>
</Item></DicomAttribute></NativeDicomModel>"""


def _failed(reason):
    return json.dumps({"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [reason]}}]}})


@pytest.mark.parametrize(
    ("kind", "body", "state"),
    [
        ("application/dicom+json", _failed(0xA700), "waiting"),
        ("application/dicom+json; charset=utf-8", _failed(0xA701), "waiting"),
        *(("application/dicom+json", _failed(reason), "refused") for reason in (0xA900, 0, 0xB000)),
        ("application/dicom+xml", _FAILED, "waiting"),
        ("application/dicom+json", "{}", "refused"),
        ("application/dicom+json", "[7]", "refused"),
        ("application/dicom+json", _failed("none"), "refused"),
        ("application/dicom+json", _failed("reason").replace('"reason"', "1e999"), "refused"),
        ("application/dicom+json", "[" * 100_000, "refused"),
        ("application/dicom+xml", "<", "refused"),
        ("text/html", "<p>Conflict", "refused"),
    ],
)
def test_a_409_of_a_full_archive_is_tried_again(kind, body, state, settings, spool, result, events):
    with _web_server(409, kind, body) as url:
        one = sender(settings, spool, events, url=url)
        later = pytest.raises(UnavailableError, match="status A70") if state == "waiting" else nullcontext()
        with later:
            one._send_web(spool.deliveries("pacs"))
    assert spool.figures()["deliveries"] == {("pacs", state): 1}


@contextmanager
def _web_server(status, kind, body):
    """The URL of a server that answers each POST with `body`."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_one_file_that_is_not_taken_now_does_not_hold_up_the_others(settings, spool, result, events):
    dataset = pydicom.dcmread(result)
    for number in (1, 2):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.{number}"
        dataset.save_as(result.with_name(f"{number}.dcm"))
        spool.receive(spool.copy_in(str(_other_scan(dataset, result, number))), 0)
        study = spool.next_study()
        spool.finish(study, {f"1.2.{number}": result.with_name(f"{number}.dcm")})
    with Pacs(RLELossless) as pacs:
        pacs.statuses = [0xA700, 0, 0]
        one = sender(settings, spool, events, ae_title="PACS", host="127.0.0.1", port=pacs.port)
        with pytest.raises(UnavailableError, match="status A700"):
            one._send_dicom(spool.deliveries("pacs"))
    assert spool.figures()["deliveries"] == {("pacs", "waiting"): 1, ("pacs", "sent"): 2}


def _other_scan(dataset, result, number):
    from pydicom.uid import generate_uid

    other = pydicom.dcmread(result)
    other.StudyInstanceUID, other.SOPInstanceUID = generate_uid(), generate_uid()
    other.file_meta.MediaStorageSOPInstanceUID = other.SOPInstanceUID
    path = result.with_name(f"scan{number}.dcm")
    other.save_as(path)
    return path


def test_a_sender_survives_whatever_a_pacs_does(settings, spool, result, events):
    """The PACS aborts in the middle, then a result is missing for a moment: both are tried again."""
    with Pacs(RLELossless) as pacs:
        pacs.abort = True
        one = sender(settings, spool, events, ae_title="PACS", host="127.0.0.1", port=pacs.port)
        one.start()
        wait_for(lambda: any(event["event"] == "destination unavailable" for event in events.seen))
        assert one.is_alive() and spool.figures()["deliveries"] == {("pacs", "waiting"): 1}
        one.stop.set()
        one.join(10)
    hidden = result.rename(result.with_suffix(".hidden"))
    with Pacs(RLELossless) as pacs:
        other = sender(settings, spool, events, ae_title="PACS", host="127.0.0.1", port=pacs.port)
        other.start()
        wait_for(lambda: events.seen[-1].get("reason") == "results not there")
        assert other.is_alive()
        hidden.rename(result)
        other.stop.set()
        other.join(10)
