"""A folder that is segmented every night, by one process or several: what is done again, what leads back to files."""

import csv
import dataclasses
import html
import multiprocessing
import os
import re
import shutil
import stat
import subprocess
import sys

import numpy as np
import pydicom
import pytest
from dicom_variants import write_variant
from handmade_prediction import description, make_prediction
from PIL import Image

from doubleunet_bs.__main__ import main
from doubleunet_bs.constants import VIEWS
from doubleunet_bs.dicom_files.sources import Source
from doubleunet_bs.dicom_files.views import MIRRORED_WARNING
from doubleunet_bs.dicom_results.source_study import read_source_study
from doubleunet_bs.errors import BoneScanError, RunError, SettingsError
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.findings.skeleton_result import find_index
from doubleunet_bs.inference.predictor import Predictor
from doubleunet_bs.results.index_page import write_overview
from doubleunet_bs.results.input_scans import choose_shard, list_scans, parse_shard
from doubleunet_bs.results.result_files import OUTPUTS, JobSettings, file_names
from doubleunet_bs.results.result_folder import write_prediction
from doubleunet_bs.results.scan_reader import ScanReader
from doubleunet_bs.scans import Pseudonyms, read_scan
from doubleunet_bs.scans.pseudonyms import load_file_table, save_file_table
from doubleunet_bs.scans.scan_files import Rejection, ScanFiles, ScanFolder


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
    assert (code, err) == (0, "") and "2 of 2 scans segmented, 2 with findings in " in out
    assert "passed over: 1 CT, 1 not DICOM" in out
    before = {path: path.stat().st_mtime_ns for path in command.out.glob("case-*/*")}
    dataset = pydicom.dcmread(phantoms / "phantom_0001.dcm")
    counts = dataset.pixel_array.copy()
    counts[0, 500, 128] += 1
    dataset.PixelData, dataset.SOPInstanceUID = counts.tobytes(), "2.25.2"
    dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.2"
    dataset.save_as(night / "new.dcm")
    code, out, err = command(*arguments)
    assert (code, err) == (0, "") and "1 of 3 scans segmented, 1 with findings, 2 done before in " in out
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
    for done in ("2 of 2 scans segmented", "0 of 2 scans segmented, 2 done before"):
        code, out, err = command(*arguments)
        assert code == 0 and done in out and "passed over: 1 CT, 1 copy, 1 not DICOM" in out
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
    assert re.search(r"0 of 1 scans segmented, 1 failed in [^\n]+\nnothing was written\n\Z", out)
    assert not command.out.exists() and not command.out.with_name("out.files.csv").exists()


@pytest.fixture
def reader(scan, tmp_path):
    """A result of every output, and a reader that knows its model."""
    settings = JobSettings(tmp_path / "out", OUTPUTS, skip_existing=True)
    written = write_prediction(settings, scan, make_prediction(scan))
    made = ScanReader(settings, description())
    made.folder = written.folder
    return made


def test_the_files_of_a_result_are_known(reader, scan):
    assert {path.name for path in reader.folder.iterdir()} == file_names(OUTPUTS, VIEWS, False, lesions=True)
    assert reader.is_done(scan)


def test_a_second_segmentation_belongs_to_a_whole_result(phantoms, tmp_path):
    """The views are files of two series."""
    files = write_variant(phantoms / "phantom_0001.dcm", "two-files", tmp_path / "scan")
    second = pydicom.dcmread(files[1])
    second.SeriesInstanceUID += ".2"
    second.save_as(files[1])
    scan, study = read_scan(files), read_source_study([Source(str(path)) for path in files])
    settings = JobSettings(tmp_path / "out", ("dicom",), keep_identity=True, skip_existing=True)
    written = write_prediction(settings, scan, make_prediction(scan), study)
    assert written.result["dicom"]["second_segmentation"] == "segmentation_2.dcm"
    lesions = bool(written.result["lesions"])
    known = file_names(("dicom",), VIEWS, True, lesions, two_series=True)
    assert {path.name for path in written.folder.iterdir()} == known
    reader = ScanReader(settings, description())
    assert reader.is_done(scan)
    (written.folder / "segmentation_2.dcm").unlink()
    with pytest.raises(RunError, match="without segmentation_2.dcm"):
        reader.is_done(scan)


