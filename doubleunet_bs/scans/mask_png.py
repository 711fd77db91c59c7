"""PNG mask -> class mask (paper, section 2.2: the JSON files are converted to the PNG format).

Nothing of the file but its pixels is used.
"""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from doubleunet_bs.constants import METASTATIC
from doubleunet_bs.errors import LabelError
from doubleunet_bs.scans.labels import fold_classes
from doubleunet_bs.scans.label_frames import check_frame


def read_mask(path: str | os.PathLike, classes: Mapping[str, int]) -> np.ndarray:
    """Read a palette or grey PNG of 8 bits or less.

    Args:
        path: the file.
        classes: label -> class, where the labels are pixel values in digits ("255"); in a palette image the value is
            the index of the colour. When no label is made of digits, 0, 1 and 2 are the classes themselves, as in the
            PNGs that `prepare --write-png` writes. 0 means not annotated unless the map says otherwise.

    Returns:
        uint8 array of shape (rows, columns): 0 not annotated, 1 non-metastatic, 2 metastatic.

    Raises:
        LabelError: `reason` "label-file" (not such a PNG), "label-frame" (another size) or "label-unknown" (a value
            that is not in the map).
    """
    path = Path(path)
    folded = fold_classes(classes)
    of_value = {
        int(label): number for label, number in folded.items() if label.isascii() and label.isdigit() and len(label) < 4
    }
    of_value = {0: 0} | (of_value or {number: number for number in range(METASTATIC + 1)})
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures; ours are refused with a reason.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=("PNG",))
        with image:
            check_frame(path, image.height, image.width)
            if image.mode not in ("1", "L", "P"):
                raise LabelError(
                    f"{path}: a PNG of mode {image.mode}; a mask is a palette or an 8-bit grey image", "label-file"
                )
            # In a black and white image white is 255, as in every grey one.
            pixels = np.array(image.convert("L") if image.mode == "1" else image)
    except LabelError:
        raise
    except FileNotFoundError:
        raise LabelError(f"{path}: no such mask", "label-file") from None
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError) as cause:
        raise LabelError(f"{path}: not a readable PNG ({type(cause).__name__})", "label-file") from None
    unknown = sorted(set(np.unique(pixels).tolist()) - set(of_value))
    if unknown:
        raise LabelError(
            f'{path}: the pixel value {unknown[0]} has no class; add for instance "{unknown[0]}": "metastatic" '
            "to the class map",
            "label-unknown",
        )
    table = np.zeros(256, np.uint8)
    for value, number in of_value.items():
        if value < 256:
            table[value] = number
    return table[pixels]
