"""A folder of surprises: every scan is found, every other file is listed with its reason."""

import os
import pickle
import stat
import zipfile

import numpy as np
import pytest
from dicom_headers import body, encode, ge_discovery, put_pixels, write
from found_files import kinds, millennium, reasons
from pydicom.uid import RLELossless

from doubleunet_bs.errors import ScanError, SettingsError
from doubleunet_bs.scans import Pseudonyms, count_kinds, find_scans, read_scan
from doubleunet_bs.scans.bone_scan import SHARED_UID_WARNING

FRONT, BACK = body()


def test_every_file_is_a_scan_or_has_a_reason(tmp_path):
    write(ge_discovery(seed=0, number=1), tmp_path / "a" / "b" / "scan.dcm")
    write(ge_discovery(seed=1, number=2), tmp_path / "IM000001")
    # The names lie on purpose.
    write(millennium("posterior"), tmp_path / "x" / "1_anterior")
    write(millennium("anterior"), tmp_path / "y" / "2_posterior")
    other = ge_discovery(number=3)
    other.Modality, other.SOPClassUID = "CT", "1.2.840.10008.5.1.4.1.1.2"
    write(other, tmp_path / "a" / "ct.dcm")
    write(millennium("anterior", study="7"), tmp_path / "alone")
    (tmp_path / "README.txt").write_text("hello")
    (tmp_path / "scan_anterior.json").write_text("{}")
    (tmp_path / "patients.csv").write_text("scan,patient")
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "Thumbs.db").write_text("x")
    found = find_scans(tmp_path)
    assert [scan.paths for scan in found.scans] == [("IM000001",), ("a/b/scan.dcm",), ("y/2_posterior", "x/1_anterior")]
    assert [scan.names for scan in found.scans] == [("IM000001",), ("scan",), ("2_posterior", "1_anterior")]
    assert reasons(found) == {"alone": "missing-view"}
    assert kinds(found) == {
        "README.txt": "not DICOM", "a/ct.dcm": "CT", "scan_anterior.json": "annotation", "patients.csv": "table",
        ".hidden": "hidden file", "Thumbs.db": "system file",
    }  # fmt: skip
    assert count_kinds(found.passed_over) == "1 CT, 1 annotation, 1 hidden file, 1 not DICOM, 1 system file, 1 table"
    pair = found.scans[2].read()
    assert np.array_equal(pair.anterior, FRONT) and np.array_equal(pair.posterior, BACK)
    with_leave = find_scans(tmp_path, allow_missing_view=True)
    assert with_leave.scans[2].paths == ("alone",)
    assert with_leave.scans[2].read(allow_missing_view=True).missing_views == ("posterior",)
    assert "alone" not in reasons(with_leave)


