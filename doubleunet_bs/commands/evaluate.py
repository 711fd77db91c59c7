"""Score the trained folds of a run on scans they have not seen.

Computes precision, sensitivity and F1 of metastatic pixels and lesions on the test scans of each fold, and compares
them with the best single intensity threshold on the same scans: the minimum a model has to beat.
Predictions are kept, so a second call takes seconds. The first takes 0.6 to 2.5 seconds per scan on two CPU cores.
With several runs on the same folds, compares them scan by scan. With --ensemble, scores the average of all folds on
scans outside of the cross-validation.

In the paper the mean F1 of ten folds is 62 to 67 % (Tables 1 to 3). Its data are not public; results on other data
will differ, and results on phantoms cannot be compared with either.

Examples:
  doubleunet-bs evaluate RUN
  doubleunet-bs evaluate RUN --fold 1
  doubleunet-bs evaluate RUN_A RUN_B --out comparison
  doubleunet-bs evaluate RUN --ensemble --data OTHER_SHARDS
  doubleunet-bs evaluate RUN --predictions nnunet/nnU-Net
  doubleunet-bs evaluate RUN --skeleton SKELETON_RUN

Writes:
  RUN/fold_01/scores.json     figures per scan and pooled, as fractions
  RUN/fold_01/predictions/    a picture per test scan (true positives, false positives, false negatives) and the kept
                              predictions
  RUN/summary.json            figures over all scored folds; also summary.csv, table.tex
  RUN/report.html             tables, charts and scans on one page
  RUN/figures/                with --figures: each figure of the report as a file
  RUN/bsi_agreement.csv       with --skeleton: agreement of the Bone Scan Index; also .json, .png, and bsi_scans.csv
With --predictions, scores.json and the summaries go into DIR.
With several runs only comparison.txt, .json, .csv, .svg and .png in --out, and the kept predictions of each run.

Exit codes: 0 done, 1 the evaluation failed, 2 wrong arguments, 130 interrupted.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `evaluate`."""
    what = parser.add_argument_group("what to score")
    what.add_argument("run_paths", metavar="RUN", nargs="+", help="run folder of `train`; several are compared")
    what.add_argument("--fold", type=int, metavar="K", help="score this fold only (default: all trained folds)")
    what.add_argument(
        "--data",
        nargs="+",
        metavar="SHARDS",
        help="shards of the run if they have moved since training; with --ensemble the other shards to test on",
    )
    what.add_argument(
        "--ensemble", action="store_true", help="average all trained folds and test on the scans of --data"
    )
    what.add_argument(
        "--trained-on",
        metavar="SHARDS",
        nargs="+",
        default=[],
        help="with --ensemble: shards of the run if they have moved since training",
    )
    what.add_argument(
        "--predictions",
        metavar="DIR",
        help="score masks of another program instead: DIR/fold_01/CASE.png, classes 0, 1, 2, as `export-nnunet` tells",
    )
    what.add_argument(
        "--skeleton",
        metavar="RUN",
        help="run of the skeleton experiment: compare the Bone Scan Index of predicted with that of annotated masks",
    )
    how = parser.add_argument_group("how to score")
    how.add_argument(
        "--weights", metavar="TABLE", help="with --skeleton: weight table of the index (default icrp110-female)"
    )
    how.add_argument(
        "--overlap",
        type=float,
        default=0.0,
        metavar="F",
        help="minimum intersection over union of a detected lesion (default 0: one common pixel)",
    )
    how.add_argument("--no-normals", action="store_true", help="leave out normal scans that were not used for training")
    how.add_argument("--recompute", action="store_true", help="ignore cached predictions")
    output = parser.add_argument_group("output")
    output.add_argument("--out", metavar="DIR", help="with several runs: folder for the comparison")
    output.add_argument("--no-pictures", action="store_true", help="draw no pictures of the test scans")
    output.add_argument("--no-report", action="store_true", help="write no report.html")
    output.add_argument(
        "--figures", choices=("pdf", "svg", "png"), help="also write each figure of the report as a file, for a paper"
    )
    device = parser.add_argument_group("device")
    device.add_argument(
        "--batch-size", type=int, default=4, metavar="N", help="scans predicted at once (default %(default)s)"
    )
    device.add_argument("--threads", type=int, metavar="N", help="number of CPU threads (default: all cores)")


def run(args: argparse.Namespace) -> int:
    """Score or compare, and print the tables."""
    _check(args)
    if args.predictions:
        return _score_predictions(args)

    from doubleunet_bs.evaluation.scorer import EvaluationSettings

    settings = EvaluationSettings(
        batch_size=args.batch_size,
        overlap=args.overlap,
        normals=not args.no_normals,
        pictures=not args.no_pictures,
        recompute=args.recompute,
        figures=args.figures,
        threads=args.threads,
    )
    return _compare(args, settings) if len(args.run_paths) > 1 else _score(args, settings)


