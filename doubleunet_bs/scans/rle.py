"""DICOM's run-length encoding, decoded no further than the image is large."""

import struct

import numpy as np

from doubleunet_bs.errors import ScanError


def decode_rle(frame: bytes, rows: int, columns: int, bits_allocated: int) -> np.ndarray:
    """Decode one monochrome frame.

    A frame is a header of sixteen numbers and one segment per byte of a pixel, the most significant first.

    Args:
        frame: the encoded bytes.
        rows: of the image.
        columns: of the image.
        bits_allocated: 8, 16 or 32.

    Returns:
        Unsigned integers of `bits_allocated` bits, shape (rows, columns).

    Raises:
        ScanError: `damaged-pixels` when the segments do not fit the image, `truncated` when they end early.
    """
    planes = bits_allocated // 8
    if len(frame) < 64:
        raise ScanError("is cut off: a frame of its RLE pixel data has no header", "truncated")
    count, *offsets = struct.unpack("<16I", frame[:64])
    if count != planes:
        raise ScanError("has RLE pixel data of another depth than its header says", "damaged-pixels")
    bounds = [*offsets[:count], len(frame)]
    if bounds != sorted(bounds) or bounds[0] < 64:
        raise ScanError("has damaged RLE pixel data; export the file again", "damaged-pixels")
    pixels = np.zeros((rows * columns, planes), dtype=np.uint8)
    for plane in range(planes):
        segment = _decode_segment(frame[bounds[plane] : bounds[plane + 1]], rows * columns)
        pixels[:, planes - 1 - plane] = np.frombuffer(segment, dtype=np.uint8)
    return pixels.view(f"<u{planes}").reshape(rows, columns)


def _decode_segment(data: bytes, size: int) -> bytes:
    decoded = bytearray()
    position, end = 0, len(data)
    while len(decoded) < size and position < end:
        control = data[position]
        position += 1
        if control < 128:
            # The next control + 1 bytes as they are.
            decoded += data[position : position + control + 1]
            position += control + 1
        elif control > 128:
            # The next byte 257 - control times.
            decoded += data[position : position + 1] * (257 - control)
            position += 1
    if len(decoded) < size:
        raise ScanError("is cut off in its RLE pixel data", "truncated")
    return bytes(decoded[:size])
