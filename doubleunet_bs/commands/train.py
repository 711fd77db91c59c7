"""Train a fold of one of the paper's experiments and export it.

Trains at the paper's settings: 640 x 512 pixels, batches of 4, 500 epochs, learning rate 1e-4, on all GPUs of this
machine. Where the paper is silent (Adam, ImageNet weights), assets/docs/decisions.md says what was decided.
SHARDS are made by `doubleunet-bs prepare`. The paper's scans are not public, so results on other scans will differ.
Several processes, on any machines that share RUN, may train different folds of it at the same time.

Examples:
  doubleunet-bs train --data SHARDS --run RUN --experiment focal-tversky-otsu --fold 1
  doubleunet-bs train --run RUN --resume
  doubleunet-bs train --run RUN --fold 2
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.stop_signals import Interrupted, StopSignals

if TYPE_CHECKING:
    from doubleunet_bs.preparation.shards import ShardedDataset
    from doubleunet_bs.runs.create_run import PlannedRun
    from doubleunet_bs.runs.experiments import Experiment
    from doubleunet_bs.runs.run_folder import Run

# Options that are settings of the experiment, by the name of the setting: type, value, help and default.
SETTINGS: dict[str, tuple[type, str, str, str]] = {
    "epochs": (int, "E", "number of epochs", "500"),
    "batch_size": (int, "B", "scans per batch over all devices", "4"),
    "learning_rate": (float, "R", "Adam learning rate", "1e-4"),
    "folds": (
        int,
        "N",
        "folds of the cross-validation; 1 is the published split of a public data set",
        "10, or 1 where there is a published split",
    ),
    "early_stopping": (int, "E", "stop after E epochs without a better F1", "never"),
    "head_bias": (str, "prior|zeros", "initial bias of the output layers: class frequencies, or zero", "prior"),
    "bn_momentum": (float, "M", "batch-normalisation momentum; short runs need less", "0.99"),
    "encoder_weights": (
        str,
        "imagenet|none|FILE",
        "initial weights of the VGG19 encoder; imagenet is a download of 80 MB",
        "imagenet",
    ),
    "accumulate": (
        int,
        "N",
        "split each batch into N micro-batches to save memory. Losses and gradients stay those of the whole batch. "
        "Batch normalisation sees each micro-batch alone, so keep at least 2 images in each",
        "1",
    ),
    "seed": (int, "S", "random seed for folds, initial weights and shuffling", "0"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `train`."""
    what = parser.add_argument_group("what to train", "In a run that exists, what you leave out is taken from it.")
    what.add_argument("--run", required=True, metavar="RUN", help="run folder, created where it is new")
    what.add_argument(
        "--data", nargs="+", metavar="SHARDS", help="folder made by `doubleunet-bs prepare`; several are joined"
    )
    what.add_argument(
        "--experiment",
        metavar="NAME",
        help="row of the paper: baseline (Table 1); dice or focal-tversky, alone or with -otsu, -otsu-transfer, "
        "-mining, -mining-transfer (Table 2); focal-tversky-otsu-transfer-augmented (Table 3). skeleton: the regions "
        "of the Bone Scan Index",
    )
    what.add_argument(
        "--fold",
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
        help="confirm that shards with different keys share no patients; required because overlap cannot be checked",
    )
    what.add_argument(
        "--from",
        dest="start_from",
        metavar="RUN/fold_01",
        help="start from the weights of a trained fold; of a run: each fold from its fold of the same number, and "
        "patients keep their folds",
    )
    what.add_argument("--folds-file", metavar="FILE", help="your own folds.json for a new run (default: random)")
    add_settings(parser)
    add_device_options(parser, precision="float32")


def add_settings(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """Add the options that change the experiment. `defaults` are those that differ from the paper's."""
    whose = "the demo's, which is scaled down" if defaults else "the paper's"
    group = parser.add_argument_group("settings", f"The defaults are {whose}. experiment.json lists all changes.")
    for name, (kind, value, text, default) in SETTINGS.items():
        text = f"{text} (default {defaults.get(name, default)})"
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=value, help=text)
    group.add_argument(
        "--set",
        action=_SetAction,
        default=[],
        metavar="NAME=VALUE",
        help="any other setting, such as flip=per_view or gamma=1; can be repeated. --set help lists all with their "
        "values",
    )


