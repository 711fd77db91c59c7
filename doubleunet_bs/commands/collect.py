"""Collect the results of `predict` in one table.

Writes one line a scan: pseudonym, foci, areas of each view, counts, warnings, model and threshold. `predict` writes
the same table as cohort.csv. Only result.json of each scan is read. Names of files are not in it: see DIR.files.csv.

Examples:
  doubleunet-bs collect predicted --out table.csv
  doubleunet-bs collect night1 night2 --out table.csv

Exit codes: 0 done, 1 a result could not be read (the others are in the table), 2 wrong arguments.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `collect`."""
    parser.add_argument(
        "results", nargs="+", metavar="RESULTS", help="folder given to predict --out, or a result in it"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="table to write, a CSV file")


def run(args: argparse.Namespace) -> int:
    """Read the results and write the table."""
    import sys

    from doubleunet_bs.errors import RunError, SettingsError, counted
    from doubleunet_bs.results.overview import write_cohort_table
    from doubleunet_bs.results.stored_result import find_results

    if args.out.suffix.lower() != ".csv":
        raise SettingsError(f"--out {args.out}: the name must end in .csv")
    folders = find_results(args.results)
    if not folders:
        raise RunError(f"{', '.join(args.results)}: no result is in it: give the folder of predict --out")
    problems = write_cohort_table(args.out, folders)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    print(f"{counted(len(folders) - len(problems), 'scan')} in {args.out}")
    return 1 if problems else 0
