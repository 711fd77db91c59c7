"""The header of a file -> how its views are stored, or the reason why it is not a whole-body bone scan."""

import contextlib
import dataclasses
import zipfile

from pydicom.dataset import Dataset

from doubleunet_bs.constants import RAW_SHAPE
from doubleunet_bs.dicom_files.decoders import check_decoder
from doubleunet_bs.dicom_files.dicom_file import DicomFile, first_elements, load_file, load_header, pydicom_silence
from doubleunet_bs.dicom_files.header_values import read_integer, read_items, read_numbers, read_text, read_texts
from doubleunet_bs.dicom_files.other_files import OtherFileError
from doubleunet_bs.dicom_files.sources import FIRST_LOOK_BYTES, MAX_FILE_BYTES, MAX_HEADER_BYTES, Source
from doubleunet_bs.dicom_files.views import check_upright
from doubleunet_bs.errors import ScanError

SHAPES = {(n * RAW_SHAPE[0], m * n * RAW_SHAPE[1]): (m == 2, n) for n in (1, 2) for m in (1, 2)}
"""(rows, columns) of an image -> whether both views lie side by side in it, and `Layout.bin`: one view has 1024 x 256
pixels (paper, section 2.3), or 2048 x 512."""

# Metres that the rows of a view may cover. A spacing in centimetres or micrometres would make every area wrong.
SHORTEST_SCAN, LONGEST_SCAN = 1.0, 3.7

