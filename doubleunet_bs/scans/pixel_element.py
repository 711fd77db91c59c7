"""The pixel data element at the end of a header, taken out of the file by hand.

pydicom would go on reading behind it, where an appended megabyte of zeros is a hundred thousand elements, and would
search compressed pixels for the bytes of an end mark, which they may contain.
"""

import dataclasses
import struct

from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans.limits import MAX_FRAGMENTS

KEYWORDS = {0x0008: "FloatPixelData", 0x0009: "DoubleFloatPixelData", 0x0010: "PixelData"}

_UNDEFINED = 0xFFFFFFFF
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


@dataclasses.dataclass(frozen=True)
class PixelElement:
    """Pixel data as they lie in the file.

    Attributes:
        keyword: "PixelData", "FloatPixelData" or "DoubleFloatPixelData".
        kind: value representation, "OB", "OW" and so on; "" in a file with implicit ones.
        value: the bytes; of compressed pixel data the items, without the end mark. In a file that was cut off they are
            fewer than the header says.
        encapsulated: whether the value consists of items.
    """

    keyword: str
    kind: str
    value: bytes
    encapsulated: bool


def find_pixels(data: bytes, position: int) -> str | None:
    """The keyword of the pixel data element that begins at `position`; None when another element or nothing does."""
    tag = data[position : position + 4]
    if len(tag) == 4:
        for order in "<>":
            group, element = struct.unpack(f"{order}HH", tag)
            if group == 0x7FE0 and element in KEYWORDS:
                return KEYWORDS[element]
    return None


def take_pixels(data: bytes, position: int) -> PixelElement:
    """Take out the pixel data element that begins at `position`.

    Raises:
        ScanError: `truncated` when compressed pixel data have no end, `damaged-pixels` when they are no items.
    """
    order = "<" if data[position : position + 2] == b"\xe0\x7f" else ">"
    kind = data[position + 4 : position + 6]
    if kind.isalpha() and kind.isupper() and data[position + 6 : position + 8] == b"\0\0":
        start = position + 12
    else:
        kind, start = b"", position + 8
    if len(data) < start:
        raise ScanError("is cut off in its pixel data", "truncated")
    (length,) = struct.unpack_from(f"{order}I", data, start - 4)
    encapsulated = length == _UNDEFINED
    end = _end_of_items(data, start) if encapsulated else start + length
    return PixelElement(find_pixels(data, position) or "", kind.decode("ascii"), data[start:end], encapsulated)


def _end_of_items(data: bytes, position: int) -> int:
    for _ in range(MAX_FRAGMENTS):
        tag = data[position : position + 4]
        if tag == _END:
            return position
        if len(data) < position + 8:
            raise ScanError("is cut off in its compressed pixel data", "truncated")
        if tag != _ITEM:
            raise ScanError("has compressed pixel data that are damaged", "damaged-pixels")
        position += 8 + struct.unpack_from("<I", data, position + 4)[0]
    raise ScanError(f"has pixel data in more than {MAX_FRAGMENTS:,} fragments", "damaged-pixels")
