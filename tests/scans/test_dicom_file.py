"""Files are read no further than needed, and what is found does not depend on how far that was."""

import numpy as np
import pytest
from dicom_headers import ge_discovery, put_pixels, write

from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans import dicom_file, find_scans, read_scan, scan_files
from doubleunet_bs.scans.sources import MAX_HEADER_BYTES, MAX_HEADER_ITEMS, Source


@pytest.fixture
def limits_read(monkeypatch):
    """The limits that `find_scans` reads files with."""
    used = []
    original = Source.read

    def read(self, limit):
        used.append(limit)
        return original(self, limit)

    monkeypatch.setattr(Source, "read", read)
    return used


def test_a_usual_header_is_found_in_the_first_64_kilobytes(tmp_path, limits_read):
    write(ge_discovery(), tmp_path / "scan.dcm")
    assert len(find_scans(tmp_path).scans) == 1
    assert limits_read == [scan_files._FIRST_LOOK_BYTES]


def test_a_long_header_is_looked_at_again(tmp_path, limits_read):
    dataset = ge_discovery()
    dataset.add_new((0x0009, 0x0010), "LO", "SOMEBODY")
    dataset.add_new((0x0009, 0x1001), "OB", bytes(3 * scan_files._FIRST_LOOK_BYTES))
    write(dataset, tmp_path / "scan.dcm")
    found = find_scans(tmp_path)
    assert len(found.scans) == 1 and not found.rejected
    assert limits_read == [scan_files._FIRST_LOOK_BYTES, MAX_HEADER_BYTES]
    assert found.scans[0].read().anterior.any()


@pytest.mark.parametrize("kept", [100, 5000, scan_files._FIRST_LOOK_BYTES, scan_files._FIRST_LOOK_BYTES + 1])
def test_a_file_that_is_cut_off_gets_the_reason_of_the_whole_look(tmp_path, monkeypatch, kept):
    dataset = ge_discovery()
    dataset.add_new((0x0009, 0x0010), "LO", "SOMEBODY")
    dataset.add_new((0x0009, 0x1001), "OB", bytes(3 * scan_files._FIRST_LOOK_BYTES))
    path = tmp_path / "scan.dcm"
    write(dataset, path)
    path.write_bytes(path.read_bytes()[:kept])
    found = find_scans(tmp_path)
    monkeypatch.setattr(scan_files, "_FIRST_LOOK_BYTES", MAX_HEADER_BYTES)
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


@pytest.mark.parametrize("high", [0, 1])
def test_inverted_is_what_has_its_median_above_half_of_the_highest(tmp_path, high):
    # Exactly half of the pixels are low, so that the median is the mean of a low and a high value.
    counts = np.full((2, 1024, 256), 100, np.uint16)
    counts[:, :512] = 10 + np.arange(2, dtype=np.uint16)[:, None, None]
    counts.reshape(-1)[-1] = 111 - high
    dataset = ge_discovery()
    put_pixels(dataset, counts)
    dataset.CountsAccumulated = int(counts.sum())
    write(dataset, tmp_path / "scan.dcm")
    # Sorted, the two in the middle are 11 and 100: their mean 55.5 is above 110 / 2 and not above 111 / 2.
    assert np.median(counts) == 55.5
    if high:
        with pytest.raises(ScanError, match="inverted"):
            read_scan(tmp_path / "scan.dcm")
    else:
        assert read_scan(tmp_path / "scan.dcm").anterior.shape == (1024, 256)
