"""The look at the pixels: true pairs pass, a mirrored posterior view or twice the same view is reported."""

import numpy as np
import pytest
from dicom_headers import body, ge_discovery, put_pixels, write

from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans import read_scan
from doubleunet_bs.scans.views import MIRRORED_WARNING, SAME_WARNING, check_views, side_correlation


def counts(view) -> np.ndarray:
    return np.ascontiguousarray(view, dtype=np.uint16)


@pytest.mark.parametrize("shift", [0, 7, -20])
def test_a_true_pair_passes_wherever_the_patient_lies(shift):
    front, back = body()
    assert check_views(counts(np.roll(front, shift, axis=1)), counts(np.roll(back, -shift, axis=1))) == []
    # The two heads need not be aligned with each other.
    assert check_views(counts(np.roll(front, shift, axis=1)), counts(np.roll(back, 11, axis=0))) == []


def test_a_posterior_view_stored_mirrored_is_reported():
    front, back = body()
    assert check_views(counts(front), counts(back[:, ::-1])) == [SAME_WARNING]
    # Seen from the front with other organs in it: no second look at the same counts.
    changed = back[:, ::-1].copy()
    changed[300:400, 110:150] += 40
    assert check_views(counts(front), counts(changed)) == [MIRRORED_WARNING]


def test_the_correlation_has_the_sign_of_the_side():
    front, back = map(counts, body())
    assert side_correlation(front, back) < -0.9
    assert side_correlation(front, counts(back[:, ::-1])) > 0.9


def test_a_symmetric_body_is_not_reported():
    symmetric = np.zeros((1024, 256), np.uint16)
    symmetric[100:900, 96:160] = 20
    other = symmetric.copy()
    other[200:300, 120:136] = 50
    assert side_correlation(symmetric, other) == 0
    assert check_views(symmetric, other) == []


def test_identical_views_are_refused(tmp_path):
    front, _ = body()
    dataset = ge_discovery()
    put_pixels(dataset, np.stack([front, front]))
    path = write(dataset, tmp_path / "scan.dcm")
    with pytest.raises(ScanError, match="same pixels in both views") as caught:
        read_scan(path)
    assert caught.value.reason == "same-view"


def test_a_mirrored_posterior_view_is_a_warning_of_the_scan_and_stays_as_it_is(tmp_path):
    front, back = body()
    changed = back[:, ::-1].copy()
    changed[300:400, 110:150] += 40
    dataset = ge_discovery()
    put_pixels(dataset, np.stack([front, changed]))
    dataset.CountsAccumulated = int(front.sum() + changed.sum())
    scan = read_scan(write(dataset, tmp_path / "scan.dcm"))
    assert scan.warnings == (MIRRORED_WARNING,)
    assert np.array_equal(scan.posterior, changed)


def test_phantoms_raise_no_false_alarm():
    phantom = pytest.importorskip("doubleunet_bs.phantom.scan")
    for index in range(4):
        scan = phantom.make_phantom(3, index, ("breast", "prostate")[index % 2], index < 2)
        assert check_views(scan.anterior, scan.posterior) == []
        assert check_views(scan.anterior, counts(scan.posterior[:, ::-1])) == [MIRRORED_WARNING]
