"""Turn DICOM bone scans and Labelme annotations into shards for training.

Every scan of the folder is read, cut to the paper's 950 x 256 window per view with the body in its centre, brought to
a mean brightness in (7, 14), cut off under the knee, and merged to 640 x 512. Annotations of the file S.dcm are
S_anterior.json and S_posterior.json (drawn on the raw views), or S.json (drawn on both raw views side by side, or on
the prepared image); PNG masks of the same names are taken, too. patients.csv in the labels folder (columns
scan,patient,cancer,metastases) says who is who and which scans are normal. Where scans in several folders have one
name, the table calls them FOLDER/S, and their annotations lie in the folders FOLDER of the labels folder.

All problems of the folder are listed at once, and in SHARDS.rejected.json. With any, nothing is written, unless
--skip-invalid is given. The key of the pseudonyms and the table that leads back from them are in
SHARDS.identities.json, readable by its owner only: keep it, and do not hand it on with the shards. The shard folder
appears whole or not at all: start an interrupted preparation again.

examples:
  doubleunet-bs prepare --scans export/ --labels labels/ --out breast
  doubleunet-bs prepare --scans export/ --labels labels/ --out breast --skip-invalid --workers 8 --write-png

exit codes: 0 done, 1 the work failed or there are problems, 2 wrong arguments
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `prepare`."""
    parser.add_argument(
        "--scans", type=Path, required=True, metavar="DIR", help="folder of DICOM files, searched to the bottom"
    )
    parser.add_argument(
        "--labels", type=Path, required=True, metavar="DIR", help="folder of annotations and patients.csv"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="SHARDS", help="the shard folder to make")
    parser.add_argument(
        "--classes",
        type=Path,
        metavar="FILE",
        help='JSON map from label to class; without it "metastasis" is metastatic',
    )
    parser.add_argument(
        "--background",
        choices=("otsu", "log", "none"),
        default="otsu",
        help="what is told from air: Otsu's threshold on the image (paper) or on log(counts), or nothing",
    )
    parser.add_argument(
        "--brightness",
        choices=("per_scan", "per_view"),
        default="per_scan",
        help="one gain for both views, or one each",
    )
    parser.add_argument(
        "--bin", type=int, choices=(1, 2, 4), default=1, help="add up counts of blocks of pixels; the paper has 1"
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes; the result does not depend on it"
    )
    parser.add_argument(
        "--skip-invalid", action="store_true", help="leave out files with problems instead of writing nothing"
    )
    parser.add_argument(
        "--allow-missing-view", action="store_true", help="take scans of one view; the other half stays empty"
    )
    parser.add_argument(
        "--patients", type=Path, metavar="FILE", help="table of patients instead of patients.csv in the labels folder"
    )
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="key and lookup table; share it between data sets of the same patients, prepared at once or in turn",
    )
    parser.add_argument(
        "--write-png", action="store_true", help="also write image, label and overlay PNGs, to look at, into SHARDS/png"
    )


def run(args: argparse.Namespace) -> int:
    """Prepare, print the problems and the summary; 1 when there are problems and nothing was written."""
    from doubleunet_bs.errors import DatasetError, SettingsError
    from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort, rejection_table, summary_text
    from doubleunet_bs.preparation.settings import PreparationSettings
    from doubleunet_bs.scans.labels import load_class_map

    if args.workers < 1:
        raise SettingsError(f"--workers {args.workers}: at least 1 is needed")
    classes = {"classes": load_class_map(args.classes)} if args.classes else {}
    settings = PreparationSettings(background=args.background, brightness=args.brightness, bin=args.bin, **classes)
    job = CohortJob(
        scans=args.scans,
        labels=args.labels,
        out=args.out,
        settings=settings,
        classes_file=args.classes,
        patients=args.patients,
        key=args.key,
        workers=args.workers,
        skip_invalid=args.skip_invalid,
        allow_missing_view=args.allow_missing_view,
        pictures=args.write_png,
    )
    result = prepare_cohort(job)
    if result.rejected:
        print(rejection_table(result.rejected))
        print()
    if not result.written:
        advice = "no scan is left" if args.skip_invalid else "fix the listed files or pass --skip-invalid"
        raise DatasetError(f"{len(result.rejected)} problems, nothing was written, see {job.rejected_file}: {advice}")
    print(summary_text(result.records, len(result.rejected), settings))
    print(f"shards           {args.out}")
    if result.rejected:
        print(f"problems         {job.rejected_file}")
    print(f"identities       {job.key_file} (keep it apart from the shards)")
    return 0
