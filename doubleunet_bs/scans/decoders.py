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
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans.codestreams import Codestream, describe_jpeg, describe_jpeg2000
from doubleunet_bs.scans.limits import DECODER_BYTES, DECODER_SECONDS

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
