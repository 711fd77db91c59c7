"""The classes of a pixel, in the order of the softmax channels (decided here)."""

AIR = 0
NON_METASTATIC = 1
METASTATIC = 2
CLASS_NAMES = ("air", "non-metastatic", "metastatic")

# Labelme label -> class, where the user gives no map of his own. Labels are compared without regard to case.
DEFAULT_CLASS_MAP = {"metastasis": METASTATIC, "metastatic": METASTATIC, "non-metastatic": NON_METASTATIC}


TRUE_POSITIVE = (0, 158, 115)
FALSE_POSITIVE = (213, 94, 0)
FALSE_NEGATIVE = (0, 90, 200)
TRUTH = (170, 51, 119)
