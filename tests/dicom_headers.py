"""Small DICOM files in the shapes that real cameras write, made from scratch for the tests.

`body()` is no anatomy: a block of counts with air around it and a hot spot on the patient's right arm, so that sides,
sums and orders can be worked out by hand.
"""

import functools
import io

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

NUCLEAR = "1.2.840.10008.5.1.4.1.1.20"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ROOT = "1.2.826.0.1.3680043.10.1"
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
LOSSLESS = (RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless)


@functools.cache
def body(rows: int = 1024, columns: int = 256, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Anterior and posterior counts, int64: a body of mean 20 in the middle, its right arm (left in front) hotter."""
    random = np.random.default_rng(seed)
    expected = np.zeros((rows, columns))
    expected[rows // 8 : rows * 7 // 8, columns * 3 // 8 : columns * 5 // 8] = 20
    expected[rows // 2 : rows // 2 + rows // 16, columns // 4 : columns * 3 // 8] = 60
    views = random.poisson(expected), random.poisson(expected[:, ::-1])
    for view in views:
        # Shared by all tests.
        view.flags.writeable = False
    return views


def write(dataset: FileDataset, path=None):
    """Write to `path`, or return the bytes."""
    buffer = io.BytesIO()
    big = dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    implicit = dataset.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    if big:
        # pydicom insists that this is really meant.
        dcmwrite(buffer, dataset, implicit_vr=False, little_endian=False, force_encoding=True)
    else:
        dcmwrite(buffer, dataset, enforce_file_format=True, implicit_vr=implicit, little_endian=True)
    if path is None:
        return buffer.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return path


def image(frames: np.ndarray, number: int = 1) -> FileDataset:
    """A nuclear medicine whole-body file that says nothing about views. frames: (n, rows, columns)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = NUCLEAR
    meta.MediaStorageSOPInstanceUID = f"{ROOT}.4.{number}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = NUCLEAR, f"{ROOT}.4.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{ROOT}.2.1", f"{ROOT}.3.1"
    dataset.Modality = "NM"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "WHOLE BODY", "EMISSION"]
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "ID-1"
    dataset.InstanceNumber = number
    dataset.AcquisitionDate, dataset.AcquisitionTime = "20200102", "101500"
    dataset.PixelSpacing = ["2.4", "2.4"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    put_pixels(dataset, np.asarray(frames))
    return dataset


def put_pixels(dataset: FileDataset, frames: np.ndarray, bits: int = 16, signed: bool = False) -> None:
    """Set uncompressed pixel data (little endian) and what describes them."""
    frames = frames if frames.ndim == 3 else frames[None]
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    dataset.PixelData = frames.astype(f"<{'i' if signed else 'u'}{bits // 8}").tobytes()
    dataset["PixelData"].VR = "OW"


def ge_discovery(seed: int = 0, number: int = 1) -> FileDataset:
    """Two frames, view names only in private elements, detector angles 180 and 0, empty orientation."""
    frames = np.stack(body(seed=seed))
    dataset = image(frames, number)
    dataset.CountsAccumulated = int(frames.sum())
    dataset.DetectorVector, dataset.EnergyWindowVector = [1, 2], [1, 1]
    dataset.DetectorInformationSequence = Sequence([detector(StartAngle="180"), detector(StartAngle="0")])
    ge_names(dataset, ["WHOLE BODY_ANT", "WHOLE BODY_POST"])
    return dataset


def siemens(seed: int = 0, number: int = 1) -> FileDataset:
    """Two frames, each detector with a view code; CountsAccumulated empty."""
    dataset = image(np.stack(body(seed=seed)), number)
    dataset.CountsAccumulated = None
    dataset.DetectorVector = [1, 2]
    dataset.DetectorInformationSequence = Sequence([
        detector(ViewCodeSequence=view_code("RT      ANT")), detector(ViewCodeSequence=view_code("LT      POST"))
    ])  # fmt: skip
    return dataset


def ge_millennium(view: str, seed: int = 0, name: str | None = None) -> FileDataset:
    """One view, Secondary Capture class with modality NM, signed 16 bit, view only in the private name."""
    frame = body(seed=seed)[("anterior", "posterior").index(view)]
    number = 1 if view == "anterior" else 2
    dataset = image(frame, number)
    put_pixels(dataset, frame, signed=True)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CAPTURE
    dataset.CountsAccumulated = int(frame.sum())
    ge_names(dataset, [name or f"{view.upper()}_E"])
    dataset.private_block(0x11, "GEMS_GENIE_1").add_new(0x15, "SL", number)
    return dataset


def detector(**elements) -> Dataset:
    """An item of the Detector Information Sequence; orientation empty unless given."""
    item = Dataset()
    item.ImageOrientationPatient = None
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def view_code(meaning: str, value: str = "1", scheme: str = "99NMG") -> Sequence:
    """A View Code Sequence."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return Sequence([code])


def ge_names(dataset: Dataset, names: list[str]) -> None:
    """GE's private names of the data set and the picture."""
    block = dataset.private_block(0x11, "GEMS_GENIE_1", create=True)
    block.add_new(0x12, "LO", names)
    block.add_new(0x30, "LO", names)


def strip(dataset: Dataset, *keywords: str) -> Dataset:
    """Remove elements at the top and in all sequences; "private" removes the private ones."""
    for keyword in keywords:
        if keyword == "private":
            dataset.remove_private_tags()
            continue
        for item in [dataset, *dataset.get("DetectorInformationSequence", [])]:
            if keyword in item:
                delattr(item, keyword)
    return dataset


def encode(dataset: FileDataset, syntax: str) -> bytes:
    """The file in another transfer syntax, as bytes."""
    frames = np.frombuffer(dataset.PixelData, dtype="<u2").reshape(
        dataset.NumberOfFrames, dataset.Rows, dataset.Columns
    )
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = frames.astype(">u2").tobytes()
    if syntax in NATIVE:
        return write(dataset)
    if syntax == RLELossless:
        encoded = [encode_rle(frame) for frame in frames]
    elif syntax == JPEGLSLossless:
        import jpeg_ls

        rows, columns = frames.shape[1:]
        encoded = [bytes(jpeg_ls.encode_buffer(frame.tobytes(), rows, columns, 1, 16)) for frame in frames]
    elif syntax == JPEG2000Lossless:
        from openjpeg.utils import encode_array

        encoded = [bytes(encode_array(frame, bits_stored=16)) for frame in frames]
    else:
        encoded = [encode_jpeg_lossless(frame) for frame in frames]
    dataset.PixelData = encapsulate(encoded)
    dataset["PixelData"].VR = "OB"
    return write(dataset)


def once(encode):
    """An encoder that keeps what it made of a frame."""

    @functools.lru_cache
    def kept(data: bytes, dtype: str, shape: tuple[int, ...]) -> bytes:
        return encode(np.frombuffer(data, dtype).reshape(shape))

    return lambda frame: kept(frame.tobytes(), frame.dtype.str, frame.shape)


@once
def encode_rle(frame: np.ndarray) -> bytes:
    """RLE by the letter of the standard: runs of equal bytes, literals for the rest, two segments."""
    segments = []
    for plane in (frame >> 8, frame & 0xFF):
        data, coded = plane.astype(np.uint8).ravel(), bytearray()
        starts = np.flatnonzero(np.r_[True, data[1:] != data[:-1]])
        for value, count in zip(data[starts].tolist(), np.diff(np.r_[starts, len(data)]).tolist(), strict=True):
            coded += bytes([129, value]) * (count // 128)
            if count % 128:
                coded += bytes([257 - count % 128 if count % 128 > 1 else 0, value])
        segments.append(bytes(coded) + b"\0" * (len(coded) % 2))
    header = np.zeros(16, dtype="<u4")
    header[:3] = 2, 64, 64 + len(segments[0])
    return header.tobytes() + b"".join(segments)


@once
def encode_jpeg_lossless(frame: np.ndarray) -> bytes:
    """JPEG lossless, first-order prediction, 16 bits: every difference category has an eight-bit code."""
    signed = frame.astype(np.int64)
    predicted = np.empty_like(signed)
    predicted[:, 1:] = signed[:, :-1]
    predicted[1:, 0] = signed[:-1, 0]
    predicted[0, 0] = 1 << 15
    # Differences are modulo 65536, from -32767 to 32768.
    difference = ((signed - predicted).ravel() + 32_767) % 65_536 - 32_767
    category = np.where(difference == 0, 0, np.floor(np.log2(np.maximum(np.abs(difference), 1))) + 1).astype(int)
    extra = np.where(difference < 0, difference + (1 << category) - 1, difference)
    bits = "".join(
        # Category 16 stands for 32768 alone and has no further bits.
        f"{c:08b}" + (f"{e:0{c}b}" if 0 < c < 16 else "")
        for c, e in zip(category.tolist(), extra.tolist(), strict=True)
    )
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    rows, columns = frame.shape
    table = bytes(7) + bytes([17]) + bytes(8) + bytes(range(17))
    return b"".join([
        b"\xff\xd8",
        b"\xff\xc3\x00\x0b\x10" + rows.to_bytes(2, "big") + columns.to_bytes(2, "big") + b"\x01\x01\x11\x00",
        b"\xff\xc4" + (3 + len(table)).to_bytes(2, "big") + b"\x00" + table,
        b"\xff\xda\x00\x08\x01\x01\x00\x01\x00\x00",
        data,
        b"\xff\xd9",
    ])  # fmt: skip


FRAMES = np.stack(body())
"""Both views of one scan, for tests of pixel data."""


def plain(frames=FRAMES, **kind):
    """A file with frames of any type and no Counts Accumulated."""
    dataset = strip(ge_discovery(), "CountsAccumulated")
    put_pixels(dataset, np.asarray(frames), **kind)
    return dataset
