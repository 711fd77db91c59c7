"""Values of a parsed header: texts, numbers and sequences, of the forms that real cameras and archives write."""

import contextlib
import math
import re
from collections.abc import Sequence

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_description
from pydicom.dataset import Dataset

from doubleunet_bs.constants import PHANTOM_MARK
from doubleunet_bs.dicom_files.dicom_file import silence_pydicom
from doubleunet_bs.errors import ScanError


def read_texts(dataset: Dataset, tag: str | int, keep_empty: bool = False) -> tuple[str, ...]:
    """The values of a text element, stripped and in capitals; empty when it is absent, empty or unreadable.

    With `keep_empty` an empty value keeps its place among several.
    """
    try:
        return tuple(text.upper() for text in _texts(dataset, tag) if text or keep_empty)
    except ScanError:
        return ()


def read_text(dataset: Dataset, tag: str | int) -> str:
    """The values of a text element joined with a backslash, as DICOM does; "" when absent or unreadable."""
    return "\\".join(read_texts(dataset, tag))


def read_identifier(dataset: Dataset, keyword: str | int) -> str:
    """An identifier as the header has it, without padding; "" when it is absent or empty.

    Raises:
        ScanError: `damaged-header` when it cannot be read: two patients without identifiers are not one patient.
    """
    return "\\".join(_texts(dataset, keyword))


def read_person(dataset: Dataset) -> dict[str, str]:
    """ "birth date" and "sex", "" when absent, in one form: 1960.01.02 is 19600102, f is F."""
    birth, sex = (read_identifier(dataset, word).upper() for word in ("PatientBirthDate", "PatientSex"))
    return {"birth date": re.sub(r"[.:/ -]", "", birth), "sex": sex}


def has_doubtful_text(dataset: Dataset, keyword: str) -> bool:
    """Whether a text is not in its character set: none is declared, it cannot be decoded, or is UTF-8 against another.

    Such a text is another one than the hospital's programs show.
    """
    text = read_identifier(dataset, keyword)
    if text.isascii():
        return False
    if "\ufffd" in text:  # pydicom puts it in place of what it cannot decode
        return True
    declared = read_texts(dataset, "SpecificCharacterSet")
    if not declared or declared == ("ISO_IR 6",):
        return True
    if declared == ("ISO_IR 192",) or not declared[0].startswith("ISO_IR ") or len(declared) > 1:
        return False
    with contextlib.suppress(UnicodeError, LookupError):
        text.encode(python_encoding.get(declared[0], "latin-1")).decode("utf-8")
        return True
    return False


def read_numbers(dataset: Dataset, tag: str | int) -> tuple[float, ...]:
    """The numbers in an element, also of a text with decimal commas; empty when it is absent or empty.

    In Counts Accumulated "813,086" and "813.086" are thousands.

    Raises:
        ScanError: `damaged-header` when any of its values is no finite number.
    """
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        try:
            values = _values(dataset, tag)
        except ScanError:
            # Not of the form its type demands.
            values = (_raw_text(dataset, tag),)
        counts = tag == "CountsAccumulated"
        found = tuple(number for value in values for number in _numbers(value, counts))
        if all(map(math.isfinite, found)):
            return found
    name = dictionary_description(tag) if isinstance(tag, str) else "private element"
    raise ScanError(f"has an unreadable {name} in its header", "damaged-header")


# 1,813,086
_THOUSANDS = re.compile(r"[0-9]{1,3}(,[0-9]{3}){2,}")
_THOUSANDS_OF_COUNTS = re.compile(r"[1-9][0-9]{0,2}([.,][0-9]{3})+")


def _numbers(value: object, counts: bool) -> list[float]:
    """The numbers in one value; in a text several may be separated by backslashes or, with decimal points, commas."""
    # pydicom reads the integer string "813.086" as a fraction.
    value = getattr(value, "original_string", value) if counts else value
    if not isinstance(value, str):
        return [float(value)]  # type: ignore[arg-type]
    numbers: list[float] = []
    for text in value.strip("\0 ").split("\\"):
        if _THOUSANDS.fullmatch(text.strip()) or (counts and _THOUSANDS_OF_COUNTS.fullmatch(text.strip())):
            text = re.sub("[.,]", "", text)
        parts = text.split(",")
        numbers += [float(text.replace(",", "."))] if len(parts) == 2 and "." not in text else map(float, parts)
    return numbers


def _raw_text(dataset: Dataset, tag: str | int) -> str:
    with silence_pydicom():
        value = getattr(dataset.get_item(tag), "value", None)
    if not isinstance(value, bytes):
        raise ValueError
    return value.decode("latin-1")


def read_integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """Read one whole number; `default` when the element is absent or empty, None when there must be one.

    Raises:
        ScanError: `damaged-header` when it is absent without a default, not one number, or not whole.
    """
    found = read_numbers(dataset, keyword)
    if default is not None and not found:
        return default
    if len(found) != 1 or found[0] != int(found[0]):
        raise ScanError(f"has no readable {dictionary_description(keyword)} in its header", "damaged-header")
    return int(found[0])


def read_items(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """The items of a sequence; empty when it is absent or unreadable."""
    try:
        return tuple(item for item in _values(dataset, keyword) if isinstance(item, Dataset))
    except ScanError:
        return ()


def is_phantom(dataset: Dataset) -> bool:
    """Whether the header marks a synthetic scan of this package."""
    model, comments = (read_text(dataset, keyword) for keyword in ("ManufacturerModelName", "ImageComments"))
    return PHANTOM_MARK in model or comments.startswith(PHANTOM_MARK)


def _values(dataset: Dataset, tag: str | int) -> tuple:
    """The values of an element, () when it is absent or empty; `ScanError` when pydicom cannot read it."""
    with silence_pydicom():
        value = dataset.get(tag)
    if isinstance(tag, int):
        value = getattr(value, "value", value)
    if value is None or value == "" or value == b"":
        return ()
    if isinstance(value, bytes):
        # An element of unknown type, as private ones are after a transfer in implicit VR.
        return tuple(value.decode("latin-1").split("\\"))
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


def _texts(dataset: Dataset, tag: str | int) -> tuple[str, ...]:
    values = _values(dataset, tag)
    with silence_pydicom():
        # pydicom decodes a person's name when it becomes a string.
        return tuple(_unpadded(value) for value in values if value is not None)


def _unpadded(value: object) -> str:
    return (value.decode("latin-1") if isinstance(value, bytes) else str(value)).strip("\0 ")
