"""`python train.py --demo`: the whole job on synthetic scans, small enough for two CPU cores.

What is reduced against the paper is written out at the start; what the result is worth is written out at the end.
"""

import time
from pathlib import Path
from typing import Any

from doubleunet_bs.constants import CLASS_NAMES, METASTATIC
from doubleunet_bs.errors import DatasetError, SettingsError, counted
from doubleunet_bs.files import read_json
from doubleunet_bs.phantom import make_cohort
from doubleunet_bs.phantom.cohort import count_positives
from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort, summary_text
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.preparation.shards import open_shards
from doubleunet_bs.preparation.task import problem_table
from doubleunet_bs.scans.pseudonyms import Pseudonyms
from doubleunet_bs.tensorflow_setup import bfloat16_instruction
from doubleunet_bs.training.experiments import paper_experiment

EXPERIMENT = "focal-tversky-otsu"
PATIENTS = 130
POSITIVE_FRACTION = 0.9  # as in the paper: 90 of 100
BIN = 4
# Epochs for two cores: with matrix arithmetic in bfloat16 about five minutes, and on any other processor.
EPOCHS_FAST, EPOCHS = 12, 3
# What differs from the paper's row, chosen for some hundred training steps instead of many thousand. The loss term of the lesions
# alone dates from before the encoder started He-normal, when both terms together found nothing in a hundred steps.
SETTINGS: dict[str, Any] = {
    "batch_size": 2,
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "loss_classes": (METASTATIC,),
    "bn_momentum": 0.9,
    "encoder_weights": "none",
}
# Phantoms are nobody: a fixed key gives the same pseudonyms, and so the same demo, every time.
PHANTOM_KEY = b"doubleunet_bs phantom demo key 0"


def run_demo(
    folder: str | Path,
    changes: dict[str, Any],
    fold: int = 1,
    patients: int | None = None,
    devices: str = "all",
    precision: str = "auto",
    xla: str = "auto",
    deterministic: bool = False,
    resume: bool = False,
) -> None:
    """Make phantoms, prepare, train one fold, export and evaluate it; print where everything is.

    Args:
        folder: made when new; one with results is refused unless `resume` is set.
        changes: settings of the experiment that replace the demo's.
        fold: which of the folds.
        patients: size of the cohort, nine in ten with metastases; None for that of the phantoms that are there, or
            `PATIENTS`.
        devices, precision, xla, deterministic: as for a real run.
        resume: keep what an interrupted demo has finished.

    Raises:
        SettingsError: `folder` has something in it and `resume` is off, or phantoms of another number; an impossible fold or
            number of patients; settings that one cohort or this machine cannot be trained with.
    """
    start = time.monotonic()
    folder = Path(folder)
    cohort, shards, run_path = folder / "phantoms", folder / "shards", folder / "run"
    if folder.exists() and any(folder.iterdir()) and not resume:
        raise SettingsError(
            f"{folder}: not empty; continue an interrupted demo with --resume, or name a new folder: --demo DIR"
        )
    fast = precision in ("auto", "mixed_bfloat16") and bfloat16_instruction() is not None
    experiment = paper_experiment(EXPERIMENT, **{"epochs": EPOCHS_FAST if fast else EPOCHS, **SETTINGS, **changes})
    if experiment.transfer:
        raise SettingsError("the demo has one cohort and cannot pre-train on another: leave out --set transfer=yes")
    there = len(list((cohort / "scans").glob("*.dcm")))
    if there and patients not in (None, there):
        raise SettingsError(
            f"{cohort}: has {there} phantoms, not {patients}: leave out --demo-patients, or name a new folder"
        )
    patients = (there or PATIENTS) if patients is None else patients
    positives = count_positives(patients, POSITIVE_FRACTION)
    if positives < experiment.folds:
        raise SettingsError(f"{patients} patients, {positives} with metastases, cannot fill {experiment.folds} folds")
    if not 1 <= fold <= experiment.folds:
        raise SettingsError(f"fold {fold} is out of range: there are folds 1 to {experiment.folds}")
    if experiment.negatives != "none" and positives == patients:
        raise SettingsError(
            f"{patients} patients, all with metastases; {experiment.name} trains with normal scans as well: at least 10 patients"
        )
    print(_introduction(experiment, patients))
    from doubleunet_bs.training.session import settle_machine, train_and_export

    # What this machine cannot do shows before the phantoms are made, not minutes later.
    settle_machine(PreparationSettings(bin=BIN).image_shape, experiment, devices, precision, xla, deterministic)
    if not cohort.exists():
        _step(1, "phantoms", start)
        make_cohort(cohort, patients, positive_fraction=POSITIVE_FRACTION, workers=2)
    if not shards.exists():
        _step(2, "preparation", start)
        key = folder / "shards.identities.json"
        if not key.exists():
            Pseudonyms(PHANTOM_KEY).save(key)
        settings = PreparationSettings(bin=BIN)
        result = prepare_cohort(
            CohortJob(scans=cohort / "scans", labels=cohort / "labels", out=shards, settings=settings, workers=2)
        )
        if not result.written:
            raise DatasetError(f"{cohort}: phantoms were refused:\n{problem_table(result.problems)}")
        print(summary_text(result.records, len(result.problems), settings))

    _step(3, "training", start)
    dataset = open_shards(shards)
    [fold_path] = train_and_export(
        run_path,
        shards,
        dataset,
        experiment,
        fold,
        devices=devices,
        precision=precision,
        xla=xla,
        deterministic=deterministic,
        resume=resume,
    )

    _step(4, "evaluation", start)
    from doubleunet_bs.evaluation.evaluate_run import evaluate_run

    evaluate_run(run_path, fold)
    print(_conclusion(folder, experiment, run_path, fold_path, cohort, time.monotonic() - start))


