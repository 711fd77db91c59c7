#!/usr/bin/env python
"""Score the trained folds of a run: precision, sensitivity and F1 of metastatic pixels on scans it has not seen.

    python evaluate.py RUN                                  all trained folds
    python evaluate.py RUN --fold 1                         one of them
    python evaluate.py RUN_A RUN_B --out DIR                runs on the same folds side by side, paired per scan
    python evaluate.py RUN --ensemble --data OTHER_SHARDS   all folds averaged, on scans outside of the cross-validation

For each fold it writes RUN/fold_01/scores.json (per scan and pooled, as fractions) and RUN/fold_01/predictions/ (a
picture per test scan: true positives, false positives and false negatives in their own colours; beside them the kept
predictions, so that nothing is predicted twice), then for all scored folds RUN/summary.json, summary.csv, table.tex and
report.html, one file for a browser. Beside the network stands what the best single intensity threshold reaches on the
same scans: the least a model has to beat. A comparison of several runs keeps their predictions, writes into DIR and
leaves the runs' other files as they are.

It takes about as long as the network takes to predict the test and the validation scans (two CPU cores: 0.6 to 2.5
seconds a scan of 640 x 512 pixels), and seconds when they are predicted already. The paper's ten folds have a mean
F1 between 62 and 67 (Tables 1 to 3), on scans of its own patients, which are not public: other hospitals' scans may give
other figures, and phantoms compare with neither.

Exit code: 0 done, 1 the work failed, 2 wrong arguments.
"""

import argparse
import sys

from doubleunet_bs.__main__ import run_command


def parse_arguments(argv=None) -> argparse.Namespace:
    summary, _, details = __doc__.partition("\n")
    parser = argparse.ArgumentParser(
        prog="evaluate.py", description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", nargs="+", help="run folder of train.py; several are compared")
    parser.add_argument("--fold", type=int, metavar="K", help="one fold; default all that are trained")
    parser.add_argument(
        "--data",
        metavar="SHARDS",
        help="the run's shards, when they have moved since training; with --ensemble the other shards to test on",
    )
    parser.add_argument("--ensemble", action="store_true", help="average all trained folds; --data names other scans")
    parser.add_argument(
        "--trained-on",
        metavar="SHARDS",
        nargs="+",
        default=[],
        help="with --ensemble: the run's shards, when they have moved",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="with several runs: also write comparison.json, .csv and .txt here"
    )
    parser.add_argument(
        "--overlap",
        type=float,
        default=0.0,
        metavar="F",
        help="least intersection over union of a found lesion; default 0: one common pixel",
    )
    parser.add_argument("--no-normals", action="store_true", help="leave out normal scans that were not trained on")
    parser.add_argument("--again", action="store_true", help="predict anew what has been predicted already")
    parser.add_argument("--batch-size", type=int, default=4, metavar="N", help="scans predicted at once (default 4)")
    parser.add_argument("--no-pictures", action="store_true", help="no overlays")
    parser.add_argument("--no-report", action="store_true", help="no report.html")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    args = parser.parse_args(argv)
    for option in ("fold", "batch_size", "threads"):
        value = getattr(args, option)
        if value is not None and value < 1:
            parser.error(f"--{option.replace('_', '-')} {value}: at least 1")
    if not 0 <= args.overlap < 1:
        parser.error(f"--overlap {args.overlap}: at least 0 and below 1")
    if args.ensemble and (len(args.run) > 1 or args.fold or not args.data):
        parser.error("--ensemble takes one run, no --fold, and the scans to test on: --data OTHER_SHARDS")
    if args.trained_on and not args.ensemble:
        parser.error("--trained-on goes with --ensemble; without it --data names the run's shards")
    if args.out and len(args.run) < 2:
        parser.error("--out goes with several runs; the figures of one run are written into its folder")
    return args


def evaluate(args: argparse.Namespace) -> int:
    from doubleunet_bs.tensorflow_setup import import_tensorflow

    tensorflow = import_tensorflow()
    if args.threads:
        tensorflow.config.threading.set_intra_op_parallelism_threads(args.threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(args.threads)

    from doubleunet_bs.evaluation.score_cases import EvaluationSettings

    settings = EvaluationSettings(
        batch_size=args.batch_size,
        overlap=args.overlap,
        normals=not args.no_normals,
        pictures=not args.no_pictures,
        again=args.again,
    )
    if len(args.run) > 1:
        return compare(args, settings)

    from doubleunet_bs.evaluation.tables import format_details, format_summary

    if args.ensemble:
        from doubleunet_bs.evaluation.evaluate_ensemble import evaluate_ensemble

        summary, folder = evaluate_ensemble(args.run[0], args.data, settings, args.trained_on, not args.no_report)
    else:
        from doubleunet_bs.evaluation.evaluate_run import evaluate_run

        summary, folder = evaluate_run(args.run[0], args.fold, args.data, settings, not args.no_report), args.run[0]
    changed = f", changed: {', '.join(summary.changed_settings)}" if summary.changed_settings else ""
    print(f"experiment {summary.experiment}{changed}\n")
    print(f"{format_summary(summary)}\n\n{format_details(summary)}\n")
    written = ["summary.json", "summary.csv", "table.tex"] + ([] if args.no_report else ["report.html"])
    place = "" if args.ensemble else "in each fold's folder "
    print(f"written in {folder}: {', '.join(written)}; {place}scores.json and predictions/")
    return 0


def compare(args: argparse.Namespace, settings) -> int:
    from doubleunet_bs.evaluation.compare_runs import compare_runs, format_comparison, write_comparison

    comparison = compare_runs(args.run, args.fold, args.data, settings)
    print(format_comparison(comparison))
    if args.out:
        write_comparison(args.out, comparison)
        print(f"written in {args.out}: comparison.json, comparison.csv, comparison.txt")
    return 0


if __name__ == "__main__":
    arguments = parse_arguments()
    sys.exit(run_command(lambda: evaluate(arguments)))
