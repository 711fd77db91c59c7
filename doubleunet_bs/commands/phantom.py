"""Write synthetic whole-body bone scans with lesions.

The scans test this software from end to end. They are not patients, and a score reached on them says nothing about
patients. Without --seed you get the phantoms on which the demo trains: do not test its model on them.
The files depend on the arguments only.

Examples:
  doubleunet-bs phantom --out phantoms --patients 100
  doubleunet-bs phantom --out prostate --patients 40 --cancer prostate --seed 7
  doubleunet-bs phantom --out known --patients 50 --positive-fraction 1 --bsi 0.1:13 --seed 7

Writes DIR, which appears when everything is complete:
  scans/phantom_0001.dcm                         two-frame NM DICOM file, anterior and posterior view, 1024 x 256 counts
  labels/phantom_0001_anterior.json, ...         Labelme polygons with the label "metastasis"; none for normal scans
  labels/patients.csv                            scan, patient, cancer, metastases (yes or no)
  regions/phantom_0001_anterior.png, ...         index masks of the skeleton's twelve regions, 0 not bone
  truth.csv                                      true Bone Scan Index and involved fraction of each region

Exit codes: 0 done, 1 the work failed (DIR is not empty, disk full), 2 wrong arguments.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `phantom`."""
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write; must be new or empty")
    parser.add_argument("--patients", required=True, type=int, metavar="N", help="number of scans, one per patient")
    parser.add_argument(
        "--cancer",
        choices=("breast", "prostate"),
        default="breast",
        help="cancer of the patients (default %(default)s)",
    )
    parser.add_argument(
        "--positive-fraction",
        type=float,
        default=0.9,
        metavar="F",
        help="fraction of scans with metastases, 0 to 1 (default %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="random seed: another seed gives other patients (default %(default)s)",
    )
    parser.add_argument(
        "--bsi",
        metavar="LOW[:HIGH]",
        help="true Bone Scan Index in percent, from the first to the last scan with metastases on a logarithmic scale; "
        "by default lesions are drawn as they are reported",
    )
    parser.add_argument(
        "--varied",
        action="store_true",
        help="widen build, posture, uptake, camera and scan length beyond what is usual, for a network that is to meet "
        "other scans than phantoms",
    )


def run(args: argparse.Namespace) -> int:
    """Make the cohort and print what was written."""
    import csv
    import json

    from doubleunet_bs.phantom import make_cohort

    wanted = None if args.bsi is None else _parse_range(args.bsi)
    out = make_cohort(
        args.out,
        args.patients,
        args.cancer,
        args.positive_fraction,
        args.seed,
        wanted_index=wanted,
        varied=args.varied,
    )
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
    print(f"  skeleton regions  {out / 'regions'}")
    print(f"  true BSI          {out / 'truth.csv'}")
    print("Synthetic: for testing the software, not for clinical conclusions.")
    return 0


def _parse_range(text: str) -> tuple[float, float]:
    from doubleunet_bs.errors import SettingsError

    low, _, high = text.partition(":")
    try:
        return float(low), float(high or low)
    except ValueError:
        raise SettingsError(f"--bsi {text!r}: give one value in percent, or two as in 0.1:13") from None
