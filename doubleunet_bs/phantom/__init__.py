"""Digital phantom: synthetic whole-body bone scans with known metastases.

They test the software from end to end. A score on them says nothing about patients. The paper's scans (section 2.1)
are not public: anatomy, uptake and camera are calibrated on published figures.
"""

from doubleunet_bs.phantom.cohort import make_cohort
from doubleunet_bs.phantom.scan import PhantomScan, make_phantom

__all__ = ["PhantomScan", "make_cohort", "make_phantom"]
