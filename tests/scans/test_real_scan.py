"""Real scans: one from NEMA's sample images where it is at hand, its lossy variants from pydicom's wheel."""

from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from real_scan import REAL

from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans import find_scans, read_scan

# Bundled with pydicom: get_testdata_file would go to the network for a missing one.
BUNDLED = Path(pydicom.data.__file__).parent / "test_files"
COUNTS = 3_596_452


@pytest.mark.skipif(not REAL.exists(), reason="the NEMA sample scan is not beside this repository")
def test_a_real_scan_is_read_to_the_last_count():
    with pytest.raises(ScanError, match="--allow-missing-view") as caught:
        read_scan(REAL)
    assert caught.value.reason == "missing-view"
    scan = read_scan(REAL, allow_missing_view=True)
    assert scan.anterior.shape == (1024, 256) and scan.anterior.dtype == np.uint16
    assert int(scan.anterior.sum()) == COUNTS and scan.anterior.max() == 278
    assert not scan.posterior.any() and scan.missing_views == ("posterior",)
    assert scan.pixel_spacing_mm == (2.26, 2.26)
    # No complaint about counts, signs or compression: only what the header leaves out.
    assert scan.warnings == (
        "the posterior view is missing: it is all zero",
        "the header does not say which view this is: it is taken as anterior, compare with the image",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "counts", "error"),
    # Mean absolute difference from the lossless scan, measured.
    [("JPGExtended.dcm", 3_767_007, 2.28), ("JPEG-lossy.dcm", 3_767_007, 2.28), ("JPEG2000.dcm", 3_629_901, 4.0)],
)
def test_lossy_variants(name, counts, error):
    if not (BUNDLED / name).exists():
        pytest.skip(f"this pydicom does not bundle {name}")
    scan = read_scan(BUNDLED / name, allow_missing_view=True)
    assert int(scan.anterior.sum()) == counts
    assert any("lossy" in warning for warning in scan.warnings)
    assert any("3,596,452 were accumulated" in warning for warning in scan.warnings)
    if name == "JPEG2000.dcm":
        assert "39,921 negative pixels (101,925 counts together) were set to 0" in scan.warnings
    if REAL.exists():
        exact = read_scan(REAL, allow_missing_view=True).anterior
        assert abs(np.abs(exact.astype(int) - scan.anterior).mean() - error) < 0.3


@pytest.mark.slow
def test_pydicoms_own_files_are_all_read_or_refused():
    found = find_scans(BUNDLED, allow_missing_view=True)
    assert len(found.passed_over) > 50
    kinds = {file.path: file.kind for file in found.passed_over}
    assert kinds["CT_small.dcm"] == "CT"
    assert kinds["dicomdirtests/DICOMDIR"] == "DICOMDIR"
    assert kinds["SC_rgb_rle.dcm"] == "screen capture"
    for scan in found.scans:
        # Variants of the one scan, a damaged one among them.
        try:
            assert scan.read(allow_missing_view=True).anterior.any()
        except ScanError as error:
            assert error.reason in ("damaged-pixels", "ambiguous-pair")
