"""A file -> a pydicom data set, whatever the file holds: bounded, silent, and with one kind of error.

pydicom inflates deflated files without a bound, logs and warns with values from the header, and throws half a dozen
exception types at damaged files. None of that passes this module.
"""

import contextlib
import dataclasses
import io
import logging
import math
import struct
import threading
import warnings
import zlib
from collections.abc import Sequence

import numpy as np
import pydicom
from pydicom.datadict import dictionary_description
from pydicom.dataset import Dataset

from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans.sources import MAX_FILE_BYTES, MAX_FRAGMENTS, MAX_HEADER_BYTES, MAX_HEADER_ITEMS, Source

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


DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_LONG_VALUES = {b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"}


@dataclasses.dataclass(frozen=True, eq=False)
class DicomFile:
    """A parsed file.

    Attributes:
        dataset: the elements before the pixel data.
        transfer_syntax: UID, as the file has it.
        has_pixels: whether pixel data follow the header.
        pixels: the pixel data; None when there are none or when only the header was asked for.
        data: the bytes of the file, as far as they were read.
    """

    dataset: Dataset
    transfer_syntax: str
    has_pixels: bool
    pixels: PixelElement | None
    data: bytes


def load_header(data: bytes, complete: bool) -> DicomFile:
    """Parse everything before the pixel data.

    Args:
        data: the beginning of a file, at most `MAX_HEADER_BYTES`.
        complete: whether that is the whole file.

    Raises:
        ScanError: `not-dicom`, `truncated`, `damaged-header` or `header-too-large`.
    """
    return _load(data, complete, with_pixels=False)


def load_file(source: Source) -> DicomFile:
    """Read and parse a whole file, with its pixel data.

    Raises:
        ScanError: those of `load_header`, `unreadable`, `too-large`, `decompression-bomb` or `damaged-pixels`.
    """
    data, complete = source.read(MAX_FILE_BYTES)
    if not complete:
        raise ScanError(f"is larger than {MAX_FILE_BYTES >> 20} MB; a whole-body scan is about 1 MB", "too-large")
    return _load(data, True, with_pixels=True)


class _Silence:
    """Keeps pydicom's warnings and log lines from everyone while anybody, in any thread, is inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._restore = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            self._restore.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            logger = logging.getLogger("pydicom")
            self._restore.callback(setattr, logger, "propagate", logger.propagate)
            logger.propagate = False

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._restore.close()


_silence = _Silence()


def silence() -> contextlib.AbstractContextManager[None]:
    """Nobody sees pydicom's warnings and log lines inside.

    `silence_pydicom` does so by itself. To look at many elements of a header costs less inside of this: putting Python's warning
    filters away and back takes longer than looking.
    """
    return _silence


class silence_pydicom:  # noqa: N801 - a context manager, used like a function
    """Let nobody see pydicom's warnings and log lines, which may repeat header values; raise only ScanError."""

    def __enter__(self) -> None:
        _silence.__enter__()

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, _: object) -> None:
        _silence.__exit__()
        if isinstance(cause, Exception) and not isinstance(cause, ScanError):
            # Its text may hold header values: only its kind is told. MemoryError and RecursionError belong here.
            raise ScanError(f"has a damaged DICOM header ({kind.__name__})", "damaged-header") from None


def _load(data: bytes, complete: bool, with_pixels: bool) -> DicomFile:
    syntax, body = _split(data)
    content = data
    if syntax == DEFLATED:
        limit = MAX_FILE_BYTES if with_pixels else MAX_HEADER_BYTES
        inflated, complete = _inflate(data[body:], limit, complete)
        if with_pixels and not complete:
            raise ScanError(f"inflates to more than {MAX_FILE_BYTES >> 20} MB", "decompression-bomb")
        content = _with_meta(EXPLICIT_LITTLE, inflated)
    elif data[128:132] != b"DICM":
        content = _with_meta(syntax, data[body:])
    header = content[:MAX_HEADER_BYTES]
    if _items(header, syntax) > MAX_HEADER_ITEMS:
        raise ScanError(f"has a header of more than {MAX_HEADER_ITEMS:,} sequence items", "damaged-header")
    with silence_pydicom():
        stream = io.BytesIO(header)
        dataset = pydicom.dcmread(stream, stop_before_pixels=True)
        end = stream.tell()
        has_pixels = find_pixels(header, end) is not None
        if not has_pixels:
            _check_end(dataset, complete and len(header) == len(content))
    pixels = take_pixels(content, end) if with_pixels and has_pixels else None
    return DicomFile(dataset, syntax, has_pixels, pixels, data)


