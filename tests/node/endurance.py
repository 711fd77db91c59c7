"""Many studies, a node that is killed again and again, a PACS that is away for a while: what arrives in Orthanc."""

import collections
import dataclasses
import random
import shutil
import threading
import time
from pathlib import Path

import pydicom
from hospital import STUDY_KINDS, Node, Sender, make_study
from orthanc import Orthanc, free_port, running_orthanc
from pydicom.uid import SecondaryCaptureImageStorage, SegmentationStorage


@dataclasses.dataclass
class Figures:
    """Attributes: accepted, refused: files, by status. results: instances in Orthanc. lost: studies of bone scans with
    missing results. duplicated: results that are there more than once. answered: studies that are no bone scan and got
    results all the same. kills, seconds, memory_mb (peak of any node process). reasons: why studies
    were set aside, by number of times."""

    studies: int
    accepted: int = 0
    refused: dict[str, int] = dataclasses.field(default_factory=dict)
    results: int = 0
    lost: int = 0
    duplicated: int = 0
    answered: int = 0
    kills: int = 0
    sent_again: int = 0
    seconds: float = 0.0
    memory_mb: float = 0.0
    reasons: dict[str, int] = dataclasses.field(default_factory=dict)


def endure(
    folder: Path, phantoms: list[Path], model: Path, studies: int, kills: int, senders: int = 8, away: float = 5.0
) -> Figures:
    """Run it. Orthanc stops `away` seconds at half time; its files stay."""
    figures, chance = Figures(studies), random.Random(0)
    kinds = [STUDY_KINDS[number % len(STUDY_KINDS)] for number in range(studies)]
    files = [
        make_study(phantoms[number % len(phantoms)], kind, folder / "studies" / str(number), f"{number}")
        for number, kind in enumerate(kinds)
    ]
    mangled = folder / "mangled.dcm"
    dataset = pydicom.dcmread(files[0][0])
    del dataset.StudyInstanceUID
    dataset.save_as(mangled)
    ports = {"HttpPort": free_port(), "DicomPort": free_port()}
    destination = f'[[send]]\nae_title = "ORTHANC"\nhost = "127.0.0.1"\nport = {ports["DicomPort"]}\n'
    node = Node(folder / "node", model, destination)
    threads = [Sender([*files[number::senders], [mangled]], node.port) for number in range(senders)]
    begun = time.monotonic()
    node.start()
    stopped = threading.Event()

    def done() -> bool:
        return not any(one.is_alive() for one in threads)

    for one in threads:
        one.start()
    with running_orthanc(folder / "orthanc", **ports):
        for number in range(kills):
            stopped.wait(chance.uniform(0.3, 3.0))
            figures.memory_mb = max(figures.memory_mb, node.memory_mb())
            node.kill()
            figures.kills += 1
            node.start()
            if number == kills // 2:
                break
    stopped.wait(away)
    with running_orthanc(folder / "orthanc", **ports) as server:
        for _ in range(kills - figures.kills):
            stopped.wait(chance.uniform(0.3, 3.0))
            figures.memory_mb = max(figures.memory_mb, node.memory_mb())
            node.kill()
            figures.kills += 1
            node.start()
        node.wait_for(done, 3600)
        node.wait_for(
            lambda: (
                not any(node.metric(f'studies{{state="{state}"') for state in ("receiving", "predicting", "sending"))
            ),
            3600,
        )
        figures.seconds = time.monotonic() - begun
        figures.memory_mb = max(figures.memory_mb, node.memory_mb())
        assert node.stop() == 0
        events = [line for line in node.log() if line["event"] == "set aside"]
        figures.reasons = dict(collections.Counter(reason for line in events for reason in line["reasons"]))
        _compare(figures, server, kinds, files)
    for one in threads:
        figures.sent_again += one.again
        for status in one.statuses.values():
            if status == 0:
                figures.accepted += 1
            else:
                figures.refused[f"{status:04X}"] = figures.refused.get(f"{status:04X}", 0) + 1
    shutil.rmtree(folder / "studies")
    return figures


def _compare(figures: Figures, server: Orthanc, kinds: list[str], files: list[list[Path]]) -> None:
    """What is in Orthanc against what was sent: each bone scan has each kind of result once, others have none."""
    found: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for instance in server.get("/instances"):
        tags = server.get(f"/instances/{instance}/simplified-tags")
        found[tags["StudyInstanceUID"]][tags["SOPClassUID"], tags["SeriesDescription"], tags["InstanceNumber"]] += 1
        figures.results += 1
    # A scan without a lesion has no report.
    needed = {SegmentationStorage, SecondaryCaptureImageStorage}
    for kind, paths in zip(kinds, files, strict=True):
        results = found.get(str(pydicom.dcmread(paths[0], stop_before_pixels=True).StudyInstanceUID), {})
        if kind == "tomographic":
            figures.answered += bool(results)
        else:
            figures.lost += not needed <= {sop_class for sop_class, *_ in results}
            figures.duplicated += sum(number - 1 for number in results.values())
