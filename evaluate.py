#!/usr/bin/env python
"""Score the trained folds of a run: precision, sensitivity and F1 of metastatic pixels on scans it has not seen.

    python evaluate.py RUN              all trained folds
    python evaluate.py RUN --fold 1     one of them

For each fold it writes RUN/fold_01/scores.json (per scan and pooled, as fractions) and RUN/fold_01/predictions/ (a
picture per test scan: true positives, false positives and false negatives in their own colours), then RUN/summary.json
with all scored folds. Beside the network stands what the best single intensity threshold reaches on the same scans:
the least a model has to beat. What to expect: the paper's own ten folds of breast-cancer scans have a mean F1 between
62 and 67 (Tables 1 to 3); those scans are not public.

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
    parser.add_argument("run", metavar="RUN", help="run folder of train.py")
    parser.add_argument("--fold", type=int, metavar="K", help="one fold; default all that are trained")
    parser.add_argument("--data", metavar="SHARDS", help="the run's shards, when they have moved since training")
    parser.add_argument("--batch-size", type=int, default=4, metavar="N", help="scans predicted at once (default 4)")
    parser.add_argument("--no-pictures", action="store_true", help="figures only, no overlays")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    args = parser.parse_args(argv)
    for option in ("fold", "batch_size", "threads"):
        value = getattr(args, option)
        if value is not None and value < 1:
            parser.error(f"--{option.replace('_', '-')} {value}: at least 1")
    return args


def evaluate(args: argparse.Namespace) -> int:
    from doubleunet_bs.quiet import import_tensorflow

    tensorflow = import_tensorflow()
    if args.threads:
        tensorflow.config.threading.set_intra_op_parallelism_threads(args.threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(args.threads)

    from doubleunet_bs.evaluation.evaluate import evaluate_run
    from doubleunet_bs.evaluation.tables import format_summary

    summary = evaluate_run(args.run, args.fold, args.data, args.batch_size, pictures=not args.no_pictures)
    changed = f", changed: {', '.join(summary.changed_settings)}" if summary.changed_settings else ""
    print(f"experiment {summary.experiment}{changed}\n")
    print(format_summary(summary))
    print(
        f"written: {args.run}/summary.json, and in each fold's folder scores.json"
        + ("" if args.no_pictures else " and predictions/")
    )
    return 0


if __name__ == "__main__":
    arguments = parse_arguments()
    sys.exit(run_command(lambda: evaluate(arguments)))
