"""Speed and memory of `prepare`, compared with plain pydicom and NumPy.

    python tests/benchmarks/bench_prepare.py [--scans 200] [--repeats 7] [--workers 1 2] [--profile] [--compressed]
        [--keep DIR]

Makes a folder of scans (binomial thinnings of one phantom; `--compressed`: JPEG-LS), then measures:

1. The whole job in one process, in turn with the plain way: pydicom's `dcmread` and `pixel_array`, the steps of the
   paper in NumPy, one `np.save` at the end. The plain way checks and hashes nothing. A regression shows in the ratio.
2. Each step of one scan, and with `--profile` the functions that take the most time.
3. The command with each number of workers: scans per second, processor seconds per scan, peak memory of all processes.
"""

import argparse
import cProfile
import dataclasses
import os
import pstats
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pydicom
from measuring import print_environment, print_table, take_turns, timed
from pydicom.uid import JPEGLSLossless

from doubleunet_bs.phantom import make_phantom
from doubleunet_bs.phantom.dicom import to_dicom
from doubleunet_bs.preparation import prepare_scan
from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort
from doubleunet_bs.scans import find_scans


def make_scans(folder: Path, scans: int, compressed: bool) -> None:
    """Write `scans` DICOM files, in JPEG-LS if `compressed`, and a patients.csv that declares all of them normal."""
    (folder / "scans").mkdir(parents=True)
    (folder / "labels").mkdir()
    phantom = make_phantom(0, 0)
    lines = ["scan,patient,cancer,metastases"]
    for number in range(scans):
        random = np.random.default_rng(number)
        part = random.uniform(0.3, 0.9)
        views = {
            name: random.binomial(getattr(phantom, name), part).astype(np.uint16) for name in ("anterior", "posterior")
        }
        dataset = to_dicom(dataclasses.replace(phantom, **views))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}"
        dataset.CountsAccumulated = int(sum(counts.sum(dtype=np.int64) for counts in views.values()))
        if compressed:
            dataset.compress(JPEGLSLossless, generate_instance_uid=False)
        dataset.save_as(folder / "scans" / f"scan{number:05d}.dcm", enforce_file_format=True)
        lines.append(f"scan{number:05d},patient {number},breast,no")
    (folder / "labels" / "patients.csv").write_text("\n".join(lines) + "\n")


