"""From a bone scan to a case for the network, and to the shards that training reads (paper, sections 2.3 and 2.4)."""

from doubleunet_bs.preparation.case import PreparedCase, prepare_scan
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.preparation.shards import ShardedDataset, open_shards

__all__ = ["PreparationSettings", "PreparedCase", "ShardedDataset", "open_shards", "prepare_scan"]
