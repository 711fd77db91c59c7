"""Encapsulated pixel data -> the compressed frames, as long as each of them is there as a whole.

Programs leave out the end mark, write zeros behind it, or cut frames into fragments without saying where a frame ends.
None of that costs a pixel.
"""

import struct
from collections.abc import Sequence

from pydicom.uid import RLELossless

from doubleunet_bs.errors import ScanError

_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
# JPEG and JPEG-LS, JPEG 2000, a JP2 file around it.
_STREAM_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP")
END_WARNING = "the end mark of the compressed pixel data is missing or damaged; all frames are there"


def split_frames(data: bytes, frames: int, uid: str) -> tuple[list[bytes], list[str]]:
    """Split encapsulated pixel data into compressed frames, and return them with warnings.

    Args:
        data: everything behind the header of the element, up to the end of the file.
        frames: the number the header describes.
        uid: transfer syntax UID.

    Raises:
        ScanError: `truncated` when there are fewer, `pixel-layout` when there are more or they cannot be separated.
    """
    items, ended = _items(data)
    if not items:
        raise ScanError("has no compressed frames in its pixel data", "truncated")
    # An item of zeros behind the last frame is padding.
    # Some programs leave the table out.
    begin = _begins_rle if uid == RLELossless else _begins_stream
    table, fragments = (b"", items) if begin(items[0]) else (items[0], items[1:])
    while len(fragments) > frames and not any(fragments[-1]):
        fragments.pop()
    starts = _starts(table, fragments, frames, [begin(fragment) for fragment in fragments])
    found = [b"".join(fragments[first:last]) for first, last in zip(starts, [*starts[1:], None], strict=True)]
    if len(found) < frames:
        raise ScanError(f"is cut off: {len(found)} of {frames} compressed frames are there", "truncated")
    if len(found) > frames:
        raise ScanError(f"has {len(found)} compressed frames, its header describes {frames}", "pixel-layout")
    if not all(map(any, found)):
        raise ScanError("has an empty compressed frame: export the file again", "truncated")
    return found, [] if ended else [END_WARNING]


def _items(data: bytes) -> tuple[list[bytes], bool]:
    """The values of all items, first the offset table, and whether the end mark follows; `truncated` within an item."""
    items: list[bytes] = []
    position = 0
    while data[position : position + 4] == _ITEM and position + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, position + 4)
        value = data[position + 8 : position + 8 + length]
        if len(value) < length:
            raise ScanError("is cut off in its compressed pixel data", "truncated")
        items.append(value)
        position += 8 + length
    rest = data[position:]
    if rest[:4] != _END and rest.strip(b"\0"):
        raise ScanError("has damaged items in its compressed pixel data: export the file again", "damaged-pixels")
    return items, rest[:4] == _END


def _starts(table: bytes, fragments: Sequence[bytes], frames: int, marked: Sequence[bool]) -> list[int]:
    """The indices of the fragments that begin a frame. `marked`: whether a fragment begins as a frame does."""
    places: dict[int, int] = {}
    position = 0
    for index, fragment in enumerate(fragments):
        places[position] = index
        position += 8 + len(fragment)
    offsets = struct.unpack(f"<{len(table) // 4}I", table[: len(table) // 4 * 4])
    # A table of zeros, or one that points between the fragments, says nothing.
    listed = [places[offset] for offset in offsets if offset in places]
    if len(listed) == len(offsets) == frames and listed[:1] == [0] and listed == sorted(set(listed)):
        return listed
    if frames == 1 and fragments:
        return [0]
    every = list(range(len(fragments)))
    return every if len(every) == frames or not any(marked[:1]) else [index for index in every if marked[index]]


def _begins_stream(fragment: bytes) -> bool:
    return fragment.startswith(_STREAM_STARTS)


def _begins_rle(fragment: bytes) -> bool:
    """Whether a fragment begins with the header of an RLE frame: the number of segments and 15 rising offsets."""
    if len(fragment) < 64:
        return False
    number, *offsets = struct.unpack_from("<16I", fragment)
    used = offsets[:number]
    return 1 <= number <= 15 and used[0] == 64 and used == sorted(set(used)) and not any(offsets[number:])
