"""Memory of `predict` as the folder grows: the largest resident set of a process that segments 4 scans, and of one that
segments all.

    python tests/benchmarks/bench_predict_memory.py --model RUN/fold_01 [--scans 48] [--engine auto]
"""

import argparse
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
import pydicom
from measuring import print_environment, run_for_json

from doubleunet_bs.__main__ import main as doubleunet_bs
from doubleunet_bs.phantom import make_phantom
from doubleunet_bs.phantom.dicom import write_dicom


def make_scans(folder: Path, number: int) -> None:
    """`number` files with different counts, from one phantom."""
    folder.mkdir()
    write_dicom(make_phantom(0, 0, "breast", True), folder / "000.dcm")
    dataset = pydicom.dcmread(folder / "000.dcm")
    frames = dataset.pixel_array.copy()
    for index in range(1, number):
        frames[0, 500, 128] += 1
        dataset.PixelData = np.ascontiguousarray(frames).tobytes()
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{index}"
        dataset.save_as(folder / f"{index:03d}.dcm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--scans", type=int, default=48)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    command = ["predict", "--model", args.model, "--engine", args.engine]
    if args.folder:
        assert doubleunet_bs([*command, "--out", str(args.folder / "out"), str(args.folder / "scans")]) == 0
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        return
    for number in (4, args.scans):
        with tempfile.TemporaryDirectory() as folder:
            make_scans(Path(folder) / "scans", number)
            megabytes = run_for_json([sys.executable, __file__, *command[1:], "--folder", folder])
        print(f"largest memory, {number:>3} scans: {megabytes} MB")
    print_environment("tensorflow", "openvino")


if __name__ == "__main__":
    main()
