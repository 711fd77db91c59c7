"""Zip archives of scans: read in memory, hostile and damaged ones refused."""

import struct
import zipfile
import zlib

import numpy as np
import pytest
from dicom_headers import body, ge_discovery, write
from found_files import kinds, millennium, reasons

from doubleunet_bs.dicom_files import sources
from doubleunet_bs.scans import find_scans

FRONT, BACK = body()


def test_zip_archives_are_read_in_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "export.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("DICOM/IM1", write(ge_discovery()))
        archive.writestr("DICOM/a", write(millennium("anterior")))
        archive.writestr("readme", b"hello")
        archive.writestr("__MACOSX/._IM1", b"x")
        archive.writestr("inner.zip", b"PK\x03\x04" + bytes(100))
    # The other view of the pair lies outside.
    write(millennium("posterior"), tmp_path / "b")
    found = find_scans(tmp_path)
    assert [scan.paths for scan in found.scans] == [("export.zip!DICOM/IM1",), ("export.zip!DICOM/a", "b")]
    assert found.scans[0].names == ("IM1",)
    assert reasons(found) == {"export.zip!inner.zip": "archive"}
    assert kinds(found) == {"export.zip!readme": "not DICOM", "export.zip!__MACOSX/._IM1": "system file"}
    for scan in found.scans:
        read = scan.read()
        assert np.array_equal(read.anterior, FRONT) and np.array_equal(read.posterior, BACK)
    inside = find_scans(tmp_path / "export.zip", allow_missing_view=True)
    assert [scan.paths for scan in inside.scans] == [("DICOM/IM1",), ("DICOM/a",)]


def test_members_of_an_archive_made_from_the_folder_it_lies_in(tmp_path):
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.writestr("./", b"")
        archive.writestr("./b.dcm", write(ge_discovery()))
        archive.writestr("./x/../readme", b"hello")
        archive.writestr("./.DS_Store", b"x")
    found = find_scans(tmp_path)
    assert [(scan.paths, scan.names) for scan in found.scans] == [(("export.zip!./b.dcm",), ("b",))]
    assert kinds(found) == {"export.zip!./x/../readme": "not DICOM", "export.zip!./.DS_Store": "hidden file"}
    assert np.array_equal(found.scans[0].read().anterior, FRONT)


def test_an_archive_with_backslashes_as_some_windows_programs_write_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "export.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("export\\", b"")
        archive.writestr("export\\a.dcm", write(ge_discovery()))
        archive.writestr("export\\.hidden\\b.dcm", b"x")
        archive.writestr("export\\Thumbs.db", b"x")
        archive.writestr("export\\readme", b"hello")
    found = find_scans(tmp_path)
    assert [(scan.paths, scan.names) for scan in found.scans] == [(("export.zip!export/a.dcm",), ("a",))]
    assert kinds(found) == {
        "export.zip!export/.hidden/b.dcm": "hidden file", "export.zip!export/Thumbs.db": "system file",
        "export.zip!export/readme": "not DICOM",
    }  # fmt: skip
    assert np.array_equal(found.scans[0].read().anterior, FRONT)
    (inside,) = find_scans(tmp_path / "export.zip").scans
    assert inside.paths == ("export/a.dcm",)


def zip_with_raw_name(path, name: bytes, extra: bytes = b"") -> None:
    """A zip archive as programs write it that do not mark names as UTF-8."""
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("~" * len(name))
        member.extra = extra
        archive.writestr(member, write(ge_discovery()))
    path.write_bytes(path.read_bytes().replace(b"~" * len(name), name))


