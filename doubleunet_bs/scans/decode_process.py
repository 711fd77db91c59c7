"""The process that runs the decoders of compressed pixel data; started by `doubleunet_bs.scans.decoders` only.

One changed byte in a file can make these C libraries abort, loop or ask for gigabytes. Here they can only end this
process. It imports nothing of this package, so that it needs no path to it.

Usage: `python decode_process.py MEMORY UID PLUGIN OPTIONS < encapsulated frames > samples`. MEMORY is in bytes,
OPTIONS are the keyword arguments of pydicom's `Decoder.as_array` as JSON. Exit status 0 means that all samples were
written: little endian, in the data type that OPTIONS describe.
"""

import json
import os
import sys

from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder


def limit_memory(size: int) -> None:
    """Let an allocation beyond `size` bytes of address space fail, where the system can do that (not on Windows)."""
    try:
        import resource  # POSIX only
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def decode_openjpeg(data: bytes, options: dict) -> bytes:
    """Decode JPEG 2000. pydicom's own way to OpenJPEG would need another package, pylibjpeg."""
    from openjpeg.utils import decode_pixel_data  # installed only where JPEG 2000 is read

    frames = generate_frames(data, number_of_frames=options["number_of_frames"])
    return b"".join(bytes(decode_pixel_data(frame, version=2, **options)) for frame in frames)


def decode_pydicom(data: bytes, uid: str, plugin: str, options: dict) -> bytes:
    """Decode with one of pydicom's plugins."""
    samples, _ = get_decoder(uid).as_array(data, raw=True, decoding_plugin=plugin, **options)
    return samples.astype(samples.dtype.newbyteorder("<"), copy=False).tobytes()


def main() -> None:
    """Decode standard input to standard output."""
    memory, uid, plugin, options = sys.argv[1:]
    data = sys.stdin.buffer.read()
    # The libraries print to standard output, which has to stay clean for the samples.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    limit_memory(int(memory))
    described = json.loads(options)
    openjpeg = plugin == "openjpeg"
    samples = decode_openjpeg(data, described) if openjpeg else decode_pydicom(data, uid, plugin, described)
    with output:
        output.write(samples)


if __name__ == "__main__":
    main()
