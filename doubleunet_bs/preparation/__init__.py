"""From a bone scan to a case for the network (paper, sections 2.3 and 2.4)."""

from doubleunet_bs.preparation.case import PreparedCase, prepare_scan
from doubleunet_bs.preparation.settings import PreparationSettings

__all__ = ["PreparationSettings", "PreparedCase", "prepare_scan"]
