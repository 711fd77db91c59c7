"""Segment bone scans with a trained fold.

SCAN is a DICOM file, a folder (searched with its subfolders) or a zip archive. If each view is in a file of its own,
name the two files side by side, or their folder. A folder of grey pictures without DICOM scans is taken, too, with the
views paired by name (S_ant.png, S_post.png). Scans are prepared exactly as those the model was trained on.
Results of earlier predictions below a folder are skipped.

Examples:
  doubleunet-bs predict scan.dcm --model RUN/fold_01 --out predicted
  doubleunet-bs predict anterior.dcm posterior.dcm --model RUN/fold_01 --out predicted
  doubleunet-bs predict export/ --model saved_model --out predicted --allow-missing-view --overwrite
  doubleunet-bs predict scan.dcm --model saved_model --out predicted --previous predicted_2023/case-0123456789ab
  doubleunet-bs predict scan.dcm --model RUN/fold_01 --skeleton SKELETON/fold_01 --out predicted
  doubleunet-bs predict scan.dcm --model saved_model --out for_archive --outputs dicom --keep-identity
  doubleunet-bs predict export/ --model saved_model --out predicted --skip-existing --log predict.log
  doubleunet-bs predict export/ --model saved_model --out predicted --shard 2/10
  doubleunet-bs predict export/ --model saved_model --out predicted --dry-run
  doubleunet-bs predict export/ --model RUN/fold_01 --out predicted --engine serving --server grpc://gpu:8500

Writes a folder per scan into DIR, named by a pseudonym computed from the scan's counts:
  result.json                       always: lesions, areas, model, warnings; no name, ID, date or UID
  masks    mask_anterior.npy, mask_posterior.npy  masks in the pixels of the raw views, uint8: 1 metastatic,
                                    2 benign (models with that class)
           mask_anterior.png, mask_posterior.png  the same as 0, 255 and 128, to look at
           regions_anterior.npy, ...  with --skeleton: 0 not bone, 1 to 12 the regions; the same as PNG
  overlay  overlay.png              both raw views with the predicted lesions outlined, with --skeleton regions as thin
                                    lines
  dicom    segmentation.dcm         DICOM segmentation (SEG) of both views
           segmentation_2.dcm       the second view, with --keep-identity and views in files of two series
           lesions.dcm              structured report (SR): outline, area, counts, probability of each lesion, if any
           bsi.dcm                  structured report of the Bone Scan Index, with --skeleton
           overlay.dcm              the overlay as a secondary capture, for viewers that do not show SEG
           scan.dcm                 the scan without the patient, to which the others refer; not with --keep-identity
  labelme  annotation_anterior.json, annotation_posterior.json  outlines to correct in Labelme
           view_anterior.png, view_posterior.png  the pictures they lie on
  report   report.html              a page to read: views, outlines, table of lesions
           thumbnail.png            both views, small, for the index
  probability  probability_anterior.png, probability_posterior.png  probability of metastatic in the pixels of the raw
           views, 16 bits: 65535 is 1

Beside these folders index.html shows all results in DIR, and cohort.csv has one line a scan. DIR.files.csv, which only
you can read, leads from a pseudonym to its file. Keep it to yourself when you pass DIR on.

A folder may hold other files: text, CT, screen captures and the like are passed over and counted. For a folder that is
segmented every night use --skip-existing.

Without --keep-identity, no name, ID, date or UID of the patient is in any of these files. With it, the DICOM files (and
only they) carry the patient and the study and refer to the original instances, so that an archive can file them.
Files that say that the patient's identity was removed are then rejected.
With --skeleton and without --weights, result.json, report and cohort.csv name the weight table chosen by the patient's
sex: the sex can then be read from them.

To correct predictions and train on them, use --labelme LABELS: it writes STEM_anterior.json and STEM_posterior.json
for the scan STEM.dcm, with their pictures. Correct them in Labelme, then run `prepare --scans ... --labels LABELS`.
These files are named after the scan's file, which may contain the patient's name. They are never overwritten.

Nothing leaves this machine unless you choose an engine with a server.
Research software, not a medical device: not for diagnosis or treatment.

Exit codes: 0 all scans segmented or done before, 1 some are not (the others are), 2 wrong arguments, 130 interrupted.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `predict`."""
    parser.add_argument("scans", nargs="+", metavar="SCAN", help="DICOM file, folder or zip archive")
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="a fold such as RUN/fold_01 or an exported saved_model folder; with --server also a name on the server: "
        "NAME, NAME@LABEL or NAME@VERSION",
    )
    parser.add_argument(
        "--skeleton",
        metavar="MODEL",
        help="model of the skeleton: also compute the Bone Scan Index; prepared as --model, named like it",
    )
    parser.add_argument(
        "--weights",
        choices=("icrp110-male", "icrp110-female", "spiers1968"),
        help="weight table of the Bone Scan Index (default: icrp110 by the sex in the header, female if unknown)",
    )
    parser.add_argument("--allow-missing-view", action="store_true", help="accept scans with only one view")
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="segment part I of N of the scans: N processes with the same paths do each scan once",
    )
    parser.add_argument(
        "--previous", metavar="RESULT", help="result folder or scan of an earlier date, shown in the report beside it"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="probability from which on pixels are metastatic, between 0 and 1 (default: the likeliest class)",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--out", required=True, metavar="DIR", help="folder for the results; created if missing")
    output.add_argument(
        "--outputs",
        default="all",
        metavar="LIST",
        help="what to write besides result.json: masks,overlay,dicom,labelme,report,probability, all or none (default "
        "all)",
    )
    output.add_argument("--overwrite", action="store_true", help="replace results of an earlier prediction")
    output.add_argument(
        "--skip-existing",
        action="store_true",
        help="skip scans whose result is there, whole and of the same model; with --overwrite replace the others",
    )
    output.add_argument(
        "--identities",
        metavar="FILE",
        help="identities.json that `prepare` wrote: name the scans as the shards do, instead of by their counts",
    )
    output.add_argument(
        "--keep-identity",
        action="store_true",
        help="write the patient's identity and the study into the DICOM results, and nowhere else",
    )
    output.add_argument(
        "--labelme", metavar="LABELS", help="also write outlines for `prepare` into this folder, named after the scans"
    )
    output.add_argument("--log", metavar="FILE", help="append to a log that names scans by their pseudonyms only")
    output.add_argument(
        "--dry-run", action="store_true", help="read and prepare the scans, print what would be written, write nothing"
    )
    engine = parser.add_argument_group("engine")
    engine.add_argument(
        "--engine",
        choices=("auto", "tensorflow", "openvino", "serving"),
        default="auto",
        help="what computes; openvino is an extra, serving asks --server. auto: tensorflow with a GPU, else openvino "
        "if installed (default %(default)s)",
    )
    engine.add_argument(
        "--server",
        metavar="URL",
        help="TensorFlow Serving server for --engine serving: grpc://HOST:PORT; images travel unencrypted",
    )
    engine.add_argument(
        "--deadline", type=float, metavar="SECONDS", help="time limit for each answer of the server (default 60)"
    )
    engine.add_argument(
        "--precision",
        choices=("auto", "float32"),
        default="auto",
        help="auto: bfloat16 where the processor has it, which moves some outlines by a pixel; not for --engine "
        "serving (default %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Segment the scans and print what was written."""
    from pathlib import Path

    from doubleunet_bs.results.input_scans import parse_shard
    from doubleunet_bs.results.predict_scans import PredictionTask, predict_scans
    from doubleunet_bs.results.result_files import JobSettings, parse_outputs

    settings = JobSettings(
        out=Path(args.out),
        outputs=parse_outputs(args.outputs),
        allow_missing_view=args.allow_missing_view,
        overwrite=args.overwrite,
        keep_identity=args.keep_identity,
        labelme=Path(args.labelme) if args.labelme else None,
        skip_existing=args.skip_existing,
    )
    task = PredictionTask(
        scans=args.scans,
        settings=settings,
        model=args.model,
        engine=args.engine,
        server=args.server,
        precision=args.precision,
        deadline=args.deadline,
        threshold=args.threshold,
        previous=args.previous,
        log=Path(args.log) if args.log else None,
        identities=Path(args.identities) if args.identities else None,
        shard=parse_shard(args.shard) if args.shard else None,
        skeleton=args.skeleton,
        weights=args.weights,
    )
    return predict_scans(task, args.dry_run)
