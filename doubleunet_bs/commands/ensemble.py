"""Make one model of several trained folds of a run.

DIR becomes an exported model like RUN/fold_01/saved_model, with the same endpoints. Its probability is the mean over
the folds, its mask the class that is most probable in the mean. It is as large and as slow as its folds together.

It is for scans outside of the cross-validation. Every scan of the cross-validation was a training scan of some of the
folds: what the ensemble finds on those says nothing, and no score of it on them means anything.

Examples:
  python -m doubleunet_bs ensemble RUN --out ensemble
  python -m doubleunet_bs ensemble RUN --out ensemble --folds 1,2,3
  python -m doubleunet_bs predict  scan.dcm --model ensemble --out predicted
  python -m doubleunet_bs serve-package ensemble --out models

Exit code: 0 done, 1 a fold is not trained or they do not belong together, 2 wrong arguments.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options to `parser`."""
    parser.add_argument("run_path", metavar="RUN", help="run folder with at least two trained folds")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder of the model; an exported model that is there is replaced"
    )
    parser.add_argument(
        "--folds",
        type=_numbers,
        metavar="K,K,...",
        help="folds to take, for instance 1,2,3; default all that are trained",
    )


def run(args: argparse.Namespace) -> int:
    """Export the ensemble and print what is in it."""
    from doubleunet_bs.tensorflow_setup import import_tensorflow
    from doubleunet_bs.training.run_folder import open_run

    opened = open_run(args.run_path)
    import_tensorflow()
    from doubleunet_bs.serving.export import export_ensemble

    description = export_ensemble(opened, args.out, args.folds)
    print(f"model   {description.name}")
    for member in description.members:
        f1 = "undefined" if member.validation_f1 is None else f"{member.validation_f1:.1%}"
        print(f"  fold {member.fold:<4} epoch {member.best_epoch}, F1 on its own validation scans {f1}")
    print(f"written {args.out}")
    print(
        "For scans outside of the cross-validation only: each of its scans was a training scan of some of these folds."
    )
    return 0


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: numbers of folds with commas between them, such as 1,2,3"
        ) from None
