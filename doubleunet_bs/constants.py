"""The classes of a pixel, the two views and their shapes, the mark of phantoms and the colours of pictures."""

import re

# In the order of the softmax channels.

AIR = 0
NON_METASTATIC = 1
METASTATIC = 2
CLASS_NAMES = ("air", "non-metastatic", "metastatic")
BENIGN = 3
"""A benign lesion, where it is a class of its own (`prepare --benign own`) and not part of class 1. In the masks of a
model, which have 1 where metastatic, it is 2."""
BENIGN_NAME = "benign"

# Labelme label -> class, where the user gives no map. Labels are compared without regard to case.
DEFAULT_CLASS_MAP = {"metastasis": METASTATIC, "metastatic": METASTATIC, "non-metastatic": NON_METASTATIC}

VIEWS = ("anterior", "posterior")
CANCERS = ("breast", "prostate")

RAW_SHAPE = (1024, 256)
"""Rows and columns of one view (paper, section 2.1)."""

CROP_SHAPE = (950, 256)
"""Part cut out of each view with the body in its centre (paper, section 2.3)."""

KEPT_ROWS = 640
"""Rows of the crop that are used: down to just under the knee (paper, section 2.3)."""

PHANTOM_MARK = "SYNTHETIC PHANTOM"
"""In the header of every phantom, so that it is never taken for a patient."""

# Warnings that put the patient's sides, or the names of the views, in doubt.
FRAME_ORDER_WARNING = (
    "the header does not say which view is anterior: the first frame is taken as anterior, compare with the image"
)
CONTRADICTION_WARNING = (
    "the header names the views in two ways that contradict each other: compare left and right with the image"
)
SIDE_BY_SIDE_WARNING = "both views lie side by side in one frame: the left half is taken as anterior"
ONE_VIEW_WARNING = "the header does not say which view this is: it is taken as {view}, compare with the image"
MIRRORED_WARNING = (
    "the posterior view seems to be stored mirrored, as if seen from the front: "
    "compare left and right with the anterior view"
)
SAME_WARNING = "both frames seem to show the same view, though the header names two: compare with the image"
FEET_UP_WARNING = "the scan appears to be upside down (legs at the top): check it and re-export it head first"

# From the palette of Okabe and Ito: distinguished with any colour vision, also side by side.
TRUE_POSITIVE = (0, 158, 115)
FALSE_POSITIVE = (213, 94, 0)
FALSE_NEGATIVE = (0, 90, 200)
TRUTH = (170, 51, 119)
BENIGN_COLOUR = (86, 180, 233)

# The one form of names that are read back from files and become paths: no separator, no dot, at most 71 characters.
CASE_NAME = re.compile(r"case-[0-9a-z-]{1,64}")
PATIENT_NAME = re.compile(r"patient-[0-9a-z-]{1,64}")
