"""Run the whole pipeline on synthetic scans: make, prepare, train, export, evaluate.

Needs no data and takes 5 to 15 minutes on two CPU cores. The demo is scaled down; it prints what was reduced.
Its scores show that the software works. They say nothing about patients.

Examples:
  doubleunet-bs demo
  doubleunet-bs demo quick --patients 30 --epochs 1

Writes into DIR:
  phantoms/   synthetic scans as DICOM files, their Labelme annotations and patients.csv
  shards/     the prepared scans
  run/        a run folder as `doubleunet-bs train` writes it, with one trained fold, its scores and report.html

Exit codes: 0 done, 1 the work failed, 2 wrong arguments, 130 interrupted (continue with --resume).
"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doubleunet_bs.commands.train import add_device_options, add_settings, changed_settings, device_options
from doubleunet_bs.constants import CLASS_NAMES, METASTATIC
from doubleunet_bs.errors import DatasetError, SettingsError, counted
from doubleunet_bs.files import read_json

if TYPE_CHECKING:
    from doubleunet_bs.runs.experiments import Experiment

EXPERIMENT = "focal-tversky-otsu"
PATIENTS = 130
POSITIVE_FRACTION = 0.9  # as in the paper: 90 of 100
BIN = 4
# Eight to fourteen minutes on two cores: 12 epochs where the processor multiplies bfloat16, 6 elsewhere.
EPOCHS_FAST, EPOCHS = 12, 6
# Differences from the paper's row, chosen for some hundred training steps instead of many thousand.
SETTINGS: dict[str, Any] = {
    "batch_size": 2,
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "loss_classes": (METASTATIC,),
    "bn_momentum": 0.9,
    "encoder_weights": "none",
}
# Phantoms are not people: a fixed key gives the same pseudonyms, and so the same demo, every time.
PHANTOM_KEY = b"doubleunet_bs phantom demo key 0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `demo`."""
    parser.add_argument("folder", metavar="DIR", nargs="?", default="demo", help="folder to write (default demo)")
    parser.add_argument(
        "--patients",
        "--demo-patients",
        type=int,
        metavar="N",
        help=f"number of phantoms, nine in ten with metastases (default {PATIENTS})",
    )
    parser.add_argument(
        "--fold", type=int, default=1, metavar="K", help="fold to train and evaluate (default %(default)s)"
    )
    epochs = f"{EPOCHS_FAST}, or {EPOCHS} on processors without bfloat16"
    add_settings(parser, epochs=epochs, **SETTINGS)
    add_device_options(parser, precision="auto")


def run(args: argparse.Namespace) -> int:
    """Make phantoms, prepare, train one fold, export and evaluate it; print where everything is."""
    from doubleunet_bs.preparation.settings import PreparationSettings
    from doubleunet_bs.preparation.shards import open_shards

    start = time.monotonic()
    folder, fold = Path(args.folder), args.fold
    cohort, shards, run_path = folder / "phantoms", folder / "shards", folder / "run"
    if folder.exists() and any(folder.iterdir()) and not args.resume:
        raise SettingsError(f"{folder}: not empty: continue an interrupted demo with --resume, or name a new folder")
    options = device_options(args, precision="auto")
    experiment = _demo_experiment(changed_settings(args), options["precision"])
    patients = _cohort_size(cohort, experiment, fold, args.patients)
    image_shape = PreparationSettings(bin=BIN).image_shape
    print(_introduction(experiment, patients, image_shape))
    from doubleunet_bs.tensorflow_setup import import_tensorflow

    import_tensorflow()
    from doubleunet_bs.runs.create_run import create_run
    from doubleunet_bs.serving.export import export_fold
    from doubleunet_bs.training.devices import DeviceSettings, open_devices
    from doubleunet_bs.training.run_training import describe_run, train_fold

    # What this machine cannot do shows before the phantoms are made, not minutes later.
    replicas = open_devices(experiment, image_shape, DeviceSettings(**options))

    if not cohort.exists():
        _step(1, "phantoms", start)
        _make_phantoms(cohort, patients)
    if not shards.exists():
        _step(2, "preparation", start)
        _prepare(cohort, shards)
    _step(3, "training", start)
    dataset = open_shards(shards)
    run = create_run(run_path, experiment, dataset, fold)
    print(describe_run(run, dataset, replicas), flush=True)
    fold_path = train_fold(run, dataset, fold, replicas, resume=args.resume, export=export_fold)
    _step(4, "evaluation", start)
    # Once TensorFlow is set up.
    from doubleunet_bs.evaluation.evaluate import evaluate_run

    evaluate_run(run_path, fold)
    print(_conclusion(folder, experiment, run_path, fold_path, cohort, time.monotonic() - start))
    return 0


