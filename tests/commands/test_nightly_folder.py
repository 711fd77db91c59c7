"""A folder that is segmented every night, by one process or several: what is done again, what leads back to files."""

import csv
import os
import re
import shutil
import stat

import numpy as np
import pydicom
import pytest
from dicom_variants import write_variant
from PIL import Image

from doubleunet_bs.__main__ import main
from doubleunet_bs.errors import BoneScanError
from doubleunet_bs.inference.predictor import Predictor
from doubleunet_bs.results.input_scans import list_scans
from doubleunet_bs.scans import Pseudonyms, read_scan
from doubleunet_bs.scans.pseudonyms import load_file_table, save_file_table


@pytest.fixture
def night(phantoms, tmp_path):
    """Two scans and what else lies in such folders."""
    folder = shutil.copytree(phantoms, tmp_path / "night")
    (folder / "notes.txt").write_text("call back")
    dataset = pydicom.dcmread(phantoms / "phantom_0001.dcm")
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    dataset.Modality = "CT"
    dataset.save_as(folder / "ct.dcm")
    return folder


def test_every_night(command, night, phantoms, tmp_path):
    arguments = (night, "--outputs", "none", "--skip-existing", "--log", tmp_path / "log.txt")
    code, out, err = command(*arguments)
    assert (code, err) == (0, "") and "2 of 2 scans segmented in " in out and " s, 2 with findings\n" in out
    assert "passed over: 1 CT, 1 not DICOM" in out
    before = {path: path.stat().st_mtime_ns for path in command.out.glob("case-*/*")}
    dataset = pydicom.dcmread(phantoms / "phantom_0001.dcm")
    counts = dataset.pixel_array.copy()
    counts[0, 500, 128] += 1
    dataset.PixelData, dataset.SOPInstanceUID = counts.tobytes(), "2.25.2"
    dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.2"
    dataset.save_as(night / "new.dcm")
    code, out, err = command(*arguments)
    assert (
        (code, err) == (0, "") and "1 of 3 scans segmented in " in out and " s, 1 with findings, 2 done before\n" in out
    )
    code, again, _ = command(*arguments[:-2], "--dry-run")
    assert code == 0 and again.endswith(
        "dry run: 0 of 3 scans would be segmented, 3 done before; nothing was written\n"
    )
    assert before.items() <= {path: path.stat().st_mtime_ns for path in command.out.glob("case-*/*")}.items()
    log = (tmp_path / "log.txt").read_text()
    assert log.count(": done before, ") == 2 and "phantom" not in log.replace("phantoms", "")
    # One line a scan, of all nights, and the page.
    with open(command.out / "cohort.csv", newline="") as file:
        cases = [line["case"] for line in csv.DictReader(file)]
    assert cases == sorted(path.name for path in command.out.glob("case-*")) and len(cases) == 3
    assert all(case in (command.out / "index.html").read_text() for case in cases)


def test_a_copy_is_no_failure(command, night):
    shutil.copy(night / "phantom_0001.dcm", night / "again.dcm")
    code, out, err = command(night, "--outputs", "none")
    assert code == 0 and "2 of 2 scans segmented" in out and "passed over: 1 CT, 1 copy, 1 not DICOM" in out
    assert err.startswith("warning: ") and "phantom_0001.dcm: is a copy of again.dcm" in err
    assert len(err.splitlines()) == 1


def test_a_copy_under_another_uid_is_no_failure(command, night, phantoms):
    dataset = pydicom.dcmread(phantoms / "phantom_0001.dcm")
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.3"
    dataset.save_as(night / "sent_again.dcm")
    arguments = (night, "--outputs", "none", "--skip-existing")
    for done in (
        r"2 of 2 scans segmented in \d+ s, 2 with findings\n",
        r"0 of 2 scans segmented in \d+ s, 2 done before\n",
    ):
        code, out, err = command(*arguments)
        assert code == 0 and re.search(done, out) and "passed over: 1 CT, 1 copy, 1 not DICOM" in out
        (line,) = err.splitlines()
        assert line.startswith("warning: ") and "sent_again.dcm: has the same counts as " in line
        assert "phantom_0001.dcm" in line
    code, out, err = command(*arguments, "--dry-run")
    assert code == 0 and "0 of 2 scans would be segmented, 2 done before" in out and err.startswith("warning: ")


def test_from_a_case_back_to_its_file(command, night):
    assert command(night, "--outputs", "none")[0] == 0
    table = command.out.with_name("out.files.csv")
    assert stat.S_IMODE(table.stat().st_mode) == 0o600
    for case, (path,) in load_file_table(table).items():
        assert os.path.isabs(path) and read_scan(path).case == case
        assert (command.out / case).is_dir()
        assert not any(b"night" in file.read_bytes() for file in command.out.rglob("*") if file.is_file())
    assert len(load_file_table(table)) == 2
    # Of an interrupted or refused run no line is lost.
    assert command(night / "phantom_0001.dcm", "--outputs", "none")[0] == 1
    assert len(load_file_table(table)) == 2


def test_a_folder_in_which_nothing_was_written(command, tmp_path, phantoms):
    dataset = pydicom.dcmread(phantoms / "phantom_0001.dcm")
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(tmp_path / "blank.dcm")
    code, out, err = command(tmp_path / "blank.dcm")
    assert code == 1 and "blank" in err
    assert re.search(r"0 of 1 scans segmented in \d+ s, 1 failed\nnothing was written\n\Z", out)
    assert not command.out.exists() and not command.out.with_name("out.files.csv").exists()


