"""Turn DICOM bone scans and Labelme annotations into shards for training.

Crops each view to 950 x 256 pixels around the body, scales the scan to a mean brightness between 7 and 14, removes the
rows below the knees and merges both views to 640 x 512, as in the paper. SHARDS keep the counts and the gain.

Annotations of S.dcm are S_anterior.json and S_posterior.json (drawn on the raw views), or S.json (drawn on both raw
views side by side, or on the prepared image). PNG masks of the same names are also accepted. patients.csv in the
labels folder has the columns scan, patient, cancer, metastases: it names the patient of each scan and says which
scans are normal. A scan in two files has two names: either may stand in the table, and each file has its FILE.json. If
scans in several folders have the same name, call them FOLDER/S in the table, with annotations in LABELS/FOLDER.

All problems are listed at once. With any, `prepare` writes nothing until you fix the listed files or pass
--skip-invalid. An interrupted run starts again from the beginning.

Examples:
  doubleunet-bs prepare --scans export/ --labels labels/ --out breast
  doubleunet-bs prepare --scans export/ --labels labels/ --out breast --skip-invalid --workers 8 --write-png
  doubleunet-bs prepare --scans export/ --labels labels/ --regions regions/ --out breast
  doubleunet-bs prepare --dataset bs80k-masks --scans BS-80K --labels masks --out bs80k

Writes:
  SHARDS/                   the prepared scans; appears whole or not at all
  SHARDS.rejected.json      problems, if there are any
  SHARDS.files.csv          which case was made from which file, readable by you only
  SHARDS.identities.json    key of the pseudonyms and the table that leads back to the patients, readable by you only.
                            Keep it, and do not pass it on with the shards

Exit codes: 0 done, 1 the work failed or there are problems, 2 wrong arguments.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `prepare`."""
    what = parser.add_argument_group("input")
    what.add_argument(
        "--scans", type=Path, required=True, metavar="DIR", help="folder of DICOM files, searched with its subfolders"
    )
    what.add_argument("--labels", type=Path, metavar="DIR", help="folder of annotations and patients.csv")
    what.add_argument(
        "--dataset",
        choices=("bs80k-masks", "bs80k", "bs80k-skeleton", "paraguay"),
        help="the folders are those of a public data set, as they came out of its archive: see "
        "assets/docs/public_data.md",
    )
    what.add_argument(
        "--regions",
        type=Path,
        metavar="DIR",
        help="folder of annotations of the skeleton, named like those of the lesions: Labelme files with the names of "
        "the regions, or PNG masks with their numbers",
    )
    what.add_argument(
        "--patients", type=Path, metavar="FILE", help="table of patients (default: patients.csv in the labels folder)"
    )
    what.add_argument(
        "--classes",
        type=Path,
        metavar="FILE",
        help='JSON file with more labels, such as {"lesion": "metastatic", "spur": "non-metastatic", "255": 2}; '
        "known are metastasis, metastatic, non-metastatic; a number is a value of PNG masks",
    )
    what.add_argument(
        "--boxes",
        choices=("masks", "rectangles"),
        help="with --dataset bs80k: make masks from the boxes by the published rule, or take the boxes themselves "
        "(default masks)",
    )
    what.add_argument("--skip-invalid", action="store_true", help="leave out files with problems")
    what.add_argument("--allow-missing-view", action="store_true", help="accept scans with only one view")
    what.add_argument(
        "--pictures",
        action="store_true",
        help="the scans are grey PNG or JPEG pictures, paired by name (S_ant.png, S_post.png) or by folder (ANT, POST)",
    )
    group = add_preparation_options(parser, backgrounds=("otsu", "log", "none"))
    group.add_argument(
        "--otsu-histogram",
        choices=("non-metastatic", "all"),
        default="non-metastatic",
        help="pixels in the histogram of Otsu's threshold: all but the metastases (as in the paper) or all "
        "(default %(default)s)",
    )
    group.add_argument(
        "--benign",
        choices=("non-metastatic", "own"),
        default="non-metastatic",
        help='class of outlined lesions that are not metastatic: "non-metastatic" (1), as in the paper, or "own", a '
        "class of their own (3); then the label benign is known, too (default %(default)s)",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--out", type=Path, required=True, metavar="SHARDS", help="shard folder to write")
    output.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="key of the pseudonyms and lookup table; use one for all datasets of the same patients "
        "(default SHARDS.identities.json)",
    )
    output.add_argument(
        "--write-png", action="store_true", help="also write PNGs of images, labels and overlays into SHARDS/png"
    )
    output.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="number of worker processes; does not change the result (default %(default)s)",
    )