def _demo_experiment(changes: dict[str, Any], precision: str) -> "Experiment":
    from doubleunet_bs.runs.experiments import paper_experiment
    from doubleunet_bs.tensorflow_setup import bfloat16_instruction

    fast = precision in ("auto", "mixed_bfloat16") and bfloat16_instruction() is not None
    experiment = paper_experiment(EXPERIMENT, **{"epochs": EPOCHS_FAST if fast else EPOCHS, **SETTINGS, **changes})
    if experiment.transfer:
        raise SettingsError("the demo has one cohort and cannot pre-train on another: leave out --set transfer=yes")
    return experiment


def _cohort_size(cohort: Path, experiment: "Experiment", fold: int, patients: int | None) -> int:
    """The number of phantoms, once it is known that the fold can be trained on them."""
    from doubleunet_bs.phantom.cohort import count_positives

    there = len(list((cohort / "scans").glob("*.dcm")))
    if there and patients not in (None, there):
        raise SettingsError(
            f"{cohort}: has {there} phantoms, not {patients}: leave out --patients, or name a new folder"
        )
    if patients is None:
        patients = there or PATIENTS
    positives = count_positives(patients, POSITIVE_FRACTION)
    if positives < experiment.folds:
        raise SettingsError(f"{patients} patients, {positives} with metastases, cannot fill {experiment.folds} folds")
    if not 1 <= fold <= experiment.folds:
        raise SettingsError(f"fold {fold} is out of range: there are folds 1 to {experiment.folds}")
    if experiment.negatives != "none" and positives == patients:
        raise SettingsError(
            f"{patients} patients, all with metastases: {experiment.name} also trains on normal scans, give at least 10"
        )
    return patients


def _make_phantoms(cohort: Path, patients: int) -> None:
    from doubleunet_bs.phantom import make_cohort

    make_cohort(cohort, patients, positive_fraction=POSITIVE_FRACTION)


def _prepare(cohort: Path, shards: Path) -> None:
    from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort
    from doubleunet_bs.preparation.settings import PreparationSettings
    from doubleunet_bs.preparation.summaries import rejection_table, summary_text
    from doubleunet_bs.scans.pseudonyms import Pseudonyms

    job = CohortJob(
        scans=cohort / "scans",
        labels=cohort / "labels",
        out=shards,
        settings=PreparationSettings(bin=BIN),
        workers=2,
    )
    if not job.key_file.exists():
        Pseudonyms(PHANTOM_KEY).save(job.key_file)
    result = prepare_cohort(job)
    if not result.written:
        raise DatasetError(f"{cohort}: phantoms were refused:\n{rejection_table(result.rejected)}")
    print(summary_text(result, job.settings))


def _step(number: int, name: str, start: float) -> None:
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    print(f"\n[{minutes}:{seconds:02d}] {number}/4 {name}", flush=True)


