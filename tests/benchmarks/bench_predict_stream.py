"""Time of `predict` on a folder, streamed and one scan after the other, and its memory as the folder grows.

    python tests/benchmarks/bench_predict_stream.py --model RUN/fold_01 [--scans 16] [--repeats 3]

Both ways call the same three steps and write the same files. They alternate. Memory is the largest resident set of a
process that segments 4 scans, and of one that segments all.
"""

import argparse
import itertools
import resource
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
from measuring import print_environment, print_table, run_for_json, take_turns, timed


def make_scans(folder: Path, number: int) -> None:
    """`number` files with different counts, from one phantom."""
    from doubleunet_bs.phantom import make_phantom
    from doubleunet_bs.phantom.dicom import write_dicom

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
    parser.add_argument("--scans", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--outputs", default="all")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--rss", nargs=2, metavar=("FOLDER", "N"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    from doubleunet_bs.inference.predictor import Predictor
    from doubleunet_bs.results.input_scans import list_scans

    predictor = Predictor(args.model, args.engine)
    if args.rss:
        with tempfile.TemporaryDirectory() as out:
            items = list_scans(args.rss[:1]).scans[: int(args.rss[1])]
            segment(predictor, items, Path(out) / "out", args.outputs, True)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_scans(folder / "scans", args.scans)
        items = list_scans([str(folder / "scans")]).scans
        numbers = itertools.count()

        def work(streamed: bool) -> dict[str, float]:
            return segment(predictor, items, folder / f"out{next(numbers)}", args.outputs, streamed)

        ways = {"one after the other": partial(timed, work, False), "streamed": partial(timed, work, True)}
        taken = take_turns(ways, args.repeats)
        print(f"engine {predictor.engine}, {args.scans} scans, outputs {args.outputs}")
        print_table(taken, "one after the other", per=args.scans, of="scan")
        parts = work(False)
        total = sum(parts.values())
        print("share of the steps: " + ", ".join(f"{name} {value / total:.0%}" for name, value in parts.items()))
        command = [sys.executable, __file__, "--model", args.model, "--outputs", args.outputs, "--engine", args.engine]
        for number in (min(4, args.scans), args.scans):
            megabytes = run_for_json([*command, "--rss", folder / "scans", number])
            print(f"largest memory, {number:>3} scans: {megabytes} MB")
    print_environment("tensorflow", "openvino")


def segment(predictor, items, out: Path, outputs: str, streamed: bool) -> dict[str, float]:
    """Segment the scans and write the results to `out`; seconds of each step, of scans one after the other."""
    from doubleunet_bs.results.predict_scans import ScanReader
    from doubleunet_bs.results.result_files import JobSettings, parse_outputs
    from doubleunet_bs.results.result_folder import write_prediction
    from doubleunet_bs.results.streaming import stream

    settings = JobSettings(out, parse_outputs(outputs))
    reader = ScanReader(settings, predictor.description.preparation)

    def compute(content):
        return predictor.segment([content.prepared])[0]

    def write(content, prediction):
        write_prediction(settings, content.scan, prediction)

    parts = dict.fromkeys(("read", "compute", "write"), 0.0)
    if streamed:
        outcomes = [outcome for _, outcome in stream(items, reader, compute, write)]
        errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        assert not errors, errors[0]
        return parts
    for item in items:
        moments = [time.perf_counter()]
        content = reader(item)
        moments.append(time.perf_counter())
        prediction = compute(content)
        moments.append(time.perf_counter())
        write(content, prediction)
        moments.append(time.perf_counter())
        for name, (begun, ended) in zip(parts, itertools.pairwise(moments), strict=True):
            parts[name] += ended - begun
    return parts


if __name__ == "__main__":
    main()
