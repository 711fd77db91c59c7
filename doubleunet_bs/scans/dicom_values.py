"""Values of header elements as plain Python, from headers in which anything can stand anywhere."""

import math
from collections.abc import Sequence

from pydicom.datadict import dictionary_description
from pydicom.dataset import Dataset

from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans.header import quiet


def texts(dataset: Dataset, tag: str | int) -> tuple[str, ...]:
    """The values of a text element, stripped and in capitals; empty when it is absent, empty or unreadable."""
    return tuple(text.upper() for text in map(_as_text, _values(dataset, tag)) if text)


def text(dataset: Dataset, tag: str | int) -> str:
    """The values of a text element joined with a backslash, as DICOM does; "" when absent or unreadable."""
    return "\\".join(texts(dataset, tag))


def identifier(dataset: Dataset, keyword: str) -> str:
    """An identifier as the header has it, without padding; "" when it is absent or empty.

    Raises:
        ScanError: `damaged-header` when it cannot be read: two patients without identifiers are not one patient.
    """
    with quiet():
        value = dataset.get(keyword)
        values = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
        return "\\".join(_as_text(part) for part in values if part is not None)


def numbers(dataset: Dataset, tag: str | int) -> tuple[float, ...]:
    """The finite numbers in an element; empty when it is absent, or when any of its values is no finite number."""
    found = []
    for value in _values(dataset, tag):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            return ()
        if not math.isfinite(number):
            return ()
        found.append(number)
    return tuple(found)


def integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """One whole number that the pixels cannot be understood without.

    Args:
        dataset: the header.
        keyword: of the element.
        default: the value when the element is absent or empty; None when there must be one.

    Raises:
        ScanError: `damaged-header` when it is absent without a default, not one number, or not whole.
    """
    if default is not None and not _values(dataset, keyword) and _is_empty(dataset, keyword):
        return default
    found = numbers(dataset, keyword)
    if len(found) != 1 or found[0] != int(found[0]):
        raise ScanError(f"has no readable {dictionary_description(keyword)} in its header", "damaged-header")
    return int(found[0])


def items(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """The items of a sequence; empty when it is absent or unreadable."""
    return tuple(item for item in _values(dataset, keyword) if isinstance(item, Dataset))


def _is_empty(dataset: Dataset, keyword: str) -> bool:
    """Whether the element is absent or has no bytes, as opposed to having bytes that make no sense."""
    try:
        with quiet():
            return dataset.get(keyword) in (None, "", b"") or len(dataset.get(keyword)) == 0
    except (ScanError, TypeError):
        return False


def _values(dataset: Dataset, tag: str | int) -> tuple:
    try:
        with quiet():
            element = dataset.get(tag)
            value = getattr(element, "value", element) if isinstance(tag, int) else element
            if value is None or value == "" or value == b"":
                return ()
            if isinstance(value, bytes):
                # An element of unknown type, as private ones are after a transfer in implicit VR.
                return tuple(value.decode("latin-1").split("\\"))
            if isinstance(value, Sequence) and not isinstance(value, str):
                return tuple(value)
            return (value,)
    except ScanError:
        # Optional facts: the caller goes on as if the element were absent, which is what it is worth.
        return ()


def _as_text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return str(value).strip("\0 ")