def add_preparation_options(parser: argparse.ArgumentParser, backgrounds: tuple[str, ...]) -> argparse._ArgumentGroup:
    """Add the options of `PreparationSettings` that do not depend on an annotation."""
    group = parser.add_argument_group("preparation")
    group.add_argument(
        "--background",
        choices=backgrounds,
        default="otsu",
        help="what separates the patient from air: Otsu's threshold on the image (as in the paper) or on log(counts)"
        + (", or nothing" if "none" in backgrounds else "")
        + " (default %(default)s)",
    )
    group.add_argument(
        "--brightness",
        choices=("per_scan", "per_view"),
        default="per_scan",
        help="one gain for both views, or one for each (default %(default)s)",
    )
    group.add_argument(
        "--bin",
        type=int,
        choices=(1, 2, 4),
        default=1,
        help="sum the counts of 2 x 2 or 4 x 4 pixels (default 1: no summing, as in the paper)",
    )
    return group


def run(args: argparse.Namespace) -> int:
    """Prepare, print the problems and the summary; 1 when there are problems and nothing was written."""
    from doubleunet_bs.constants import BENIGN_NAME, DEFAULT_CLASS_MAP, NON_METASTATIC
    from doubleunet_bs.errors import DatasetError, SettingsError, counted
    from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort
    from doubleunet_bs.preparation.settings import PreparationSettings
    from doubleunet_bs.preparation.summaries import rejection_table, summary_text
    from doubleunet_bs.scans import count_kinds
    from doubleunet_bs.scans.labels import load_class_map

    if args.dataset is None and args.labels is None:
        raise SettingsError("--labels is missing: name the folder of annotations and patients.csv")
    if args.boxes and args.dataset != "bs80k":
        raise SettingsError("--boxes goes with --dataset bs80k alone: leave it out")
    if args.dataset in ("bs80k", "paraguay") and args.labels:
        raise SettingsError(f"--labels does not go with --dataset {args.dataset}: leave it out, --scans has all of it")
    for option in ("classes", "patients", "regions", "allow_missing_view"):
        if args.dataset and getattr(args, option):
            raise SettingsError(f"--{option.replace('_', '-')} does not go with --dataset: leave it out")
    classes = load_class_map(args.classes) if args.classes else DEFAULT_CLASS_MAP
    if args.benign == "own":
        classes = {BENIGN_NAME: NON_METASTATIC} | classes
    settings = PreparationSettings(
        background=args.background,
        brightness=args.brightness,
        bin=args.bin,
        otsu_histogram=args.otsu_histogram,
        source="pictures" if args.pictures or args.dataset else "counts",
        benign=args.benign,
        classes=dict(classes),
    )
    job = CohortJob(
        scans=args.scans,
        labels=args.labels or args.scans,
        out=args.out,
        settings=settings,
        classes_file=args.classes,
        patients=args.patients,
        key=args.key,
        workers=args.workers,
        skip_invalid=args.skip_invalid,
        allow_missing_view=args.allow_missing_view,
        pictures=args.write_png,
        regions=args.regions,
        public=args.dataset,
        boxes=args.boxes or "masks",
    )
    result = prepare_cohort(job)
    if listed := (*result.rejected, *result.left_out):
        print(rejection_table(listed))
        print()
    if result.passed_over:
        print(f"passed over      {count_kinds(result.passed_over)}")
    if not result.written:
        advice = "no scan is left" if args.skip_invalid else "fix the listed files or pass --skip-invalid"
        for note in result.notes:
            print(f"warning          {note}")
        problems = counted(len(result.rejected), "problem")
        raise DatasetError(f"{problems}, nothing was written, see {job.beside('rejected.json')}: {advice}")
    print(summary_text(result, settings))
    print(f"shards           {args.out}")
    if result.rejected:
        print(f"problems         {job.beside('rejected.json')}")
    print(f"files            {job.beside('files.csv')} (case and file: keep it private)")
    print(f"identities       {job.key_file} (keep it private, apart from the shards)")
    return 0
