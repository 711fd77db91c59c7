"""Pictures as the bytes of a PNG."""

import cv2
import numpy as np

# Blocks of one colour compress as well without a filter, in half the time; level 6 would take four times as long.
_SETTINGS = [cv2.IMWRITE_PNG_COMPRESSION, 3, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT]
if hasattr(cv2, "IMWRITE_PNG_FILTER"):
    # OpenCV 4.10 has no such setting.
    _SETTINGS += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]


def png_bytes(picture: np.ndarray) -> bytes:
    """A PNG without metadata.

    Args:
        picture: uint8 array of shape (rows, columns), or (rows, columns, 3) with red first.
    """
    order = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, content = cv2.imencode(".png", order, _SETTINGS)
    return content.tobytes()
