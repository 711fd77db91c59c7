"""The DICOM node against Orthanc: many studies, many kills, a PACS that is away for a while.

    python tests/benchmarks/bench_node.py --model RUN/fold_01 [--studies 1000] [--kills 40] [--senders 8] [--away 30]

Half of the studies are two-frame files, a quarter are two files of one view, a quarter are no bone scan. Each sender
also sends a mangled file. Prints what was accepted, lost and duplicated, the status of what was refused, the peak of
the node's memory, and the studies an hour, kills and restarts included. Needs Orthanc with DICOMweb (Debian packages
orthanc and orthanc-dicomweb).
"""

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path

from measuring import print_environment

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "node")]
from endurance import endure

from doubleunet_bs.phantom import make_cohort


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--senders", type=int, default=8)
    parser.add_argument("--away", type=float, default=30.0, help="seconds without Orthanc")
    args = parser.parse_args()
    print_environment()
    with tempfile.TemporaryDirectory() as folder:
        scans = make_cohort(Path(folder) / "phantoms", 10, seed=5) / "scans"
        paths = sorted(scans.glob("*.dcm"))
        figures = endure(
            Path(folder) / "run", paths, args.model.resolve(), args.studies, args.kills, args.senders, args.away
        )
    for name, value in dataclasses.asdict(figures).items():
        print(f"{name:<12}{value}")
    print(f"{'an hour':<12}{3600 * figures.studies / figures.seconds:.0f} studies")


if __name__ == "__main__":
    main()
