"""What labels and mask images mean: the user's class map, the image an annotation was drawn on, masks as PNG."""

import contextlib
import json
import os
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from doubleunet_bs.constants import AIR, BENIGN_NAME, CLASS_NAMES, DEFAULT_CLASS_MAP, METASTATIC, NON_METASTATIC
from doubleunet_bs.dicom_files.other_files import container
from doubleunet_bs.errors import BoneScanError, DatasetError, LabelError, one_line, os_reason

LARGEST_FILE = 1 << 20
MOST_VALUES = 5
"""Pixel values without a class in a mask that lacks a class map; more are no mask."""
# What Pillow raises on damaged or absurd pictures.
PNG_ERRORS = (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError)

IMAGE_KINDS = {(1024, 256): "view", (1024, 512): "side_by_side", (640, 512): "prepared"}
"""(rows, columns) -> one raw view; both raw views, anterior on the left; the prepared image."""


def fold_label(label: str) -> str:
    """The form in which labels are compared: case, surrounding spaces and the width of letters do not matter."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold()).strip()


def decode_text(data: bytes) -> str:
    """UTF-8 text, with or without a byte order mark.

    Raises:
        ValueError: it is none; the message follows "is" and names the encoding that it seems to have, and the cure.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        wide = data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:200]
    if (packed := container(data)) is not None:
        workbook = ", or save it as CSV (UTF-8) if it is a workbook" if data.startswith(b"PK") else ""
        raise ValueError(f"{packed}: unpack it first{workbook}")
    if wide:
        encoding = "utf-32" if b"\0\0" in data[:4] else "utf-16"
        raise ValueError(f"{encoding.upper()} text: convert it with iconv -f {encoding} -t utf-8")
    raise ValueError(
        "not UTF-8 text: convert it with iconv -f gb18030 -t utf-8 (or -f cp1252, cp932), or save it anew as UTF-8 "
        "(Excel: CSV UTF-8)"
    )


def read_file(path: Path, limit: int, what: str, error: Callable[[str], BoneScanError]) -> str:
    """The text of a file of at most `limit` bytes, see `decode_text`; every way it can fail becomes an `error`.

    `what` it should be is for the message: "class map".
    """
    try:
        if path.stat().st_size > limit:
            raise error(f"{path}: too large for a {what}")
        return decode_text(path.read_bytes())
    except FileNotFoundError:
        raise error(f"{path}: no such {what}") from None
    except ValueError as cause:
        raise error(f"{path}: is {cause}") from None
    except OSError as cause:
        raise error(f"{path}: cannot be read ({os_reason(cause)})") from None


@contextlib.contextmanager
def open_picture(file: Path | BinaryIO, formats: tuple[str, ...] = ("PNG",)) -> Iterator[Image.Image]:
    """A picture that is not decoded yet: a small file can unfold to any size. Raises any of `PNG_ERRORS`."""
    with warnings.catch_warnings():
        # Pillow warns of large pictures; ours are refused with a reason.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(file, formats=formats) as picture:
            yield picture


def fold_classes(classes: Mapping[str, int]) -> dict[str, int]:
    """A class map with folded labels; `LabelError` where two that are the same when folded get different classes."""
    folded: dict[str, int] = {}
    for label, number in classes.items():
        if folded.setdefault(fold_label(label), number) != number:
            raise LabelError(f"the class map gives two classes to {quoted(label)}", "class-map")
    return folded


def quoted(text: Any) -> str:
    """Text from a file in quotes, in one line and cut to 40 characters."""
    text = one_line(text)
    return f"'{text if len(text) <= 40 else text[:37] + '...'}'"


def load_class_map(path: str | os.PathLike) -> dict[str, int]:
    """Read a class map: a JSON object that gives a class to each label.

    A class is 0, 1 or 2, or "air", "non-metastatic" or "metastatic". For PNG masks a label is a pixel value: "255".

    Returns:
        The labels of `DEFAULT_CLASS_MAP` and those of the file, which may give another class to a known label.

    Example:
        {"bone lesion": "metastatic", "degenerative": "non-metastatic", "hole": 0, "255": 2}

    Raises:
        DatasetError: the file is missing or not such an object, or has a label twice.
    """
    path = Path(path)
    try:
        pairs = json.loads(read_file(path, LARGEST_FILE, "class map", DatasetError), object_pairs_hook=list)
    # ValueError: not JSON, or a number of more than 4300 digits.
    except (ValueError, RecursionError) as cause:
        raise DatasetError(f"{path}: not a readable class map ({type(cause).__name__})") from None
    # An object arrives as a list of pairs; a list arrives as a list of anything else.
    if not isinstance(pairs, list) or not pairs or not all(isinstance(pair, tuple) for pair in pairs):
        raise DatasetError(f'{path}: a class map is an object such as {{"metastasis": "metastatic"}}')
    classes: dict[str, int] = {}
    known = (*CLASS_NAMES, BENIGN_NAME)
    for label, value in pairs:
        if isinstance(value, str) and fold_label(value) in known:
            # A benign lesion is outlined as non-metastatic; `prepare --benign` decides which class that is.
            value = NON_METASTATIC if fold_label(value) == BENIGN_NAME else CLASS_NAMES.index(fold_label(value))
        if type(value) is not int or not AIR <= value <= METASTATIC:
            raise DatasetError(
                f"{path}: the class of {quoted(label)} must be 0, 1, 2 or one of {', '.join(map(repr, known))}"
            )
        if fold_label(label) in classes:
            raise DatasetError(f"{path}: {quoted(label)} is listed twice: upper and lower case are the same")
        classes[fold_label(label)] = value
    return DEFAULT_CLASS_MAP | classes


def check_image_size(path: Path, rows: int, columns: int) -> None:
    """Refuse an annotation of any other size, with reason "label-frame"."""
    if (rows, columns) not in IMAGE_KINDS:
        raise LabelError(
            f"{path}: drawn on {rows} x {columns} pixels: draw on 1024 x 256, 1024 x 512 or 640 x 512",
            "label-frame",
        )


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
        with open_picture(path) as image:
            check_image_size(path, image.height, image.width)
            if image.mode not in ("1", "L", "P"):
                message = f"{path}: a PNG of mode {image.mode}: save the mask as a palette or 8-bit grey image"
                raise LabelError(message, "label-file")
            # In a black and white image white is 255, as in every grey one.
            pixels = np.array(image.convert("L") if image.mode == "1" else image)
    except LabelError:
        raise
    except FileNotFoundError:
        raise LabelError(f"{path}: no such mask", "label-file") from None
    except PNG_ERRORS as cause:
        raise LabelError(f"{path}: not a readable PNG ({type(cause).__name__})", "label-file") from None
    unknown = sorted(set(np.unique(pixels).tolist()) - set(of_value))
    if len(unknown) > MOST_VALUES:
        message = (
            f"{path}: {len(unknown)} pixel values have no class: move pictures out of the labels folder, "
            "or export masks without smoothed edges"
        )
        raise LabelError(message, "label-unknown")
    if unknown:
        message = f'{path}: pixel value {unknown[0]} has no class: add "{unknown[0]}": "metastatic" to --classes'
        raise LabelError(message, "label-unknown")
    table = np.zeros(1000, np.uint8)  # labels of up to three digits
    table[list(of_value)] = list(of_value.values())
    return table[pixels]
