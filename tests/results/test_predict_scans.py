"""What a hospital expects of predict: outputs to choose, identity only on request, a log, a dry run, a clean stop."""

import gc
import json
import os
import re
import shutil
import socket
import weakref

import pydicom
import pytest
from planted_secrets import NUMBER, SECRET, UID, haystack, plant_everywhere, search

from doubleunet_bs.errors import RunError
from doubleunet_bs.files import read_json
from doubleunet_bs.results import predict_scans
from doubleunet_bs.results.input_scans import list_scans
from doubleunet_bs.results.predict_scans import ScanReader


@pytest.fixture(scope="module")
def secret_scan(phantoms, tmp_path_factory):
    """A scan with a secret in every element, in a file that is named after the patient."""
    path = tmp_path_factory.mktemp("hospital") / f"{SECRET}.dcm"
    dataset = pydicom.dcmread(phantoms / "phantom_0001.dcm")
    plant_everywhere(dataset, 1)
    with pydicom.config.disable_value_validation():
        dataset.save_as(path)
    assert path.read_bytes().count(SECRET.encode()) > 50
    return path


@pytest.mark.slow
def test_outputs_to_choose(command, phantoms):
    file = phantoms / "phantom_0001.dcm"

    def names(choice):
        assert command(file, "--outputs", choice, "--overwrite")[0] == 0
        (folder,) = command.out.glob("case-*")
        return {path.name for path in folder.iterdir()}

    assert names("none") == {"result.json"}
    assert names("report") == {"result.json", "report.html", "thumbnail.png"}
    assert names("dicom,overlay") == {
        "result.json",
        "overlay.png",
        "overlay.dcm",
        "scan.dcm",
        "segmentation.dcm",
        "lesions.dcm",
    }
    (folder,) = command.out.glob("case-*")
    result = json.loads((folder / "result.json").read_text())
    assert (result["report"], result["views"]["anterior"]["mask_npy"]) == (None, None)
    assert command(file, "--outputs", "masks,sculpture")[0] == 2


def test_the_quality_of_the_model_is_said_first(command, trained_run, phantoms, tmp_path):
    code, out, _ = command(phantoms / "phantom_0001.dcm", "--outputs", "none")
    first, second, third = out.splitlines()[:3]
    assert "fold 1, validation F1 60.0 % (fold 1 of 3), 160 x 128 pixels" in first
    assert second == "trained on 2 scans of 2 patients (breast 2)" and third.startswith("use ")
    (folder,) = command.out.glob("case-*")
    model = read_json(folder / "result.json")["model"]
    assert (model["validation_f1"], model["quality_warning"], model["training"]["patients"]) == (0.6, None, 2)
    # The same weights, whose best epoch found nothing on the validation scans.
    run = shutil.copytree(trained_run, tmp_path / "run")
    history = run / "fold_01" / "history.csv"
    history.write_text(history.read_text().replace(",0.6,0.6,0.6,", ",0.0,0.0,0.0,"))
    out = command(phantoms / "phantom_0001.dcm", "--outputs", "none", "--overwrite", model=run / "fold_01")[1]
    assert "\nwarning This model found no metastasis on its own validation scans (fold 1: F1 0.0 %)." in out
    model = read_json(folder / "result.json")["model"]
    assert model["quality"] == "validation F1 0.0 % (fold 1 of 3)" and "no metastasis" in model["quality_warning"]


def test_no_identity_unless_asked(command, secret_scan, tmp_path):
    """Every byte that is written, and the log; what is printed names the user's own file, and nothing else."""
    arguments = ("--log", tmp_path / "logs" / "log.txt", "--labelme", tmp_path / "labels")
    code, out, err = command(secret_scan, *arguments)
    assert (code, err) == (0, "")
    search(haystack(command.out, leave_out=()), *[UID.encode()])
    search(haystack(tmp_path / "logs", leave_out=()))
    # These are named after the user's file, on request. Their content is searched.
    annotations = sorted((tmp_path / "labels").iterdir())
    assert [path.name for path in annotations] == [f"{SECRET}_anterior.json", f"{SECRET}_posterior.json"]
    for path in annotations:
        content = json.loads(path.read_text())
        assert content.pop("imagePath") == f"{path.stem}.png"
        search([json.dumps(content).encode()])
    lines = [line for line in out.splitlines() if line != str(secret_scan)]
    assert len(lines) == len(out.splitlines()) - 1
    search(["\n".join(lines).encode()])


