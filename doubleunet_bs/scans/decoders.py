"""Compressed frames -> samples: one decoder per transfer syntax, always the same one (decided here).

| transfer syntax | library | package |
|---|---|---|
| RLE | pydicom | pydicom |
| JPEG baseline, extended, lossless | GDCM | python-gdcm |
| JPEG-LS, lossless and near-lossless | CharLS | pyjpegls |
| JPEG 2000, High-Throughput JPEG 2000 | OpenJPEG | pylibjpeg-openjpeg |

pydicom would take whichever plugin is installed; two machines could then read two different arrays from one lossy file.
"""

import atexit
import dataclasses
import importlib.util
import json
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans.sources import DECODER_BYTES, DECODER_SECONDS

# JPEG markers that stand alone, without a length.
_LONE_MARKERS = {0x01, *range(0xD0, 0xD9)}
# Start of frame: all of SOF0 to SOF15 (without DHT, JPG and DAC, which share the range), and SOF55 of JPEG-LS.
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_LOSSLESS_FRAMES = {0xC3, 0xC7, 0xCB, 0xCF}


@dataclasses.dataclass(frozen=True)
class Codestream:
    """The size of the image in a compressed frame.

    Attributes:
        rows, columns: of the image.
        components: samples per pixel.
        precision: bits per sample.
        signed: whether the stream itself holds signed samples (only JPEG 2000 can say so).
    """

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool = False


def describe_jpeg(frame: bytes) -> Codestream:
    """Read the frame header of a JPEG or JPEG-LS stream.

    Raises:
        ScanError: `damaged-pixels` when there is none.
    """
    position = 2
    if frame[:2] != b"\xff\xd8":
        raise ScanError("the compressed pixel data do not begin with a JPEG image", "damaged-pixels")
    while position + 4 <= len(frame):
        if frame[position] != 0xFF:
            break
        marker = frame[position + 1]
        if marker == 0xFF:
            # Fill byte before a marker.
            position += 1
            continue
        if marker in _LONE_MARKERS:
            position += 2
            continue
        (length,) = struct.unpack_from(">H", frame, position + 2)
        if marker in _FRAME_MARKERS:
            if length < 8 or position + 10 > len(frame):
                break
            precision, rows, columns, components = struct.unpack_from(">BHHB", frame, position + 4)
            return Codestream(rows, columns, components, precision)
        if marker == 0xDA or length < 2:
            # Entropy-coded data before any frame header.
            break
        position += 2 + length
    raise ScanError("the compressed pixel data have no readable JPEG frame header", "damaged-pixels")


