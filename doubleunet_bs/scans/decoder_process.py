"""The process that runs the JPEG decoders; started by `doubleunet_bs.scans.decoders`, never imported by it.

The decoders are C libraries. A damaged file makes them abort, loop or ask for gigabytes (seen with single changed
bytes), so they work in a process that may die without harm. It imports nothing of this package, so that it starts fast.

Protocol, on standard input and output: one line of JSON, then as many bytes as its "length" says.
Request: {"library", "syntax", "rows", "columns", "precision", "signed", "length"} and one compressed frame.
Answer: {"length"} and the decoded samples, 8 or 16 or 32 bits each, little endian; {"missing": true} without the
library; {"failed": true} when it refuses the frame.
"""

import json
import os
import sys


def decode_gdcm(frame: bytes, request: dict) -> bytes:
    """Decode JPEG (baseline, extended with 12 bits too, lossless) with GDCM.

    pydicom's own GDCM plugin refuses 12-bit extended JPEG; GDCM reads it when the pixel format is that of the stream.
    """
    import gdcm

    gdcm.Trace.DebugOff()
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((request["columns"], request["rows"], 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(request["syntax"])))
    precision = request["precision"]
    image.SetPixelFormat(gdcm.PixelFormat(1, 8 if precision <= 8 else 16, precision, precision - 1, 0))
    # GDCM hands bytes over as a string.
    return image.GetBuffer().encode("utf-8", "surrogateescape")


def decode_jpeg_ls(frame: bytes, request: dict) -> bytes:
    """Decode JPEG-LS with CharLS."""
    import jpeg_ls

    return bytes(jpeg_ls.decode_pixel_data(frame)[0])


def decode_openjpeg(frame: bytes, request: dict) -> bytes:
    """Decode JPEG 2000 and High-Throughput JPEG 2000 with OpenJPEG."""
    from openjpeg.utils import decode_pixel_data

    return bytes(
        decode_pixel_data(
            frame,
            version=2,
            rows=request["rows"],
            columns=request["columns"],
            samples_per_pixel=1,
            photometric_interpretation="MONOCHROME2",
            pixel_representation=int(request["signed"]),
            bits_stored=request["precision"],
        )
    )


DECODERS = {"gdcm": decode_gdcm, "jpeg_ls": decode_jpeg_ls, "openjpeg": decode_openjpeg}


def limit_memory(size: int) -> None:
    """Let an allocation beyond `size` bytes of address space fail, where the system can do that (not on Windows)."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Answer requests until standard input ends."""
    requests = sys.stdin.buffer
    # The libraries print to the standard streams: give them the null device and keep the pipe for the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    limit_memory(int(sys.argv[1]))
    while line := requests.readline():
        request = json.loads(line)
        frame = requests.read(request["length"])
        decoded = b""
        try:
            decoded = DECODERS[request["library"]](frame, request)
            answer = {"length": len(decoded)}
        except ImportError:
            answer = {"missing": True}
        except Exception:
            # What went wrong inside is of no use to a technician; the caller names the file.
            answer = {"failed": True}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.write(decoded)
        answers.flush()


if __name__ == "__main__":
    main()