def _introduction(experiment: "Experiment", patients: int, image_shape: tuple[int, int]) -> str:
    rows, columns = image_shape
    terms = " and ".join(CLASS_NAMES[index] for index in experiment.loss_classes)
    encoder = {
        "none": "random start instead of ImageNet weights, which are a download",
        "imagenet": "ImageNet weights",
    }.get(experiment.encoder_weights, "weights from a file")
    return (
        f"Double U-Net demo: experiment {experiment.name}, one fold, on synthetic bone scans (phantoms).\n"
        "Reduced against the paper, to fit two CPU cores and some minutes:\n"
        f"  scans       {patients} phantoms instead of the paper's patients\n"
        f"  matrix      {rows} x {columns} instead of 640 x 512: counts summed over {BIN} x {BIN} pixels, "
        "as a gamma camera with a coarser matrix would\n"
        f"  training    {counted(experiment.epochs, 'epoch')} in batches of {experiment.batch_size} "
        "instead of 500 in batches of 4,\n"
        f"              learning rate {experiment.learning_rate:g} ({experiment.schedule}) instead of 0.0001, "
        f"batch-normalisation momentum {experiment.bn_momentum:g} instead of 0.99\n"
        f"  loss        {experiment.loss}, term of {terms} only\n"
        f"  encoder     {encoder}\n"
        "The network is that of a full run, and so is the preparation except for the matrix."
    )


def _conclusion(
    folder: Path, experiment: "Experiment", run_path: Path, fold_path: Path, cohort: Path, seconds: float
) -> str:
    scores = read_json(fold_path / "scores.json")
    scan = cohort / "scans" / "phantom_0001.dcm"
    lines = [
        "",
        f"{counted(len(scores['scans']), 'phantom')} that the network has never seen, metastatic pixels:",
        f"  {'':28}  precision  sensitivity      F1",
        _row("Double U-Net", scores["pooled"]),
        _row(f"best threshold (grey >= {scores['threshold']['value']})", scores["threshold"]),
        *_gain(scores, experiment.epochs),
        "",
        f"  {run_path / 'report.html'}   figures, lesions, distributions and scans on one page",
        f"  {fold_path / 'predictions'}   pictures: truth, prediction, errors",
        f"  {fold_path / 'progress.png'}   losses and F1 over the epochs",
        f"  {fold_path / 'scores.json'}   the figures above, per scan as well",
        f"  {fold_path / 'saved_model'}   for TensorFlow Serving",
        f"  {fold_path / 'model.keras'}   for Keras",
        f"  {cohort / 'scans'}   the phantoms as DICOM files; {cohort / 'labels'}   their lesions for Labelme",
        "",
        f"Done in {seconds / 60:.1f} minutes. Segment a scan (the fold may have been trained on it):",
        f"  doubleunet-bs predict {scan} --model {fold_path} --out {folder / 'predicted'}",
        "Score the fold again, from the kept predictions (for other options see --help):",
        f"  doubleunet-bs evaluate {run_path}",
        "A phantom score shows that the software works. It says nothing about patients and cannot be compared with the",
        "paper's figures.",
    ]
    return "\n".join(lines)


def _gain(scores: dict, epochs: int) -> list[str]:
    network, threshold = scores["pooled"]["f1"], scores["threshold"]["f1"]
    if network is None or threshold is None:
        return ["  (F1 is undefined where nothing is predicted and nothing is there)"]
    gain = 100 * (network - threshold)
    lines = [f"  The network's F1 is {abs(gain):.1f} points {'above' if gain > 0 else 'below'} the threshold's."]
    if gain <= 0:
        lines.append(f"  {counted(epochs, 'epoch')} on so few scans did not teach it to segment; a full demo does.")
    return lines


def _row(name: str, figures: dict) -> str:
    cells = [
        "–" if figures[key] is None else f"{100 * figures[key]:.1f} %" for key in ("precision", "sensitivity", "f1")
    ]
    return f"  {name:28}  {cells[0]:>9}  {cells[1]:>11}  {cells[2]:>6}"
