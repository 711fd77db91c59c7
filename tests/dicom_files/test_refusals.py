"""Every kind of file that is not a whole-body scan is refused for a reason of its own, in one line with its name."""

import logging
import os
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
from dicom_headers import (
    CAPTURE,
    LOSSLESS,
    body,
    detector,
    encode,
    ge_discovery,
    ge_millennium,
    image,
    put_pixels,
    strip,
    view_code,
    write,
)
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1

from doubleunet_bs.dicom_files import decoders, dicom_file, layout, sources
from doubleunet_bs.errors import ScanError
from doubleunet_bs.scans import bone_scan as read_module
from doubleunet_bs.scans import find_scans, read_scan, scan_files


def refuse(tmp_path, data: bytes) -> ScanError:
    path = tmp_path / "the scan.dcm"
    path.write_bytes(data)
    with pytest.raises(ScanError) as caught:
        read_scan(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return caught.value


def changed(**elements) -> bytes:
    dataset = ge_discovery()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return write(dataset)


def kind(value: str) -> list[str]:
    return ["ORIGINAL", "PRIMARY", value, "EMISSION"]


@pytest.mark.parametrize(
    ("reason", "elements"),
    [
        ("tomographic", {"ImageType": kind("TOMO")}),
        ("tomographic", {"ImageType": kind("RECON TOMO")}),
        ("tomographic", {"ImageType": kind("GATED TOMO")}),
        ("tomographic", {"ImageType": kind("RECON GATED TOMO"), "Modality": "NM"}),
        ("tomographic", {"ImageType": None, "FrameIncrementPointer": [0x00540010, 0x00540090]}),
        ("dynamic", {"ImageType": kind("DYNAMIC")}),
        ("dynamic", {"ImageType": None, "FrameIncrementPointer": [0x00540010, 0x00540020, 0x00540100]}),
        ("gated", {"ImageType": kind("GATED")}),
        ("other-modality", {"Modality": "CT"}),
        ("other-modality", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Modality": None}),
        ("other-modality", {"SOPClassUID": None, "Modality": None}),
        ("screen-capture", {"SOPClassUID": CAPTURE, "Modality": "OT"}),
        ("screen-capture", {"SOPClassUID": CAPTURE, "Modality": None}),
        ("screen-capture", {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}),
        ("burned-in-annotation", {"BurnedInAnnotation": "YES"}),
        ("dicomdir", {"SOPClassUID": "1.2.840.10008.1.3.10", "Modality": None}),
        ("too-many-frames", {"NumberOfFrames": 4}),
        ("colour", {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}),
        ("screen-capture", {"SOPClassUID": CAPTURE, "PhotometricInterpretation": "PALETTE COLOR"}),
        ("transmission", {"ImageType": ["ORIGINAL", "PRIMARY", "WHOLE BODY", "TRANSMISSION"]}),
        ("transmission", {"CountsSource": "TRANSMISSION"}),
        ("damaged-header", {"PixelSpacing": "2.4"}),
        ("damaged-header", {"PixelSpacing": ["2.4", "-2.4"]}),
        ("damaged-header", {"PixelSpacing": ["2.4", "2.4", "2.4"]}),
        ("damaged-header", {"ImageOrientationPatient": ["1", "0", "0"]}),
        ("screen-capture", {"SOPClassUID": CAPTURE, "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}),
        ("damaged-header", {"Rows": None}),
        ("damaged-header", {"Rows": [1024, 1024]}),
        ("pixel-layout", {"NumberOfFrames": 0}),
        ("damaged-header", {"RescaleSlope": ["1", "2"]}),
        ("decompression-bomb", {"Rows": 65535, "Columns": 65535}),
        ("pixel-layout", {"BitsStored": 12}),
        ("pixel-layout", {"BitsAllocated": 12}),
        ("pixel-layout", {"NumberOfFrames": 1}),
    ],
)  # fmt: skip
def test_refused_by_its_header(tmp_path, reason, elements):
    assert refuse(tmp_path, changed(**elements)).reason == reason


def test_two_static_views_are_not_a_whole_body_scan(tmp_path):
    dataset = image(np.ones((2, 256, 256), int))
    dataset.ImageType = kind("STATIC")
    error = refuse(tmp_path, write(dataset))
    assert error.reason == "static" and "256 x 256" in str(error)


def test_a_millennium_file_is_no_screen_capture_but_its_colour_picture_is(tmp_path):
    path = tmp_path / "raw"
    write(ge_millennium("anterior"), path)
    assert read_scan(path, allow_missing_view=True).missing_views == ("posterior",)
    picture = ge_millennium("anterior")
    picture.Modality = "OT"
    assert refuse(tmp_path, write(picture)).reason == "screen-capture"


@pytest.mark.parametrize("which", [0, 1, None])
def test_a_blank_view(tmp_path, which):
    frames = np.stack(body()).copy()
    frames[slice(None) if which is None else which] = 0
    dataset = ge_discovery()
    put_pixels(dataset, frames)
    strip(dataset, "CountsAccumulated")
    error = refuse(tmp_path, write(dataset))
    assert error.reason == "blank"
    assert which is None or ("anterior", "posterior")[which] in str(error)


def test_an_inverted_picture(tmp_path):
    dataset = ge_discovery()
    put_pixels(dataset, 255 - np.minimum(np.stack(body()), 255))
    assert refuse(tmp_path, write(dataset)).reason == "inverted"


@pytest.mark.parametrize("syntax", ["native", *LOSSLESS])
def test_truncated_pixel_data(tmp_path, syntax):
    data = write(ge_discovery()) if syntax == "native" else encode(ge_discovery(), syntax)
    error = refuse(tmp_path, data[: len(data) * 2 // 3])
    assert error.reason in (("truncated",) if syntax == "native" else ("truncated", "damaged-pixels"))


def test_truncated_headers(tmp_path):
    data = write(ge_discovery())
    assert refuse(tmp_path, data[:150]).reason == "truncated"
    assert refuse(tmp_path, data[: data.index(b"WHOLE BODY\\")]).reason == "truncated"
    deflated = encode(ge_discovery(), DeflatedExplicitVRLittleEndian)
    assert refuse(tmp_path, deflated[: len(deflated) // 2]).reason == "truncated"


def test_no_pixel_data(tmp_path):
    dataset = ge_discovery()
    del dataset.PixelData
    assert refuse(tmp_path, write(dataset)).reason == "no-pixel-data"


@pytest.mark.parametrize(
    "data", [b"", b"hello", bytes(500), b"\x89PNG\r\n\x1a\n" + bytes(300), b"PK\x03\x04" + bytes(9)]
)
def test_not_dicom(tmp_path, data):
    # A damaged picture is said to be one.
    assert refuse(tmp_path, data).reason in ("not-dicom", "archive", "damaged-pixels")


def test_unreadable_paths(tmp_path):
    for path in (tmp_path, tmp_path / "nothing", tmp_path / ("x" * 300), "nul\0byte"):
        with pytest.raises(ScanError) as caught:
            read_scan(path)
        assert caught.value.reason == "unreadable"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_named_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ScanError, match="not a regular file"):
        read_scan(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("syntax", "library", "package"),
    [(JPEGLosslessSV1, "gdcm", "python-gdcm"), (JPEG2000Lossless, "openjpeg", "pylibjpeg-openjpeg")],
)
def test_a_missing_decoder_names_its_package(tmp_path, monkeypatch, syntax, library, package):
    data = encode(ge_discovery(), syntax)
    monkeypatch.setitem(sys.modules, library, None)
    error = refuse(tmp_path, data)
    assert error.reason == "missing-decoder" and f"pip install {package}" in str(error)


def test_an_unknown_transfer_syntax(tmp_path):
    dataset = ge_discovery()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
    dataset["PixelData"].VR = "OB"
    dataset.PixelData = b"\xfe\xff\x00\xe0" + bytes(4)
    dataset["PixelData"].is_undefined_length = True
    assert refuse(tmp_path, write(dataset)).reason == "transfer-syntax"


@pytest.mark.slow
def test_a_deflated_bomb_is_not_inflated(tmp_path):
    deflater = zlib.compressobj(9, wbits=-15)
    element = b"\x09\x00\x10\x10OB\0\0" + struct.pack("<I", sources.MAX_FILE_BYTES * 4)
    bomb = (
        deflater.compress(element) + b"".join(deflater.compress(bytes(1 << 20)) for _ in range(256)) + deflater.flush()
    )
    assert len(bomb) < 1 << 20
    meta = dicom_file._with_meta(DeflatedExplicitVRLittleEndian, bomb)
    assert refuse(tmp_path, meta).reason == "decompression-bomb"


@pytest.mark.parametrize("syntax", LOSSLESS[1:])
def test_a_codestream_larger_than_its_header_is_not_decoded(tmp_path, monkeypatch, syntax):
    monkeypatch.setattr(decoders, "_run", lambda *_: pytest.fail("the decoder was asked"))
    data = bytearray(encode(ge_discovery(), syntax))
    if syntax == JPEG2000Lossless:
        at = data.index(b"\xff\x4f\xff\x51") + 8
        data[at : at + 8] = struct.pack(">2I", 40_000, 40_000)
    else:
        marker = b"\xff\xf7\x00\x0b" if syntax.startswith("1.2.840.10008.1.2.4.8") else b"\xff\xc3\x00\x0b"
        at = data.index(marker) + 5
        data[at : at + 4] = struct.pack(">2H", 60_000, 60_000)
    error = refuse(tmp_path, bytes(data))
    assert error.reason == "decompression-bomb" and "000 x" in str(error)


def test_a_file_far_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "MAX_FILE_BYTES", 1 << 20)
    dataset = ge_discovery()
    dataset.private_block(0x99, "BIG", create=True).add_new(1, "OB", bytes(1 << 20))
    assert refuse(tmp_path, write(dataset)).reason in ("too-large", "header-too-large")


def test_a_header_of_countless_items(tmp_path):
    item = b"\xfe\xff\x00\xe0\0\0\0\0"
    sequence = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + item * 100_000 + b"\xfe\xff\xdd\xe0\0\0\0\0"
    meta = dicom_file._with_meta(ExplicitVRLittleEndian, sequence)
    error = refuse(tmp_path, meta)
    assert error.reason == "damaged-header" and "items" in str(error)


def test_sequences_nested_without_end(tmp_path):
    opening = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    meta = dicom_file._with_meta(ExplicitVRLittleEndian, opening * 15_000)
    assert refuse(tmp_path, meta).reason == "damaged-header"


def test_messages_and_logs_never_repeat_the_header(tmp_path, caplog, capfd):
    secret = "GEHEIM"
    caplog.set_level(logging.DEBUG)
    for elements in (
        {"Modality": secret},
        {"ImageType": ["ORIGINAL", secret, "TOMO"]},
        {"PhotometricInterpretation": secret},
        {"BurnedInAnnotation": "YES", "PatientName": secret},
        {"SOPClassUID": secret},
        {"PixelSpacing": None, "SeriesDescription": secret, "Rows": 700},
        {"DetectorInformationSequence": [detector(ViewCodeSequence=view_code(secret))], "NumberOfFrames": 3},
    ):  # fmt: skip
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            data = changed(**elements)
            caught.clear()
            caplog.clear()
            error = refuse(tmp_path, data)
            assert not caught
        assert secret not in str(error) and secret not in error.reason
        assert not caplog.records
    # A number element that holds a name instead.
    data = changed(CountsAccumulated=12345678).replace(b"12345678", b"GEHEIM^X")
    dataset_warnings = []
    path = tmp_path / "odd"
    path.write_bytes(data)
    caplog.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset_warnings += read_scan(path).warnings
    assert not caught and not caplog.records
    assert dataset_warnings == ["Counts Accumulated is unreadable: the sum of the pixels was not compared with it"]
    out, err = capfd.readouterr()
    assert secret not in out + err


def test_an_error_of_this_program_is_not_a_damaged_file(tmp_path, monkeypatch):
    path = tmp_path / "scan.dcm"
    write(ge_discovery(), path)

    def broken(*_):
        raise NameError("a typo")

    monkeypatch.setattr(read_module, "read_counts", broken)
    with pytest.raises(NameError):
        read_scan(path)
    monkeypatch.setattr(scan_files, "load_scan_header", broken)
    with pytest.raises(NameError):
        find_scans(tmp_path)
