"""Bone Scan Index: regions of the skeleton, their weights, and the index from masks (the paper's abstract).

This room knows NumPy arrays only, no files and no network.
"""

from doubleunet_bs.bsi.index import BoneScanIndex, RegionShare, bone_scan_index
from doubleunet_bs.bsi.regions import (
    REGION_LABELS,
    REGIONS,
    WEIGHT_TABLES,
    Region,
    WeightTable,
    check_regions,
    choose_table,
    region_number,
)

__all__ = [
    "REGIONS",
    "REGION_LABELS",
    "WEIGHT_TABLES",
    "BoneScanIndex",
    "Region",
    "RegionShare",
    "WeightTable",
    "bone_scan_index",
    "check_regions",
    "choose_table",
    "region_number",
]
