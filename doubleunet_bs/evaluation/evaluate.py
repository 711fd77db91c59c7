"""Score the trained folds of a run on their test scans (paper, section 3), or masks that another program predicted."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from doubleunet_bs import __version__
from doubleunet_bs.constants import BENIGN, METASTATIC
from doubleunet_bs.dataset.folds import Folds
from doubleunet_bs.dataset.joined_shards import Paths, SkeletonDataset, as_paths, open_all_shards
from doubleunet_bs.errors import DatasetError, RunError
from doubleunet_bs.evaluation.paper_tables import EARLIER_RUN, Provenance, provenance
from doubleunet_bs.evaluation.report import write_report
from doubleunet_bs.evaluation.scorer import NOT_ASKED, EvaluationSettings, Scorer, grey_histograms, unseen_normals
from doubleunet_bs.evaluation.scores.fold_scores import SCORES, FoldScores, precision_entry, read_scores, write_scores
from doubleunet_bs.evaluation.stored_predictions import PREDICTIONS, StoredPredictions
from doubleunet_bs.evaluation.summary import Summary
from doubleunet_bs.evaluation.write_summary import write_summary
from doubleunet_bs.inference.model_folder import TrainedFold, open_fold
from doubleunet_bs.preparation.records import scans_are
from doubleunet_bs.preparation.shards import ShardedDataset
from doubleunet_bs.runs.run_folder import Run, no_trained_fold, open_run

AGREEMENT_FILES = ("bsi_agreement.json", "bsi_agreement.csv", "bsi_agreement.png", "bsi_scans.csv")
"""Of the Bone Scan Index, in a run: written by `bsi_agreement.evaluate_with_skeleton`."""


def evaluate_run(
    path: str | os.PathLike,
    fold: int | None = None,
    data: Paths | None = None,
    settings: EvaluationSettings | None = None,
    report: bool = True,
    **changes: Any,
) -> Summary:
    """Score one fold of a run, or all that are trained, and write its tables and its report.

    Each fold gets `scores.json` and `predictions/`, the run `summary.json`, `summary.csv`, `table.tex` and
    `report.html`.

    Args:
        path: the run folder.
        fold: its number; None for all trained folds.
        data: the shards, one folder or several; None for where they were during training.
        settings: of the evaluation. changes: single ones by name: `pictures=False`.
        report: write `report.html`.

    Returns:
        All folds with scores of their present weights, also those scored before.

    Raises:
        RunError: no run folder, no trained fold, other shards; another fold has been scored by other settings.
        SettingsError: fold out of range, an impossible setting.
        DatasetError: the shards or the folds file are missing or damaged.

    Example:
        >>> summary = evaluate_run("RUN", fold=1, pictures=False)  # doctest: +SKIP
        >>> summary.mean.f1_of_means, summary.folds[0].pooled.precision  # doctest: +SKIP
        (0.64, 0.67)
    """
    settings = dataclasses.replace(settings or EvaluationSettings(), **changes)
    run = open_run(path)
    check_lesions(run)
    trained = run.trained_folds()
    if not trained:
        raise no_trained_fold(run)
    dataset = open_run_data(run, data)
    folds = read_folds(run, dataset)
    if fold is not None:
        folds.split(fold)  # complains about a number out of range
        if fold not in trained:
            raise RunError(f"{run.path}: fold {fold} is not trained; trained: {', '.join(map(str, trained))}")
        # Before anything is predicted or written: folds scored by other settings cannot be summarised together.
        for number in trained:
            if number != fold:
                _scores(run, number, settings)
    for number in trained if fold is None else [fold]:
        write_scores(run.fold_path(number) / SCORES, score_fold(run, dataset, folds, number, settings))
    summary = Summary(
        experiment=run.experiment.name,
        changed_settings=run.public_changes(),
        total_folds=len(folds),
        folds=tuple(scores for number in trained if (scores := _scores(run, number, settings))),
        provenance=provenance_of_runs([run], dataset),
    )
    for name in AGREEMENT_FILES:
        # Of an earlier call with a skeleton: they do not belong to these scores.
        (run.path / name).unlink(missing_ok=True)
    write_summary(run.path, summary)
    if report:
        write_report(run, dataset, summary, figures=settings.figures)
    return summary


def score_fold(run: Run, dataset: ShardedDataset, folds: Folds, fold: int, settings: EvaluationSettings) -> FoldScores:
    """Predict with `model.keras` of a fold what is not predicted yet, into `predictions/`, and score it.

    Predicted are the test scans, the validation scans (for the minimum lesion size) and normal scans that the fold has
    not been trained on.

    Raises:
        RunError: the fold is not trained, or was trained on another split of the scans.
        SettingsError: fold out of range.
    """
    split, trained = folds.split(fold), open_unseen(run, folds, fold)
    normals, reason = unseen_normals(run.experiment, folds, fold) if settings.normals else ((), NOT_ASKED)
    stored = StoredPredictions(
        trained.path / PREDICTIONS, (trained.weights_sha256,), dataset.fingerprint, run.experiment.has_benign
    )
    scorer = Scorer(dataset, stored, settings)
    cases = (*split.test, *split.validation, *normals)
    scorer.predict(stored, cases, [trained.model_path], f"fold {fold}: unseen scans")
    model = {name: getattr(trained, name) for name in ("weights_sha256", "best_epoch", "validation_f1")}
    about = {
        **about_scores(run, dataset, [trained.precision], model=model),
        "folds_sha256": folds.sha256(),
        "validation_scans": list(split.validation),
    }
    histograms = grey_histograms(dataset, scorer.numbers(split.validation))
    scores = scorer.fold_scores(fold, split.test, histograms, about, (normals, reason))
    after = scorer.postprocess(split.validation, split.test, scores.scans)
    if settings.pictures:
        scorer.draw(stored.folder, split.test)
    return dataclasses.replace(scores, postprocessed=after)


def evaluate_predictions(
    path: str | os.PathLike,
    predictions: str | os.PathLike,
    data: Paths | None = None,
    settings: EvaluationSettings | None = None,
) -> Summary:
    """Score PREDICTIONS/fold_01/CASE.png and so on: class masks of the test scans of each fold.

    Writes `scores.json` into each of these folders and `summary.json`, `summary.csv` and `table.tex` into PREDICTIONS.
    A mask says nothing of probabilities: figures that need them are left out, as are normal scans.

    Args:
        path: the run, trained or not: its folds and its shards.
        predictions: folder, whose name is that of the method in the tables. Its PNG files have the size of the prepared
            image and the values 0 air, 1 non-metastatic, 2 metastatic, 3 benign where the shards have it.
        data: the shards, one folder or several; None for where they were during training.
        settings: `overlap` counts.

    Raises:
        RunError: a mask is missing, has another size or other values; no fold is there.

    Example:
        >>> evaluate_predictions("RUN", "nnunet/nnU-Net").mean.f1_of_means  # doctest: +SKIP
        0.61
    """
    settings, folder = settings or EvaluationSettings(), Path(predictions)
    run = open_run(path)
    check_lesions(run)
    dataset = open_run_data(run, data)
    folds = read_folds(run, dataset)
    places = {fold: folder / f"fold_{fold:02d}" for fold in range(1, len(folds) + 1)}
    places = {fold: place for fold, place in places.items() if place.is_dir()}
    if not places:
        raise RunError(f"{folder}: no folder fold_01 ... fold_{len(folds):02d} with predicted masks")
    name, scored = folder.resolve().name, []
    about = {
        "version": __version__,
        "experiment": name,
        "scans_are": scans_are(dataset.cases),
        "data_fingerprint": dataset.fingerprint,
        "folds_sha256": folds.sha256(),
    }
    # All masks are read before anything is written.
    for fold, place in places.items():
        split = folds.split(fold)
        scorer = Scorer(dataset, MaskFolder(place, dataset.settings.benign == "own"), settings)
        histograms = grey_histograms(dataset, scorer.numbers(split.validation))
        scored.append(scorer.fold_scores(fold, split.test, histograms, about))
    of = Provenance(
        scans_are(dataset.cases), dataset.settings.changes(), sources=tuple(source.text for source in dataset.sources)
    )
    summary = Summary(name, {}, len(folds), tuple(scored), of, method=name)
    for scores in scored:
        write_scores(places[scores.fold] / SCORES, scores)
    write_summary(folder, summary)
    return summary


@dataclasses.dataclass(frozen=True)
class MaskFolder:
    """Class masks of another program, `folder`/CASE.png; with `benign` a class 3."""

    folder: Path
    benign: bool

    def read(self, case: str, shape: tuple[int, int]) -> tuple[np.ndarray, None, np.ndarray | None]:
        """As `StoredPredictions.read`, without probabilities.

        Raises:
            RunError: missing, not a PNG of one channel, of another size, or with values that are no class.
        """
        path = self.folder / f"{case}.png"
        try:
            with Image.open(path, formats=["PNG"]) as picture:
                if picture.size != shape[::-1]:
                    found = f"{picture.size[1]} x {picture.size[0]}"
                    raise RunError(f"{path}: a mask of {found} pixels; the prepared image has {shape[0]} x {shape[1]}")
                mask = np.asarray(picture)
        except FileNotFoundError:
            raise RunError(f"{path}: missing: predict all test scans of the fold") from None
        except (OSError, SyntaxError, ValueError) as cause:
            raise RunError(f"{path}: not a readable PNG ({cause})") from None
        largest = BENIGN if self.benign else METASTATIC
        if mask.ndim != 2 or mask.max(initial=0) > largest:
            values = f"{', '.join(map(str, range(largest)))} and {largest}"
            raise RunError(f"{path}: not a class mask: values must be {values}, one channel")
        return mask == METASTATIC, None, mask == BENIGN if self.benign else None


def check_lesions(run: Run) -> None:
    """Raises `RunError` for a run of the skeleton experiment, whose figures are others."""
    if run.experiment.is_skeleton:
        raise RunError(
            f"{run.path}: a run of the skeleton experiment: evaluate it alone, without --ensemble and --predictions"
        )


def open_unseen(run: Run, folds: Folds, fold: int) -> TrainedFold:
    """A trained fold to test on its test scans; RunError when it was trained on another split of the scans."""
    trained = open_fold(run, fold)
    if trained.folds_sha256 != folds.sha256():
        raise RunError(
            f"{run.path / 'folds.json'}: not the split that fold {fold} was trained with: restore the file or train "
            "the fold again"
        )
    return trained


def about_scores(run: Run, dataset: ShardedDataset, precisions: Sequence[str | None], **model: Any) -> dict[str, Any]:
    """What the figures of a fold or an ensemble on these shards belong to; `model` names the weights."""
    rows, columns = dataset.image_shape
    return {
        "version": __version__,
        "experiment": run.experiment.name,
        "changed_settings": run.public_changes(),
        "scans_are": scans_are(dataset.cases),
        "image": {"rows": rows, "columns": columns, "bin": dataset.settings.bin},
        **model,
        **precision_entry(precisions),
        "data_fingerprint": dataset.fingerprint,
    }


def provenance_of_runs(runs: Sequence[Run], dataset: ShardedDataset) -> Provenance:
    """What the figures of runs on these shards can be compared with; the experiment is the first's."""
    of = provenance(runs[0].experiment, dataset.cases, dataset.settings, dataset.sources)
    if any((run.pretrain_data or {}).get("patients_compared") is False for run in runs):
        return dataclasses.replace(of, trained_elsewhere="pre-training")
    if any(run.experiment.start_from and run.disjoint_patients for run in runs):
        return dataclasses.replace(of, trained_elsewhere=EARLIER_RUN)
    return of