@pytest.mark.parametrize(
    ("raw", "extra", "stem"),
    [
        ("张三.dcm".encode(), b"", "张三"),
        ("Müller.dcm".encode("cp437"), b"", "Müller"),
        ("Müller.dcm".encode("cp850"), b"", "Müller"),
        ("张三.dcm".encode("gbk"), "张三.dcm".encode(), "张三"),
        (b"plain.dcm", b"", "plain"),
    ],
)  # fmt: skip
def test_names_in_an_archive_that_are_not_marked_as_utf8(tmp_path, raw, extra, stem):
    if extra:
        extra = struct.pack("<2HBI", 0x7075, 5 + len(extra), 1, zlib.crc32(raw)) + extra
    zip_with_raw_name(tmp_path / "export.zip", raw, extra)
    (scan,) = find_scans(tmp_path).scans
    assert scan.names == (stem,) and np.array_equal(scan.read().anterior, FRONT)


@pytest.mark.parametrize("raw", ["张三".encode("gbk"), "山田".encode("cp932"), "Müller".encode("cp1252")])
def test_names_in_an_archive_that_cannot_be_known_are_refused(tmp_path, raw):
    zip_with_raw_name(tmp_path / "export.zip", raw)
    (file,) = find_scans(tmp_path).rejected
    assert (file.path, file.reason) == ("export.zip", "archive") and "unknown encoding" in file.message


def test_zip_bombs_are_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(20 << 20))
        archive.writestr("fine", write(ge_discovery()))
    found = find_scans(tmp_path)
    assert [scan.paths for scan in found.scans] == [("bomb.zip!fine",)]
    assert reasons(found) == {"bomb.zip!zeros": "archive-bomb"}
    monkeypatch.setattr(sources, "MAX_ARCHIVE_BYTES", 1 << 20)
    assert reasons(find_scans(tmp_path)) == {"bomb.zip": "archive-bomb"}


def test_an_archive_with_a_huge_table_of_contents_is_not_loaded(tmp_path):
    (tmp_path / "many.zip").write_bytes(
        b"PK\x03\x04"
        + bytes(100)
        + b"PK\x05\x06"
        + struct.pack("<4H2IH", 0, 0, 9, 9, sources.MAX_ARCHIVE_DIRECTORY_BYTES + 1, 0, 0)
    )
    zip64 = (
        b"PK\x06\x06"
        + struct.pack("<Q2H2I4Q", 44, 45, 45, 0, 0, 1 << 40, 1 << 40, 1 << 45, 0)
        + b"PK\x06\x07"
        + bytes(16)
    )
    (tmp_path / "zip64.zip").write_bytes(
        b"PK\x03\x04" + bytes(100) + zip64 + b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 9, 9, 9, 0, 0)
    )
    assert reasons(find_scans(tmp_path)) == {"many.zip": "archive-bomb", "zip64.zip": "archive-bomb"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_in_an_archive_are_not_one(tmp_path):
    """As a program leaves them that appends: zipfile would give the last of them for both."""
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        for seed in (1, 2):
            archive.writestr("scan", write(ge_discovery(seed=seed)))
    (file,) = find_scans(tmp_path).rejected
    assert file.message == "holds two files of one name: unpack it first"


def test_damaged_and_encrypted_archives(tmp_path):
    with zipfile.ZipFile(tmp_path / "good.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("scan", write(ge_discovery()))
    data = (tmp_path / "good.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    # The flag of encryption, in the local and in the central header.
    locked = bytearray(data)
    locked[6] |= 1
    locked[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    broken = bytearray(data)
    broken[60:3000] = bytes(2940)
    (tmp_path / "broken.zip").write_bytes(broken)
    (tmp_path / "good.zip").unlink()
    assert reasons(find_scans(tmp_path)) == {
        "cut.zip": "archive", "locked.zip!scan": "archive", "broken.zip!scan": "archive"
    }  # fmt: skip


def test_a_failing_disk_is_no_damaged_archive(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.writestr("scan", write(ge_discovery()))

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(zipfile.ZipFile, "open", fail)
    (file,) = find_scans(tmp_path).rejected
    assert (file.reason, file.message) == ("unreadable", "cannot be read (Input/output error)")
