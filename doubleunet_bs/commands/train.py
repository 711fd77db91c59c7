"""Train a fold of one of the paper's experiments and export it.

Trains at the paper's settings: 640 x 512 pixels, batches of 4, 500 epochs, Adam at 1e-4, on all GPUs of this machine.
SHARDS are made by `doubleunet-bs prepare`. The paper's scans are not public, so results on other scans will differ.
Several processes, on any machines that share RUN, may train different folds of it at the same time.

Examples:
  doubleunet-bs train --data SHARDS --run RUN --experiment focal-tversky-otsu --fold 1
  doubleunet-bs train --data SHARDS --pretrain-data PROSTATE --run RUN --experiment dice-mining-transfer --fold all
  doubleunet-bs evaluate RUN

Writes into RUN/fold_01:
  saved_model/      the best epoch for TensorFlow Serving and `doubleunet-bs predict`
  model.keras       the same network for Keras
  best.weights.h5   its weights
  history.csv       losses and F1 of every epoch; progress.png shows them

Exit codes: 0 done, 1 the training failed, 2 wrong arguments, 130 interrupted (continue with --resume).
"""

import argparse
import dataclasses

from doubleunet_bs.errors import SettingsError
from doubleunet_bs.stop_signals import StopSignals

# Options that are settings of the experiment; the name of the option is that of the setting.
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `train`."""
    what = parser.add_argument_group("what to train")
    what.add_argument("--data", required=True, metavar="SHARDS", help="folder made by `doubleunet-bs prepare`")
    what.add_argument(
        "--run", required=True, metavar="RUN", help="run folder; created, or continued if it is the same experiment"
    )
    what.add_argument(
        "--experiment",
        required=True,
        metavar="NAME",
        help="row of the paper: baseline (Table 1); dice or focal-tversky, alone or with -otsu, -otsu-transfer, "
        "-mining, -mining-transfer (Table 2); focal-tversky-otsu-transfer-augmented (Table 3)",
    )
    what.add_argument(
        "--fold",
        required=True,
        type=_fold,
        metavar="K",
        help="fold of the cross-validation, 1 to 10; all: every fold that is neither trained nor locked by another "
        "process; pretrain: the pre-training alone",
    )
    what.add_argument(
        "--pretrain-data",
        metavar="SHARDS",
        help="the other cohort, for experiments with transfer; prepared with the same --key and settings",
    )
    what.add_argument(
        "--assume-disjoint-patients",
        action="store_true",
        help="confirm that --data and --pretrain-data share no patients; required when they were pseudonymised with "
        "different keys, because overlap cannot be checked",
    )
    what.add_argument("--folds-file", metavar="FILE", help="your own folds.json for a new run (default: random)")
    add_settings(parser)
    add_device_options(parser, precision="float32")


def add_settings(
    parser: argparse.ArgumentParser,
    description: str = "The defaults are the paper's. experiment.json lists your changes.",
) -> None:
    """Add the options that change the experiment; `changed_settings` reads them."""
    group = parser.add_argument_group("settings", description)
    group.add_argument("--epochs", type=int, metavar="E", help="number of epochs (default 500)")
    group.add_argument("--batch-size", type=int, metavar="B", help="scans per batch over all devices (default 4)")
    group.add_argument("--learning-rate", type=float, metavar="R", help="Adam learning rate (default 1e-4)")
    group.add_argument("--folds", type=int, metavar="N", help="number of folds of the cross-validation (default 10)")
    group.add_argument(
        "--early-stopping", type=int, metavar="E", help="stop after E epochs without a better F1 (default: never)"
    )
    group.add_argument(
        "--head-bias",
        choices=("prior", "zeros"),
        help="initial bias of the output layers: class frequencies, or zero (default prior)",
    )
    group.add_argument(
        "--bn-momentum",
        type=float,
        metavar="M",
        help="batch-normalisation momentum (default 0.99); short runs need less",
    )
    group.add_argument(
        "--encoder-weights",
        metavar="imagenet|none|FILE",
        help="initial weights of the VGG19 encoder (default imagenet, a download of 80 MB)",
    )
    group.add_argument(
        "--freeze-encoder",
        type=int,
        metavar="E",
        help="keep the VGG19 encoder fixed for the first E epochs (default 0)",
    )
    group.add_argument(
        "--accumulate",
        type=int,
        metavar="N",
        help="split each batch into N micro-batches to save memory (default 1). Losses and gradients stay those of the "
        "whole batch; batch normalisation sees each micro-batch alone, so keep at least 2 images in each",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting of doubleunet_bs/training/experiments.py, such as flip=per_view, mining_start=mined, "
        "pretrain_epochs=50 or gamma=1; can be repeated",
    )
    group.add_argument(
        "--seed", type=int, metavar="S", help="random seed for folds, initial weights and shuffling (default 0)"
    )


def add_device_options(parser: argparse.ArgumentParser, precision: str) -> None:
    """Add where and how to compute; `precision` is the default."""
    group = parser.add_argument_group("device")
    group.add_argument(
        "--precision",
        choices=("auto", "float32", "mixed_bfloat16", "mixed_float16"),
        default=precision,
        help="precision of the layers; output layers and losses are always float32. auto chooses for the device and "
        "prints its choice (default %(default)s)",
    )
    group.add_argument(
        "--xla",
        choices=("auto", "on", "off"),
        default="auto",
        help="compile the training step; auto: on a single GPU (default %(default)s)",
    )
    group.add_argument(
        "--devices", default="all", metavar="D", help="all, cpu, or GPU numbers such as 0,1 (default %(default)s)"
    )
    group.add_argument(
        "--deterministic", action="store_true", help="use slower kernels that give the same bits every time"
    )
    group.add_argument(
        "--resume", action="store_true", help="continue an interrupted training where its state was last saved"
    )


def changed_settings(args: argparse.Namespace) -> dict:
    """The settings of the experiment that the options of `add_settings` change, checked and with their types."""
    from doubleunet_bs.training.experiments import parse_changes

    given = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
    return parse_changes([*args.set, *(f"{name}={value}" for name, value in given.items())])


def run(args: argparse.Namespace) -> int:
    """Train, export, and print where the results are."""
    from doubleunet_bs.preparation.shards import open_shards
    from doubleunet_bs.training.experiments import paper_experiment

    experiment = paper_experiment(args.experiment, **changed_settings(args))
    if args.fold == "pretrain" and not experiment.transfer:
        raise SettingsError(f"{experiment.name} does not pre-train: give a fold")
    # Before TensorFlow is imported: damaged shards show at once.
    dataset = open_shards(args.data, verify=True)
    pretrain = open_shards(args.pretrain_data, verify=True) if args.pretrain_data else None
    # From here on: a signal that comes while TensorFlow is imported counts too.
    with StopSignals() as signals:
        from doubleunet_bs.tensorflow_setup import import_tensorflow

        import_tensorflow()
        from doubleunet_bs.imagenet_file import known_source
        from doubleunet_bs.serving.export import export_fold
        from doubleunet_bs.training.devices import DeviceSettings, open_devices
        from doubleunet_bs.training.run_folder import create_run
        from doubleunet_bs.training.run_training import describe_run, train_all_folds, train_fold, train_pretraining

        experiment = dataclasses.replace(experiment, encoder_weights=known_source(experiment.encoder_weights))
        settings = DeviceSettings(args.devices, args.precision, args.xla, args.deterministic)
        replicas = open_devices(experiment, dataset.image_shape, settings)
        fold = args.fold if isinstance(args.fold, int) else 1
        run = create_run(args.run, experiment, dataset, fold, pretrain, args.folds_file, args.assume_disjoint_patients)
        print(describe_run(run, dataset, replicas), flush=True)
        signals.check()
        if args.fold == "pretrain":
            paths = [train_pretraining(run, pretrain, replicas, args.resume)]
        elif args.fold == "all":
            paths = train_all_folds(run, dataset, replicas, pretrain, args.resume, export_fold)
        else:
            paths = [train_fold(run, dataset, fold, replicas, pretrain, args.resume, export_fold)]
    for path in paths:
        print(f"done: {path}")
    if args.fold != "pretrain":
        print(f"next: doubleunet-bs evaluate {args.run}" + ("" if args.fold == "all" else f" --fold {args.fold}"))
    return 0


def _fold(text: str) -> int | str:
    if text in ("all", "pretrain"):
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give the number of a fold, all or pretrain") from None