@pytest.mark.parametrize("lesion", [True, False])
@pytest.mark.parametrize("bones", [True, False])
def test_the_files_without_a_lesion_and_with_a_skeleton(scan, tmp_path, lesion, bones):
    settings = JobSettings(tmp_path / "out", OUTPUTS, skip_existing=True)
    regions = np.full(scan.anterior.shape, 3)
    prediction = make_prediction(scan, None if lesion else {})
    index = find_index(scan, prediction, make_prediction(scan, dict.fromkeys(VIEWS, regions)), None) if bones else None
    folder = write_prediction(settings, scan, prediction, skeleton=index).folder
    written = {path.name for path in folder.iterdir()}
    assert written == file_names(OUTPUTS, VIEWS, False, lesion, bones) and ("lesions.dcm" in written) == lesion
    reader = ScanReader(settings, description(), skeleton=description() if bones else None)
    assert reader.is_done(scan)
    if bones:
        reader.weights = "spiers1968"
        with pytest.raises(RunError, match=r"with the weight table icrp110-.* \(now spiers1968\)"):
            reader.is_done(scan)


def test_only_a_whole_result_of_the_same_model_is_skipped(reader, scan):
    result = read_json(reader.folder / "result.json")

    def refused(message, **changes):
        other = ScanReader(
            dataclasses.replace(reader.settings, **changes.pop("settings", {})),
            dataclasses.replace(reader.model, **changes.pop("model", {})),
            changes.pop("threshold", None),
        )
        write_json(reader.folder / "result.json", {**result, **changes})
        with pytest.raises(RunError, match=message):
            other.is_done(scan)
        other.settings = dataclasses.replace(other.settings, overwrite=True)
        assert not other.is_done(scan)

    refused("by another model", model={"weights_sha256": "cd" * 32})
    refused("another threshold", threshold=0.3)
    refused("of a scan with other counts", pixel_sha256="0" * 64)
    refused("damaged or of another version", format=1)
    refused("damaged or of another version", lesions="none")
    refused("without the patient's identity", settings={"keep_identity": True})
    for name in file_names(OUTPUTS, VIEWS, False, lesions=True) - {"result.json"}:
        path = reader.folder / name
        content = path.read_bytes()
        path.write_bytes(b"")
        refused(f"without {name}")
        path.write_bytes(content)
    write_json(reader.folder / "result.json", result)
    assert reader.is_done(scan)
    assert not ScanReader(dataclasses.replace(reader.settings, skip_existing=False), reader.model).is_done(scan)


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


def test_one_identifier_for_two_scans_makes_no_second_name(phantoms, tmp_path):
    for name, change in (("a", 0), ("b", 1)):
        dataset = pydicom.dcmread(phantoms / "phantom_0001.dcm")
        counts = dataset.pixel_array.copy()
        counts[0, 500, 128] += change
        dataset.PixelData = counts.tobytes()
        dataset.save_as(tmp_path / f"{name}.dcm")
    reader = ScanReader(JobSettings(tmp_path / "out"), description(), None, Pseudonyms.new())
    reader(ScanFiles((Source(str(tmp_path / "a.dcm")),), "."))
    with pytest.raises(RunError, match=r"has the identifier of .*a\.dcm but other counts: leave out --identities"):
        reader(ScanFiles((Source(str(tmp_path / "b.dcm")),), "."))


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_of_a_folder_hold_each_file_once(parts):
    one = [ScanFiles((Source(f"/f/{number}.dcm"),), "/f") for number in range(50)]
    pairs = [ScanFiles((Source(f"/f/{n}a.dcm"), Source(f"/f/{n}b.dcm")), "/f") for n in range(50)]
    found = ScanFolder((*one, *pairs), tuple(Rejection(f"/f/{number}", "cut", "is cut") for number in range(50)))
    shards = [choose_shard(found, (part, parts)) for part in range(1, parts + 1)]
    for what in ("scans", "rejected"):
        together = [item for shard in shards for item in getattr(shard, what)]
        assert len(together) == len(getattr(found, what)) and set(together) == set(getattr(found, what))
        assert all(getattr(shard, what) for shard in shards)
    # A file that comes later moves no other one.
    more = ScanFolder((ScanFiles((Source("/f/0000.dcm"),), "/f"), *found.scans), found.rejected)
    for part, shard in enumerate(shards, start=1):
        assert set(shard.scans) <= set(choose_shard(more, (part, parts)).scans)


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "1/0", "a/b", "1/2/3", "-1/3", "1.0/2"])
def test_parts_that_are_none(text):
    with pytest.raises(SettingsError, match="give PART/PARTS"):
        parse_shard(text)


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


def _overview_again(out, table, number, times):
    for place in range(times):
        save_file_table(table, {f"case-{number}-{place}": (f"/scans/{number}",)})
        write_overview(out)


def test_several_processes_write_into_one_folder(reader, tmp_path):
    """No line of the table of files is lost, and no half-written page is ever seen."""
    out, table = reader.settings.out, tmp_path / "out.files.csv"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_overview_again, args=(out, table, number, 8)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert len(load_file_table(table)) == 32 and stat.S_IMODE(table.stat().st_mode) == 0o600
    assert (out / "index.html").read_text().rstrip().endswith("</html>")
    assert {path.name for path in out.iterdir()} == {reader.folder.name, "index.html", "cohort.csv"}


