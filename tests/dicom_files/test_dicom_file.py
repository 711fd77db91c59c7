"""Files are read no further than needed, and what is found does not depend on how far that was."""

import zlib

import numpy as np
import pytest
from dicom_headers import body, encode, ge_discovery, put_pixels, write
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from doubleunet_bs.dicom_files import dicom_file, layout
from doubleunet_bs.dicom_files.sources import FIRST_LOOK_BYTES, MAX_HEADER_BYTES, MAX_HEADER_ITEMS, Source
from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans import find_scans, read_scan


@pytest.fixture
def limits_read(monkeypatch):
    """The limits that `find_scans` reads files with."""
    used = []
    original = Source.read

    def read(self, limit, archive=None):
        used.append(limit)
        return original(self, limit, archive)

    monkeypatch.setattr(Source, "read", read)
    return used


def test_a_usual_header_is_found_in_the_first_64_kilobytes(tmp_path, limits_read):
    write(ge_discovery(), tmp_path / "scan.dcm")
    assert len(find_scans(tmp_path).scans) == 1
    assert limits_read == [FIRST_LOOK_BYTES]


def test_a_long_header_is_looked_at_again(tmp_path, limits_read):
    dataset = ge_discovery()
    dataset.add_new((0x0009, 0x0010), "LO", "SOMEBODY")
    dataset.add_new((0x0009, 0x1001), "OB", bytes(3 * FIRST_LOOK_BYTES))
    write(dataset, tmp_path / "scan.dcm")
    found = find_scans(tmp_path)
    assert len(found.scans) == 1 and not found.rejected
    assert limits_read == [FIRST_LOOK_BYTES, MAX_HEADER_BYTES]
    assert found.scans[0].read().anterior.any()


@pytest.mark.parametrize("kept", [100, 5000, FIRST_LOOK_BYTES, FIRST_LOOK_BYTES + 1])
def test_a_file_that_is_cut_off_gets_the_reason_of_the_whole_look(tmp_path, monkeypatch, kept):
    dataset = ge_discovery()
    dataset.add_new((0x0009, 0x0010), "LO", "SOMEBODY")
    dataset.add_new((0x0009, 0x1001), "OB", bytes(3 * FIRST_LOOK_BYTES))
    path = tmp_path / "scan.dcm"
    write(dataset, path)
    path.write_bytes(path.read_bytes()[:kept])
    found = find_scans(tmp_path)
    monkeypatch.setattr(layout, "FIRST_LOOK_BYTES", MAX_HEADER_BYTES)
    assert found == find_scans(tmp_path) and len(found.rejected) == 1


def test_many_items_are_refused_and_many_bytes_that_begin_one_are_not(tmp_path):
    counts = np.zeros((2, 1024, 256), np.uint16)
    counts[:, 100:900, 100:150] = 0x00FE
    counts[1, 200:300, 100:120] = 0x00FD
    dataset = ge_discovery()
    put_pixels(dataset, counts)
    dataset.CountsAccumulated = int(counts.sum())
    write(dataset, tmp_path / "scan.dcm")
    assert np.array_equal(read_scan(tmp_path / "scan.dcm").anterior, counts[0])
    data = (tmp_path / "scan.dcm").read_bytes()
    assert data.count(b"\xfe") > MAX_HEADER_ITEMS
    with pytest.raises(ScanError, match="sequence items"):
        dicom_file.load_header(data[:2000] + b"\xfe\xff\x00\xe0" * (MAX_HEADER_ITEMS + 1), True)


@pytest.mark.parametrize(("more", "highest"), [(0, 100), (1, 100), (1, 200)])
def test_inverted_is_what_has_more_than_half_of_its_pixels_above_half_of_the_highest(tmp_path, more, highest):
    counts = np.full((2, 1024, 256), 100, np.uint16)
    counts[:, :512] = 10 + np.arange(2, dtype=np.uint16)[:, None, None]
    counts[0, 0, :more] = 100
    # Twice the value of the high pixels: these are at half of the highest and no longer above it.
    counts[1, 1023, 0] = highest
    dataset = ge_discovery()
    put_pixels(dataset, counts)
    dataset.CountsAccumulated = int(counts.sum())
    write(dataset, tmp_path / "scan.dcm")
    if more and highest == 100:
        with pytest.raises(ScanError, match="inverted"):
            read_scan(tmp_path / "scan.dcm")
    else:
        assert read_scan(tmp_path / "scan.dcm").anterior.shape == (1024, 256)


def with_element(element: bytes) -> bytes:
    """A scan with these bytes between Patient ID and Study Instance UID."""
    data = write(ge_discovery())
    at = data.index(b"\x20\x00\x0d\x00UI")
    return data[:at] + element + data[at:]


