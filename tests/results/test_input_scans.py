"""What is a scan of a command line, and what is a whole result of it, so that it is not segmented again."""

import dataclasses

import numpy as np
import pydicom
import pytest
from dicom_variants import write_variant
from handmade_prediction import description, make_prediction

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.dicom_files.sources import Source
from doubleunet_bs.dicom_results.source_study import read_source_study
from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.findings.skeleton_result import find_index
from doubleunet_bs.results.input_scans import ScanReader, choose_shard, parse_shard
from doubleunet_bs.results.result_files import OUTPUTS, JobSettings, file_names
from doubleunet_bs.results.result_folder import write_prediction
from doubleunet_bs.scans import Pseudonyms, read_scan
from doubleunet_bs.scans.scan_files import Rejection, ScanFiles, ScanFolder


def test_the_files_of_a_result_are_known(reader, scan):
    assert {path.name for path in reader.folder.iterdir()} == file_names(OUTPUTS, VIEWS, False, lesions=True)
    assert reader.is_done(scan)


@pytest.mark.parametrize("outputs", ["dicom", ("pdf",)])
def test_unknown_outputs_are_refused(tmp_path, outputs):
    """A text would be taken for a list of its letters, and nothing but result.json written."""
    with pytest.raises(SettingsError, match="give a tuple with names of masks, overlay, "):
        JobSettings(tmp_path, outputs)


def test_the_prediction_of_another_scan_is_refused(scan, tmp_path):
    other = dataclasses.replace(scan, case="case-other")
    with pytest.raises(ValueError, match=f"of {scan.case}, the scan is case-other"):
        write_prediction(JobSettings(tmp_path), other, make_prediction(scan))
    assert not list(tmp_path.iterdir())


def test_the_study_of_another_scan_is_refused(phantoms, tmp_path):
    """Its patient would get these lesions."""
    scan = read_scan(phantoms / "phantom_0001.dcm")
    study = read_source_study([Source(str(phantoms / "phantom_0002.dcm"))])
    settings = JobSettings(tmp_path, ("dicom",), keep_identity=True)
    with pytest.raises(ValueError, match=f"{scan.case}: the study was read from other files"):
        write_prediction(settings, scan, make_prediction(scan), study)
    assert not list(tmp_path.iterdir())


def test_two_files_are_one_study_in_either_order(phantoms, tmp_path):
    files = write_variant(phantoms / "phantom_0001.dcm", "two-files", tmp_path / "scan")
    scan = read_scan(files)
    for order in (files, files[::-1]):
        assert read_source_study([Source(str(path)) for path in order]).source_sha256 == scan.source_sha256


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


@pytest.mark.slow
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
        with pytest.raises(RunError, match=r"with another weight table \(icrp110-.*, now spiers1968\)"):
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

    refused("with another model ", model={"weights_sha256": "cd" * 32})
    refused(r"another threshold \(none, now 0.3\)", threshold=0.3)
    refused("is there, but of a scan with other counts", pixel_sha256="0" * 64)
    refused("damaged or of another version", format=1)
    refused("damaged or of another version", lesions="none")
    refused("with another identity in its DICOM files", settings={"keep_identity": True})
    for name in file_names(OUTPUTS, VIEWS, False, lesions=True) - {"result.json"}:
        path = reader.folder / name
        content = path.read_bytes()
        path.write_bytes(b"")
        refused(f"without {name}")
        path.write_bytes(content)
    write_json(reader.folder / "result.json", result)
    assert reader.is_done(scan)
    assert not ScanReader(dataclasses.replace(reader.settings, skip_existing=False), reader.model).is_done(scan)


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
