"""How a DICOM file says that it holds a phantom of this package, and no patient (decided here).

The words stand in ManufacturerModelName, which every viewer shows, and begin ImageComments. One of the two is enough:
de-identification tools empty the comments of images that were never anybody's.
"""

from pydicom.dataset import Dataset

from doubleunet_bs.scans.dicom_values import text

MARK = "SYNTHETIC PHANTOM"


def is_phantom(dataset: Dataset) -> bool:
    """Whether the header carries the mark."""
    return MARK in text(dataset, "ManufacturerModelName") or text(dataset, "ImageComments").startswith(MARK)