def describe_jpeg2000(frame: bytes) -> Codestream:
    """Read the SIZ segment of a JPEG 2000 stream, bare or in a JP2 box.

    Raises:
        ScanError: `damaged-pixels` when there is none, or when it describes an impossible image.
    """
    start = 0 if frame[:4] == b"\xff\x4f\xff\x51" else frame.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start < 0 or len(frame) < start + 45:
        raise ScanError("the compressed pixel data have no readable JPEG 2000 header", "damaged-pixels")
    columns_end, rows_end, left, top, tile_columns, tile_rows, tile_left, tile_top, components = struct.unpack_from(
        ">8IH", frame, start + 8
    )
    sample, step_x, step_y = struct.unpack_from(">3B", frame, start + 42)
    if min(tile_columns, tile_rows) == 0 or (step_x, step_y) != (1, 1) or left >= columns_end or top >= rows_end:
        raise ScanError("the JPEG 2000 header of the pixel data is damaged", "damaged-pixels")
    tiles = -(-(columns_end - tile_left) // tile_columns) * -(-(rows_end - tile_top) // tile_rows)
    if not 1 <= tiles <= 65535:
        raise ScanError("the JPEG 2000 header of the pixel data is damaged", "damaged-pixels")
    return Codestream(rows_end - top, columns_end - left, components, (sample & 0x7F) + 1, bool(sample & 0x80))


RLE_LOSSLESS = "1.2.840.10008.1.2.5"
NATIVE_SYNTAXES = {
    "1.2.840.10008.1.2": "implicit little endian",
    "1.2.840.10008.1.2.1": "explicit little endian",
    "1.2.840.10008.1.2.2": "explicit big endian",
    # What pydicom calls it after we have inflated it ourselves: explicit little endian.
    "1.2.840.10008.1.2.1.99": "deflated explicit little endian",
}


@dataclasses.dataclass(frozen=True)
class Decoder:
    """Which library decodes a transfer syntax.

    Attributes:
        name: what the compression is called, for messages.
        library: the module to import, and the key in `decoder_process.DECODERS`.
        package: what to install to get it.
        lossy: whether the decoded counts may differ from the acquired ones.
    """

    name: str
    library: str
    package: str
    lossy: bool = False


_JPEG = "1.2.840.10008.1.2.4."
DECODERS = {
    RLE_LOSSLESS: Decoder("RLE", "pydicom", "pydicom"),
    _JPEG + "50": Decoder("JPEG baseline", "gdcm", "python-gdcm", lossy=True),
    _JPEG + "51": Decoder("JPEG extended", "gdcm", "python-gdcm", lossy=True),
    _JPEG + "57": Decoder("JPEG lossless", "gdcm", "python-gdcm"),
    _JPEG + "70": Decoder("JPEG lossless", "gdcm", "python-gdcm"),
    _JPEG + "80": Decoder("JPEG-LS lossless", "jpeg_ls", "pyjpegls"),
    _JPEG + "81": Decoder("JPEG-LS near-lossless", "jpeg_ls", "pyjpegls", lossy=True),
    _JPEG + "90": Decoder("JPEG 2000 lossless", "openjpeg", "pylibjpeg-openjpeg"),
    _JPEG + "91": Decoder("JPEG 2000", "openjpeg", "pylibjpeg-openjpeg", lossy=True),
    _JPEG + "201": Decoder("High-Throughput JPEG 2000 lossless", "openjpeg", "pylibjpeg-openjpeg"),
    _JPEG + "202": Decoder("High-Throughput JPEG 2000 lossless", "openjpeg", "pylibjpeg-openjpeg"),
    _JPEG + "203": Decoder("High-Throughput JPEG 2000", "openjpeg", "pylibjpeg-openjpeg", lossy=True),
}


def check_decoder(syntax: str) -> None:
    """See that pixel data of the transfer syntax can be read at all.

    Raises:
        ScanError: `transfer-syntax` when this package does not read it, `missing-decoder` when the library for it
            is not installed.
    """
    if syntax in NATIVE_SYNTAXES:
        return
    decoder = DECODERS.get(syntax)
    if decoder is None:
        # The UID is not repeated: a damaged header can hold anything there.
        raise ScanError("its pixel data are in a transfer syntax (compression) that is not read", "transfer-syntax")
    if not _installed(decoder.library):
        raise _missing(decoder)


def decode_frame(frame: bytes, syntax: str, rows: int, columns: int) -> tuple[np.ndarray, Codestream]:
    """Decode one compressed monochrome frame (JPEG of any kind; RLE is read by `pixels`).

    Args:
        frame: the compressed bytes.
        syntax: transfer syntax UID, a key of `DECODERS`.
        rows: the Rows the header gives.
        columns: the Columns the header gives.

    Returns:
        The samples, unsigned integers of 8, 16 or 32 bits of shape (rows, columns), exactly the decoder's bits
        (signed samples in two's complement), and what the stream says about them.

    Raises:
        ScanError: `decompression-bomb` when the stream holds another image size than the header says,
            `missing-decoder`, or `damaged-pixels`.
    """
    decoder = DECODERS[syntax]
    stream = describe_jpeg2000(frame) if decoder.library == "openjpeg" else describe_jpeg(frame)
    if (stream.rows, stream.columns) != (rows, columns):
        raise ScanError(
            f"its compressed pixel data hold an image of {stream.rows} x {stream.columns}, the header says "
            f"{rows} x {columns}",
            "decompression-bomb",
        )
    if stream.components != 1:
        raise ScanError("its compressed pixel data are in colour; counts have one value per pixel", "colour")
    highest = 32 if decoder.library == "openjpeg" else 16
    if not 2 <= stream.precision <= highest:
        raise ScanError(f"its compressed pixel data claim {stream.precision} bits per pixel", "damaged-pixels")
    request = {
        "library": decoder.library,
        "syntax": syntax,
        "rows": rows,
        "columns": columns,
        "precision": stream.precision,
        "signed": stream.signed,
    }
    decoded = _process.decode(frame, request)
    if decoded is None:
        raise _missing(decoder)
    size = {rows * columns * width: width for width in (1, 2, 4)}.get(len(decoded))
    if size is None:
        raise ScanError(f"its {decoder.name} pixel data cannot be decoded; export the file again", "damaged-pixels")
    return np.frombuffer(decoded, dtype=f"<u{size}").reshape(rows, columns), stream


def _installed(library: str) -> bool:
    try:
        return importlib.util.find_spec(library) is not None
    except (ValueError, ImportError):
        # A module that was blocked or half removed has no spec.
        return False


def _missing(decoder: Decoder) -> ScanError:
    return ScanError(
        f"its pixel data are compressed ({decoder.name}), the decoder is not installed: pip install {decoder.package}",
        "missing-decoder",
    )


class DecoderProcess:
    """A process that decodes frames one after the other, started when first needed, again when it has died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._of_parent: subprocess.Popen | None = None

    def decode(self, frame: bytes, request: dict) -> bytes | None:
        """Return the decoded bytes: empty when decoding failed, None when the library is missing."""
        with self._lock:
            process = self._running()
            watchdog = threading.Timer(DECODER_SECONDS, process.kill)
            watchdog.start()
            try:
                process.stdin.write(json.dumps({**request, "length": len(frame)}).encode() + b"\n")
                process.stdin.write(frame)
                process.stdin.flush()
                answer = json.loads(process.stdout.readline())
                length = answer.get("length")
                if length is None:
                    # It says itself that it failed, or has no library; it is well and stays.
                    return None if answer.get("missing") else b""
                if not 0 <= length <= 4 * request["rows"] * request["columns"]:
                    raise ValueError
                decoded = process.stdout.read(length)
                if len(decoded) == length:
                    return decoded
            except (OSError, ValueError, AttributeError, TypeError):
                # The pipe is broken, or what comes out of it is no answer.
                decoded = b""
            except BaseException:
                # Interrupted half-way: the rest of this answer must not be taken for the next one.
                self._stop()
                raise
            finally:
                watchdog.cancel()
            # It died, was killed or talks nonsense: the next frame gets a fresh one.
            self._stop()
            return b""

    def close(self) -> None:
        """End the process; the next frame starts another."""
        with self._lock:
            self._stop()

    def forget(self) -> None:
        """After a fork: the process answers the parent, so the child leaves it alone and starts its own."""
        self._lock = threading.Lock()
        # Kept, because closing its pipes might write into them what the parent was about to write.
        self._of_parent, self._process = self._process, None

    def _running(self) -> subprocess.Popen:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._stop()
        try:
            self._process = subprocess.Popen(
                # -P keeps this folder, with its short module names, off the path of the decoders.
                [sys.executable, "-P", str(Path(__file__).with_name("decoder_process.py")), str(DECODER_BYTES)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        except OSError as cause:
            raise ScanError(f"the process that decodes compressed pixels does not start ({cause.strerror})") from None
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            try:
                pipe.close()
            except OSError:
                # Bytes were left for a process that is gone.
                continue
        process.wait()


_process = DecoderProcess()
atexit.register(_process.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.forget)
