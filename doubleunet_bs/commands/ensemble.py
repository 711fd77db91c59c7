"""Combine trained folds of a run into one model.

The model averages the probabilities of its folds, and its mask is the most probable class of that average. It is as
large and as slow as its folds together, and has the endpoints of RUN/fold_01/saved_model.

Use it only for scans outside of the cross-validation. Each scan of the cross-validation was a training scan of some of
the folds, so scores of the ensemble on them mean nothing.

Examples:
  doubleunet-bs ensemble RUN --out ensemble
  doubleunet-bs ensemble RUN --out ensemble --folds 1,2,3
  doubleunet-bs predict scan.dcm --model ensemble --out predicted
  doubleunet-bs serve-package ensemble --out models

Writes DIR, an exported model: a SavedModel and model.json.

A fold that found nothing on its own validation scans is refused. --force takes it, and every result carries a warning.

Exit codes: 0 done, 1 a fold is not trained or the folds do not belong together, 2 wrong arguments.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ensemble`."""
    parser.add_argument("run_path", metavar="RUN", help="run folder with at least two trained folds")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder of the model; replaces an exported model there"
    )
    parser.add_argument(
        "--folds",
        type=_numbers,
        metavar="K,K,...",
        help="folds to combine, for instance 1,2,3 (default: all trained folds)",
    )
    parser.add_argument(
        "--force", action="store_true", help="also take folds that found nothing on their own validation scans"
    )


def run(args: argparse.Namespace) -> int:
    """Export the ensemble and print what is in it."""
    from doubleunet_bs.inference.model_folder import open_members
    from doubleunet_bs.runs.run_folder import open_run
    from doubleunet_bs.tensorflow_setup import import_tensorflow

    opened = open_run(args.run_path)
    # Before TensorFlow, which takes seconds to import.
    open_members(opened, args.folds)
    import_tensorflow()
    from doubleunet_bs.inference.model_description import with_unit
    from doubleunet_bs.serving.export import export_ensemble

    description = export_ensemble(opened, args.out, args.folds, args.force)
    print(f"model   {description.name}")
    print(f"trained on {description.training_summary}")
    for member in description.members:
        f1 = with_unit(member.validation_f1)
        print(f"  fold {member.fold:<4} epoch {member.best_epoch}, F1 on its own validation scans {f1}")
    if description.quality_warning:
        print(f"warning {description.quality_warning}")
    print(f"written {args.out}")
    print(
        "Only for scans outside of the cross-validation: each of its scans was a training scan of some of these folds."
    )
    return 0


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give fold numbers separated by commas, such as 1,2,3") from None
