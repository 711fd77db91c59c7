"""Score the trained folds of a run on their test scans (paper, section 3)."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from doubleunet_bs import __version__
from doubleunet_bs.dataset.folds import Folds, Split
from doubleunet_bs.errors import DatasetError, RunError, SettingsError
from doubleunet_bs.evaluation.figures import draw_case
from doubleunet_bs.evaluation.pixel_counts import PixelCounts, count_pixels
from doubleunet_bs.evaluation.predictions import Segmenter, predict_cases
from doubleunet_bs.evaluation.scores import SCORES, FoldScores, ScanScore, ThresholdScore, read_scores, write_scores
from doubleunet_bs.evaluation.summary import SUMMARY, Summary
from doubleunet_bs.evaluation.threshold import best_threshold, grey_histograms, threshold_counts
from doubleunet_bs.evaluation.trained_fold import TrainedFold, open_fold
from doubleunet_bs.files import write_json
from doubleunet_bs.preparation.shards import ShardedDataset, open_shards
from doubleunet_bs.training.run_folder import Run, open_run

PREDICTIONS = "predictions"


def evaluate_run(
    path: str | os.PathLike,
    fold: int | None = None,
    data: str | os.PathLike | None = None,
    batch_size: int = 4,
    pictures: bool = True,
    show_progress: bool = True,
) -> Summary:
    """Score one fold of a run, or all that are trained, and write `summary.json`.

    Args:
        path: the run folder.
        fold: its number; None for all trained folds.
        data: the shards; None for the folder they were in during training.
        batch_size: images predicted at once, at least 1.
        pictures: also draw the overlays in `fold_XX/predictions/`.
        show_progress: a progress bar on standard error.

    Returns:
        All folds with scores of their present weights, also those scored before.

    Raises:
        RunError: not a run folder, no trained fold, other shards than it was trained on.
        SettingsError: fold out of range, batch size below 1.
        DatasetError: the shards or the folds file are missing or damaged.
    """
    if batch_size < 1:
        raise SettingsError(f"batch size {batch_size}: at least 1")
    run = open_run(path)
    trained = run.trained_folds()
    if not trained:
        raise RunError(f"{run.path}: no fold is trained yet; run train.py first")
    dataset = _open_data(run, data)
    folds = _folds(run, dataset)
    if fold is not None:
        folds.split(fold)  # complains about a number out of range
        if fold not in trained:
            raise RunError(f"{run.path}: fold {fold} is not trained; trained: {', '.join(map(str, trained))}")
    for number in trained if fold is None else [fold]:
        evaluate_fold(run, dataset, number, batch_size, pictures, show_progress)
    summary = collect_scores(run, len(folds))
    write_json(run.path / SUMMARY, summary.to_json())
    return summary


def evaluate_fold(
    run: Run,
    dataset: ShardedDataset,
    fold: int,
    batch_size: int = 4,
    pictures: bool = True,
    show_progress: bool = True,
) -> FoldScores:
    """Predict the test scans of a fold with its `model.keras`; write `predictions/` and then `scores.json`.

    Args:
        run: the opened run.
        dataset: the shards it was trained on.
        fold: 1 ... number of folds.
        batch_size, pictures, show_progress: see `evaluate_run`.

    Raises:
        RunError: the fold is not trained, or was trained on another division of the scans, or on other shards.
        SettingsError: fold out of range.
    """
    run.check_data(dataset, dataset.path)
    folds = _folds(run, dataset)
    split = folds.split(fold)
    trained = open_fold(run, fold)
    if trained.folds_sha256 not in (None, folds.sha256()):
        raise RunError(
            f"{run.path / 'folds.json'}: not the division that fold {fold} was trained with: its test scans may have "
            "been trained on; restore the file, or train the fold again"
        )
    segmenter = Segmenter.from_keras(trained.model_path)
    numbers = {case.case: index for index, case in enumerate(dataset.cases)}
    test = [numbers[case] for case in split.test]
    value, validation = best_threshold(*grey_histograms(dataset, [numbers[case] for case in split.validation]))
    by_threshold = PixelCounts()
    scans = []
    folder = trained.path / PREDICTIONS
    predictions = tqdm(
        predict_cases(segmenter, dataset, test, batch_size),
        total=len(test),
        desc=f"fold {fold}: test scans",
        unit="scan",
        disable=None if show_progress else True,
        dynamic_ncols=True,
        file=sys.stderr,
    )
    for prediction in predictions:
        case = dataset.cases[prediction.index]
        if pictures:
            picture = folder / f"{case.case}.png"
            counts = draw_case(picture, case.case, prediction.grey, prediction.labels, prediction.mask)
        else:
            counts = count_pixels(prediction.labels, prediction.mask)
        scans.append(ScanScore(case.case, case.patient, counts))
        if value is not None:
            by_threshold += threshold_counts(prediction.grey, prediction.labels, value)
    if pictures:
        _remove_other_pictures(folder, [scan.case for scan in scans])
    scores = FoldScores(
        fold=fold,
        scans=tuple(scans),
        threshold=ThresholdScore(value, None if value is None else by_threshold, validation.f1),
        about=_about(trained, dataset, folds, split),
    )
    write_scores(trained.path / SCORES, scores)
    return scores


def collect_scores(run: Run, total_folds: int) -> Summary:
    """The scores of all trained folds that have been evaluated with their present weights.

    Args:
        run: the opened run.
        total_folds: number of folds of its cross-validation.

    Raises:
        RunError: a score file is damaged or of another format.
    """
    found = []
    for fold in run.trained_folds():
        path = run.fold_path(fold) / SCORES
        if path.exists():
            scores = read_scores(path)
            # Scores of weights that have been replaced since belong to another model.
            if scores.about.get("model", {}).get("weights_sha256") == open_fold(run, fold).weights_sha256:
                found.append(scores)
    experiment = run.experiment
    return Summary(experiment.name, experiment.changed_settings(), total_folds, tuple(found))


def _open_data(run: Run, data: str | os.PathLike | None) -> ShardedDataset:
    path = Path(run.data["path"] if data is None else data)
    if data is None and not path.is_dir():
        raise DatasetError(f"{path}: the shards are not where they were during training; name them with --data")
    dataset = open_shards(path, verify=True)
    run.check_data(dataset, path)
    return dataset


def _folds(run: Run, dataset: ShardedDataset) -> Folds:
    if not (run.path / "folds.json").is_file():
        raise RunError(f"{run.path}: folds.json is missing; without it nobody knows which scans are unseen")
    return run.folds(dataset)


def _about(trained: TrainedFold, dataset: ShardedDataset, folds: Folds, split: Split) -> dict:
    experiment = trained.run.experiment
    rows, columns = dataset.image_shape
    return {
        "version": __version__,
        "experiment": experiment.name,
        "changed_settings": experiment.changed_settings(),
        "image": {"rows": rows, "columns": columns, "bin": dataset.settings.bin},
        "model": {
            "weights_sha256": trained.weights_sha256,
            "best_epoch": trained.best_epoch,
            "validation_f1": trained.validation_f1,
        },
        "data_fingerprint": dataset.fingerprint,
        "folds_sha256": folds.sha256(),
        "validation_scans": list(split.validation),
    }


def _remove_other_pictures(folder: Path, cases: Sequence[str]) -> None:
    """Pictures of scans that no longer are in the test set would be taken for part of the result."""
    for path in folder.glob("case-*.png"):
        if path.stem not in cases:
            path.unlink()