class _SetAction(argparse.Action):
    """Collects the values; "help" prints the table of settings and ends, like --help."""

    def __call__(self, parser, namespace, values, option_string=None):
        if values == "help":
            from doubleunet_bs.runs.experiments import settings_table

            print(settings_table())
            parser.exit()
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), values])


def add_device_options(parser: argparse.ArgumentParser, precision: str) -> None:
    """Add where and how to compute; `precision` is the default. What is not given is None, see `device_options`."""
    group = parser.add_argument_group("device")
    group.add_argument(
        "--precision",
        choices=("auto", "float32", "mixed_bfloat16", "mixed_float16"),
        help="precision of the layers; output layers and losses are always float32. auto chooses for the device and "
        f"prints its choice (default {precision})",
    )
    group.add_argument("--devices", metavar="D", help="all, cpu, or GPU numbers such as 0,1 (default all)")
    group.add_argument(
        "--deterministic",
        action="store_true",
        default=None,
        help="use slower kernels that give the same bits every time (default off)",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="continue an interrupted training where its state was last saved; starts a new fold only with --fold all",
    )


DEVICE_DEFAULTS = {"devices": "all", "precision": "float32", "deterministic": False}


def device_options(args: argparse.Namespace, **defaults: Any) -> dict[str, Any]:
    """The options of `add_device_options` for `DeviceSettings`; those not given are `defaults`, then `train`'s own."""
    given = {name: getattr(args, name) for name in DEVICE_DEFAULTS if getattr(args, name) is not None}
    return {**DEVICE_DEFAULTS, **defaults, **given}


def changed_settings(args: argparse.Namespace) -> dict:
    """The settings of the experiment that the options of `add_settings` change, checked and with their types."""
    from doubleunet_bs.runs.experiments import parse_changes

    given = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
    return parse_changes([*args.set, *(f"{name}={value}" for name, value in given.items())])


def run(args: argparse.Namespace) -> int:
    """Train, export, and print where the results are."""
    from doubleunet_bs.dataset.folds import has_published_split
    from doubleunet_bs.runs.create_run import plan_run
    from doubleunet_bs.runs.run_folder import EXPERIMENT, open_run, resume_command, to_resume
    from doubleunet_bs.tensorflow_setup import import_tensorflow

    # Everything up to the import of TensorFlow answers within a second or two, and writes nothing.
    old = open_run(args.run) if (Path(args.run) / EXPERIMENT).exists() else None
    if old is None and args.resume:
        raise RunError(f"{args.run}: nothing to resume, it is no run folder: leave out --resume, or correct --run")
    if old is None and None in (args.data, args.experiment, args.fold):
        raise SettingsError(f"{args.run}: no run yet: a new one needs --data, --experiment and --fold")
    experiment = _experiment(args, old)
    if old is not None and args.resume:
        todo = to_resume(old, args.fold)
    elif args.fold is None:
        raise SettingsError(f"{args.run}: give --fold for a fold that has not begun, or --resume")
    else:
        todo = [args.fold]
    dataset, pretrain = _open_data(args, old, experiment)
    changed = changed_settings(args)
    chosen = old is not None or args.folds_file is not None or "folds" in changed
    if not chosen and has_published_split(dataset.cases):
        experiment = dataclasses.replace(experiment, folds=1)
    if old is None and dataset.settings.benign == "own" and experiment.classes == 3 and "classes" not in changed:
        experiment = experiment.with_benign()
    folds = list(range(1, experiment.folds + 1)) if "all" in todo else [fold for fold in todo if isinstance(fold, int)]
    plan = plan_run(args.run, experiment, dataset, folds, pretrain, args.folds_file, args.assume_disjoint_patients)
    todo = [fold for fold in todo if _is_left(plan, fold, args.resume)]
    if not todo:
        return 0
    _check_devices(args)
    # From here on: a signal that comes while TensorFlow is imported counts too.
    with StopSignals() as signals:
        import_tensorflow()
        from doubleunet_bs.training.run_training import describe_run

        replicas = _open_devices(args, plan, todo[0])
        opened = plan.create()
        try:
            print(describe_run(opened, dataset, replicas), flush=True)
            signals.check()
            paths = _train(opened, dataset, todo, replicas, pretrain, args.resume)
        except Interrupted:
            raise Interrupted(f"`{resume_command(opened, args.fold)}`") from None
    for path in paths:
        print(f"done: {path}")
    if "pretrain" not in todo:
        one = todo[0] if len(todo) == 1 and todo[0] != "all" else None
        print(f"next: doubleunet-bs evaluate {args.run}" + (f" --fold {one}" if one else ""))
    return 0


