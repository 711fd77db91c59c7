"""What a compressed frame says about itself, read before any decoder is allowed to believe it."""

import dataclasses
import struct

from doubleunet_bs.errors import ScanError

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
