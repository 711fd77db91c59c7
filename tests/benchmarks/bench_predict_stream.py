"""A folder of scans through `predict`: streamed against one after the other, and memory as the folder grows.

    python tests/benchmarks/bench_predict_stream.py --model RUN/fold_01 [--scans 16] [--repeats 3] [--outputs all] [--engine auto]

Both ways call the same three steps and write the same files. They alternate, and the ratio is taken of the medians. Memory
is the largest resident set of a process that segments 4 scans, and of one that segments all.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pydicom


def make_scans(folder: Path, number: int) -> None:
    """`number` files with different counts, from one phantom."""
    from doubleunet_bs.scans.phantom import make_phantom
    from doubleunet_bs.scans.phantom.dicom_file import write_dicom

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
    if args.rss:
        with tempfile.TemporaryDirectory() as out:
            run(args, Path(args.rss[0]), int(args.rss[1]), Path(out), streamed=True)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        return
    with tempfile.TemporaryDirectory() as folder:
        scans = Path(folder) / "scans"
        make_scans(scans, args.scans)
        work = run(args, scans, args.scans, Path(folder), streamed=None)
        for streamed in (False, True):
            work(Path(folder) / f"warm-{streamed}", streamed)
        seconds = {False: [], True: []}
        for repeat in range(args.repeats):
            for streamed in (False, True):
                seconds[streamed].append(work(Path(folder) / f"{repeat}-{streamed}", streamed)[0])
        parts = work(Path(folder) / "parts", False)[1]
        total = sum(parts.values())
        print(f"engine {work.engine}")
        print(f"{args.scans} scans, outputs {args.outputs}, {args.repeats} alternating runs, seconds per scan")
        for streamed, name in ((False, "one after the other"), (True, "streamed")):
            times = [value / args.scans for value in seconds[streamed]]
            print(f"  {name:<22}{statistics.median(times):7.3f}   ({min(times):.3f} - {max(times):.3f})")
        print(f"  ratio                 {statistics.median(seconds[False]) / statistics.median(seconds[True]):7.2f}")
        print(
            "  share of the steps    "
            + ", ".join(f"{name} {100 * value / total:.0f} %" for name, value in parts.items())
        )
        for number in (min(4, args.scans), args.scans):
            arguments = [sys.executable, __file__, "--model", args.model, "--outputs", args.outputs]
            arguments += ["--engine", args.engine]
            done = subprocess.run(
                [*arguments, "--rss", str(scans), str(number)], capture_output=True, text=True, check=True
            )
            print(f"  largest memory, {number:>3} scans: {done.stdout.split()[-1]} MB")


def run(args, scans: Path, number: int, out: Path, streamed: bool | None):
    from doubleunet_bs.deployment.prediction_job import PredictionJob
    from doubleunet_bs.deployment.predictor import Predictor
    from doubleunet_bs.deployment.result_files import parse_outputs
    from doubleunet_bs.deployment.scan_list import list_scans
    from doubleunet_bs.deployment.scan_reader import JobSettings, ScanReader
    from doubleunet_bs.deployment.streaming import stream

    predictor = Predictor(args.model, args.engine)
    items = list_scans([str(scans)]).scans[:number]

    def work(folder: Path, streamed: bool) -> tuple[float, dict[str, float]]:
        settings = JobSettings(folder, parse_outputs(args.outputs))
        reader = ScanReader(settings, predictor.description.preparation)
        job = PredictionJob(settings, predictor)
        parts = dict.fromkeys(("read", "compute", "write"), 0.0)
        start = time.perf_counter()
        if streamed:
            errors = [outcome.error for outcome in stream(items, reader, job.compute, job.write) if outcome.error]
            assert not errors, errors[0]
        else:
            for item in items:
                moments = [time.perf_counter()]
                content = reader(item)
                moments.append(time.perf_counter())
                prediction = job.compute(content)
                moments.append(time.perf_counter())
                job.write(content, prediction)
                moments.append(time.perf_counter())
                for name, begun, ended in zip(parts, moments[:-1], moments[1:], strict=True):
                    parts[name] += ended - begun
        return time.perf_counter() - start, parts

    if streamed is None:
        work.engine = predictor.engine
        return work
    return work(out / "out", streamed)


if __name__ == "__main__":
    main()