def plain_case(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Counts and labels of a scan by the paper: bounding box from projections, 950 x 256, brightness, 640 rows."""
    views = pydicom.dcmread(path).pixel_array
    frames = []
    for view in views:
        body = np.minimum(view, np.percentile(view, 90))
        rows = np.flatnonzero(body.sum(axis=1) > 0.06 * np.percentile(body.sum(axis=1), 75))
        columns = np.flatnonzero(body.sum(axis=0) > 0.10 * np.percentile(body.sum(axis=0), 75))
        top, left = (rows[0] + rows[-1] + 1 - 950) // 2, (columns[0] + columns[-1] + 1 - 256) // 2
        padded = np.pad(view, ((950, 950), (256, 256)))
        frames.append(padded[950 + top : 1900 + top, 256 + left : 512 + left])
    both = np.concatenate(frames, axis=1)
    gain, low, high = 1.0, 0.0, 255.0
    if not 7 < np.minimum(both, 255).mean() < 14:
        target = 7.001 if both.mean() <= 7 else 13.999
        for _ in range(30):
            gain = (low + high) / 2
            low, high = (gain, high) if np.minimum(both * gain, 255).mean() < target else (low, gain)
    counts = both[:640]
    grey = np.rint(np.minimum(counts * gain, 255)).astype(np.uint8)
    threshold, _ = cv2.threshold(grey, 0, 1, cv2.THRESH_OTSU)
    return counts, (grey > threshold).astype(np.uint8)


def plain_cohort(folder: Path) -> None:
    cases = [plain_case(path) for path in sorted((folder / "scans").iterdir())]
    for kind, arrays in zip(("counts", "labels"), zip(*cases, strict=True), strict=True):
        np.save(folder / f"plain-{kind}.npy", np.stack(arrays))


def whole_cohort(folder: Path) -> None:
    out = folder / "shards"
    shutil.rmtree(out, ignore_errors=True)
    prepare_cohort(CohortJob(scans=folder / "scans", labels=folder / "labels", out=out))


def measure_whole(folder: Path, scans: int, repeats: int) -> None:
    cv2.setNumThreads(1)
    base = "plain pydicom and NumPy"
    ways = {base: partial(timed, plain_cohort, folder), "prepare": partial(timed, whole_cohort, folder)}
    seconds = take_turns(ways, repeats)
    print(f"{scans} scans in one process")
    print_table(seconds, base, "ms", scans, "scan")
    each = statistics.median(found.processor for found in seconds["prepare"]) / scans
    print(f"{1 / each:.0f} scans per second and core; goal 100\n", flush=True)


def measure_steps(folder: Path, profile: bool) -> None:
    begin = time.process_time()
    found = find_scans(folder / "scans").scans
    seconds = {"find": [(time.process_time() - begin) / len(found)], "read": [], "prepare": []}
    for files in found:
        moments = [time.process_time()]
        scan = files.read()
        moments.append(time.process_time())
        prepare_scan(scan)
        moments.append(time.process_time())
        for step, name in enumerate(("read", "prepare")):
            seconds[name].append(moments[step + 1] - moments[step])
    medians = ", ".join(f"{name} {1000 * statistics.median(values):.2f}" for name, values in seconds.items())
    print(f"one scan, ms of the processor: {medians}\n", flush=True)
    if profile:
        profiler = cProfile.Profile()
        profiler.runcall(whole_cohort, folder)
        pstats.Stats(profiler).strip_dirs().sort_stats("tottime").print_stats(25)


def look(session: int, processor: dict[int, float]) -> int:
    """Memory of all processes of a session in bytes; notes the processor seconds of each so far (Linux)."""
    total = 0
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and os.getsid(int(entry)) == session:
                rollup = Path("/proc", entry, "smaps_rollup").read_text().splitlines()
                # Anonymous memory alone: pages of mapped or cached files can be given back at any time.
                total += next(int(line.split()[1]) for line in rollup if line.startswith("Anonymous:")) * 1024
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
                processor[int(entry)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, StopIteration, IndexError):
            continue
    return total


def run(folder: Path, workers: int) -> tuple[float, float, int]:
    """Prepare; returns seconds, processor seconds and the peak of memory in bytes."""
    out = folder / f"shards{workers}"
    command = [sys.executable, "-m", "doubleunet_bs", "prepare", "--scans", folder / "scans", "--labels"]
    command += [folder / "labels", "--out", out, "--workers", workers]
    begin, peak, processor = time.perf_counter(), 0, {}
    process = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None:
        peak = max(peak, look(process.pid, processor))
        time.sleep(0.1)
    seconds = time.perf_counter() - begin
    if process.returncode:
        raise SystemExit(f"prepare failed: {' '.join(str(part) for part in command)}")
    return seconds, sum(processor.values()), peak


def main() -> None:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--profile", action="store_true", help="also the functions that take the most")
    parser.add_argument("--compressed", action="store_true", help="scans in JPEG-LS")
    parser.add_argument("--keep", type=Path, help="work here and keep it, instead of in a temporary folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        make_scans(folder, args.scans, args.compressed)
        measure_whole(folder, args.scans, args.repeats)
        measure_steps(folder, args.profile)
        print(f"{'workers':>8}  {'scans/s':>8}  {'CPU s/scan':>10}  {'peak MB':>8}")
        for workers in args.workers:
            seconds, processor, peak = run(folder, workers)
            rate, each = args.scans / seconds, processor / args.scans
            print(f"{workers:>8}  {rate:>8.1f}  {each:>10.4f}  {peak / 2**20:>8.0f}", flush=True)
    print()
    print_environment("pydicom", "cv2")


if __name__ == "__main__":
    main()
