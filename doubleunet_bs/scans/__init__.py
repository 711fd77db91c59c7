"""Files of a gamma camera -> `BoneScan`, and annotations -> lesion masks (paper, sections 2.1 and 2.2)."""

from doubleunet_bs.dicom_files.other_files import count_kinds
from doubleunet_bs.scans.bone_scan import BoneScan
from doubleunet_bs.scans.find_pictures import find_pictures
from doubleunet_bs.scans.pseudonyms import Pseudonyms
from doubleunet_bs.scans.scan_files import find_scans, read_scan

__all__ = ["BoneScan", "Pseudonyms", "count_kinds", "find_pictures", "find_scans", "read_scan"]
