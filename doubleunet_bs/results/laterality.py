"""The patient's left and right at the edges of a view, and whether they are known.

A wrong letter is worse than none. No result states a side when a warning says that a view may be mirrored, or may not
be the view it is taken for.
"""

from collections.abc import Collection

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.preparation.geometry import FEET_UP_WARNING
from doubleunet_bs.scans.views import (
    CONTRADICTION_WARNING,
    FRAME_ORDER_WARNING,
    MIRRORED_WARNING,
    ONE_VIEW_WARNING,
    SAME_WARNING,
    SIDE_BY_SIDE_WARNING,
)

_SIDES = {"anterior": "RL", "posterior": "LR"}
_DOUBTS = {
    MIRRORED_WARNING,
    SAME_WARNING,
    FEET_UP_WARNING,
    CONTRADICTION_WARNING,
    FRAME_ORDER_WARNING,
    SIDE_BY_SIDE_WARNING,
    *(ONE_VIEW_WARNING.format(view=view) for view in VIEWS),
}


def sides(view: str, warnings: Collection[str]) -> str:
    """The letters at the left and the right edge of a view.

    Args:
        view: "anterior" or "posterior".
        warnings: of the scan. They apply to both views, since it is not known which of the two is mirrored.

    Returns:
        "RL", "LR", or "??" when a warning puts the sides in doubt.

    Example:
        >>> sides("posterior", []), sides("posterior", [MIRRORED_WARNING])
        ('LR', '??')
    """
    return "??" if _DOUBTS & set(warnings) else _SIDES[view]
