"""The bytes of a file -> header elements and pixel data, whatever the file holds.

pydicom inflates deflated files without a limit, repeats header values in warnings and log lines, and raises a dozen
exception types on damaged files. Here memory is bounded, nothing is printed, and every such error is a `ScanError`.
"""

import contextlib
import dataclasses
import io
import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import data_element_generator, read_partial
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import VR

from doubleunet_bs.dicom_files.other_files import not_dicom
from doubleunet_bs.dicom_files.sources import FIRST_LOOK_BYTES, MAX_FILE_BYTES, MAX_HEADER_BYTES, MAX_HEADER_ITEMS
from doubleunet_bs.errors import ScanError

_PIXEL_TAGS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_UNDEFINED_LENGTH = 0xFFFFFFFF
_MODALITY = 0x00080060
# All types (value representations) of DICOM.
_TYPES = {str(each) for each in VR if len(each) == 2}
# Elements of unknown type that are left out; more are a damaged header.
_MAX_UNKNOWN_ELEMENTS = 16
_LONG_VALUES = {b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"}

# What pydicom raises on damaged headers. MemoryError and RecursionError come from absurd lengths and nesting.
_PYDICOM_ERRORS = (
    ArithmeticError, AttributeError, BytesLengthException, EOFError, InvalidDicomError, LookupError, MemoryError,
    NotImplementedError, OSError, RecursionError, TypeError, ValueError, struct.error,
)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class PixelElement:
    """Pixel data as they are in the file.

    Attributes:
        keyword: "PixelData", "FloatPixelData" or "DoubleFloatPixelData".
        value: the bytes, fewer than the header says when the file was cut off; of compressed data all that follow.
        encapsulated: whether the value consists of items, as that of compressed pixel data.
    """

    keyword: str
    value: bytes
    encapsulated: bool


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
    """Parse everything before the pixel data; `data` is the beginning of a file, or the `complete` one.

    Raises `ScanError`: `not-dicom`, `truncated`, `damaged-header` or `header-too-large`.
    """
    return _load(data, complete, with_pixels=False)


def load_file(data: bytes) -> DicomFile:
    """Parse a whole file with its pixels. `ScanError`: as `load_header`, `decompression-bomb` or `damaged-pixels`."""
    return _load(data, True, with_pixels=True)


def first_elements(data: bytes) -> Dataset:
    """The elements up to the modality, which decide what a file is; none where they cannot be read."""
    syntax, body = _split(data)
    content = data[: body + FIRST_LOOK_BYTES]
    try:
        if syntax == DeflatedExplicitVRLittleEndian:
            content = _with_meta(ExplicitVRLittleEndian, _inflate(content[body:], FIRST_LOOK_BYTES))
        elif data[128:132] != b"DICM":
            content = _with_meta(syntax, content[body:])
        with silence_pydicom():
            return read_partial(io.BytesIO(content), stop_when=lambda tag, *_: tag > _MODALITY)
    except ScanError:
        return Dataset()


class PydicomSilence:
    """Hides pydicom's warnings and log lines while any thread is inside; may be entered again inside."""

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


pydicom_silence = PydicomSilence()


@contextlib.contextmanager
def silence_pydicom() -> Iterator[None]:
    """For calls of pydicom alone: hide what it prints and turn its errors into `ScanError`."""
    with pydicom_silence:
        try:
            yield
        except ScanError:
            raise
        except _PYDICOM_ERRORS as cause:
            # The text may hold header values: only the kind of error is told.
            message = f"has a damaged DICOM header ({type(cause).__name__}): export or copy the file again"
            raise ScanError(message, "damaged-header") from None


def _load(data: bytes, complete: bool, with_pixels: bool) -> DicomFile:
    syntax, body = _split(data)
    content = data
    if syntax == DeflatedExplicitVRLittleEndian:
        limit = MAX_FILE_BYTES if with_pixels else MAX_HEADER_BYTES
        inflated = _inflate(data[body:], limit + 1)
        if with_pixels and len(inflated) > limit:
            raise ScanError(f"inflates to more than {MAX_FILE_BYTES >> 20} MB", "decompression-bomb")
        complete = complete and len(inflated) <= limit
        content = _with_meta(ExplicitVRLittleEndian, inflated)
    elif data[128:132] != b"DICM":
        content = _with_meta(syntax, data[body:])
    header = content[:MAX_HEADER_BYTES]
    item = b"\xff\xfe\xe0\x00" if syntax == ExplicitVRBigEndian else b"\xfe\xff\x00\xe0"
    # Most files have fewer bytes of that value, which are counted three times as fast.
    if header.count(b"\xfe") > MAX_HEADER_ITEMS and header.count(item) > MAX_HEADER_ITEMS:
        raise ScanError(f"has a header of more than {MAX_HEADER_ITEMS:,} sequence items", "damaged-header")
    dataset, end, keyword = _read_header(header)
    implicit, little = (bool(each) for each in dataset.original_encoding)
    if keyword is None and not implicit:
        for _ in range(_MAX_UNKNOWN_ELEMENTS):
            at = _unknown_element(header, little)
            if at is None:
                break
            length = _element_length(header, at, little)
            if length is None:
                if complete:
                    message = f"has a header that is not understood from byte {at} on: export the file again"
                    raise ScanError(message, "damaged-header")
                break
            header, content = (part[:at] + part[at + length :] for part in (header, content))
            dataset, end, keyword = _read_header(header)
    if keyword is None:
        _check_end(dataset, complete and len(header) == len(content))
    pixels = _read_pixels(content, end, keyword, implicit, little) if with_pixels and keyword else None
    return DicomFile(dataset, syntax, keyword is not None, pixels, data)


def _read_header(header: bytes) -> tuple[Dataset, int, str | None]:
    """The elements before the pixel data, where they end, and the keyword of the pixel data if they follow."""
    stream = io.BytesIO(header)
    with silence_pydicom():
        dataset = pydicom.dcmread(stream, stop_before_pixels=True)
    end = stream.tell()
    tag = struct.unpack("<HH" if dataset.original_encoding[1] else ">HH", header[end : end + 4].ljust(4, b"\0"))
    return dataset, end, _PIXEL_TAGS.get(tag[0] << 16 | tag[1])


def _unknown_element(header: bytes, little: bool) -> int | None:
    """Where the first element of the top level begins whose type DICOM does not know; its length is in doubt, too."""
    _, position = _read_meta(header, 132)
    stream = io.BytesIO(header)
    stream.seek(position)
    with silence_pydicom():
        while len(header) >= position + 8:
            if header[position + 4 : position + 6].decode("latin-1") not in _TYPES:
                return position
            if next(data_element_generator(stream, False, little), None) is None:
                return None
            position = stream.tell()
    return None


def _element_length(header: bytes, at: int, little: bool) -> int | None:
    """The bytes of an element of unknown type: with the length at whose end a later element begins."""
    kind = header[at + 4 : at + 6]
    order = "<" if little else ">"
    tag = struct.unpack_from(f"{order}2H", header, at)
    for head, form, place in ((8, "H", 6), (12, "I", 8), (8, "I", 4)):
        if at + place + 4 > len(header):
            continue
        length = head + struct.unpack_from(order + form, header, at + place)[0]
        following = header[at + length : at + length + 6]
        known = following[4:] == kind or following[4:].decode("latin-1") in _TYPES
        if known and struct.unpack_from(f"{order}2H", following) > tag:
            return length
    return None


def _read_pixels(content: bytes, position: int, keyword: str, implicit: bool, little: bool) -> PixelElement:
    """Read the one element that begins at `position`; encapsulated data up to the end of the file."""
    vr = content[position + 4 : position + 6]
    # As pydicom does: where the type is none, the element is in implicit form. The transfer syntax of some files is
    # wrong: as a length in implicit form, a type and two zeros are far less than the pixels of a scan.
    implicit = implicit and not (vr in _LONG_VALUES and content[position + 6 : position + 8] == b"\0\0")
    long = not implicit and vr in _LONG_VALUES
    start = position + (12 if long else 8)
    if vr == b"SQ" and long:
        raise ScanError("has pixel data that are a sequence", "damaged-pixels")
    if start > len(content):
        raise ScanError("is cut off in its pixel data", "truncated")
    short = not implicit and not long and vr.isalpha() and vr.isupper()
    form, at = ("H", position + 6) if short else ("I", start - 4)
    (length,) = struct.unpack_from(("<" if little else ">") + form, content, at)
    if length == _UNDEFINED_LENGTH:
        return PixelElement(keyword, content[start:], True)
    return PixelElement(keyword, content[start : start + length], False)


def _split(data: bytes) -> tuple[str, int]:
    """The transfer syntax UID and where the data set begins."""
    if data[128:132] == b"DICM":
        syntax, position = _read_meta(data, 132)
    elif _looks_like_dicom(data):
        # A data set without the file header: some old archives write nothing else.
        syntax, position = _read_meta(data, 0)
    else:
        raise not_dicom(data)
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
    if data[4:6].isalpha() and data[4:6].isupper():
        return element <= 0x60
    (length,) = struct.unpack_from("<I", data, 4)
    return little and element <= 0x60 and length <= 256


def _guess_syntax(start: bytes) -> str:
    if not (start[4:6].isalpha() and start[4:6].isupper()):
        return ImplicitVRLittleEndian
    return ExplicitVRBigEndian if start[:1] == b"\x00" else ExplicitVRLittleEndian


def _inflate(packed: bytes, limit: int) -> bytes:
    """Inflate at most `limit` bytes, also those with the zlib or gzip header that some programs put before them."""
    for form in (-zlib.MAX_WBITS, zlib.MAX_WBITS | 32):
        with contextlib.suppress(zlib.error):
            return zlib.decompressobj(form).decompress(packed, limit)
    raise ScanError("has a damaged deflated data set: export the file again", "truncated")


def _with_meta(syntax: str, body: bytes) -> bytes:
    """A file header that names the transfer syntax, and the data set."""
    value = syntax.encode("ascii", "replace")
    value += b"\0" * (len(value) % 2)
    element = b"\x02\x00\x10\x00UI" + struct.pack("<H", len(value)) + value
    length = b"\x02\x00\x00\x00UL\x04\x00" + struct.pack("<I", len(element))
    return bytes(128) + b"DICM" + length + element + body


def _check_end(dataset: Dataset, complete: bool) -> None:
    """Refuse a header without pixel data that was cut off; pass one that simply has no image."""
    if not complete:
        raise ScanError(f"has a header of more than {MAX_HEADER_BYTES >> 20} MB", "header-too-large")
    tags = list(dataset.keys())
    if not tags:
        raise ScanError("is not a DICOM file, or is cut off in its header", "truncated")
    with silence_pydicom():
        last = dataset.get_item(max(tags))
    if tags != sorted(tags):
        raise ScanError("has a header that is not understood: export the file again", "damaged-header")
    value = getattr(last, "value", None)
    length = getattr(last, "length", None)
    if length is not None and isinstance(value, bytes) and len(value) < length != _UNDEFINED_LENGTH:
        raise ScanError("is cut off or damaged in its header: export the file again", "truncated")
