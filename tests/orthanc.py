"""Orthanc, a real PACS, on this machine alone: for tests of what others make of our DICOM files."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


class Orthanc:
    """A running server.

    Attributes: url: of its REST interface. dicom_port: of C-STORE, C-FIND and C-MOVE, with the AE title ORTHANC.
    """

    def __init__(self, url: str, dicom_port: int):
        self.url, self.dicom_port = url, dicom_port

    def get(self, path: str):
        """The JSON answer of a REST path such as "/instances"."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)

    def file(self, sop_instance_uid: str) -> bytes:
        """The stored DICOM file of an instance."""
        request = urllib.request.Request(f"{self.url}/tools/lookup", sop_instance_uid.encode())
        with urllib.request.urlopen(request, timeout=30) as answer:
            [found] = [one["ID"] for one in json.load(answer) if one["Type"] == "Instance"]
        with urllib.request.urlopen(f"{self.url}/instances/{found}/file", timeout=30) as answer:
            return answer.read()

    def store(self, paths: Sequence, *options: str) -> subprocess.CompletedProcess:
        """Send files by DCMTK's storescu. `options` are its own."""
        program = require_program("storescu", "dcmtk")
        target = ["127.0.0.1", str(self.dicom_port)]
        command = [program, *options, "-aec", "ORTHANC", *target, *map(str, paths)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)


def require_program(name: str, package: str) -> str:
    """The path of a program; the test skips when it is not installed."""
    # Not in the virtual environment, where pynetdicom puts programs of the same names.
    found = shutil.which(name, path="/usr/local/bin:/usr/bin:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed (apt-get install {package})")
    return found


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def running_orthanc(folder: Path, **configuration) -> Iterator[Orthanc]:
    """Start Orthanc with DICOMweb below /dicom-web, and stop it at the end.

    Args:
        folder: for its files; created.
        configuration: further values of Orthanc's configuration.
    """
    program = require_program("Orthanc", "orthanc")
    if not _PLUGIN.exists():
        pytest.skip("Orthanc has no DICOMweb (apt-get install orthanc-dicomweb)")
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "Name": "TEST",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "HttpPort": free_port(),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAet": "ORTHANC",
        "DicomPort": free_port(),
        "Plugins": [str(_PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
    }
    path = folder / "orthanc.json"
    settings |= configuration
    path.write_text(json.dumps(settings))
    with open(folder / "orthanc.log", "w") as log:
        process = subprocess.Popen([program, str(path)], stdout=log, stderr=subprocess.STDOUT)
    try:
        server = Orthanc(f"http://127.0.0.1:{settings['HttpPort']}", settings["DicomPort"])
        _wait(server, process, folder / "orthanc.log")
        yield server
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait(server: Orthanc, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            server.get("/system")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"Orthanc does not answer: {log.read_text()[-2000:]}")
