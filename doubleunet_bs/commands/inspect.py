"""Show how a scan is read and prepared.

Prints how the views were distinguished, their counts, the body bounding box, the crop, the gain, what Otsu's threshold
keeps, and every warning. Name one file, or the two files of a scan with one view each. No patient data is printed.

Of a folder it prints one line a scan: counts of both views, rows of the body, pixel spacing, gains and warnings. Grey
pictures in a folder are taken as scans, paired by their names, if no DICOM file of a scan is in it.

Examples:
  doubleunet-bs inspect scan.dcm
  doubleunet-bs inspect export
  doubleunet-bs inspect anterior.dcm posterior.dcm --png look.png
  doubleunet-bs inspect scan.dcm --json | jq .views.anterior.gain
  doubleunet-bs inspect export --json | jq .warnings

Writes nothing, except the picture that --png asks for.

Exit codes: 0 done, 1 a scan cannot be used, 2 wrong arguments.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from doubleunet_bs.commands.prepare import add_preparation_options

if TYPE_CHECKING:
    from doubleunet_bs.preparation import PreparationSettings
    from doubleunet_bs.scans import BoneScan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `inspect`."""
    parser.add_argument(
        "scan",
        type=Path,
        nargs="+",
        metavar="SCAN",
        help="DICOM file or picture, two of one view each, or folder",
    )
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object instead of text; one a line of a folder"
    )
    parser.add_argument(
        "--png",
        type=Path,
        metavar="FILE",
        help="also write a picture of both views with body bounding box, crop and row 640",
    )
    parser.add_argument("--allow-missing-view", action="store_true", help="accept a scan with only one view")
    add_preparation_options(parser, backgrounds=("otsu", "log"))


def run(args: argparse.Namespace) -> int:
    """Read, prepare in memory, print."""
    import json

    from doubleunet_bs.display import save_png
    from doubleunet_bs.errors import SettingsError
    from doubleunet_bs.preparation import prepare_scan
    from doubleunet_bs.preparation.summaries import inspection, inspection_picture, inspection_text
    from doubleunet_bs.scans import read_scan

    if len(args.scan) > 2:
        raise SettingsError(
            f"{len(args.scan)} files: a scan is one file, or two with one view each. Inspect one scan at a time"
        )
    if args.png and args.png.suffix.lower() != ".png":
        raise SettingsError(f"--png {args.png}: the name must end in .png")
    if len(args.scan) == 1 and args.scan[0].is_dir():
        if args.png:
            raise SettingsError(f"--png belongs to one scan, and {args.scan[0]} is a folder")
        return _inspect_folder(args)
    scan = read_scan(args.scan, allow_missing_view=args.allow_missing_view)
    prepared = prepare_scan(scan, settings=_settings(args, scan))
    figures = inspection(scan, prepared)
    print(json.dumps(figures, indent=2) if args.json else inspection_text(figures))
    if args.png:
        save_png(args.png, inspection_picture(scan, prepared))
        if not args.json:
            print(f"picture          {args.png}")
    return 0


def _settings(args: argparse.Namespace, scan: "BoneScan") -> "PreparationSettings":
    from doubleunet_bs.preparation import PreparationSettings

    source = "pictures" if scan.pictures else "counts"
    return PreparationSettings(background=args.background, brightness=args.brightness, bin=args.bin, source=source)


def _inspect_folder(args: argparse.Namespace) -> int:
    """One line for each scan of a folder, as it is read; what cannot be used goes to standard error."""
    import json
    import sys

    from doubleunet_bs.errors import RunError, ScanError, one_line
    from doubleunet_bs.preparation import prepare_scan
    from doubleunet_bs.preparation.summaries import WIDEST_PATH, inspection, inspection_line
    from doubleunet_bs.scans import count_kinds, find_pictures, find_scans

    found = find_scans(args.scan[0], args.allow_missing_view)
    if found.only_pictures:
        found = find_pictures(args.scan[0], args.allow_missing_view, others_beside=True)
    if not found.scans and not found.rejected:
        raise RunError(found.nothing(args.scan[0]))
    rejected = list(found.rejected)
    names = [one_line(" + ".join(files.paths)) for files in found.scans]
    width = min(max((len(name) for name in names), default=0), WIDEST_PATH)
    if not args.json and found.scans:
        print(inspection_line("scan", width=width))
    for files, name in zip(found.scans, names, strict=True):
        try:
            scan = files.read(args.allow_missing_view)
            figures = inspection(scan, prepare_scan(scan, settings=_settings(args, scan)))
        except ScanError as error:
            rejected.append(files.rejection(error))
            continue
        print(
            json.dumps({"files": files.paths, **figures}) if args.json else inspection_line(name, figures, width),
            flush=True,
        )
    for file in rejected:
        print(f"error: {one_line(file.path)}: {file.message}", file=sys.stderr)
    if not args.json:
        total = len(found.scans) + len(found.rejected)
        print(f"\n{total - len(rejected)} of {total} scans can be used")
        if other := count_kinds(found.passed_over):
            print(f"passed over: {other}")
    return 1 if rejected else 0