def test_identity_in_dicom_files_alone(command, secret_scan, tmp_path):
    code, _, err = command(secret_scan, "--keep-identity", "--log", tmp_path / "log.txt")
    assert (code, err) == (0, "")
    (folder,) = command.out.glob("case-*")
    dicom = sorted(folder.glob("*.dcm"))
    assert [path.name for path in dicom] == ["lesions.dcm", "overlay.dcm", "segmentation.dcm"]
    search(haystack(command.out, leave_out=dicom))
    search([(tmp_path / "log.txt").read_bytes()])
    source = pydicom.dcmread(secret_scan)
    for path in dicom:
        result = pydicom.dcmread(path)
        assert (result.PatientID, str(result.PatientName)) == (SECRET, f"{SECRET}^{SECRET}")
        assert result.StudyInstanceUID == source.StudyInstanceUID
        assert source.SOPInstanceUID.encode() in path.read_bytes()
        # Patient and study, and not whatever else a header holds.
        content = path.read_bytes()
        for keyword in ("InstitutionName", "PatientAddress", "OperatorsName", "PatientComments", "StationName"):
            assert keyword not in result
        assert b"AGAIN" not in content
        assert NUMBER.encode() in content
    assert json.loads((folder / "result.json").read_text())["dicom"]["patient_identity"] == "kept"


def test_one_scan_that_cannot_be_referred_to_does_not_stop_the_others(command, phantoms, tmp_path):
    dataset = pydicom.dcmread(phantoms / "phantom_0001.dcm")
    dataset.StudyInstanceUID = ""
    dataset.save_as(tmp_path / "orphan.dcm")
    code, out, err = command(
        tmp_path / "orphan.dcm", phantoms / "phantom_0002.dcm", "--keep-identity", "--outputs", "dicom"
    )
    assert code == 1
    assert "orphan.dcm: has no valid StudyInstanceUID" in err
    assert "1 of 2 scans segmented" in out
    assert len(list(command.out.glob("case-*"))) == 1


@pytest.mark.slow
def test_scans_are_done_in_order_one_at_a_time(command, phantoms, trained_run, tmp_path, monkeypatch):
    """The results are printed as they come, an error stops its scan only, and no scan stays in memory."""
    paths = []
    for number in range(5):
        dataset = pydicom.dcmread(phantoms / "phantom_0001.dcm")
        frames = dataset.pixel_array.copy()
        frames[0, 500, 128] += number
        dataset.PixelData = frames.tobytes()
        paths.append(tmp_path / f"{number}.dcm")
        dataset.save_as(paths[-1])
    read, alive = [], []
    whole_read, whole_write = ScanReader.__call__, predict_scans.write_prediction

    def tracked_read(reader, files):
        content = whole_read(reader, files)
        read.append(weakref.ref(content.scan))
        return content

    def failing_write(settings, scan, *arguments):
        gc.collect()
        alive.append([one() is not None for one in read])
        if len(alive) == 2:
            raise RunError("cannot be written")
        return whole_write(settings, scan, *arguments)

    monkeypatch.setattr(ScanReader, "__call__", tracked_read)
    monkeypatch.setattr(predict_scans, "write_prediction", failing_write)
    code, out, err = command(*paths, "--outputs", "none")
    assert code == 1 and err == f"error: {paths[1]}: cannot be written\n"
    assert [line for line in out.splitlines() if line.endswith(".dcm")] == [str(paths[place]) for place in (0, 2, 3, 4)]
    assert re.search(r"\n4 of 5 scans segmented in \d+ s, 4 with findings, 1 failed\n", out)
    assert out.endswith(f"file of each case, for you only: {command.out}.files.csv\n")
    assert alive == [[False] * place + [True] for place in range(5)]


