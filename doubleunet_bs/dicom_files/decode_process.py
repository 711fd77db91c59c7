"""The process that runs the decoders of compressed pixel data; started by `doubleunet_bs.dicom_files.decoders` only.

One changed byte in a file can make these C libraries abort, loop or ask for gigabytes. Here they can only end this
process. It imports nothing of this package, so that it needs no path to it.

Usage: `python decode_process.py MEMORY UID PLUGIN OPTIONS < encapsulated frames > samples`. MEMORY is in bytes,
OPTIONS are the keyword arguments of pydicom's `Decoder.as_array` as JSON. `READY` is written once the decoder is
loaded: what goes wrong before is no fault of the data. Exit status 0 means that all samples follow: little endian, in
the data type that OPTIONS describe.
"""

import json
import os
import resource
import sys
from collections.abc import Callable

from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder

READY = b"ready\n"


def limit_memory(size: int) -> None:
    """Let an allocation beyond `size` bytes of address space fail."""
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def load_openjpeg() -> Callable[[bytes, dict], bytes]:
    """The function that decodes JPEG 2000. pydicom's own way to OpenJPEG would need another package, pylibjpeg."""
    from openjpeg.utils import decode_pixel_data  # installed only where JPEG 2000 is read

    def decode(data: bytes, options: dict) -> bytes:
        frames = generate_frames(data, number_of_frames=options["number_of_frames"])
        return b"".join(bytes(decode_pixel_data(frame, version=2, **options)) for frame in frames)

    return decode


def load_pydicom(uid: str, plugin: str) -> Callable[[bytes, dict], bytes]:
    """The function that decodes with one of pydicom's plugins; ImportError when its library does not load."""
    decoder = get_decoder(uid)
    if plugin not in decoder.available_plugins:
        raise ImportError(f"{plugin} is not available")

    def decode(data: bytes, options: dict) -> bytes:
        samples, _ = decoder.as_array(data, raw=True, decoding_plugin=plugin, **options)
        return samples.astype(samples.dtype.newbyteorder("<"), copy=False).tobytes()

    return decode


def main() -> None:
    """Decode standard input to standard output."""
    memory, uid, plugin, described = sys.argv[1:]
    options = json.loads(described)
    data = sys.stdin.buffer.read()
    # The libraries print to standard output, which has to stay clean for the samples.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    decode = load_openjpeg() if plugin == "openjpeg" else load_pydicom(uid, plugin)
    limit_memory(int(memory))
    with output:
        output.write(READY)
        output.flush()
        output.write(decode(data, options))


if __name__ == "__main__":
    main()
