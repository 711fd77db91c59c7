"""Encapsulated pixel data -> compressed frames -> stored values, with one library for each transfer syntax.

| transfer syntax | library | package |
|---|---|---|
| RLE | pydicom | pydicom |
| JPEG baseline, extended, lossless | GDCM | python-gdcm |
| JPEG-LS, lossless and near-lossless | CharLS | pyjpegls |
| JPEG 2000, High-Throughput JPEG 2000 | OpenJPEG | pylibjpeg-openjpeg |
"""

import atexit
import contextlib
import importlib.util
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from doubleunet_bs.dicom_files.decode_process import READY
from doubleunet_bs.dicom_files.sources import DECODER_BYTES, DECODER_SECONDS
from doubleunet_bs.errors import ScanError, os_reason

# -P keeps this folder, with its short module names, off the path of the decoders.
_COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("decode_process.py")))

NATIVE_SYNTAXES = {
    ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian
}  # fmt: skip


class Decoder(NamedTuple):
    """Which library decodes a transfer syntax."""

    name: str  # of the compression, for messages
    plugin: str  # pydicom's name of the library, or "openjpeg"
    module: str  # what has to be importable
    package: str  # what to install to get it
    lossy: bool = False


_GDCM = ("gdcm", "gdcm", "python-gdcm")
_CHARLS = ("pyjpegls", "jpeg_ls", "pyjpegls")
_OPENJPEG = ("openjpeg", "openjpeg", "pylibjpeg-openjpeg")
DECODERS: dict[str, Decoder] = {
    RLELossless: Decoder("RLE", "pydicom", "pydicom", "pydicom"),
    JPEGBaseline8Bit: Decoder("JPEG baseline", *_GDCM, lossy=True),
    JPEGExtended12Bit: Decoder("JPEG extended", *_GDCM, lossy=True),
    JPEGLossless: Decoder("JPEG lossless", *_GDCM),
    JPEGLosslessSV1: Decoder("JPEG lossless", *_GDCM),
    JPEGLSLossless: Decoder("JPEG-LS lossless", *_CHARLS),
    JPEGLSNearLossless: Decoder("JPEG-LS near-lossless", *_CHARLS, lossy=True),
    JPEG2000Lossless: Decoder("JPEG 2000 lossless", *_OPENJPEG),
    JPEG2000: Decoder("JPEG 2000", *_OPENJPEG, lossy=True),
    HTJ2KLossless: Decoder("High-Throughput JPEG 2000 lossless", *_OPENJPEG),
    HTJ2KLosslessRPCL: Decoder("High-Throughput JPEG 2000 lossless", *_OPENJPEG),
    HTJ2K: Decoder("High-Throughput JPEG 2000", *_OPENJPEG, lossy=True),
}

# Start of a JPEG or JPEG-LS frame: length, precision, rows, columns, components. SOF0 to SOF15 without DHT, JPG and
# DAC, which share the range, and SOF55.
_JPEG_FRAME = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf\xf7](..)(.)(..)(..)(.)", re.DOTALL)
_JPEG2000_START = b"\xff\x4f\xff\x51"
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
# JPEG and JPEG-LS, JPEG 2000, a JP2 file around it.
_STREAM_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP")
END_WARNING = "the end mark of the compressed pixel data is missing or damaged; all frames are there"


class Codestream(NamedTuple):
    """What a compressed frame says of its image."""

    rows: int
    columns: int
    components: int  # samples per pixel
    precision: int  # bits per sample
    signed: bool = False  # only JPEG 2000 can say so


def describe_frame(frame: bytes) -> Codestream:
    """The size of the image in a JPEG, JPEG-LS or JPEG 2000 frame; `damaged-pixels` when it has no readable header."""
    jpeg = frame[:2] == b"\xff\xd8"
    # A JPEG 2000 stream may be wrapped in a JP2 file.
    start = -1 if jpeg else frame.find(_JPEG2000_START, 0, 4096)
    if start >= 0 and len(frame) >= start + 43:
        right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
        components, depth = struct.unpack_from(">HB", frame, start + 40)
        return Codestream(bottom - top, right - left, components, (depth & 0x7F) + 1, bool(depth & 0x80))
    position = 2
    while jpeg and position + 4 <= len(frame) and frame[position] == 0xFF:
        if found := _JPEG_FRAME.match(frame, position):
            _, depth, rows, columns, components = (int.from_bytes(field, "big") for field in found.groups())
            return Codestream(rows, columns, components, depth)
        marker = frame[position + 1]
        if marker == 0xDA:  # the compressed data begin without a frame header
            break
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in (0x01, *range(0xD0, 0xD9)):  # a marker without a length
            position += 2
        else:
            position += 2 + struct.unpack_from(">H", frame, position + 2)[0]
    raise ScanError("has compressed pixel data without a readable header: export the file again", "damaged-pixels")


def check_decoder(uid: str) -> None:
    """Refuse a transfer syntax that is not read (`transfer-syntax`) or lacks its library (`missing-decoder`)."""
    if uid in NATIVE_SYNTAXES:
        return
    if uid not in DECODERS:
        # The UID is not repeated: a damaged header can hold anything there.
        raise ScanError("has pixel data in a transfer syntax (compression) that is not read", "transfer-syntax")
    decoder = DECODERS[uid]
    try:
        installed = importlib.util.find_spec(decoder.module) is not None
    except ValueError:
        # A module that was blocked has no spec.
        installed = False
    if not installed:
        raise ScanError(
            f"is compressed ({decoder.name}), the decoder is not installed: pip install {decoder.package}",
            "missing-decoder",
        )


