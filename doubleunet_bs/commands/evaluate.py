"""Score the trained folds of a run on scans they have not seen.

Computes precision, sensitivity and F1 of metastatic pixels and lesions on the test scans of each fold, and compares
them with the best single intensity threshold on the same scans: the minimum a model has to beat.
Predictions are kept, so a second call takes seconds. The first takes 0.6 to 7 seconds per scan on two CPU cores.
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
    device.add_argument("--batch-size", type=int, metavar="N", help="scans predicted at once (default 4)")
    device.add_argument("--threads", type=int, metavar="N", help="number of CPU threads (default: all cores)")


_NEEDS = {"out": "several runs", "weights": "--skeleton", "trained_on": "--ensemble"}
_OF_OUR_PREDICTIONS = ("no_normals", "recompute", "no_pictures", "batch_size", "threads")
_CONFLICTS = {
    "several runs": ("ensemble", "predictions", "skeleton", "figures", "no_report"),
    "--ensemble": ("fold", "predictions", "skeleton"),
    "--predictions": ("fold", "skeleton", "figures", "no_report", *_OF_OUR_PREDICTIONS),
    "--skeleton": (),
    "one run": (),
}


def run(args: argparse.Namespace) -> int:
    """Score or compare, and print the tables."""
    from doubleunet_bs.errors import SettingsError
    from doubleunet_bs.evaluation.scorer import EvaluationSettings

    named = [f"--{option}" for option in ("ensemble", "predictions", "skeleton") if getattr(args, option)]
    mode = "several runs" if len(args.run_paths) > 1 else (*named, "one run")[0]
    for option, needed in _NEEDS.items():
        if getattr(args, option) and needed != mode:
            raise SettingsError(f"--{option.replace('_', '-')} needs {needed}: leave it out")
    for option in _CONFLICTS[mode]:
        if getattr(args, option):
            raise SettingsError(f"--{option.replace('_', '-')} does not go with {mode}: leave it out")
    if args.ensemble and not args.data:
        raise SettingsError("--ensemble needs the scans to test on: give --data OTHER_SHARDS")
    if args.figures and args.no_report:
        raise SettingsError("--figures are those of the report: leave out --no-report")
    settings = EvaluationSettings(
        batch_size=4 if args.batch_size is None else args.batch_size,
        overlap=args.overlap,
        normals=not args.no_normals,
        pictures=not args.no_pictures,
        recompute=args.recompute,
        figures=args.figures,
        threads=args.threads,
    )
    return _compare(args, settings) if mode == "several runs" else _score(args, settings)


def _score(args: argparse.Namespace, settings) -> int:
    from doubleunet_bs.evaluation.tables import summary_text, table_text
    from doubleunet_bs.runs.run_folder import open_run

    [path] = args.run_paths
    folder, common, found = path, (args.fold, args.data, settings, not args.no_report), None
    if args.ensemble:
        from doubleunet_bs.evaluation.evaluate_ensemble import evaluate_ensemble

        summary, folder = evaluate_ensemble(path, args.data, settings, args.trained_on, not args.no_report)
    elif args.predictions:
        from doubleunet_bs.evaluation.evaluate import evaluate_predictions

        summary, folder = evaluate_predictions(path, args.predictions, args.data, settings), args.predictions
    elif args.skeleton:
        from doubleunet_bs.evaluation.bsi_agreement import evaluate_with_skeleton

        summary, found = evaluate_with_skeleton(path, args.skeleton, *common, args.weights)
    elif open_run(path).experiment.is_skeleton:
        return _score_skeleton(args, *common)
    else:
        from doubleunet_bs.evaluation.evaluate import evaluate_run

        summary = evaluate_run(path, *common)
    changed = f", changed: {', '.join(summary.changed_settings)}" if summary.changed_settings else ""
    what = "predictions" if args.predictions else f"{summary.method}, experiment"
    print(f"{what} {summary.experiment}{changed}\n\n{summary_text(summary)}\n")
    if found is not None:
        print(f"{table_text(found.table, 'Bone Scan Index')}\n")
    written = ["summary.json", "summary.csv", "table.tex"]
    written += ["report.html"] if not args.no_report and not args.predictions else []
    written += ["figures/"] if args.figures else []
    written += ["bsi_agreement.csv, .json, .png", "bsi_scans.csv"] if found is not None else []
    place = "" if args.ensemble else "in each fold's folder "
    kept = "scores.json" if args.predictions else "scores.json and predictions/"
    print(f"written in {folder}: {', '.join(written)}; {place}{kept}")
    return 0


def _score_skeleton(args: argparse.Namespace, *common) -> int:
    from doubleunet_bs.errors import SettingsError, counted
    from doubleunet_bs.evaluation.skeleton import evaluate_skeleton
    from doubleunet_bs.evaluation.tables import table_text

    for option in ("overlap", "no_normals", "figures"):
        if getattr(args, option):
            raise SettingsError(f"--{option.replace('_', '-')} is for lesions: leave it out for the run of a skeleton")
    scores = evaluate_skeleton(args.run_paths[0], *common)
    print(f"{counted(len(scores.cases), 'test scan')}\n\n{table_text(scores.table(), 'region')}\n")
    if scores.warning:
        print(f"Warning: {scores.warning}\n")
    names = "summary.json" + ("" if args.no_report else ", report.html")
    print(f"written in {args.run_paths[0]}: {names}; in each fold's folder scores.json and predictions/")
    return 0


def _compare(args: argparse.Namespace, settings) -> int:
    from doubleunet_bs.evaluation.compare_runs import compare_runs, format_comparison, write_comparison

    comparison = compare_runs(args.run_paths, args.fold, args.data, settings)
    print(format_comparison(comparison))
    if args.out:
        write_comparison(args.out, comparison)
        print(f"written in {args.out}: comparison.txt, .json, .csv, .svg, .png")
    return 0
