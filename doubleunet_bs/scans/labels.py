"""The user's map from annotation labels to classes (decided here: never a numbering made up per file)."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from doubleunet_bs.constants import AIR, CLASS_NAMES, METASTATIC
from doubleunet_bs.errors import DatasetError, LabelError

LARGEST_FILE = 1 << 20


def fold_label(label: str) -> str:
    """The form in which labels are compared: without regard to case and to spaces around."""
    return label.strip().casefold()


def fold_classes(classes: Mapping[str, int]) -> dict[str, int]:
    """A class map by folded label.

    Raises:
        LabelError: two labels that are the same when folded get different classes.
    """
    folded: dict[str, int] = {}
    for label, number in classes.items():
        if folded.setdefault(fold_label(label), number) != number:
            raise LabelError(f"the class map gives two classes to {shown(label)}", "class-map")
    return folded


def shown(text: Any) -> str:
    """Text from a file, quoted, cut to 40 characters and safe to print on any terminal."""
    text = str(text)
    return ascii(text if len(text) <= 40 else text[:37] + "...")


def load_class_map(path: str | os.PathLike) -> dict[str, int]:
    """Read a class map: a JSON object that gives a class to each label.

    A class is 0, 1 or 2, or "air", "non-metastatic" or "metastatic". For PNG masks a label is a pixel value: "255".

    Example:
        {"metastasis": "metastatic", "degenerative": "non-metastatic", "hole": 0, "255": 2}

    Raises:
        DatasetError: no such file, not such an object, an empty one, one without a metastatic label, a label twice.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise DatasetError(f"{path}: too large for a class map")
        pairs = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=list)
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such class map") from None
    # ValueError: not UTF-8, not JSON, or a number of more than 4300 digits.
    except (OSError, ValueError, RecursionError) as cause:
        raise DatasetError(f"{path}: not a readable class map ({type(cause).__name__})") from None
    # An object arrives as a list of pairs; a list arrives as a list of anything else.
    if not isinstance(pairs, list) or not pairs or not all(isinstance(pair, tuple) for pair in pairs):
        raise DatasetError(f'{path}: a class map is an object such as {{"metastasis": "metastatic"}}')
    classes: dict[str, int] = {}
    for label, value in pairs:
        if isinstance(value, str) and fold_label(value) in CLASS_NAMES:
            value = CLASS_NAMES.index(fold_label(value))
        if type(value) is not int or not AIR <= value <= METASTATIC:
            raise DatasetError(
                f"{path}: the class of {shown(label)} must be 0, 1, 2 or one of {', '.join(map(repr, CLASS_NAMES))}"
            )
        if fold_label(label) in classes:
            raise DatasetError(f"{path}: {shown(label)} is in it twice (labels are compared without regard to case)")
        classes[fold_label(label)] = value
    if METASTATIC not in classes.values():
        raise DatasetError(f"{path}: no label is metastatic")
    return classes
