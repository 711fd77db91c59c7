"""The images an annotation may have been drawn on, told apart by their size (decided here: nothing is ever resized)."""

from pathlib import Path

from doubleunet_bs.errors import LabelError

FRAMES = {(1024, 256): "view", (1024, 512): "side_by_side", (640, 512): "prepared"}
"""(rows, columns) -> one raw view; both raw views, anterior on the left; the prepared image."""


def frame_of(shape: tuple[int, int]) -> str:
    """The name of the frame of an annotation of `shape`, a key of FRAMES."""
    return FRAMES[shape]


def check_frame(path: Path, rows: int, columns: int) -> None:
    """Refuse an annotation of any other size.

    Raises:
        LabelError: reason "label-frame".
    """
    if (rows, columns) not in FRAMES:
        raise LabelError(
            f"{path}: drawn on an image of {rows} x {columns} pixels; it must be one raw view (1024 x 256), "
            "both side by side (1024 x 512) or the prepared image (640 x 512), rows x columns",
            "label-frame",
        )
