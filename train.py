#!/usr/bin/env python
"""Train one fold of one experiment of the paper and export it.

    python train.py --demo
    python train.py --data SHARDS --run RUN --experiment focal-tversky-otsu --fold 1
    python train.py --data SHARDS --pretrain-data PROSTATE --run RUN --experiment dice-mining-transfer --fold all

The first line needs no data: it makes synthetic scans, prepares them, trains on a coarse matrix, evaluates and exports, in
about ten minutes on two CPU cores (README). The second trains at the paper's settings (640 x 512 pixels, batch 4, 500 epochs,
Adam 1e-4) on shards made by `python -m doubleunet_bs prepare`, on all GPUs of the machine. The paper's scans are not
public: figures on others are others.

Several processes, on any machines that share RUN, may train its folds at the same time.

RUN/fold_01 then holds best.weights.h5, model.keras, saved_model/, history.csv and progress.png. `python evaluate.py RUN`
scores it. Exit code: 0 done, 1 the work failed, 2 wrong arguments, 130 interrupted (continue with --resume).
"""

import argparse
import sys

from doubleunet_bs.__main__ import run_command


def parse_arguments(argv=None) -> argparse.Namespace:
    summary, _, details = __doc__.partition("\n")
    parser = argparse.ArgumentParser(
        prog="train.py", description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_argument_group("what to train")
    what.add_argument(
        "--demo", metavar="DIR", nargs="?", const="demo", help="the whole job on synthetic scans in DIR (demo)"
    )
    what.add_argument("--demo-patients", type=int, metavar="N", help="size of the demo's cohort, default 130")
    what.add_argument("--data", metavar="SHARDS", help="folder made by `doubleunet-bs prepare`")
    what.add_argument(
        "--run", metavar="RUN", help="run folder; made when new, continued when it is the same experiment"
    )
    what.add_argument(
        "--experiment",
        metavar="NAME",
        help="a row of the paper: baseline (Table 1); dice or focal-tversky, each alone or with -otsu, -otsu-transfer, "
        "-mining, -mining-transfer (Table 2); focal-tversky-otsu-transfer-augmented (Table 3)",
    )
    what.add_argument(
        "--fold",
        type=fold_choice,
        metavar="K",
        help="fold 1 ... 10 of the cross-validation; all: every fold that is not trained and that no other process works "
        "on; pretrain: the pre-training alone",
    )
    what.add_argument(
        "--pretrain-data",
        metavar="SHARDS",
        help="the other cohort of the rows with transfer, prepared with the same --key and settings",
    )
    what.add_argument(
        "--pretrain-other-patients",
        action="store_true",
        help="your word that no patient of --pretrain-data is in --data, for shards of another key (another hospital's), "
        "whose patients cannot be compared",
    )
    what.add_argument("--folds-file", metavar="FILE", help="your own folds.json for a new run")
    settings = parser.add_argument_group(
        "settings", "The defaults are the paper's; a changed run says so in experiment.json."
    )
    settings.add_argument("--epochs", type=int, metavar="E", help="default 500")
    settings.add_argument("--batch-size", type=int, metavar="B", help="scans in a batch over all devices, default 4")
    settings.add_argument("--learning-rate", type=float, metavar="R", help="of Adam, default 1e-4")
    settings.add_argument("--folds", type=int, metavar="N", help="parts of the cross-validation, default 10")
    settings.add_argument(
        "--early-stopping", type=int, metavar="E", help="stop after E epochs without a better F1; default never"
    )
    settings.add_argument("--head-bias", choices=("prior", "zeros"), help="start of the heads' biases, default prior")
    settings.add_argument(
        "--bn-momentum",
        type=float,
        metavar="M",
        help="of batch normalisation's averages, default 0.99; less for short runs",
    )
    settings.add_argument(
        "--encoder-weights", metavar="imagenet|none|FILE", help="start of the VGG19 encoder, default imagenet"
    )
    settings.add_argument(
        "--freeze-encoder", type=int, metavar="E", help="leave the VGG19 encoder as it starts for E epochs, default 0"
    )
    settings.add_argument(
        "--accumulate",
        type=int,
        metavar="N",
        help="take each batch in N pieces, one after the other, where memory is short; losses and gradients are those of the "
        "whole batch, at the price of a second forward pass, but batch normalisation sees each piece by itself (at least "
        "2 images a piece: with one the ASPP pooling branch passes on nothing); default 1",
    )
    settings.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting of doubleunet_bs/training/experiments.py: flip=per_view, mining_start=mined, "
        "pretrain_epochs=50, brightness_levels=3, variants_per_epoch=one, gamma=1 ...; can be repeated",
    )
    settings.add_argument("--seed", type=int, metavar="S", help="of folds, initial weights and order, default 0")
    machine = parser.add_argument_group("the machine")
    machine.add_argument(
        "--precision",
        choices=("auto", "float32", "mixed_bfloat16", "mixed_float16"),
        help="of the layers; heads and losses are float32 always. auto takes what suits the device and says so. "
        "Default float32, in the demo auto",
    )
    machine.add_argument(
        "--xla", choices=("auto", "on", "off"), default="auto", help="compile the step; auto: on a single GPU (default)"
    )
    machine.add_argument("--devices", default="all", metavar="D", help="all (default), cpu, or GPU numbers such as 0,1")
    machine.add_argument(
        "--deterministic", action="store_true", help="slower kernels that give the same bits every time"
    )
    machine.add_argument(
        "--resume", action="store_true", help="continue an interrupted fold from its last whole epoch or batch"
    )
    args = parser.parse_args(argv)
    if args.demo is None:
        missing = [f"--{name}" for name in ("data", "run", "experiment", "fold") if getattr(args, name) is None]
        if missing:
            parser.error(f"{', '.join(missing)} missing (or --demo, which needs no data)")
    elif (
        args.data
        or args.run
        or args.experiment
        or args.pretrain_data
        or args.pretrain_other_patients
        or args.folds_file
    ):
        parser.error("--demo makes its own data and run; it does not go with options that name data, run or experiment")
    elif isinstance(args.fold, str):
        parser.error("--demo trains one fold")
    if args.demo is None and args.demo_patients is not None:
        parser.error("--demo-patients goes with --demo")
    return args


