"""How fast `prepare` is, and how much memory it takes.

    python tests/benchmarks/bench_prepare.py [--scans 200] [--workers 1 2] [--keep DIR]

Makes a folder of scans (binomial thinnings of one phantom: quick to make, all different), prepares it with each
number of workers, and prints scans per second, processor seconds per scan, and the peak of memory over all processes.
Also says what each step of one scan takes. On two cores shared with nothing else, 200 scans take about a minute in
all.
"""

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from doubleunet_bs.preparation import prepare_scan
from doubleunet_bs.scans import read_scan
from doubleunet_bs.scans.phantom import make_phantom
from doubleunet_bs.scans.phantom.dicom_file import to_dicom


def make_scans(folder: Path, scans: int) -> None:
    """Write `scans` DICOM files and a patients.csv that declares all of them normal."""
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
        dataset.save_as(folder / "scans" / f"scan{number:05d}.dcm", enforce_file_format=True)
        lines.append(f"scan{number:05d},patient {number},breast,no")
    (folder / "labels" / "patients.csv").write_text("\n".join(lines) + "\n")


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
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--keep", type=Path, help="work here and keep it, instead of in a temporary folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        make_scans(folder, args.scans)
        files = sorted((folder / "scans").iterdir())[:20]
        begin = time.perf_counter()
        scans = [read_scan(file) for file in files]
        read = time.perf_counter()
        for scan in scans:
            prepare_scan(scan)
        done = time.perf_counter()
        print(f"one scan   read {(read - begin) / len(files):.4f} s, prepare {(done - read) / len(files):.4f} s")
        print(f"{'workers':>8}  {'scans/s':>8}  {'CPU s/scan':>10}  {'peak MB':>8}")
        for workers in args.workers:
            seconds, processor, peak = run(folder, workers)
            rate, each = args.scans / seconds, processor / args.scans
            print(f"{workers:>8}  {rate:>8.1f}  {each:>10.4f}  {peak / 2**20:>8.0f}", flush=True)


if __name__ == "__main__":
    main()
