"""Segment bone scans with a trained fold.

SCAN is a DICOM file, a folder that is searched to the bottom, or a zip archive; the two files of a scan with one view
per file are given side by side or found in the folder. Results of this program below a folder are passed over. Scans
are prepared exactly as those the model was trained on.
For each scan DIR gets a folder named by a pseudonym made from its counts, with

  result.json                       always: lesions, areas, model, warnings; nothing of the patient
  masks    mask_anterior.npy, mask_posterior.npy  masks in the pixels of the raw views, uint8, 1 where metastatic
           mask_anterior.png, mask_posterior.png  the same with 0 and 255, to look at
  overlay  overlay.png              both raw views with the predicted areas outlined
  dicom    segmentation_anterior.dcm, segmentation_posterior.dcm  DICOM segmentations (SEG)
           overlay.dcm              the overlay as a secondary capture, for viewers that do not show SEG
           scan.dcm                 the scan without the patient, to which the others refer; not with --keep-identity
  labelme  annotation_anterior.json, annotation_posterior.json  outlines to correct in Labelme
           view_anterior.png, view_posterior.png  the pictures they lie on
  report   report.html              a page to read: views, contours, table of lesions

Without --keep-identity no name, id, date or UID of the patient is in any of them. With it, the DICOM files, and they
alone, carry the patient and the study of the scan and refer to its own instances, so that an archive can file them. A
file that says that the patient's identity has been removed from it is then refused.

To correct and learn: --labelme LABELS writes STEM_anterior.json and STEM_posterior.json for the scan STEM.dcm, complete
with their pictures; correct them in Labelme, then `prepare --scans ... --labels LABELS` takes them as annotations. They
are named after the scan's own file, which may name the patient, and are never overwritten.

Files are read, segmented and written at the same time; memory does not grow with their number. Nothing leaves this
machine unless an engine that asks a server is chosen. Research software, not a medical device: not for diagnosis or
treatment.

Examples:
  python -m doubleunet_bs predict scan.dcm --model RUN/fold_01 --out predicted
  python -m doubleunet_bs predict anterior.dcm posterior.dcm --model RUN/fold_01 --out predicted
  python -m doubleunet_bs predict export/ --model saved_model --out predicted --allow-missing-view --overwrite
  python -m doubleunet_bs predict scan.dcm --model saved_model --out predicted --previous predicted_2023/case-0123456789ab
  python -m doubleunet_bs predict scan.dcm --model saved_model --out for_archive --outputs dicom --keep-identity
  python -m doubleunet_bs predict export/ --model saved_model --out predicted --dry-run
  python -m doubleunet_bs predict export/ --model RUN/fold_01 --out predicted --engine serving --server grpc://gpu:8500

Exit code: 0 all scans are segmented, 1 some are not (the others are), 2 wrong arguments, 130 interrupted.
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
        "--outputs",
        default="all",
        metavar="LIST",
        help="what to write beside result.json: masks,overlay,dicom,labelme,report, or all (default), or none",
    )
    parser.add_argument(
        "--allow-missing-view", action="store_true", help="accept a scan with one view; the other half stays empty"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results of an earlier prediction")
    parser.add_argument(
        "--keep-identity",
        action="store_true",
        help="write the patient's identity and the study into the DICOM results, and nowhere else",
    )
    parser.add_argument(
        "--previous", metavar="RESULT", help="result folder or scan of an earlier date, shown beside it in the report"
    )
    parser.add_argument(
        "--labelme", metavar="LABELS", help="also write outlines for prepare into this folder, named after the scans"
    )
    parser.add_argument("--log", metavar="FILE", help="append a log that names scans by their pseudonyms only")
    parser.add_argument(
        "--dry-run", action="store_true", help="read and prepare the scans, say what would be done, write nothing"
    )
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
        help="TensorFlow Serving server for --engine serving, grpc://HOST:PORT; images travel unencrypted",
    )
    parser.add_argument(
        "--deadline",
        type=float,
        metavar="SECONDS",
        help="time limit for each answer of the server (default 60)",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "float32"),
        default="auto",
        help="auto: bfloat16 where the processor has it, some outlines then move by a pixel; not for --engine serving",
    )


def run(args: argparse.Namespace) -> int:
    """Segment the scans and print what was written."""
    from pathlib import Path

    from doubleunet_bs.errors import ScanError, SettingsError
    from doubleunet_bs.files import nearest_existing
    from doubleunet_bs.inference.engines import check_choice
    from doubleunet_bs.results.input_scans import list_scans
    from doubleunet_bs.results.result_files import JobSettings, parse_outputs

    check_choice(args.engine, args.precision, args.server, args.deadline)
    for option in ("out", "labelme"):
        path = getattr(args, option)
        if path is not None:
            there = nearest_existing(path)
            if not there.is_dir():
                raise SettingsError(f"{there}: is a file; --{option} names a folder")
    settings = JobSettings(
        out=Path(args.out),
        outputs=parse_outputs(args.outputs),
        allow_missing_view=args.allow_missing_view,
        overwrite=args.overwrite,
        keep_identity=args.keep_identity,
        labelme=Path(args.labelme) if args.labelme else None,
    )
    if args.keep_identity and "dicom" not in settings.outputs:
        raise SettingsError("--keep-identity is about the DICOM results: add dicom to --outputs, or leave it out")
    if args.previous and "report" not in settings.outputs:
        raise SettingsError("--previous is about the report: add report to --outputs, or leave it out")
    found = list_scans(args.scans, args.allow_missing_view)
    if not found.scans and not found.rejected:
        raise ScanError(f"{', '.join(args.scans)}: no file in it", "empty")
    for file in found.rejected:
        _complain(f"{file.path}: {file.message}")
    if not found.scans:
        raise ScanError("no scan can be used", "empty")
    if args.previous and len(found.scans) != 1:
        raise SettingsError(f"--previous belongs to one scan, and {len(found.scans)} are given")
    return (_rehearse if args.dry_run else _predict)(args, settings, found)


def _rehearse(args: argparse.Namespace, settings, found) -> int:
    """Everything up to the network, which is not even loaded."""
    from pathlib import Path

    from doubleunet_bs.errors import BoneScanError, SettingsError
    from doubleunet_bs.inference.engines import choose_local
    from doubleunet_bs.inference.model_folder import find_model
    from doubleunet_bs.results.input_scans import scan_name
    from doubleunet_bs.results.prediction_job import ScanReader, check_log
    from doubleunet_bs.results.previous_scan import check_another, find_previous, previous_case

    if args.server and not Path(args.model).is_dir():
        raise SettingsError(f"{args.model}: a dry run asks no server; name the folder of the model")
    if args.log:
        check_log(Path(args.log))
    model = find_model(Path(args.model))
    model.check_exported(args.engine)
    description = model.description
    exported = model.saved_model or args.engine == "serving"
    _introduce(description, f"engine {choose_local(args.engine) if exported else 'tensorflow'}")
    previous = None
    if args.previous:
        earlier = find_previous(args.previous, found.scans[0], settings.allow_missing_view)
        previous = previous_case(earlier, description.preparation, settings.allow_missing_view)
    reader = ScanReader(settings, description.preparation)
    ready = 0
    for files in found.scans:
        try:
            content = reader(files)
            if previous is not None:
                check_another(content.scan.case, previous)
        except BoneScanError as error:
            _complain(_named(error, files.sources))
            continue
        ready += 1
        print(f"\n{scan_name(files.sources)}")
        print(
            f"  would be written    {settings.out / content.scan.case}: {', '.join(('result.json', *settings.outputs))}"
        )
        for path in (content.labelme or {}).values():
            print(f"  would be written    {path}")
        for warning in content.prepared.warnings:
            print(f"  warning             {warning}")
    total = len(found.scans) + len(found.rejected)
    print(f"\ndry run: {ready} of {total} scans would be segmented; nothing was written")
    return 0 if ready == total else 1


def _predict(args: argparse.Namespace, settings, found) -> int:
    import contextlib
    from pathlib import Path

    from tqdm import tqdm

    from doubleunet_bs import __version__
    from doubleunet_bs.errors import BoneScanError
    from doubleunet_bs.inference.predictor import Predictor
    from doubleunet_bs.results.input_scans import scan_name
    from doubleunet_bs.results.prediction_job import PredictionJob, RunLog, ScanReader, stream
    from doubleunet_bs.results.previous_scan import find_previous, segment_previous
    from doubleunet_bs.stop_signals import StopSignals

    previous = find_previous(args.previous, found.scans[0], settings.allow_missing_view) if args.previous else None
    total = len(found.scans) + len(found.rejected)
    done = 0
    with RunLog(Path(args.log) if args.log else None) as log:
        predictor = Predictor(args.model, args.engine, args.server, args.precision, args.deadline)
        _introduce(predictor.description, predictor.engine)
        reader = ScanReader(settings, predictor.description.preparation)
        weights = predictor.description.weights_sha256[:12]
        log.line(
            f"start: doubleunet_bs {__version__}, {predictor.description.name}, weights {weights}, "
            f"engine {predictor.engine}, {total} scans"
        )
        for number, file in enumerate(found.rejected, start=len(found.scans) + 1):
            log.line(f"scan {number} of {total}: not segmented ({file.reason})")
        if previous is not None:
            previous = segment_previous(previous, predictor, settings.allow_missing_view)
        job = PredictionJob(settings, predictor, previous)
        bar = tqdm(
            total=len(found.scans), desc="predict", unit="scan", dynamic_ncols=True, file=sys.stderr, disable=None
        )
        signals = StopSignals()
        outcomes = stream(found.scans, reader, job.segment, job.write, stop=lambda: signals.requested)
        with signals, bar, contextlib.closing(outcomes):
            for number, (files, outcome) in enumerate(outcomes, start=1):
                bar.update()
                if isinstance(outcome, BoneScanError):
                    log.failure(reader.cases.get(files, f"scan {number} of {total}"), outcome)
                    with tqdm.external_write_mode(file=sys.stderr):
                        _complain(_named(outcome, files.sources))
                    continue
                done += 1
                written, seconds = outcome
                with tqdm.external_write_mode(file=sys.stdout):
                    print(f"\n{scan_name(files.sources)}\n{_summary(written)}", flush=True)
                areas, warnings = len(written.result["lesions"]), len(written.result["warnings"])
                log.line(
                    f"{written.result['case']}: {areas} areas, {written.result['metastatic_pixels']} pixels, "
                    f"{warnings} warnings, {seconds:.2f} s"
                )
            # A flag that is looked at, since Python swallows a KeyboardInterrupt that comes while it clears up objects.
            if signals.requested:
                raise KeyboardInterrupt
        log.line(f"end: {done} of {total} scans segmented")
    print(f"\n{done} of {total} scans segmented; results in {args.out}")
    return 0 if done == total else 1


def _summary(written) -> str:
    """What a person wants to know of one scan at once."""
    result = written.result
    lines = []
    for name, key in (("metastatic areas", None), ("metastatic pixels", "metastatic_pixels")):
        figures = [
            f"{view} {content[key] if key else sum(lesion['view'] == view for lesion in result['lesions'])}"
            for view, content in result["views"].items()
        ]
        lines.append(f"  {name:<20}{', '.join(figures)}")
    fraction = result["lesion_area"]["fraction_of_body"]
    if fraction is not None:
        lines.append(f"  {'share of body area':<20}{100 * fraction:.2f} % (not a bone scan index)")
    lines += [f"  {'warning':<20}{warning}" for warning in result["warnings"]]
    lines.append(f"  {'written':<20}{written.folder}")
    return "\n".join(lines)


def _introduce(description, engine: str) -> None:
    from doubleunet_bs.inference.model_description import INTENDED_USE

    rows, columns = description.image_shape
    print(f"model   {description.name}, {rows} x {columns} pixels, {engine}")
    print(f"use     {INTENDED_USE}")


def _named(error, sources) -> str:
    """The error, with the file's name before it unless it names it itself."""
    from doubleunet_bs.results.input_scans import scan_name

    message, name = str(error), scan_name(sources)
    names = tuple(f"{one}: " for one in (name, *(source.label for source in sources)))
    return message if message.startswith(names) else f"{name}: {message}"


def _complain(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
