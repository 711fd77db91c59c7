"""The tables of assets/docs/conformance.md against what the code accepts, answers and writes."""

import re
from pathlib import Path

import pydicom
from handmade_prediction import make_prediction
from pynetdicom import AE, PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION

from doubleunet_bs.node import receiver, sender
from doubleunet_bs.results.result_files import JobSettings
from doubleunet_bs.results.result_folder import write_prediction

PAGE = (Path(__file__).parents[2] / "assets" / "docs" / "conformance.md").read_text(encoding="utf-8")


def section(title: str) -> list[list[str]]:
    """The rows of all tables of a section."""
    text = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)[1]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]


def test_what_is_received():
    uids = {row[1] for row in section("Receiving") if row[1].startswith("1.2.840.")}
    classes = {*receiver.RECEIVED_CLASSES, receiver.VERIFICATION}
    assert uids == classes | set(receiver.TRANSFER_SYNTAXES)


def test_policies():
    values = {row[0]: row[1] for row in section("Receiving")}
    assert int(values["associations at the same time"]) == receiver.ASSOCIATIONS
    assert int(values["maximum PDU size"]) == AE().maximum_pdu_size
    assert values["implementation class UID"] == PYNETDICOM_IMPLEMENTATION_UID
    # The version of the library is in its name; another version of it changes nothing else.
    assert PYNETDICOM_IMPLEMENTATION_VERSION.startswith(values["implementation version name"][:12])


def test_status_of_an_answer():
    said = {row[0] for row in section("Receiving") if re.fullmatch("[0-9A-F]{4}", row[0])}
    codes = (receiver.STORED, receiver.OUT_OF_RESOURCES, receiver.NOT_UNDERSTOOD)
    assert said == {f"{code:04X}" for code in codes}


def test_pauses():
    [row] = [row for row in section("Sending") if row[0].startswith("A7xx")]
    assert f"after {sender.FIRST_PAUSE:.0f} s" in row[1] and f"at most {sender.LONGEST_PAUSE / 60:.0f} min" in row[1]


def test_what_is_sent(scan, phantoms, tmp_path):
    from doubleunet_bs.dicom_files.sources import Source
    from doubleunet_bs.dicom_results.source_study import read_source_study

    settings = JobSettings(out=tmp_path, outputs=("dicom",), keep_identity=True)
    study = read_source_study([Source(str(phantoms / "phantom_0001.dcm"))])
    written = write_prediction(settings, scan, make_prediction(scan), study)
    made = {pydicom.dcmread(path).SOPClassUID for path in written.folder.glob("*.dcm")}
    assert made == {row[1] for row in section("Sending") if row[1].startswith("1.2.840.")}