def _items(header: bytes, syntax: str) -> int:
    """How many item tags are in the bytes; 0 when they are few enough in any case."""
    # Most of what is looked at are counts, and the search for four bytes takes many times as long as that for one.
    if np.count_nonzero(np.frombuffer(header, np.uint8) == 0xFE) <= MAX_HEADER_ITEMS:
        return 0
    return header.count(b"\xff\xfe\xe0\x00" if syntax == EXPLICIT_BIG else b"\xfe\xff\x00\xe0")


def _split(data: bytes) -> tuple[str, int]:
    """The transfer syntax UID and where the data set begins."""
    if data[128:132] == b"DICM":
        syntax, position = _read_meta(data, 132)
    elif _looks_like_dicom(data):
        # A data set without the file header: some old archives write nothing else.
        syntax, position = _read_meta(data, 0)
    else:
        raise ScanError("is not a DICOM file", "not-dicom")
    if syntax is None:
        syntax = _guess_syntax(data[position : position + 6])
    return syntax, position


def _read_meta(data: bytes, position: int) -> tuple[str | None, int]:
    """Walk over group 0002, which is always explicit little endian; its length element is often wrong."""
    syntax = None
    while data[position : position + 2] == b"\x02\x00":
        if len(data) < position + 12:
            raise ScanError("is cut off in its file header", "truncated")
        if data[position + 4 : position + 6] in _LONG_VALUES:
            (length,) = struct.unpack_from("<I", data, position + 8)
            start = position + 12
        else:
            (length,) = struct.unpack_from("<H", data, position + 6)
            start = position + 8
        if start + length > len(data):
            raise ScanError("is cut off in its file header", "truncated")
        if data[position : position + 4] == b"\x02\x00\x10\x00":
            syntax = data[start : start + length].decode("latin-1").strip("\0 ")
        position = start + length
    return syntax, position


def _looks_like_dicom(data: bytes) -> bool:
    """Whether the bytes can be the first element of group 0002 or 0008 (SOP class, image type, character set...)."""
    if len(data) < 16 or data[:2] not in (b"\x02\x00", b"\x08\x00", b"\x00\x08"):
        return False
    little = data[0] != 0
    (element,) = struct.unpack_from("<H" if little else ">H", data, 2)
    explicit = data[4:6].isalpha() and data[4:6].isupper()
    if not explicit:
        (length,) = struct.unpack_from("<I", data, 4)
        return little and element <= 0x60 and length <= 256
    return element <= 0x60


def _guess_syntax(start: bytes) -> str:
    if not (start[4:6].isalpha() and start[4:6].isupper()):
        return IMPLICIT_LITTLE
    return EXPLICIT_BIG if start[:1] == b"\x00" else EXPLICIT_LITTLE


def _inflate(packed: bytes, limit: int, complete: bool) -> tuple[bytes, bool]:
    """Inflate at most `limit` bytes; also say whether that is all."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflater.decompress(packed, limit + 1)
    except zlib.error:
        raise ScanError("has a damaged deflated data set; export the file again", "truncated") from None
    if len(data) > limit:
        return data[:limit], False
    if complete and not inflater.eof:
        raise ScanError("is cut off: its deflated data set does not end", "truncated")
    return data, complete


def _with_meta(syntax: str, body: bytes) -> bytes:
    """A file header that names the transfer syntax, and the data set."""
    value = syntax.encode("ascii", "replace")
    value += b"\0" * (len(value) % 2)
    element = b"\x02\x00\x10\x00UI" + struct.pack("<H", len(value)) + value
    length = b"\x02\x00\x00\x00UL\x04\x00" + struct.pack("<I", len(element))
    return bytes(128) + b"DICM" + length + element + body


def _check_end(dataset: Dataset, complete: bool) -> None:
    """A header that ends without pixel data: cut off by us, cut off before, or simply no image."""
    if not complete:
        raise ScanError(f"has a header of more than {MAX_HEADER_BYTES >> 20} MB", "header-too-large")
    tags = list(dataset.keys())
    if not tags:
        raise ScanError("is not a DICOM file, or is cut off in its header", "truncated")
    last = dataset.get_item(max(tags))
    value = getattr(last, "value", None)
    length = getattr(last, "length", None)
    if length is not None and isinstance(value, bytes) and len(value) < length != 0xFFFFFFFF:
        raise ScanError("is cut off in its header", "truncated")


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
    with silence_pydicom():
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
        with silence_pydicom():
            return dataset.get(keyword) in (None, "", b"") or len(dataset.get(keyword)) == 0
    except (ScanError, TypeError):
        return False


def _values(dataset: Dataset, tag: str | int) -> tuple:
    try:
        with silence_pydicom():
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


MARK = "SYNTHETIC PHANTOM"


def is_phantom(dataset: Dataset) -> bool:
    """Whether the header carries the mark."""
    return MARK in text(dataset, "ManufacturerModelName") or text(dataset, "ImageComments").startswith(MARK)