def decode(
    compressed: Sequence[bytes], uid: str, shape: tuple[int, int, int], allocated: int
) -> tuple[np.ndarray, Codestream | None]:
    """Decode monochrome pixel data in a process of its own, which a damaged file may abort or block.

    Args:
        compressed: the frames. uid: transfer syntax UID, a key of `DECODERS`.
        shape: (frames, rows, columns) of the header. allocated: its Bits Allocated, which decides for RLE.

    Returns:
        Integers of `shape`, exactly the decoder's bits, and what the first stream says about them; None for RLE.

    Raises:
        ScanError: `decompression-bomb` when a stream holds another image size than the header says, `colour`,
            or `damaged-pixels`; `decoder` or `missing-decoder` when the decoder itself does not run.
    """
    frames, rows, columns = shape
    streams = set() if uid == RLELossless else {describe_frame(frame) for frame in compressed}
    for each in streams:
        if (each.rows, each.columns) != (rows, columns):
            message = f"has compressed images of {each.rows} x {each.columns}, its header says {rows} x {columns}"
            raise ScanError(message, "decompression-bomb")
        if each.components != 1:
            raise ScanError("has compressed pixel data in colour: counts have one value per pixel", "colour")
    if len(streams) > 1 or not all(2 <= each.precision <= 32 for each in streams):
        raise ScanError("has compressed pixel data of impossible or varying depth", "damaged-pixels")
    stream = next(iter(streams), None)
    bits = stream.precision if stream else allocated
    words = next(width for width in (8, 16, 32) if bits <= width)
    options = {
        "number_of_frames": frames,
        "rows": rows,
        "columns": columns,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": words,
        "bits_stored": bits,
        "pixel_representation": int(stream is not None and stream.signed),
        "allow_excess_frames": False,
    }
    values = _run(encapsulate(list(compressed), has_bot=False), uid, options)
    dtype = np.dtype(f"<{'i' if options['pixel_representation'] else 'u'}{words // 8}")
    if len(values) != frames * rows * columns * dtype.itemsize:
        raise ScanError(f"has damaged {DECODERS[uid].name} pixel data: export the file again", "damaged-pixels")
    return np.frombuffer(values, dtype).reshape(shape), stream


def _run(data: bytes, uid: str, options: dict) -> bytes:
    """The samples of `decode_process`; empty when the data make its child fail, die or take too long.

    Raises:
        ScanError: before its decoder is loaded, the process ends with an error, `missing-decoder`, or is killed, too
            slow or not started, `decoder`, which may heal.
    """
    # pydicom refuses 12-bit JPEG Extended with GDCM, which reads it, and by the stream alone: name it a baseline JPEG.
    named = JPEGBaseline8Bit if uid == JPEGExtended12Bit else uid
    request = {"uid": named, "plugin": DECODERS[uid].plugin, "options": options, "memory": DECODER_BYTES}
    try:
        status, output = _process.ask({**request, "seconds": DECODER_SECONDS, "size": len(data)}, data)
    except OSError as cause:
        raise ScanError(f"needs a decoding process, which does not start ({os_reason(cause)})", "decoder") from None
    if not output.startswith(READY):
        if status < 0:
            raise ScanError("needs a decoding process, which was killed or too slow: try again", "decoder")
        message = f"needs a decoder that cannot run: reinstall {DECODERS[uid].package} and pydicom"
        raise ScanError(message, "missing-decoder")
    return output[len(READY) :] if status == 0 else b""


class _DecodeProcess:
    """`decode_process`, started when the first file needs it. One for each process of this program."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started: subprocess.Popen | None = None

    def ask(self, request: dict, data: bytes) -> tuple[int, bytes]:
        """Exit status and output for one request. If the process ends: its own exit status and no output.

        OSError: it does not start.
        """
        with self._lock:
            if self._started is None or self._started.poll() is not None:
                self.end()
                self._started = self._start()
            process = self._started
            assert process.stdin is not None and process.stdout is not None
            # The process limits the time of its child. This is for an import of pydicom that hangs.
            watch = threading.Timer(request["seconds"] + DECODER_SECONDS, self._kill)
            watch.start()
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n" + data)
                process.stdin.flush()
                status, size = json.loads(process.stdout.readline())
                output = process.stdout.read(size)
                if len(output) < size:
                    raise EOFError
                return status, output
            except (BrokenPipeError, EOFError, ValueError):  # It has ended.
                return process.wait(), b""
            except BaseException:  # Interrupted. The next question must not get this answer.
                self.end()
                raise
            finally:
                watch.cancel()

    def _start(self) -> subprocess.Popen:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        # In a session of its own, no key that interrupts this program reaches it.
        return subprocess.Popen(_COMMAND, stdin=pipe, stdout=pipe, stderr=null, env=environment, start_new_session=True)

    def _kill(self) -> None:
        """Kill the process, and the child that is decoding."""
        if self._started is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._started.pid, signal.SIGKILL)

    def end(self) -> None:
        """End the process. The next request starts another."""
        if self._started is not None:
            self._kill()
            with contextlib.suppress(BrokenPipeError), self._started:
                pass
            self._started = None


_process = _DecodeProcess()
atexit.register(lambda: _process.end())


def _forget_process() -> None:
    """After a fork: two processes that ask one would get each other's answers."""
    global _process
    _process = _DecodeProcess()


os.register_at_fork(after_in_child=_forget_process)


def split_frames(data: bytes, frames: int, uid: str) -> tuple[list[bytes], list[str]]:
    """Split encapsulated pixel data into compressed frames, and return them with warnings.

    Programs leave out the end mark, write zeros behind it, or cut frames into fragments without saying where a frame
    ends. None of that costs a pixel.

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
