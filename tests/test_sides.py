"""Which warnings of reading put the patient's sides in doubt: the texts that `read_scan` really gives."""

import pydicom
import pytest
from dicom_variants import write_variant

from doubleunet_bs.display import sides
from doubleunet_bs.scans import read_scan

VIEWS = ("anterior", "posterior")
NAMES = ("ViewCodeSequence", "StartAngle", "ImageOrientationPatient")


def read_without_views(path, folder):
    """The scan of a file whose header has lost everything that distinguishes the views."""
    dataset = pydicom.dcmread(path)
    dataset.remove_private_tags()
    for detector in (dataset, *dataset.get("DetectorInformationSequence", [])):
        for name in NAMES:
            if name in detector:
                del detector[name]
    folder.mkdir(exist_ok=True)
    dataset.save_as(folder / "scan.dcm")
    return read_scan(folder / "scan.dcm", allow_missing_view=True)


def test_known_sides(scan):
    assert [sides(view, scan.warnings) for view in VIEWS] == ["RL", "LR"]
    assert sides("anterior", ["few counts: a gain of 5.0 is needed"]) == "RL"


@pytest.mark.parametrize("kind", ["whole", "one view"])
def test_views_that_the_header_does_not_name(phantoms, tmp_path, kind):
    """One taken for the other has its sides exchanged."""
    path = phantoms / "phantom_0001.dcm"
    if kind == "one view":
        path = write_variant(path, "two-files", tmp_path / "source")[0]
    scan = read_without_views(path, tmp_path / "nameless")
    assert any("the header does not say which view" in warning for warning in scan.warnings)
    assert [sides(view, scan.warnings) for view in VIEWS] == ["??", "??"]
