"""Write a cohort of synthetic whole-body bone scans: DICOM files, Labelme outlines of their metastases, patients.csv.

The scans exercise this software from end to end. They are not patients, and a score reached on them says nothing
about patients.

Examples:
  python -m doubleunet_bs phantom --out phantoms --patients 100
  python -m doubleunet_bs phantom --out prostate --patients 40 --cancer prostate --seed 7 --workers 4

DIR/scans/phantom_0001.dcm        two-frame NM DICOM file, anterior and posterior view, 1024 x 256 counts each
DIR/labels/phantom_0001_anterior.json, _posterior.json    Labelme polygons, label "metastasis"; none for normal scans
DIR/labels/patients.csv           scan, patient, cancer, metastases (yes or no)

The files depend on the arguments only, not on the number of workers. DIR appears when everything is written.
Exit code: 0 done, 1 the work failed (DIR exists already, disk full), 2 wrong arguments.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options to `parser`."""
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write; must not exist, or be empty")
    parser.add_argument("--patients", required=True, type=int, metavar="N", help="number of scans, one per patient")
    parser.add_argument(
        "--cancer", choices=("breast", "prostate"), default="breast", help="kind of patients (default breast)"
    )
    parser.add_argument(
        "--positive-fraction",
        type=float,
        default=0.9,
        metavar="F",
        help="share of scans with metastases, 0-1 (default 0.9)",
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other patients (default 0)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default 1)")


def run(args: argparse.Namespace) -> int:
    """Make the cohort and print what was written."""
    import csv
    import json

    from doubleunet_bs.phantom import make_cohort

    out = make_cohort(args.out, args.patients, args.cancer, args.positive_fraction, args.seed, args.workers)
    with open(out / "labels" / "patients.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    positive = sum(row["metastases"] == "yes" for row in rows)
    outlines = sum(
        len(json.loads(path.read_text(encoding="utf-8"))["shapes"]) for path in sorted((out / "labels").glob("*.json"))
    )
    size = sum(path.stat().st_size for path in (out / "scans").iterdir()) / 2**20
    print(f"{len(rows)} synthetic {args.cancer} scans in {out} ({size:.0f} MB)")
    print(f"  with metastases   {positive}, {outlines} outlines in both views")
    print(f"  without           {len(rows) - positive}")
    print(f"  scans             {out / 'scans'}")
    print(f"  labels            {out / 'labels'}")
    print("Synthetic: for testing the software, not for clinical conclusions.")
    return 0
