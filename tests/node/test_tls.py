"""TLS with DCMTK on the other side, certificates made with the command of assets/docs/hospital.md; who is refused."""

import dataclasses
import re
import shlex
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pydicom
import pytest
from hospital import wait_for
from orthanc import free_port, require_program

from doubleunet_bs.node.receiver import Receiver
from doubleunet_bs.node.sender import Sender, UnavailableError
from doubleunet_bs.node.settings import Destination, Tls

PAGE = Path(__file__).parents[2] / "assets" / "docs" / "hospital.md"
STORESCU, STORESCP = "/usr/bin/storescu", "/usr/bin/storescp"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Folder with self-signed certificates and keys of node, camera, pacs and a stranger; peers.crt: the known ones."""
    require_program("openssl", "openssl")
    if not Path(STORESCU).exists():
        pytest.skip("storescu is not installed (apt-get install dcmtk)")
    folder = tmp_path_factory.mktemp("tls")
    [command] = re.findall(r"^openssl .*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    for name in ("node", "camera", "pacs", "stranger"):
        mine = re.sub(r"\bnode\b", name, command).replace("rsa:3072", "rsa:2048")
        subprocess.run(shlex.split(mine), cwd=folder, check=True, capture_output=True)
    (folder / "peers.crt").write_bytes(b"".join((folder / f"{name}.crt").read_bytes() for name in ("camera", "pacs")))
    return folder


@pytest.fixture
def secured(settings, certificates):
    """Settings of a node that takes TLS only."""
    tls = Tls(certificates / "node.crt", certificates / "node.key", certificates / "peers.crt")
    return dataclasses.replace(settings, receive=dataclasses.replace(settings.receive, tls=True), tls=tls)


@pytest.fixture
def receiver(secured, spool, events):
    opened = Receiver(secured, spool, events)
    yield opened
    opened.stop()


def storescu(port, path, *options):
    command = [STORESCU, *map(str, options), "-aet", "CAMERA", "-aec", "BONESCAN", "127.0.0.1", str(port), str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_storescu_sends_over_tls(receiver, secured, spool, study_files, certificates):
    [path] = study_files()
    own = (certificates / "camera.key", certificates / "camera.crt")
    sent = storescu(secured.receive.port, path, "+tls", *own, "+cf", certificates / "node.crt")
    assert sent.returncode == 0, sent.stderr
    [kept] = spool.next_study().folder.iterdir()
    assert pydicom.dcmread(kept).pixel_array.tobytes() == pydicom.dcmread(path).pixel_array.tobytes()


def test_who_shows_no_known_certificate_is_refused(receiver, secured, spool, study_files, certificates, events):
    [path] = study_files()
    port, node = secured.receive.port, certificates / "node.crt"
    stranger = (certificates / "stranger.key", certificates / "stranger.crt")
    for options in ((), ("+tla", "-ic"), ("+tls", *stranger, "+cf", node)):
        assert storescu(port, path, *options).returncode != 0
    # A modern client that simply brings none.
    with pytest.raises(OSError):  # noqa: SIM117 - TLS 1.3 tells a client at its first read
        with socket.create_connection(("127.0.0.1", port)) as plain:
            with ssl.create_default_context(cafile=node).wrap_socket(plain, server_hostname="127.0.0.1") as client:
                client.settimeout(20)
                assert client.recv(1)
                raise AssertionError("accepted")
    wait_for(lambda: len(events.seen) >= 4)
    assert spool.next_study() is None
    assert all(event["reason"].startswith("TLS: ") for event in events.seen), events.seen


@pytest.mark.slow
def test_a_peer_that_says_nothing_keeps_nobody_out(receiver, secured, study_files, certificates, monkeypatch, events):
    monkeypatch.setattr("doubleunet_bs.node.receiver.HANDSHAKE_SECONDS", 2.0)
    [path] = study_files()
    own = (certificates / "camera.key", certificates / "camera.crt")
    with socket.create_connection(("127.0.0.1", secured.receive.port)) as silent:
        sent = storescu(secured.receive.port, path, "+tls", *own, "+cf", certificates / "node.crt")
        assert sent.returncode == 0, sent.stderr
        silent.settimeout(20)
        assert silent.recv(1) == b""
    wait_for(lambda: "association rejected" in [event["event"] for event in events.seen])


@pytest.fixture
def pacs(certificates, tmp_path):
    """DCMTK's storescp that takes TLS from the node only, and where it stores."""
    port, stored = free_port(), tmp_path / "stored"
    stored.mkdir()
    names = ("pacs.key", "pacs.crt", "node.crt")
    key, certificate, node = (str(certificates / name) for name in names)
    command = [STORESCP, "+tls", key, certificate, "+cf", node, "-aet", "PACS", "-od", str(stored), str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: _listens(port))
        yield port, stored
        process.terminate()


def test_results_go_to_a_pacs_over_tls(pacs, secured, spool, finished_study, events, certificates):
    port, stored = pacs
    target = finished_study()

    def sender(settings, tls=True):
        destination = Destination("pacs", "PACS", "127.0.0.1", port, tls)
        return Sender(destination, settings, spool, events, threading.Event())

    # Without TLS, with another certificate than the PACS knows, and to a PACS that the node does not know.
    other = dataclasses.replace(
        secured.tls, certificate=certificates / "stranger.crt", key=certificates / "stranger.key"
    )
    unknown = dataclasses.replace(secured.tls, authority=certificates / "camera.crt")
    with pytest.raises(UnavailableError, match="no connection"):
        sender(secured, tls=False)._send_dicom(spool.deliveries("pacs"))
    for tls in (other, unknown):
        with pytest.raises(UnavailableError, match="no TLS connection"):
            sender(dataclasses.replace(secured, tls=tls))._send_dicom(spool.deliveries("pacs"))
    assert not list(stored.iterdir()) and spool.figures()["studies"] == {"sending": 1}
    sender(secured)._send_dicom(spool.deliveries("pacs"))
    [file] = stored.iterdir()
    assert pydicom.dcmread(file).SOPInstanceUID == pydicom.dcmread(target).SOPInstanceUID
    assert spool.figures()["studies"] == {"done": 1}


def _listens(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