def _experiment(args: argparse.Namespace, old: "Run | None") -> "Experiment":
    """What is asked for: the row with the changes, or the settings of the run with them."""
    from doubleunet_bs.runs.experiments import paper_experiment

    changes = changed_settings(args)
    if args.start_from:
        changes["start_from"] = str(Path(args.start_from).resolve())
    weights = changes.get("encoder_weights", "none")
    if weights not in ("none", "imagenet") and not Path(weights).is_file():
        raise RunError(f"{weights}: no such file: give --encoder-weights imagenet, none, or another file")
    if old is None or args.experiment not in (None, old.experiment.name):
        experiment = paper_experiment(args.experiment, **changes)
    else:
        experiment = dataclasses.replace(old.experiment, **changes)
    if args.fold == "pretrain" and not experiment.transfer:
        raise SettingsError(f"{experiment.name} does not pre-train: give a fold")
    return experiment


def _open_data(
    args: argparse.Namespace, old: "Run | None", experiment: "Experiment"
) -> tuple["ShardedDataset", "ShardedDataset | None"]:
    """The shards that are named, or those of the run, and the other cohort's: damaged ones show at once."""
    from doubleunet_bs.dataset.joined_shards import open_all_shards
    from doubleunet_bs.preparation.shards import open_shards

    paths, other = args.data, args.pretrain_data
    if old is not None:
        paths = paths or [part["path"] for part in old.parts]
        if other is None and experiment.transfer:
            other = (old.pretrain_data or {}).get("path")
        for path, given, option in ((paths[0], args.data, "--data"), (other, args.pretrain_data, "--pretrain-data")):
            if path and not given and not Path(path).is_dir():
                raise RunError(f"{path}: the shards of {old.path} are not where they were: name them with {option}")
    # The shards of a run that exists are recognised by their fingerprint: whoever made it has answered for them.
    confirmed = args.assume_disjoint_patients or old is not None
    dataset = open_all_shards(paths, True, confirmed)
    if experiment.is_skeleton:
        from doubleunet_bs.dataset.joined_shards import SkeletonDataset

        dataset = SkeletonDataset.of(dataset)
    return dataset, open_shards(other, verify=True) if other else None


def _is_left(plan: "PlannedRun", fold: "int | str", resume: bool) -> bool:
    """Whether something is left to do. Finished folds are named; without `resume` one that has begun is an error."""
    from doubleunet_bs.runs.run_folder import already_begun, has_results

    if not isinstance(fold, int) or not plan.exists:
        return True
    if not resume and has_results(plan.run.fold_path(fold)):
        raise already_begun(plan.run, fold)
    if plan.run.is_finished(fold):
        print(f"fold {fold} is trained")
        return False
    return True


def _check_devices(args: argparse.Namespace) -> None:
    """Refuse GPU numbers on a machine without a GPU, as far as that is known without TensorFlow."""
    from doubleunet_bs.tensorflow_setup import may_have_gpus

    devices = args.devices or ""
    if devices.replace(",", "").removeprefix("gpu:").isdecimal() and not may_have_gpus():
        raise SettingsError(f"--devices {devices}: this machine has 0 GPU(s): use all, cpu, or 0,1")


def _open_devices(args: argparse.Namespace, plan: "PlannedRun", fold: "int | str"):
    from doubleunet_bs.runs.run_folder import earlier_devices
    from doubleunet_bs.training.devices import DeviceSettings, open_devices

    earlier = earlier_devices(plan.run, fold) if args.resume else {}
    image_shape = tuple(plan.run.data["image_shape"])
    return open_devices(plan.run.experiment, image_shape, DeviceSettings(**device_options(args, **earlier)))


def _train(run: "Run", dataset, todo: list, replicas, pretrain, resume: bool) -> list[Path]:
    from doubleunet_bs.serving.export import export_fold
    from doubleunet_bs.training.run_training import train_all_folds, train_fold, train_pretraining

    if todo == ["pretrain"]:
        return [train_pretraining(run, pretrain, replicas, resume)]
    if len(todo) == 1 and isinstance(todo[0], int):
        return [train_fold(run, dataset, todo[0], replicas, pretrain, resume, export_fold)]
    numbers = None if todo == ["all"] else todo
    return train_all_folds(run, dataset, replicas, pretrain, resume, export_fold, numbers)


def _fold(text: str) -> int | str:
    if text in ("all", "pretrain"):
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give the number of a fold, all or pretrain") from None