def _step(number: int, name: str, start: float) -> None:
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    print(f"\n[{minutes}:{seconds:02d}] {number}/4 {name}", flush=True)


def _introduction(experiment, patients: int) -> str:
    rows, columns = PreparationSettings(bin=BIN).image_shape
    terms = " and ".join(CLASS_NAMES[index] for index in experiment.loss_classes)
    encoder = {
        "none": "random start instead of ImageNet weights, which are a download",
        "imagenet": "ImageNet weights",
    }.get(experiment.encoder_weights, "weights from a file")
    return (
        f"Double U-Net demo: experiment {experiment.name}, one fold, on synthetic bone scans (phantoms).\n"
        "Reduced against the paper, to fit two CPU cores and ten minutes:\n"
        f"  scans       {patients} phantoms instead of the paper's patients\n"
        f"  matrix      {rows} x {columns} instead of 640 x 512: counts summed over {BIN} x {BIN} pixels, "
        "as a gamma camera with a coarser matrix would\n"
        f"  training    {counted(experiment.epochs, 'epoch')} in batches of {experiment.batch_size} instead of 500 in batches of 4,\n"
        f"              learning rate {experiment.learning_rate:g} ({experiment.schedule}) instead of 0.0001, "
        f"momentum of batch normalisation {experiment.bn_momentum:g} instead of 0.99\n"
        f"  loss        {experiment.loss}, term of {terms} only\n"
        f"  encoder     {encoder}\n"
        "The network is that of a full run, and so is the preparation but for the matrix."
    )


def _conclusion(folder: Path, experiment, run_path: Path, fold_path: Path, cohort: Path, seconds: float) -> str:
    scores = read_json(fold_path / "scores.json")
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
        f"  {fold_path / 'saved_model'}   for TF Serving",
        f"  {fold_path / 'model.keras'}   for Keras",
        f"  {cohort / 'scans'}   the phantoms as DICOM; {cohort / 'labels'}   their lesions for Labelme",
        "",
        f"Done in {seconds / 60:.1f} minutes. Segment a scan with the trained fold (which may have trained on this one):",
        f"  python -m doubleunet_bs predict {cohort / 'scans' / 'phantom_0001.dcm'} --model {fold_path} --out {folder / 'predicted'}",
        "Score it again, from the predictions that were kept (other overlap of lesions, comparisons: --help):",
        f"  python evaluate.py {run_path}",
        "A phantom score shows that the software works, nothing else: it says nothing about patients, and it cannot be",
        "compared with the paper's figures.",
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