def test_a_result_that_another_process_wrote_meanwhile(command, phantoms, monkeypatch):
    """Both have read the scan when the first one writes it."""
    from doubleunet_bs.results import predict_scans

    file, real = phantoms / "phantom_0001.dcm", write_prediction

    def later(settings, *arguments):
        real(settings, *arguments)
        return real(settings, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(predict_scans, "write_prediction", later)
        code, out, _ = command(file, "--outputs", "none", "--skip-existing")
    assert code == 0 and "1 done before" in out
    shutil.rmtree(command.out)
    monkeypatch.setattr(predict_scans, "write_prediction", later)
    assert command(file, "--outputs", "none")[0] == 1


def test_the_index_in_a_browser(reader, show, scan, tmp_path):
    """Nothing but the pictures beside it is loaded; marks, warnings and links are there; no width scrolls sideways."""
    doubtful = dataclasses.replace(scan, case="case-doubt", warnings=(MIRRORED_WARNING,))
    write_prediction(JobSettings(reader.settings.out), doubtful, make_prediction(doubtful))
    (reader.settings.out / "case-bad").mkdir()
    (reader.settings.out / "case-bad" / "result.json").write_text("{}")
    assert len(write_overview(reader.settings.out)) == 1
    for width in (1280, 768, 390):
        page = show(reader.settings.out / "index.html", width=width, phone=width == 390)
        assert page.complaints == [] and all(url.startswith("file:") for url in page.requests)
        # Pictures may come after the page, on a busy machine.
        page.wait_for_function("[...document.images].every(image => image.naturalWidth)")
        assert page.evaluate("[...document.images].map(image => image.naturalWidth)") == [180, 180]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    # What is true of all is said once, at the top; the sides are in the pictures.
    assert page.locator(".phantom").count() == 0
    assert "Synthetic phantoms, not patients: all of these." in page.inner_text("header")
    assert not {"R", "L"} & set(page.inner_text("main ul.cards").split())
    assert MIRRORED_WARNING in page.locator("details li").all_text_contents()
    page.locator("h3 a").first.click()
    assert page.url.endswith("/report.html")


def test_the_index_says_what_is_true_of_some_scans_on_their_cards(reader, scan):
    out = reader.settings.out
    other = dataclasses.replace(scan, case="case-other", phantom=False)
    prediction = make_prediction(other)
    useless = dataclasses.replace(prediction, model=dataclasses.replace(prediction.model, validation_f1=0.0))
    write_prediction(JobSettings(out), other, useless)
    write_overview(out)
    page = (out / "index.html").read_text(encoding="utf-8")
    head, cards = page.split("</header>")
    assert "Synthetic phantoms, not patients: 1 of 2." in head and useless.model.quality_warning in html.unescape(head)
    assert cards.count('<p class="phantom">') == cards.count('<p class="warning">') == 1


def test_a_table_that_is_none_of_ours_is_not_touched(tmp_path):
    (tmp_path / "out.files.csv").write_text("my own table\n")
    with pytest.raises(BoneScanError, match="not a readable table of files"):
        save_file_table(tmp_path / "out.files.csv", {"case-1": ("/a",)})
    assert (tmp_path / "out.files.csv").read_text() == "my own table\n"


def test_the_overview_of_results_is_small_in_memory(reader, tmp_path):
    """Two thousand results take hardly more memory than two hundred."""
    code = (
        "import pathlib, resource, sys; from doubleunet_bs.results.cohort_table import write_cohort_table\n"
        "folders = [pathlib.Path(sys.argv[1])] * int(sys.argv[2])\n"
        "write_cohort_table(sys.argv[3], folders)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peak = [
        int(
            subprocess.run(
                [sys.executable, "-c", code, str(reader.folder), number, str(tmp_path / "table.csv")],
                capture_output=True,
                check=True,
                text=True,
            ).stdout
        )
        for number in ("200", "2000")
    ]
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 2001
    assert peak[1] - peak[0] < 4096  # kB


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
    code, out, err = command(folder, out=folder / "out")
    assert (code, err) == (0, "") and "2 of 2 scans segmented" in out and "passed over: 1 other file" in out
    code, out, err = command(folder, "--skip-existing", out=folder / "out")
    assert (code, err) == (0, "") and "0 of 2 scans segmented, 2 done before" in out
    # Beside DICOM scans a picture is a screen shot, and passed over.
    shutil.copy(sorted(phantoms.glob("*.dcm"))[1], folder / "scan.dcm")
    code, out, err = command(folder)
    assert code == 0 and "1 of 1 scans segmented" in out and "4 pictures" in out
