"""Bone Scan Index: regions of the skeleton, their weights, and the index from masks (the paper's abstract).

This room knows NumPy arrays only, no files and no network.
"""

from doubleunet_bs.bsi.index import BoneScanIndex, bone_scan_index
from doubleunet_bs.bsi.regions import REGIONS, WEIGHT_TABLES, WeightTable, check_regions, choose_table, region_number

__all__ = [
    "REGIONS", "WEIGHT_TABLES", "BoneScanIndex", "WeightTable", "bone_scan_index", "check_regions", "choose_table",
    "region_number",
]  # fmt: skip
