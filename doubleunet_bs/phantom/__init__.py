"""Digital phantom: synthetic whole-body bone scans with known metastases.

They exercise the software from end to end; a score on them says nothing about patients. The paper (section 2.1) used
patients' scans, which are not public: everything here is decided here and calibrated on published figures.
"""

from doubleunet_bs.phantom.cohort import make_cohort
from doubleunet_bs.phantom.scan import PhantomScan, make_phantom

__all__ = ["PhantomScan", "make_cohort", "make_phantom"]
