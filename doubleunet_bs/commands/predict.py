"""Segment bone scans with a trained fold.

SCAN is a DICOM file, a folder that is searched to the bottom, or a zip archive; the two files of a scan with one view
per file are given side by side or found in the folder. Scans are prepared exactly as those the model was trained on.
For each scan DIR gets a folder named by a pseudonym made from its counts, with

  result.json                           model, metastatic pixels of each view, gains, warnings; nothing of the patient
  overlay.png                           both raw views with the predicted areas outlined
  mask_anterior.npy, mask_posterior.npy masks in the pixels of the raw views, uint8, 1 where metastatic is predicted
  mask_anterior.png, mask_posterior.png the same with 0 and 255, to look at

Research software, not a medical device: not for diagnosis or treatment.

Examples:
  python -m doubleunet_bs predict scan.dcm --model RUN/fold_01 --out predicted
  python -m doubleunet_bs predict anterior.dcm posterior.dcm --model RUN/fold_01 --out predicted
  python -m doubleunet_bs predict export/ --model saved_model --out predicted --allow-missing-view --overwrite
  python -m doubleunet_bs predict export/ --model RUN/fold_01 --out predicted --engine serving --server grpc://gpu:8500

Exit code: 0 all scans are segmented, 1 some are not (the others are), 2 wrong arguments.
"""

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options to `parser`."""
    parser.add_argument("scans", nargs="+", metavar="SCAN", help="DICOM file, folder or zip archive")
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="a fold such as RUN/fold_01, an exported saved_model folder, or with --server also a model's name there",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the results; made when it is not there")
    parser.add_argument(
        "--allow-missing-view", action="store_true", help="accept a scan with one view; the other half stays empty"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results of an earlier prediction")
    parser.add_argument(
        "--engine",
        choices=("auto", "tensorflow", "openvino", "serving"),
        default="auto",
        help="what computes: tensorflow; openvino, an extra; serving, the server of --server; default auto: tensorflow "
        "with a GPU, else openvino where it is installed, and the output says which",
    )
    parser.add_argument(
        "--server",
        metavar="URL",
        help="model server for --engine serving, grpc://HOST:PORT or http://HOST:PORT; the images travel unencrypted",
    )
    parser.add_argument(
        "--deadline", type=float, default=60.0, metavar="SECONDS", help="for an answer of the server, default 60"
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "float32"),
        default="auto",
        help="auto: bfloat16 where the processor has it, some outlines then move by a pixel; not for --engine serving",
    )


def run(args: argparse.Namespace) -> int:
    """Segment the scans one after the other and print what was written."""
    from pathlib import Path

    from tqdm import tqdm

    from doubleunet_bs.deployment.scan_list import list_scans
    from doubleunet_bs.errors import BoneScanError, RunError, ScanError, SettingsError

    if Path(args.out).exists() and not Path(args.out).is_dir():
        raise SettingsError(f"{args.out}: is a file; --out names a folder")
    found = list_scans(args.scans, args.allow_missing_view)
    if not found.scans and not found.rejected:
        raise ScanError(f"{', '.join(args.scans)}: no file in it", "empty")
    failures = len(found.rejected)
    for file in found.rejected:
        _complain(f"{file.path}: {file.message}")
    if not found.scans:
        raise ScanError("no scan can be used", "empty")

    from doubleunet_bs.deployment.model_description import INTENDED_USE
    from doubleunet_bs.deployment.predictor import Predictor
    from doubleunet_bs.deployment.results import result_folder, write_prediction

    predictor = Predictor(args.model, args.engine, args.server, args.precision, args.deadline)
    rows, columns = predictor.description.image_shape
    print(f"model   {predictor.description.name}, {rows} x {columns} pixels, {predictor.engine}")
    print(f"use     {INTENDED_USE}")
    done: dict[str, str] = {}
    bar = tqdm(found.scans, desc="predict", unit="scan", dynamic_ncols=True, file=sys.stderr, disable=None)
    for files in bar:
        name = " + ".join(source.label for source in files.sources)
        try:
            scan = files.read(args.allow_missing_view)
            if scan.case in done:
                raise RunError(f"{name}: has the same counts as {done[scan.case]}; one result is enough")
            result_folder(args.out, scan.case, args.overwrite)
            prediction = predictor.predict(scan)
            folder = write_prediction(args.out, scan, prediction, predictor.engine, args.overwrite)
        except BoneScanError as error:
            failures += 1
            message = str(error)
            with tqdm.external_write_mode(file=sys.stderr):
                named = any(source.label in message for source in files.sources)
                _complain(message if named else f"{name}: {message}")
            continue
        done[scan.case] = name
        pixels = prediction.lesion_pixels
        with tqdm.external_write_mode(file=sys.stdout):
            print(f"\n{name}")
            print(f"  metastatic pixels   anterior {pixels['anterior']}, posterior {pixels['posterior']}")
            for warning in prediction.warnings:
                print(f"  warning             {warning}")
            print(f"  written             {folder}", flush=True)
    total = len(found.scans) + len(found.rejected)
    print(f"\n{len(done)} of {total} scans segmented; results in {args.out}")
    return 1 if failures else 0


def _complain(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
