"""The process that runs the decoders of compressed pixel data; started by `doubleunet_bs.dicom_files.decoders` only.

One changed byte in a file can make these C libraries abort, loop or ask for gigabytes. So each file is decoded in a
child of this process, forked once pydicom is imported: the import takes twenty times as long as an uncompressed scan. A
child can only end itself. Nothing of the package is imported, so that no path to it is needed.

Standard input, for each file: a line of JSON and the encapsulated frames. The line has the keys `uid` (transfer
syntax), `plugin`, `options` (keyword arguments of pydicom's `Decoder.as_array`), `memory` (bytes of address space),
`seconds` and `size` (bytes of the frames). Standard output, for each: a line of JSON, [exit status of the child,
negative for a signal; bytes that follow], and what the child wrote: `READY` once its decoder is loaded, since what goes
wrong before is no fault of the data, then the samples. With status 0 they are complete: little endian, in the data type
that the options describe.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import BinaryIO

READY = b"ready\n"


def limit_memory(size: int) -> None:
    """Let an allocation beyond `size` bytes of address space fail."""
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def load_openjpeg() -> Callable[[bytes, dict], bytes]:
    """The function that decodes JPEG 2000. pydicom's own way to OpenJPEG would need another package, pylibjpeg."""
    from openjpeg.utils import decode_pixel_data  # installed only where JPEG 2000 is read
    from pydicom.encaps import generate_frames

    def decode(data: bytes, options: dict) -> bytes:
        frames = generate_frames(data, number_of_frames=options["number_of_frames"])
        return b"".join(bytes(decode_pixel_data(frame, version=2, **options)) for frame in frames)

    return decode


def load_pydicom(uid: str, plugin: str) -> Callable[[bytes, dict], bytes]:
    """The function that decodes with one of pydicom's plugins; ImportError when its library does not load."""
    from pydicom.pixels import get_decoder

    decoder = get_decoder(uid)
    if plugin not in decoder.available_plugins:
        raise ImportError(f"{plugin} is not available")

    def decode(data: bytes, options: dict) -> bytes:
        samples, _ = decoder.as_array(data, raw=True, decoding_plugin=plugin, **options)
        return samples.astype(samples.dtype.newbyteorder("<"), copy=False).tobytes()

    return decode


def decode_in_child(request: dict, data: bytes, answers: BinaryIO) -> tuple[int, bytes]:
    """The exit status of a child that decodes `data`, and what it wrote."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.setitimer(signal.ITIMER_REAL, request["seconds"])  # Its signal ends the child.
            for inherited in (0, answers.fileno(), reading):
                os.close(inherited)
            plugin = request["plugin"]
            decode = load_openjpeg() if plugin == "openjpeg" else load_pydicom(request["uid"], plugin)
            limit_memory(request["memory"])
            with os.fdopen(writing, "wb") as output:
                output.write(READY)
                output.flush()
                output.write(decode(data, request["options"]))
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as samples:
        written = samples.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), written


def main() -> None:
    """Answer requests until standard input ends."""
    # A program that is told to end may first read the scan that it has begun, and ends this process afterwards.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    import pydicom.encaps
    import pydicom.pixels  # noqa: F401 - for the children

    # The libraries print to standard output, which has to stay clean for the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        data = sys.stdin.buffer.read(request["size"])
        try:
            status, written = decode_in_child(request, data, answers)
        except (OSError, MemoryError):  # No memory or process for a child: as if it had been killed.
            status, written = -signal.SIGKILL, b""
        answers.write(json.dumps([status, len(written)]).encode() + b"\n" + written)
        answers.flush()


if __name__ == "__main__":
    main()