def test_what_a_copied_cd_and_a_windows_disk_hold_beside_scans(tmp_path):
    write(ge_discovery(), tmp_path / "DICOM" / "IM1")
    for name in ("AUTORUN.INF", "viewer.exe", "VERSION", "readme", "help.html", "$RECYCLE.BIN/IM1", "weasis.jar.xz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\xfd7zXZ\0" if name.endswith("xz") else b"x")
    (tmp_path / "LOCKFILE").touch()
    with zipfile.ZipFile(tmp_path / "patients.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "x")
        archive.writestr("xl/workbook.xml", "x")
    with zipfile.ZipFile(tmp_path / "viewer.jar", "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "x")
        archive.writestr("Main.class", "x")
    for name in ("Network Trash Folder", "trashbox", "#snapshot", "~snapshot", "@Recently-Snapshot"):
        write(ge_discovery(), tmp_path / name / "IM1")
    found = find_scans(tmp_path)
    assert [scan.paths for scan in found.scans] == [("DICOM/IM1",)] and found.rejected == ()
    assert count_kinds(found.passed_over) == "8 not DICOM, 3 recycle bins, 3 system files, 1 office file"


@pytest.mark.parametrize(
    ("name", "data", "reason", "words"),
    [
        ("scan.dcm", b"text", "not-dicom", "is not a DICOM file"),
        ("IM1", bytes(9999), "not-dicom", "is not a DICOM file"),
        ("IM1", b"", "not-dicom", "is empty: copy it again"),
        ("1.2.840.113619.1", bytes(9999), "not-dicom", "is not a DICOM file"),
        ("a.dcm.gz", b"\x1f\x8b" + bytes(99), "archive", "is a gzip archive: unpack it first"),
        ("a.tar", bytes(257) + b"ustar" + bytes(99), "archive", "is a tar archive: unpack it first"),
        ("a.iso", bytes(32769) + b"CD001" + bytes(99), "archive", "is a CD image: unpack it first"),
        ("a.rar", b"Rar!\x1a\x07\x01\0", "archive", "is an RAR archive: unpack it first"),
        ("a", b"7z\xbc\xaf\x27\x1c", "archive", "is a 7-Zip archive: unpack it first"),
        ("a.dmg", bytes(9999), "not-dicom", "is not a DICOM file"),
    ],
)  # fmt: skip
def test_what_may_hold_or_have_been_a_scan_is_not_passed_over(tmp_path, name, data, reason, words):
    (tmp_path / name).write_bytes(data)
    (file,) = find_scans(tmp_path).rejected
    assert (file.path, file.reason, file.message) == (name, reason, words)


def test_a_spect_is_passed_over_but_not_one_with_the_matrix_of_a_whole_body_scan(tmp_path):
    for name, shape in (("spect", (2, 128, 128)), ("whole-body", (2, 1024, 256))):
        dataset = ge_discovery()
        put_pixels(dataset, np.ones(shape, int))
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "TOMO", "EMISSION"]
        write(dataset, tmp_path / name)
    found = find_scans(tmp_path)
    assert kinds(found) == {"spect": "SPECT"} and reasons(found) == {"whole-body": "tomographic"}


def test_a_modality_that_contradicts_its_class_is_rejected_and_another_modality_is_passed_over(tmp_path):
    for name, sop_class in (("scan", "1.2.840.10008.5.1.4.1.1.20"), ("ct", "1.2.840.10008.5.1.4.1.1.2")):
        dataset = ge_discovery()
        dataset.Modality, dataset.SOPClassUID = "CT", sop_class
        write(dataset, tmp_path / name)
    found = find_scans(tmp_path)
    assert kinds(found) == {"ct": "CT"} and reasons(found) == {"scan": "other-modality"}


def test_an_empty_folder_and_no_folder(tmp_path):
    found = find_scans(tmp_path)
    assert found.scans == () and found.rejected == ()
    for path, message in (
        (tmp_path / "nothing", "no such folder"),
        (write(ge_discovery(), tmp_path / "file"), "is a file: give its folder"),
    ):
        with pytest.raises(SettingsError, match=message):
            find_scans(path)


def test_scans_can_be_sent_to_another_process(tmp_path):
    write(ge_discovery(), tmp_path / "scan.dcm")
    scan = pickle.loads(pickle.dumps(find_scans(tmp_path).scans[0]))
    assert np.array_equal(scan.read().anterior, FRONT)


def test_two_studies_are_not_mixed(tmp_path):
    for study in ("1", "2"):
        for view in ("anterior", "posterior"):
            write(millennium(view, study=study), tmp_path / f"{view}{study}")
    found = find_scans(tmp_path)
    assert [scan.names for scan in found.scans] == [("anterior1", "posterior1"), ("anterior2", "posterior2")]


@pytest.mark.parametrize("key", ["series", "time"])
def test_two_scans_of_one_study_are_told_apart_by_series_or_time(tmp_path, key):
    for scan in ("1", "2"):
        for view in ("anterior", "posterior"):
            dataset = millennium(view, series=scan if key == "series" else f"{len(view)}{scan}")
            dataset.SOPInstanceUID = f"1.2.{scan}.{len(view)}"
            dataset.AcquisitionTime = f"1{scan}0000" if key == "time" else "100000"
            write(dataset, tmp_path / f"{view}{scan}")
    found = find_scans(tmp_path)
    assert [scan.names for scan in found.scans] == [("anterior1", "posterior1"), ("anterior2", "posterior2")]
    assert found.rejected == ()


def test_what_cannot_be_told_apart_is_refused_as_a_whole(tmp_path):
    for number, view in enumerate(("anterior", "posterior", "anterior", "posterior")):
        write(millennium(view, number=f"9.{number}"), tmp_path / f"{number}")
    found = find_scans(tmp_path)
    assert found.scans == ()
    assert set(reasons(found).values()) == {"ambiguous-pair"} and len(found.rejected) == 4


def test_two_anterior_views_are_not_a_pair(tmp_path):
    for number in (1, 2):
        write(millennium("anterior", number=f"9.{number}"), tmp_path / f"{number}")
    for allow in (False, True):
        found = find_scans(tmp_path, allow_missing_view=allow)
        assert found.scans == () and set(reasons(found).values()) == {"ambiguous-pair"}
        assert "two anterior views" in found.rejected[0].message


@pytest.mark.parametrize(
    ("patient", "issuers", "paired"),
    [("1", ("A", "B"), False), ("1", ("A", "A"), True), ("1", ("A", None), True), (None, ("A", "B"), True)],
)
def test_an_identifier_of_two_institutions_is_not_one_patient(tmp_path, patient, issuers, paired):
    for view, issuer in zip(("anterior", "posterior"), issuers, strict=True):
        write(millennium(view, PatientID=patient, IssuerOfPatientID=issuer), tmp_path / view)
    found = find_scans(tmp_path)
    assert len(found.scans) == paired
    assert [file.reason for file in found.rejected] == ([] if paired else ["ambiguous-pair"] * 2)


def test_views_without_a_study_are_not_paired(tmp_path):
    for view in ("anterior", "posterior"):
        write(millennium(view, StudyInstanceUID=None), tmp_path / view)
    assert set(reasons(find_scans(tmp_path)).values()) == {"missing-view"}


def test_a_copy_is_refused_and_named(tmp_path):
    write(ge_discovery(), tmp_path / "a.dcm")
    write(ge_discovery(), tmp_path / "copy" / "b.dcm")
    found = find_scans(tmp_path)
    assert [scan.paths for scan in found.scans] == [("a.dcm",)]
    assert reasons(found) == {"copy/b.dcm": "duplicate"}
    assert found.rejected[0].message == "is a copy of a.dcm (same SOP Instance UID)"


def test_of_copies_the_shortest_path_is_kept(tmp_path):
    """Annotations are named after it."""
    names = ("S.dcm", "S (1).dcm", "S.dcm.bak", "Kopie von S.dcm", "backup/S.dcm")
    for name in names:
        write(ge_discovery(), tmp_path / name)
    found = find_scans(tmp_path)
    assert [scan.paths for scan in found.scans] == [("S.dcm",)]
    assert reasons(found) == dict.fromkeys(names[1:], "duplicate")


def test_one_uid_for_all_is_no_copy(tmp_path):
    """As an anonymiser leaves it: three scans of one SOP Instance UID, one of them twice."""
    for seed in range(3):
        write(ge_discovery(seed=seed), tmp_path / f"{seed}.dcm")
    write(ge_discovery(seed=1), tmp_path / "copy.dcm")
    found = find_scans(tmp_path)
    assert [scan.paths for scan in found.scans] == [("0.dcm",), ("1.dcm",), ("2.dcm",)]
    assert [(file.path, file.message) for file in found.rejected] == [
        ("copy.dcm", "is a copy of 1.dcm (same SOP Instance UID)")
    ]
    read = [scan.read(pseudonyms=Pseudonyms(b"k" * 32)) for scan in found.scans]
    assert len({scan.case for scan in read}) == 3 and all(scan.warnings == (SHARED_UID_WARNING,) for scan in read)


def test_a_copy_that_is_cut_off_does_not_keep_the_whole_one_out(tmp_path):
    whole = write(ge_discovery())
    (tmp_path / "a.dcm").write_bytes(whole[:-5000])
    (tmp_path / "b.dcm").write_bytes(whole)
    found = find_scans(tmp_path)
    assert [scan.paths for scan in found.scans] == [("b.dcm",)] and reasons(found) == {"a.dcm": "truncated"}
    assert found.scans[0].read().warnings == ()


def test_a_copy_in_another_transfer_syntax_is_a_copy(tmp_path):
    write(ge_discovery(), tmp_path / "a.dcm")
    (tmp_path / "b.dcm").write_bytes(encode(ge_discovery(), RLELossless))
    found = find_scans(tmp_path)
    assert [scan.paths for scan in found.scans] == [("a.dcm",)] and reasons(found) == {"b.dcm": "duplicate"}


def test_two_views_of_one_uid_are_a_pair(tmp_path):
    for view in ("anterior", "posterior"):
        write(millennium(view, number="9"), tmp_path / view)
    (scan,) = find_scans(tmp_path).scans
    assert scan.paths == ("anterior", "posterior")
    for read in (scan.read, lambda: read_scan([tmp_path / "posterior", tmp_path / "anterior"])):
        assert read().warnings == (SHARED_UID_WARNING,)


def test_pixel_trouble_shows_when_the_scan_is_read_and_has_the_same_form(tmp_path):
    path = write(ge_discovery(), tmp_path / "sub" / "scan.dcm")
    path.write_bytes(path.read_bytes()[:-5000])
    scan = find_scans(tmp_path).scans[0]
    with pytest.raises(ScanError) as caught:
        scan.read()
    rejection = scan.rejection(caught.value)
    assert (rejection.path, rejection.reason) == ("sub/scan.dcm", "truncated")
    assert rejection.message.startswith("is cut off")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_pipes_and_dangling_links_are_listed(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert reasons(find_scans(tmp_path)) == {"pipe": "unreadable", "link": "unreadable"}


@pytest.mark.skipif(os.name != "posix", reason="links need special rights on this system")
def test_linked_folders_are_searched_once(tmp_path):
    scans, archive = tmp_path / "scans", tmp_path / "archive"
    write(ge_discovery(seed=0, number=1), scans / "here" / "a.dcm")
    write(ge_discovery(seed=1, number=2), archive / "2019" / "b.dcm")
    (archive / "notes.txt").write_text("hello")
    (scans / "linked").symlink_to(archive)
    # Ways back to what has been searched already: to a folder above, to one beside, and from within the archive.
    (scans / "here" / "up").symlink_to(scans)
    (scans / "also_here").symlink_to(scans / "here")
    (archive / "2019" / "loop").symlink_to(archive)
    found = find_scans(scans)
    assert [scan.paths for scan in found.scans] == [("here/a.dcm",), ("linked/2019/b.dcm",)]
    assert kinds(found) == {"linked/notes.txt": "not DICOM"}
    assert np.array_equal(found.scans[1].read().anterior, body(seed=1)[0])


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_locked_folder_is_listed(tmp_path):
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(0)
    try:
        assert reasons(find_scans(tmp_path)) == {"locked": "unreadable"}
    finally:
        (tmp_path / "locked").chmod(stat.S_IRWXU)


def test_a_name_that_cannot_be_printed(tmp_path):
    (tmp_path / "two\nlines").write_text("x")
    try:
        (tmp_path / os.fsdecode(b"\xff")).write_text("x")
    except OSError:
        pytest.skip("this file system refuses such names")
    for file in find_scans(tmp_path).rejected:
        file.path.encode("utf-8")
        assert "\n" not in file.path


def test_only_headers_are_read(tmp_path, monkeypatch):
    dataset = ge_discovery()
    put_pixels(dataset, np.zeros((2, 1024, 256), int))
    write(dataset, tmp_path / "blank")
    # Blank pixels are no matter of the header; the scan is found, and refused when it is read.
    found = find_scans(tmp_path)
    assert len(found.scans) == 1
    with pytest.raises(ScanError, match="blank"):
        found.scans[0].read()


def test_dots_belong_to_the_name(tmp_path):
    write(ge_discovery(), tmp_path / "1.2.840.113619.2")
    assert find_scans(tmp_path).scans[0].names == ("1.2.840.113619.2",)