def test_a_defect_is_no_error_of_a_scan(command, phantoms, monkeypatch):
    monkeypatch.setattr(predict_scans, "write_prediction", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command(phantoms, "--outputs", "none")


@pytest.mark.slow
def test_results_within_the_searched_folder_are_no_scans(command, phantoms, tmp_path):
    """The copy in "predicted" comes before "scan.dcm" and has the same counts."""
    folder = tmp_path / "hospital"
    folder.mkdir()
    shutil.copy(phantoms / "phantom_0001.dcm", folder / "scan.dcm")
    arguments = (folder, "--outputs", "dicom")
    assert command(*arguments, out=folder / "predicted")[0] == 0
    code, out, err = command(*arguments, "--overwrite", "--keep-identity", out=folder / "predicted")
    assert (code, err) == (0, "") and "1 of 1 scans segmented" in out
    # Neither are the index, the table and the table of files.
    assert "passed over" not in out and (folder / "predicted.files.csv").exists()
    (case,) = (folder / "predicted").glob("case-*")
    assert pydicom.dcmread(case / "overlay.dcm").PatientID == pydicom.dcmread(folder / "scan.dcm").PatientID
    # Named themselves, results are read; a file of that name that is none of this package hides nothing.
    assert command(*arguments, "--overwrite", out=folder / "predicted")[0] == 0
    out = command(case, "--outputs", "none", out=tmp_path / "a")[1]
    assert "passed over: 1 SEG, 1 SR, 1 annotation, 1 screen capture" in out and "1 of 1 scans" in out
    assert command(case / "scan.dcm", "--outputs", "none", out=tmp_path / "b")[0] == 0
    code, _, err = command(folder / "predicted", "--outputs", "none", out=tmp_path / "c")
    assert code == 1 and "predicted: holds only results of earlier predictions: name a scan.dcm" in err
    (case / "result.json").write_text("[]")
    assert "1 of 1 scans" in command(folder / "predicted", "--outputs", "none", out=tmp_path / "d")[1]


@pytest.mark.skipif(os.name != "posix", reason="links need special rights on this system")
def test_results_in_a_linked_folder_are_no_scans(phantoms, tmp_path):
    case = tmp_path / "results" / "case-1"
    case.mkdir(parents=True)
    shutil.copy(phantoms / "phantom_0002.dcm", case / "scan.dcm")
    (case / "result.json").write_text(json.dumps({"format": 1, "case": "case-1", "intended_use": "research"}))
    scans = tmp_path / "scans"
    scans.mkdir()
    shutil.copy(phantoms / "phantom_0001.dcm", scans / "a.dcm")
    (scans / "results").symlink_to(tmp_path / "results")
    found = list_scans([str(scans)])
    assert [scan.paths for scan in found.scans] == [("a.dcm",)] and found.rejected == ()
    (case / "result.json").unlink()
    assert [scan.names for scan in list_scans([str(scans)]).scans] == [("a",), ("scan",)]


def test_identity_that_has_been_removed_cannot_be_kept(command, phantoms):
    assert command(phantoms / "phantom_0001.dcm", "--outputs", "dicom")[0] == 0
    (case,) = command.out.glob("case-*")
    code, _, err = command(case / "scan.dcm", "--outputs", "dicom", "--overwrite", "--keep-identity")
    assert code == 1 and "scan.dcm: the patient's identity has been removed" in err
    assert pydicom.dcmread(case / "overlay.dcm").PatientIdentityRemoved == "YES"


def test_the_log_names_pseudonyms_only(command, phantoms, scan, tmp_path):
    shutil.copy(phantoms / "phantom_0001.dcm", tmp_path / "Jane_Doe.dcm")
    (tmp_path / "Doe_notes.txt").write_text("nothing")
    log = tmp_path / "log.txt"
    log.write_text("earlier\n")
    code, *_ = command(tmp_path / "Jane_Doe.dcm", tmp_path / "Doe_notes.txt", "--log", log, "--outputs", "none")
    assert code == 1
    lines = log.read_text().splitlines()
    assert lines.pop(0) == "earlier"
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d ", line) for line in lines)
    texts = [line[20:] for line in lines]
    assert re.fullmatch(r"start: doubleunet_bs 0\.1\.0, .*fold 1, weights [0-9a-f]{12}, engine .*, 2 scans", texts[0])
    assert texts[1] == "scan 2 of 2: not segmented (not-dicom)"
    assert re.fullmatch(rf"{scan.case}: \d+ areas, \d+ pixels, \d+ warnings, [\d.]+ s", texts[2])
    (end,) = texts[3:]
    seconds = [float(re.search(r"([\d.]+) s$", line)[1]) for line in (texts[2], end)]
    assert end.startswith("end: 1 of 2 scans segmented, 1 with findings, 1 failed, ") and 0 < seconds[0] < seconds[1]
    assert "Doe" not in log.read_text() and str(tmp_path) not in log.read_text()
    # The second time the result is there already: its reason, not its message with the path.
    assert command(tmp_path / "Jane_Doe.dcm", "--log", log)[0] == 1
    assert f"{scan.case}: not segmented (RunError)" in log.read_text()
    # A model that cannot be opened stands in the log as well; a log that cannot be written stops everything.
    assert command(tmp_path / "Jane_Doe.dcm", "--log", log, model=tmp_path)[0] == 1
    assert log.read_text().endswith(" stopped: RunError\n")
    for place in (tmp_path, log / "log"):
        code, _, err = command(tmp_path / "Jane_Doe.dcm", "--log", place)
        assert code == 2 and f"{place}: cannot be written (" in err


@pytest.mark.slow
def test_errors_name_the_file_and_its_own_reason(command, phantoms, tmp_path, monkeypatch):
    (tmp_path / "broken.dcm").write_text("no scan")
    code, _, err = command(tmp_path / "broken.dcm", "--previous", phantoms / "phantom_0001.dcm")
    assert code == 1 and err == f"error: {tmp_path}/broken.dcm: is not a DICOM file\n"
    (tmp_path / "broken.zip").write_bytes(b"PK\3\4 no archive")
    code, _, err = command(tmp_path / "broken.zip")
    assert code == 1 and err == f"error: {tmp_path}/broken.zip: is a damaged zip archive\n"
    code, _, err = command(tmp_path / "broken.dcm", tmp_path / "broken.zip")
    assert code == 1 and err.count("\n") == 3 and err.endswith("error: no scan can be used\n")
    # A file whose name is a part of any message.
    monkeypatch.chdir(tmp_path)
    dataset = pydicom.dcmread(phantoms / "phantom_0001.dcm")
    dataset.StudyInstanceUID = ""
    dataset.save_as("1")
    assert command("1", "--outputs", "none")[0] == 0
    code, _, err = command("1", "--outputs", "none")
    assert code == 1 and err.startswith("error: 1: ") and "exists already" in err
    # The first file fails by itself: its copy of the same counts does not, and gets the result.
    shutil.copy(phantoms / "phantom_0001.dcm", "2")
    code, out, err = command("1", "2", "--outputs", "dicom", "--overwrite", "--keep-identity")
    assert code == 1 and "1 of 2 scans segmented" in out
    assert err.count("error: ") == 1 and "1: has no valid StudyInstanceUID" in err


@pytest.mark.slow
def test_previous_scan_or_result(command, phantoms, tmp_path):
    first, second = phantoms / "phantom_0001.dcm", phantoms / "phantom_0002.dcm"
    assert command(first)[0] == 0
    (earlier,) = command.out.glob("case-*")
    code, _, err = command(second, "--previous", earlier, out=tmp_path / "b")
    assert (code, err) == (0, "")
    (folder,) = (tmp_path / "b").glob("case-*")
    assert earlier.name in (folder / "report.html").read_text()
    # The phantoms are different patients, and a scan names its patient.
    code, _, err = command(second, "--previous", first, out=tmp_path / "c")
    assert code == 1 and "another Patient ID, issuer or birth date: for the same person" in err
    dataset = pydicom.dcmread(first)
    dataset.PatientID = pydicom.dcmread(second).PatientID
    dataset.save_as(tmp_path / "earlier.dcm")
    assert command(second, "--previous", tmp_path / "earlier.dcm", out=tmp_path / "d")[0] == 0
    (segmented,) = (tmp_path / "d").glob("case-*")
    # Segmented again or read from its result: the same page.
    assert (segmented / "report.html").read_text() == (folder / "report.html").read_text()

    for arguments, code, message in (
        ((phantoms, "--previous", earlier), 2, "belongs to one scan, and 2 are given"),
        ((second, "--previous", earlier, "--outputs", "masks"), 2, "add report or dicom to --outputs"),
        ((second, "--previous", tmp_path / "nowhere"), 2, "no such file or folder"),
        ((second, "--previous", phantoms), 1, "holds 2 scans"),
        ((first, "--previous", first), 1, "is also the scan given with --previous"),
        ((second, "--keep-identity", "--outputs", "masks"), 2, "add dicom to --outputs"),
    ):
        found, _, err = command(*arguments, out=tmp_path / "e")
        assert found == code and message in err, (arguments, err)
    assert not list((tmp_path / "e").glob("*"))


def test_two_scans_whose_annotations_would_have_one_name(command, phantoms, tmp_path):
    paths = [tmp_path / f"in{number}" / "scan.dcm" for number in (1, 2)]
    for number, path in enumerate(paths, start=1):
        path.parent.mkdir()
        shutil.copy(phantoms / f"phantom_000{number}.dcm", path)
    for said, dry_run in ((f"would also be that of {paths[0]}: ren", ["--dry-run"]), ("exists already and may", [])):
        code, out, err = command(*paths, "--labelme", tmp_path / "labels", "--outputs", "none", *dry_run)
        assert (code, err.count("error: ")) == (1, 1) and f"scan_anterior.json: {said}" in err
        assert "1 of 2 scans" in out
    assert len(list((tmp_path / "labels").iterdir())) == 2


def test_no_network_is_used(command, phantoms, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("predict opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert command(phantoms / "phantom_0001.dcm", "--keep-identity")[0] == 0