def _check(args: argparse.Namespace) -> None:
    from doubleunet_bs.errors import SettingsError

    for option in ("fold", "batch_size", "threads"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise SettingsError(f"--{option.replace('_', '-')} {value}: must be at least 1")
    if not 0 <= args.overlap < 1:
        raise SettingsError(f"--overlap {args.overlap}: must be at least 0 and below 1")
    if args.ensemble and (len(args.run_paths) > 1 or args.fold or not args.data):
        raise SettingsError("--ensemble takes one run, no --fold, and the scans to test on: give --data OTHER_SHARDS")
    if args.figures and (len(args.run_paths) > 1 or args.no_report):
        raise SettingsError("--figures are those of the report of one run: name one run, without --no-report")
    if args.trained_on and not args.ensemble:
        raise SettingsError("--trained-on needs --ensemble: without it, --data names the shards of the run")
    if args.predictions and (len(args.run_paths) > 1 or args.fold or args.ensemble):
        raise SettingsError(
            "--predictions takes one run, no --fold and no --ensemble: it scores the folds that are in DIR"
        )
    if args.skeleton and (len(args.run_paths) > 1 or args.ensemble or args.predictions):
        raise SettingsError("--skeleton takes one run of lesions, without --ensemble and --predictions")
    if args.weights and not args.skeleton:
        raise SettingsError("--weights needs --skeleton: it is the weight table of the Bone Scan Index")
    if args.out and len(args.run_paths) < 2:
        raise SettingsError("--out needs several runs: the results of one run are written into its folder")


def _score(args: argparse.Namespace, settings) -> int:
    from doubleunet_bs.errors import SettingsError, counted
    from doubleunet_bs.evaluation.tables import summary_text, table_text
    from doubleunet_bs.runs.run_folder import open_run

    [path] = args.run_paths
    found = None
    if open_run(path).experiment.is_skeleton and not args.ensemble and not args.skeleton:
        from doubleunet_bs.evaluation.skeleton import evaluate_skeleton

        for option, given in (
            ("overlap", args.overlap),
            ("no-normals", args.no_normals),
            ("figures", args.figures),
        ):
            if given:
                raise SettingsError(f"--{option} is for lesions: leave it out for the run of a skeleton")
        scores = evaluate_skeleton(path, args.fold, args.data, settings, not args.no_report)
        print(f"{counted(len(scores.cases), 'test scan')}\n\n{table_text(scores.table(), 'region')}\n")
        if scores.warning:
            print(f"Warning: {scores.warning}\n")
        names = "summary.json" + ("" if args.no_report else ", report.html")
        print(f"written in {path}: {names}; in each fold's folder scores.json and predictions/")
        return 0
    if args.ensemble:
        from doubleunet_bs.evaluation.evaluate_ensemble import evaluate_ensemble

        summary, folder = evaluate_ensemble(path, args.data, settings, args.trained_on, not args.no_report)
    elif args.skeleton:
        from doubleunet_bs.evaluation.bsi_agreement import evaluate_with_skeleton

        summary, found = evaluate_with_skeleton(
            path, args.skeleton, args.fold, args.data, settings, not args.no_report, args.weights
        )
        folder = path
    else:
        from doubleunet_bs.evaluation.evaluate import evaluate_run

        summary, folder = evaluate_run(path, args.fold, args.data, settings, not args.no_report), path
    changed = f", changed: {', '.join(summary.changed_settings)}" if summary.changed_settings else ""
    print(f"{summary.method}, experiment {summary.experiment}{changed}\n")
    print(f"{summary_text(summary)}\n")
    if found is not None:
        print(f"{table_text(found.table, 'Bone Scan Index')}\n")
    written = ["summary.json", "summary.csv", "table.tex"] + ([] if args.no_report else ["report.html"])
    place = "" if args.ensemble else "in each fold's folder "
    written += ["figures/"] if args.figures else []
    written += ["bsi_agreement.csv, .json, .png", "bsi_scans.csv"] if found is not None else []
    print(f"written in {folder}: {', '.join(written)}; {place}scores.json and predictions/")
    return 0


def _score_predictions(args: argparse.Namespace) -> int:
    from doubleunet_bs.evaluation.evaluate import evaluate_predictions
    from doubleunet_bs.evaluation.scorer import EvaluationSettings
    from doubleunet_bs.evaluation.tables import summary_text

    settings = EvaluationSettings(overlap=args.overlap)
    summary = evaluate_predictions(args.run_paths[0], args.predictions, args.data, settings)
    print(f"predictions {summary.experiment}\n\n{summary_text(summary)}\n")
    print(f"written in {args.predictions}: summary.json, summary.csv, table.tex; in each fold's folder scores.json")
    return 0


def _compare(args: argparse.Namespace, settings) -> int:
    from doubleunet_bs.evaluation.compare_runs import compare_runs, format_comparison, write_comparison

    comparison = compare_runs(args.run_paths, args.fold, args.data, settings)
    print(format_comparison(comparison))
    if args.out:
        write_comparison(args.out, comparison)
        print(f"written in {args.out}: comparison.txt, .json, .csv, .svg, .png")
    return 0
