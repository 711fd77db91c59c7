"""A small hospital around the node: studies with UIDs of their own, senders that insist, a node that can be killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pydicom
from dicom_variants import write_variant
from orthanc import free_port
from pydicom.uid import generate_uid
from pynetdicom import AE, build_context

STUDY_KINDS = ("two-frames", "two-files", "two-frames", "tomographic")


def make_study(phantom: Path, kind: str, folder: Path, seed: str) -> list[Path]:
    """The files of a study of one of STUDY_KINDS, which depend on `seed` alone. "tomographic" is no bone scan."""
    variant = "two-frames" if kind == "tomographic" else kind
    paths = write_variant(phantom, variant, folder)
    for number, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID = generate_uid(entropy_srcs=[seed, "study"])
        dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[seed, "series"])
        uid = generate_uid(entropy_srcs=[seed, str(number)])
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        dataset.PatientID, dataset.PatientName = f"ID-{seed}", f"PLANTED^{seed}"
        if kind == "tomographic":
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "TOMO", "EMISSION"]
        dataset.save_as(path)
    return paths


def send(paths: list[Path], port: int, caller: str = "CAMERA", called: str = "BONESCAN") -> list[int]:
    """C-STORE files over one association; one status each, none of those after a lost connection."""
    entity = AE(caller)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    datasets = [pydicom.dcmread(path) for path in paths]
    kinds = dict.fromkeys((one.SOPClassUID, one.file_meta.TransferSyntaxUID) for one in datasets)
    entity.requested_contexts = [build_context(sop_class, syntax) for sop_class, syntax in kinds]
    association = entity.associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        return []
    answers: list[int] = []
    for dataset in datasets:
        answer = association.send_c_store(dataset)
        if "Status" not in answer:
            return answers
        answers.append(int(answer.Status))
    association.release()
    return answers


class Node:
    """`doubleunet-bs node` in a process of its own.

    Args:
        folder: for configuration, spool and logs.
        model: folder of the model.
        destinations: lines of TOML, [[send]] tables.
        options: further lines at the top of the configuration.
    """

    def __init__(self, folder: Path, model: Path, destinations: str = "", options: str = "", watch: str = ""):
        self.folder, self.port, self.monitor = folder, free_port(), free_port()
        self.spool = folder / "spool"
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "node.toml"
        self.config.write_text(
            f'spool = "spool"\nmodel = "{model}"\nquiet_seconds = 0.5\nmin_free_mb = 10\n{options}\n'
            f'[receive]\nae_title = "BONESCAN"\nport = {self.port}\n'
            '[[receive.from]]\nae_title = "CAMERA"\naddress = "127.0.0.1"\n'
            f"{destinations}\n{watch}\n[monitor]\nport = {self.monitor}\n"
        )
        self.process: subprocess.Popen | None = None

    def start(self) -> "Node":
        with open(self.folder / "node.log", "a") as log, open(self.folder / "node.err", "a") as errors:
            command = [sys.executable, "-m", "doubleunet_bs", "node", str(self.config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=errors)
        end = time.monotonic() + 120
        while time.monotonic() < end:
            assert self.process.poll() is None, (self.folder / "node.err").read_text()[-2000:]
            try:
                if self.get("/health") and self.log()[-1:] != [] and self._listening():
                    return self
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the node does not answer")

    def _listening(self) -> bool:
        return any(line["event"] == "ready" for line in self.log())

    def get(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.monitor}{path}", timeout=10) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.read().decode()

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels; 0 for none."""
        lines = [line for line in self.get("/metrics").splitlines() if line.startswith(f"doubleunet_bs_node_{name}")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def log(self) -> list[dict]:
        """All events so far; a line that a kill cut off is left out."""
        lines = (self.folder / "node.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("}") and line.startswith("{")]

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def wait_for(self, condition, seconds: float = 60) -> None:
        """Wait until `condition()` holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.get("/metrics") + str(self.log()[-5:])
            time.sleep(0.2)

    def memory_mb(self) -> float:
        """Peak resident memory of the process."""
        assert self.process is not None
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return 0.0
        return max((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), default=0)


class Sender(threading.Thread):
    """Sends studies one after the other, and each file again until it is acknowledged or refused for good."""

    def __init__(self, studies: list[list[Path]], port: int):
        super().__init__(daemon=True)
        self.studies, self.port = studies, port
        self.statuses: dict[str, int] = {}
        self.again = 0

    def run(self) -> None:
        for paths in self.studies:
            left = list(paths)
            while left:
                answers = send(left, self.port)
                for path, status in zip(left, answers, strict=False):
                    self.statuses[str(path)] = status
                left = [path for path in left if self.statuses.get(str(path), 0xA700) >> 8 == 0xA7]
                if left:
                    self.again += 1
                    time.sleep(0.3)


def wait_for(condition, seconds: float = 20) -> None:
    """Wait until `condition()` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def tiny_disk(folder: Path, megabytes: int) -> bool:
    """Mount a small disk; False where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0