def fold_choice(text: str) -> int | str:
    """The value of --fold."""
    if text in ("all", "pretrain"):
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: the number of a fold, all or pretrain") from None


SETTINGS = (
    "epochs",
    "batch_size",
    "learning_rate",
    "folds",
    "early_stopping",
    "head_bias",
    "freeze_encoder",
    "accumulate",
    "bn_momentum",
    "encoder_weights",
    "seed",
)


def train(args: argparse.Namespace) -> int:
    from doubleunet_bs.training.experiments import paper_experiment, parse_changes

    named = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
    changes = parse_changes([*args.set, *(f"{name}={value}" for name, value in named.items())])
    if args.demo is not None:
        from doubleunet_bs.commands.demo import run_demo

        run_demo(
            args.demo,
            changes,
            fold=1 if args.fold is None else args.fold,
            patients=args.demo_patients,
            devices=args.devices,
            precision=args.precision or "auto",
            xla=args.xla,
            deterministic=args.deterministic,
            resume=args.resume,
        )
        return 0

    from doubleunet_bs.preparation.shards import open_shards

    experiment = paper_experiment(args.experiment, **changes)
    dataset = open_shards(args.data, verify=True)
    pretrain = (
        None if args.pretrain_data is None else (open_shards(args.pretrain_data, verify=True), args.pretrain_data)
    )

    from doubleunet_bs.training.session import train_and_export

    paths = train_and_export(
        args.run,
        args.data,
        dataset,
        experiment,
        args.fold,
        devices=args.devices,
        precision=args.precision or "float32",
        xla=args.xla,
        deterministic=args.deterministic,
        resume=args.resume,
        pretrain=pretrain,
        folds_file=args.folds_file,
        other_patients=args.pretrain_other_patients,
    )
    for path in paths:
        print(f"done: {path}")
    if args.fold != "pretrain":
        print(f"next: python evaluate.py {args.run}" + ("" if args.fold == "all" else f" --fold {args.fold}"))
    return 0


if __name__ == "__main__":
    arguments = parse_arguments()
    sys.exit(run_command(lambda: train(arguments)))