def open_run_data(run: Run, data: Paths | None = None) -> ShardedDataset:
    """Open the shards of a run, or `data` when they have moved, and check that it was trained on them.

    Raises:
        DatasetError: they are missing or damaged.
        RunError: they are others.
    """
    paths = [Path(part["path"]) for part in run.parts] if data is None else as_paths(data)
    for path in paths:
        if data is None and not path.is_dir():
            raise DatasetError(f"{path}: the shards are not where they were during training: name them with --data")
    # Recognised by its fingerprint: whoever made the run has answered for patients that cannot be compared.
    dataset = open_all_shards(paths, verify=True, other_patients=True)
    run.check_data(dataset, dataset.path)
    return SkeletonDataset.of(dataset) if run.experiment.is_skeleton else dataset


def read_folds(run: Run, dataset: ShardedDataset) -> Folds:
    """The folds of a run, which are never split again here; RunError when `folds.json` is missing."""
    if not (run.path / "folds.json").is_file():
        raise RunError(f"{run.path}: folds.json is missing, so it is unknown which scans are unseen: restore it")
    return run.folds(dataset)


def _scores(run: Run, fold: int, settings: EvaluationSettings) -> FoldScores | None:
    """The written scores of a fold's present weights, None without; RunError when damaged or of other settings."""
    path = run.fold_path(fold) / SCORES
    if not path.exists():
        return None
    scores = read_scores(path)
    # Scores of weights that have been replaced since belong to another model.
    if scores.about.get("model", {}).get("weights_sha256") != open_fold(run, fold).weights_sha256:
        return None
    other = None
    if scores.overlap != settings.overlap:
        other = f"with a lesion overlap of {scores.overlap:g}, not {settings.overlap:g}"
    elif (scores.normals_reason != NOT_ASKED) != settings.normals:
        other = f"{'without' if settings.normals else 'with'} normal scans, unlike now"
    if other:
        raise RunError(f"{path}: scored {other}: evaluate all folds again")
    return scores
