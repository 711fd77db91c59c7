"""A file with the pixels of `FRAMES`, read and looked at."""

import numpy as np
import pytest
from dicom_headers import FRAMES, write

from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans import read_scan


def read(tmp_path, dataset_or_bytes):
    path = tmp_path / "scan"
    path.write_bytes(dataset_or_bytes if isinstance(dataset_or_bytes, bytes) else write(dataset_or_bytes))
    return read_scan(path)


def reason(tmp_path, dataset_or_bytes) -> str:
    with pytest.raises(ScanError) as caught:
        read(tmp_path, dataset_or_bytes)
    return caught.value.reason


def assert_exact(scan, warnings=()) -> None:
    assert np.array_equal(scan.anterior, FRAMES[0]) and np.array_equal(scan.posterior, FRAMES[1])
    assert scan.warnings == warnings
