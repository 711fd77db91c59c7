"""Pictures as the bytes of a PNG."""

import io

import numpy as np
from PIL import Image

COMPRESSION = 3
"""Level 6, zlib's own choice, takes four times as long for a tenth less."""


def png_bytes(picture: np.ndarray) -> bytes:
    """A PNG without metadata of a uint8 array of shape (rows, columns) or (rows, columns, 3), or of a bool array."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=COMPRESSION)
    return buffer.getvalue()
