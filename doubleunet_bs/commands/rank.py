"""Rank scans without annotations by how unsure a model is of them: annotate the first ones next.

SCANS is a folder of DICOM files or grey pictures (searched with its subfolders), a file, a zip archive, or a folder of
shards. MODEL is a run, of which all trained folds take part, one fold of it, or an exported model. Scans of the shards
that a run was trained on are left out, if those shards are still where they were.

Entropy is the mean over the pixels of a scan, in bits: 0 where the model is certain. Disagreement of several folds is
the part of it that comes from their difference. Scans with many doubtful pixels come first. That this order is better
than random order has not been shown: see assets/docs/training.md.

Examples:
  doubleunet-bs rank new_scans --model RUN --out next --outlines 20
  doubleunet-bs rank new_scans --model RUN --out next --by disagreement

Writes into DIR, which must be new:
  ranking.csv   rank, case, entropy, disagreement, metastatic pixels and path of each scan; only you can read it
  outlines/     with --outlines: Labelme files with the picture inside, named after the first scans

Correct every outline file in Labelme before `prepare --scans SCANS --labels DIR/outlines --key KEY --skip-invalid`
reads it: what is not corrected would train as it is. KEY is SHARDS.identities.json of the run's shards. Names of files
and folders may contain the patient's name.

Exit codes: 0 done, 1 a scan cannot be used (the others are ranked) or nothing was ranked, 2 wrong arguments.
Research software, not a medical device: not for diagnosis or treatment.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `rank`."""
    parser.add_argument("scans", metavar="SCANS", help="folder, file or zip archive of scans, or folder of shards")
    parser.add_argument(
        "--model", required=True, type=Path, metavar="MODEL", help="a run, a fold such as RUN/fold_01, or a saved_model"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write; must be new or empty")
    parser.add_argument(
        "--outlines",
        type=int,
        default=0,
        metavar="N",
        help="also write the predicted outlines of the first N scans, to correct in Labelme (default %(default)s)",
    )
    parser.add_argument(
        "--by",
        choices=("entropy", "disagreement"),
        default="entropy",
        help="what to rank by; disagreement needs a run of several folds (default %(default)s)",
    )
    parser.add_argument("--allow-missing-view", action="store_true", help="accept scans with only one view")


def run(args: argparse.Namespace) -> int:
    """Rank the scans and print the first ones."""
    from doubleunet_bs.results.rank_scans import rank_scans

    return rank_scans(args.scans, args.model, args.out, args.outlines, args.by, args.allow_missing_view)
