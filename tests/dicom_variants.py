"""One phantom as different cameras and archives would store it."""

import numpy as np
import pydicom
from pydicom.sequence import Sequence

KINDS = ("two-frames", "posterior-first", "two-files", "side-by-side", "finer-matrix", "one-view")
VIEWS = ("anterior", "posterior")


def write_variant(phantom, kind: str, folder) -> list:
    """Write the scan of the file `phantom` in another form; returns its files, the anterior one first."""
    dataset = pydicom.dcmread(phantom)
    frames = dataset.pixel_array.copy()
    folder.mkdir(parents=True, exist_ok=True)
    if kind in ("two-files", "one-view"):
        files = [_one_view(phantom, frames, number, folder) for number in (0, 1)]
        return files if kind == "two-files" else files[1:]
    if kind == "posterior-first":
        frames = frames[::-1]
        dataset.DetectorInformationSequence = Sequence(list(dataset.DetectorInformationSequence)[::-1])
        block = dataset.private_block(0x0011, "GEMS_GENIE_1")
        for element in (0x12, 0x30):
            block[element].value = list(block[element].value)[::-1]
    if kind == "side-by-side":
        frames = np.hstack(list(frames))[None]
        dataset.remove_private_tags()
        for keyword in ("DetectorInformationSequence", "DetectorVector", "EnergyWindowVector", "FrameIncrementPointer"):
            del dataset[keyword]
    if kind == "finer-matrix":
        fine = np.zeros((2, 2048, 512), np.uint16)
        fine[:, ::2, 1::2] = frames
        frames = fine
        dataset.PixelSpacing = [f"{float(value) / 2:.6f}" for value in dataset.PixelSpacing]
    _put(dataset, frames)
    dataset.save_as(folder / "scan.dcm")
    return [folder / "scan.dcm"]


def _one_view(phantom, frames, number: int, folder):
    dataset = pydicom.dcmread(phantom)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{dataset.SOPInstanceUID}.{number + 1}"
    dataset.DetectorVector = dataset.EnergyWindowVector = 1
    dataset.NumberOfDetectors = 1
    dataset.DetectorInformationSequence = dataset.DetectorInformationSequence[number : number + 1]
    block = dataset.private_block(0x0011, "GEMS_GENIE_1")
    for element in (0x12, 0x30):
        block[element].value = f"WHOLE BODY_{('ANT', 'POST')[number]}"
    _put(dataset, frames[number : number + 1])
    path = folder / f"{VIEWS[number]}.dcm"
    dataset.save_as(path)
    return path


def _put(dataset, frames: np.ndarray) -> None:
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames.shape
    dataset.CountsAccumulated = int(frames.sum())
    dataset.PixelData = np.ascontiguousarray(frames).tobytes()
