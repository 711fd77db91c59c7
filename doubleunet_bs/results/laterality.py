"""The patient's sides at the edges of a view, and whether they are known (decided here).

A wrong letter is worse than none: where reading warns that a view may be mirrored, or may not be the one it is taken for,
no result states a side.
"""

from collections.abc import Collection

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.preparation.geometry import FEET_UP_WARNING
from doubleunet_bs.scans.views import FRAME_ORDER_WARNING, MIRRORED_WARNING, ONE_VIEW_WARNING, SAME_WARNING

_SIDES = {"anterior": "RL", "posterior": "LR"}
_DOUBTS = {
    MIRRORED_WARNING,
    SAME_WARNING,
    FEET_UP_WARNING,
    FRAME_ORDER_WARNING,
    *(ONE_VIEW_WARNING.format(view=view) for view in VIEWS),
}


def sides(view: str, warnings: Collection[str]) -> str:
    """The letters at the left and the right edge of a view.

    Args:
        view: "anterior" or "posterior".
        warnings: of the scan. Which of two views is the mirrored one is not known, so that they concern both.

    Returns:
        "RL", "LR", or "??" when a warning puts the sides in doubt.
    """
    return "??" if _DOUBTS & set(warnings) else _SIDES[view]


def orientation(view: str, warnings: Collection[str]) -> list[str] | None:
    """Patient Orientation of a view: where rows run to, seen from the front or from behind, and columns, to the feet.

    None, which DICOM writes as an empty element, when the sides are in doubt.
    """
    side = sides(view, warnings)[1]
    return None if side == "?" else [side, "F"]