def test_elements_of_an_unknown_type_are_left_out(tmp_path):
    for vr, rest in ((b"--", b"\x04\x00G000"), (b"\0\0", b"\x04\x00G000"), (b"??", b"\0\0\x04\0\0\0G000")):
        element = b"\x10\x00\xb0\x21" + vr + rest
        for times in (1, 2):
            more = b"".join(element[:2] + bytes([0xB0 + n]) + element[3:] for n in range(times))
            path = tmp_path / "scan.dcm"
            path.write_bytes(with_element(more))
            assert np.array_equal(read_scan(path).anterior, body()[0])
            assert len(find_scans(tmp_path).scans) == 1


@pytest.mark.parametrize("length", [b"\x90\x01", b"\x91\x01"])
def test_a_header_that_is_not_understood_says_where(tmp_path, length):
    """A length that leads into the middle of another element, in a file that is whole."""
    path = tmp_path / "scan.dcm"
    path.write_bytes(with_element(b"\x10\x00\xb0\x21LT" + length + b"G000"))
    with pytest.raises(ScanError, match="header that is not understood from byte [0-9]+ on") as caught:
        read_scan(path)
    assert caught.value.reason == "damaged-header"


@pytest.mark.parametrize("size", [2 * 602_486, 5 << 20])
def test_calibration_images_in_the_header_are_no_hindrance(tmp_path, size):
    dataset = ge_discovery()
    block = dataset.private_block(0x29, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "OB", bytes(size))
    path = write(dataset, tmp_path / "scan.dcm")
    assert np.array_equal(read_scan(path).anterior, body()[0])
    assert [scan.paths for scan in find_scans(tmp_path).scans] == [("scan.dcm",)]


@pytest.mark.parametrize("modality", ["RTSTRUCT", "SR", "DOC"])
def test_other_objects_are_known_by_their_first_elements(tmp_path, modality):
    """Whatever follows, here more items than a header may have, and a damaged end."""
    dataset = ge_discovery()
    del dataset.PixelData
    dataset.Modality, dataset.SOPClassUID = modality, "1.2.840.10008.5.1.4.1.1.481.3"
    item = b"\xfe\xff\x00\xe0\0\0\0\0"
    contours = b"\x06\x30\x39\x00SQ\0\0\xff\xff\xff\xff" + item * 200_000
    (tmp_path / "large.dcm").write_bytes(write(dataset) + contours)
    (other,) = find_scans(tmp_path).passed_over
    assert (other.path, other.kind) == ("large.dcm", modality)
    with pytest.raises(ScanError, match=f"not a nuclear medicine image .modality {modality}"):
        read_scan(tmp_path / "large.dcm")


@pytest.mark.parametrize("form", [zlib.MAX_WBITS, 16 + zlib.MAX_WBITS, -zlib.MAX_WBITS])
def test_deflated_data_with_the_header_of_zlib_or_gzip(tmp_path, form):
    data = encode(ge_discovery(), DeflatedExplicitVRLittleEndian)
    _, at = dicom_file._read_meta(data, 132)
    deflater = zlib.compressobj(6, zlib.DEFLATED, form)
    inflated = zlib.decompress(data[at:], -zlib.MAX_WBITS)
    (tmp_path / "scan.dcm").write_bytes(data[:at] + deflater.compress(inflated) + deflater.flush())
    assert np.array_equal(read_scan(tmp_path / "scan.dcm").anterior, body()[0])
    assert len(find_scans(tmp_path).scans) == 1
    # Without its last block the stream has no end, but every pixel is there.
    deflater = zlib.compressobj(6, zlib.DEFLATED, form)
    (tmp_path / "scan.dcm").write_bytes(data[:at] + deflater.compress(inflated) + deflater.flush(zlib.Z_SYNC_FLUSH))
    assert np.array_equal(read_scan(tmp_path / "scan.dcm").anterior, body()[0])


@pytest.mark.parametrize("more", [2, 10, 300, 10**6, 10**8])
def test_a_damaged_length_in_implicit_form_is_no_missing_image(tmp_path, more):
    data = encode(ge_discovery(), ImplicitVRLittleEndian)
    at = data.index(b"\x10\x00\x20\x00") + 4
    length = int.from_bytes(data[at : at + 4], "little") + more
    (tmp_path / "scan.dcm").write_bytes(data[:at] + length.to_bytes(4, "little") + data[at + 4 :])
    with pytest.raises(ScanError, match="not understood|cut off or damaged in its header|no readable Rows"):
        read_scan(tmp_path / "scan.dcm")


@pytest.mark.parametrize("implicit", [False, True])
def test_a_transfer_syntax_that_contradicts_the_elements(tmp_path, implicit):
    """As converters leave it that copy the file header from another file."""
    syntax, other = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"
    dataset = ge_discovery()
    if implicit:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        syntax, other = b"\x12\x001.2.840.10008.1.2\0", b"\x14\x001.2.840.10008.1.2.1\0"
    data = write(dataset)
    assert data.count(syntax) == 1
    path = tmp_path / "scan.dcm"
    path.write_bytes(data.replace(syntax, other))
    assert np.array_equal(read_scan(path).anterior, body()[0])
    assert [scan.paths for scan in find_scans(tmp_path).scans] == [("scan.dcm",)]