_NM_CLASSES = {"1.2.840.10008.5.1.4.1.1.20", "1.2.840.10008.5.1.4.1.1.5"}
_CAPTURE_CLASSES = {"1.2.840.10008.5.1.4.1.1.7" + suffix for suffix in ("", ".1", ".2", ".3", ".4")}
_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
# Modalities that may be repeated in a message; any other text in that element might be anything.
_KNOWN_MODALITIES = {
    "CR", "CT", "DOC", "DX", "ECG", "ES", "IO", "KO", "MG", "MR", "OP", "OT", "PR", "PT", "PX", "REG", "RF", "RTDOSE",
    "RTIMAGE", "RTPLAN", "RTRECORD", "RTSTRUCT", "SC", "SEG", "SM", "SR", "US", "XA", "XC",
}  # fmt: skip
_TOMOGRAPHIC = {"TOMO", "RECON TOMO", "GATED TOMO", "RECON GATED TOMO"}
# Frame Increment Pointer -> what varies from frame to frame, for files whose Image Type has been stripped.
_TOMOGRAPHIC_VECTORS = {0x00540050, 0x00540080, 0x00540090}
_DYNAMIC_VECTORS = {0x00540100, 0x00540030}
_GATED_VECTORS = {0x00540060, 0x00540070}
# A header that claims more than this before any matrix is looked at wants to exhaust the memory.
_MAX_CLAIMED_BYTES = 256 << 20


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the views are stored in a file.

    Attributes:
        frames: 2 for a two-frame file; 1 for one view, or for both views side by side.
        rows, columns: of a frame.
        side_by_side: one frame holds both views, anterior left.
        bin: 1, or 2 when counts have to be summed over 2 x 2 pixels to the 1024 x 256 matrix.
    """

    frames: int
    rows: int
    columns: int
    side_by_side: bool = False
    bin: int = 1

    @property
    def views(self) -> int:
        """The number of views in the file: 1 or 2."""
        return 2 if self.side_by_side else self.frames


def load_scan_header(source: Source, archive: zipfile.ZipFile | None = None) -> tuple[DicomFile, Layout]:
    """Parse the header of a file, and as little of the file as possible; pixels are not read.

    A member of an archive may be given with the open `archive`. `ScanError`: as `load_header` and `find_layout`.
    """
    for limit in (FIRST_LOOK_BYTES, MAX_HEADER_BYTES):
        data, complete = source.read(limit, archive)
        if data[:4] == b"PK\x03\x04":
            raise ScanError("is an archive within an archive: unpack it first", "archive")
        _check_first(data)
        # A header that was cut off by the first limit may look damaged: only the second look decides.
        last = complete or limit == MAX_HEADER_BYTES
        with contextlib.nullcontext() if last else contextlib.suppress(ScanError):
            file = load_header(data, complete)
            if last or file.has_pixels:
                return file, find_layout(file)
    raise AssertionError("the last look returns or raises")


def load_scan_file(source: Source) -> tuple[DicomFile, Layout]:
    """Read and parse a whole file, with its pixels.

    Raises `ScanError`: `unreadable`, `too-large`, or as `load_file` and `find_layout`.
    """
    data, complete = source.read(MAX_FILE_BYTES)
    try:
        if not complete:
            raise ScanError(f"is larger than {MAX_FILE_BYTES >> 20} MB: a whole-body scan has about 1 MB", "too-large")
        file = load_file(data)
    except ScanError:
        _check_first(data)
        raise
    return file, find_layout(file)


def _check_first(data: bytes) -> None:
    """Refuse other modalities by their first elements, whatever the rest of their header holds."""
    with pydicom_silence:
        dataset = first_elements(data)
        if read_text(dataset, "Modality") in _KNOWN_MODALITIES and read_text(dataset, "SOPClassUID") not in _NM_CLASSES:
            _check_kind(dataset)


def find_layout(file: DicomFile) -> Layout:
    """Decide whether a file is a whole-body bone scan, or one view of one.

    Raises:
        ScanError: why it is not, in the order that gives each file the reason a technician would give. `OtherFileError`
            when nobody would expect it to be one.
    """
    dataset = file.dataset
    capture = _check_kind(dataset)
    _check_acquisition(dataset)
    if not file.has_pixels:
        raise ScanError("has no pixel data", "no-pixel-data")
    _check_colour(dataset, capture)
    if read_text(dataset, "BurnedInAnnotation").startswith("YES"):
        raise ScanError("has text burned into the image, which may name the patient", "burned-in-annotation")
    rows, columns = read_integer(dataset, "Rows"), read_integer(dataset, "Columns")
    frames = read_integer(dataset, "NumberOfFrames", 1)
    bits = read_integer(dataset, "BitsAllocated", 64)
    # Some programs write 0 for one frame; the size of the pixel data shows how many there are.
    frames = frames or 1
    for name, value in (("Rows", rows), ("Columns", columns), ("Number of Frames", frames), ("Bits Allocated", bits)):
        if value < 1:
            raise ScanError(f"has {value} for {name} in its header", "damaged-header")
    if rows * columns * frames * bits > 8 * _MAX_CLAIMED_BYTES:
        raise ScanError(f"claims {rows} x {columns} pixels in {frames} frames, far beyond a scan", "decompression-bomb")
    layout = _layout_of_matrix(dataset, rows, columns, frames)
    check_upright(dataset)
    check_decoder(file.transfer_syntax)
    return layout


def pixel_spacing(dataset: Dataset) -> tuple[float, float] | None:
    """(row spacing, column spacing) in mm, or None when the header does not give it.

    Raises:
        ScanError: `damaged-header` when it is no pair of positive numbers: whether pixels are square is unknown then.
    """
    found = read_numbers(dataset, "PixelSpacing")
    if not found or set(found) == {0}:
        return None
    if len(found) != 2 or min(found) <= 0:
        raise ScanError("has an unreadable Pixel Spacing in its header: two numbers in mm are needed", "damaged-header")
    return found[0], found[1]


def _check_kind(dataset: Dataset) -> bool:
    """Refuse what is no nuclear medicine image; return whether it is stored as a secondary capture."""
    sop_class, modality = read_text(dataset, "SOPClassUID"), read_text(dataset, "Modality")
    meta = getattr(dataset, "file_meta", None)
    if _DIRECTORY_CLASS in (sop_class, read_text(meta, "MediaStorageSOPClassUID") if meta is not None else ""):
        raise OtherFileError("is a DICOMDIR, the table of contents of an export", "dicomdir", "DICOMDIR")
    capture = sop_class in _CAPTURE_CLASSES
    # GE Millennium stores raw counts as Secondary Capture: the modality distinguishes them from a picture of a screen.
    if (capture and modality != "NM") or any("SCREEN" in value for value in read_texts(dataset, "ImageType")):
        raise OtherFileError("is a screen capture, not the counts of a scan", "screen-capture", "screen capture")
    other_class = not capture and sop_class not in _NM_CLASSES | {""}
    if modality not in ("NM", "") or other_class or not (modality or sop_class):
        known = modality in _KNOWN_MODALITIES
        message = f"is not a nuclear medicine image{f' (modality {modality})' if known else ''}"
        if (sop_class in _NM_CLASSES or not known) and _has_whole_body_matrix(dataset):
            # A scan whose header contradicts itself: somebody has to look.
            raise ScanError(message, "other-modality")
        raise OtherFileError(message, "other-modality", modality if known else "other DICOM")
    return capture


def _has_whole_body_matrix(dataset: Dataset) -> bool:
    with contextlib.suppress(ScanError):
        return read_numbers(dataset, "Rows") + read_numbers(dataset, "Columns") in SHAPES
    return False


def _check_acquisition(dataset: Dataset) -> None:
    if "TRANSMISSION" in (*read_texts(dataset, "ImageType"), read_text(dataset, "CountsSource")):
        raise OtherFileError("is a transmission image, not a bone scan", "transmission", "transmission image")
    kinds = {value.replace("_", " ") for value in read_texts(dataset, "ImageType")}
    vectors = {int(number) for number in read_numbers(dataset, "FrameIncrementPointer")}
    if kinds & _TOMOGRAPHIC or vectors & _TOMOGRAPHIC_VECTORS:
        found = ("tomographic (SPECT)", "tomographic", "SPECT")
    elif "DYNAMIC" in kinds or vectors & _DYNAMIC_VECTORS:
        found = ("dynamic", "dynamic", "dynamic acquisition")
    elif "GATED" in kinds or vectors & _GATED_VECTORS:
        found = ("gated", "gated", "gated acquisition")
    else:
        return
    message = f"is a {found[0]} acquisition, not a planar whole-body scan"
    if _has_whole_body_matrix(dataset):
        raise ScanError(message, found[1])
    raise OtherFileError(message, *found[1:])


def _check_colour(dataset: Dataset, capture: bool) -> None:
    one_sample = read_integer(dataset, "SamplesPerPixel", 1) == 1
    shown = read_text(dataset, "PhotometricInterpretation")
    # A nuclear medicine image may have a palette for the display: the pixels are the counts all the same.
    if one_sample and (shown in ("MONOCHROME1", "MONOCHROME2", "") or (shown == "PALETTE COLOR" and not capture)):
        return
    if capture:
        raise OtherFileError(
            "is a screen capture in colour, not the counts of a scan", "screen-capture", "screen capture"
        )
    raise ScanError("is a colour image: counts have one value per pixel", "colour")


def _layout_of_matrix(dataset: Dataset, rows: int, columns: int, frames: int) -> Layout:
    size = f"{rows} x {columns} pixels (rows x columns) in {frames} frame{'s' * (frames > 1)}"
    if frames > 2:
        message = f"has {frames} frames, not one of each view: export one energy window of a whole-body scan"
        raise ScanError(message, "too-many-frames")
    side_by_side, block = SHAPES.get((rows, columns), (None, 1))
    if side_by_side is None or (side_by_side and frames == 2):
        if "STATIC" in read_texts(dataset, "ImageType"):
            message = f"is a static image of a part of the body, {size}, not a whole-body scan"
            raise OtherFileError(message, "static", "static image")
        message = f"has {size}: a whole-body scan has 1024 x 256 (or 2048 x 512) in each of two views"
        raise ScanError(message, "wrong-matrix")
    _check_spacing(dataset, size, block)
    _check_energy_windows(dataset, frames)
    return Layout(frames, rows, columns, side_by_side, block)


def _check_spacing(dataset: Dataset, size: str, block: int) -> None:
    """Refuse a matrix that has the right number of pixels but not the right pixel shape or size."""
    found = pixel_spacing(dataset)
    if found is None:
        return
    row, column = found
    if not 0.9 < row / column < 1.1:
        raise ScanError(f"has {size}, but its pixels are not square ({row:.2f} x {column:.2f} mm)", "wrong-matrix")
    # The usual matrix has pixels of 2.2 to 2.6 mm, with zoom for a child about 1.2 mm, and the finer one half of that.
    length = row * block * RAW_SHAPE[0] / 1000
    if not SHORTEST_SCAN <= length <= LONGEST_SCAN:
        message = f"has {size} of {row:.3g} mm, which are {length:.3g} m: correct Pixel Spacing, or export a whole body"
        raise ScanError(message, "wrong-matrix")


def _check_energy_windows(dataset: Dataset, frames: int) -> None:
    """Two frames must be two views, not one view in two energy windows."""
    windows, detectors = read_numbers(dataset, "EnergyWindowVector"), read_numbers(dataset, "DetectorVector")
    first, second = (energy_window(dataset, frame, 2) for frame in (0, 1)) if frames == 2 else (None, None)
    one_detector = frames == 2 and len(set(windows)) == 2 and len(set(detectors)) < 2
    if one_detector or (first and second and differ(first, second)):
        message = "has two frames of different energy windows, not two views: export the photopeak window only"
        raise ScanError(message, "energy-windows")


def energy_window(dataset: Dataset, frame: int, frames: int) -> tuple[float, float] | None:
    """Lower and upper limit in keV of the energy window of a frame, counted from 0; None where the header lacks it."""
    vector = read_numbers(dataset, "EnergyWindowVector")
    windows = read_items(dataset, "EnergyWindowInformationSequence")
    number = int(vector[frame]) if len(vector) == frames else 1
    if not 1 <= number <= len(windows) or (len(vector) != frames and len(windows) > 1):
        return None
    limits: list[float] = []
    with contextlib.suppress(ScanError):
        for item in read_items(windows[number - 1], "EnergyWindowRangeSequence"):
            limits += read_numbers(item, "EnergyWindowLowerLimit") + read_numbers(item, "EnergyWindowUpperLimit")
    return (min(limits), max(limits)) if len(limits) >= 2 else None


def differ(first: tuple[float, float], second: tuple[float, float]) -> bool:
    """Whether two energy windows have less than half of their range in common."""
    common = min(first[1], second[1]) - max(first[0], second[0])
    return common < (max(first[1], second[1]) - min(first[0], second[0])) / 2