def test_probabilities_in_raw_pixels(command, phantoms, scan, trained_run):
    assert command(phantoms / "phantom_0001.dcm", "--outputs", "probability")[0] == 0
    expected = Predictor(trained_run / "fold_01").predict(scan).probabilities
    for view in ("anterior", "posterior"):
        with Image.open(command.out / scan.case / f"probability_{view}.png") as picture:
            levels = np.asarray(picture)
        assert (levels.shape, levels.dtype) == ((1024, 256), np.uint16)
        assert np.abs(levels / 65535 - expected[view]).max() <= 0.5 / 65535 + 1e-6 and levels.any()


def test_one_scan_has_one_name(command, phantoms, tmp_path):
    """The pseudonyms of the shards are used, and the scan is known again as the previous one whatever it is called."""
    keys = Pseudonyms(b"a key for tests of predict......")
    cases = {read_scan(path, pseudonyms=keys).case for path in sorted(phantoms.iterdir())}
    keys.save(tmp_path / "shards.identities.json")
    before = (tmp_path / "shards.identities.json").read_bytes()
    arguments = ("--identities", tmp_path / "shards.identities.json", "--outputs", "none")
    assert command(phantoms, *arguments)[0] == 0
    assert {path.name for path in command.out.glob("case-*")} == cases
    assert set(load_file_table(command.out.with_name("out.files.csv"))) == cases
    assert (tmp_path / "shards.identities.json").read_bytes() == before
    file = phantoms / "phantom_0001.dcm"
    assert command(file, "--outputs", "masks,labelme", out=tmp_path / "plain")[0] == 0
    (plain,) = (tmp_path / "plain").glob("case-*")
    code, _, err = command(file, *arguments[:2], "--outputs", "report", "--previous", plain, out=tmp_path / "other")
    assert code == 1 and "is also the scan given with --previous" in err
    code, _, err = command(file, "--identities", tmp_path / "gone.json", out=tmp_path / "other")
    assert code == 1 and "gone.json: the pseudonym file cannot be read" in err
    (tmp_path / "shards.identities.json").chmod(0o644)
    assert command(file, *arguments, out=tmp_path / "other")[0] == 1


def test_parts_from_the_command_line(command, phantoms, tmp_path):
    """Two scans, one of them in two files, in three parts: every result is there once, every run ends well."""
    folder = tmp_path / "in"
    write_variant(phantoms / "phantom_0001.dcm", "two-files", folder)
    shutil.copy(phantoms / "phantom_0002.dcm", folder / "whole.dcm")
    (whole,) = {tuple(scan.names) for scan in list_scans([str(folder)]).scans if len(scan.names) == 1}
    assert whole == ("whole",)
    done = []
    for part in (1, 2, 3):
        code, out, err = command(folder, "--outputs", "none", "--shard", f"{part}/3")
        assert (code, err) == (0, "")
        done += [line for line in out.splitlines() if ".dcm" in line]
    assert len(done) == 2 and len(list(command.out.glob("case-*"))) == 2
    assert sum(map(len, load_file_table(command.out.with_name("out.files.csv")).values())) == 3


def test_an_empty_part_does_not_hide_a_wrong_model(phantoms, tmp_path, capsys):
    scan = phantoms / "phantom_0001.dcm"
    for part in (1, 2, 3):
        arguments = [str(scan), "--model", str(tmp_path / "nosuch"), "--out", str(tmp_path / "out")]
        assert main(["predict", *arguments, "--shard", f"{part}/3"]) == 1
        assert "nosuch: no such model folder" in capsys.readouterr().err


def test_a_table_that_is_none_of_ours_is_not_touched(tmp_path):
    (tmp_path / "out.files.csv").write_text("my own table\n")
    with pytest.raises(BoneScanError, match="not a readable table of files"):
        save_file_table(tmp_path / "out.files.csv", {"case-1": ("/a",)})
    assert (tmp_path / "out.files.csv").read_text() == "my own table\n"


@pytest.mark.slow
def test_a_folder_of_pictures(command, tmp_path, phantoms, capsys):
    """Paired by name as `prepare --pictures` does; the results in the same folder are no scans."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, path in enumerate(sorted(phantoms.glob("*.dcm"))[:2]):
        scan = read_scan(path)
        for view in ("anterior", "posterior"):
            grey = np.minimum(getattr(scan, view), 254).astype(np.uint8)
            Image.fromarray(grey).save(folder / f"S{number}_{view}.png")
    (folder / "S7_anterior.png").write_bytes((folder / "S0_anterior.png").read_bytes())
    (folder / "notes.txt").write_text("of the export")
    assert main(["inspect", str(folder)]) == 1
    said = capsys.readouterr()
    assert "S0_anterior.png + S0_posterior.png" in said.out and "2 of 3 scans can be used" in said.out
    assert said.err.startswith("error: S7_anterior.png: shows the anterior view only: ")
    (folder / "S7_anterior.png").unlink()
    pictures = (folder, "--outputs", "masks,overlay")
    code, out, err = command(*pictures, out=folder / "out")
    assert (code, err) == (0, "") and "2 of 2 scans segmented" in out and "passed over: 1 other file" in out
    code, out, err = command(*pictures, "--skip-existing", out=folder / "out")
    assert (code, err) == (0, "") and re.search(r"0 of 2 scans segmented in \d+ s, 2 done before", out)
    # Beside DICOM scans a picture is a screen shot, and passed over.
    shutil.copy(sorted(phantoms.glob("*.dcm"))[1], folder / "scan.dcm")
    code, out, err = command(folder, "--outputs", "none")
    assert code == 0 and "1 of 1 scans segmented" in out and "4 pictures" in out
