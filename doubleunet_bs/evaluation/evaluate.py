"""Score the trained folds of a run on their test scans (paper, section 3)."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doubleunet_bs import __version__
from doubleunet_bs.dataset.folds import Folds
from doubleunet_bs.dataset.joined_shards import Paths, as_paths, open_all_shards
from doubleunet_bs.dataset.skeleton import SkeletonDataset
from doubleunet_bs.errors import DatasetError, RunError
from doubleunet_bs.evaluation.paper_tables import Provenance, provenance
from doubleunet_bs.evaluation.report import write_report
from doubleunet_bs.evaluation.scorer import NOT_ASKED, EvaluationSettings, Scorer, grey_histograms, unseen_normals
from doubleunet_bs.evaluation.scores.fold_scores import SCORES, FoldScores, precision_entry, read_scores, write_scores
from doubleunet_bs.evaluation.stored_predictions import PREDICTIONS, StoredPredictions
from doubleunet_bs.evaluation.summary import Summary
from doubleunet_bs.evaluation.write_summary import write_summary
from doubleunet_bs.inference.model_folder import open_fold
from doubleunet_bs.preparation.records import scans_are
from doubleunet_bs.preparation.shards import ShardedDataset
from doubleunet_bs.runs.run_folder import Run, open_run
from doubleunet_bs.tensorflow_setup import import_tensorflow

if TYPE_CHECKING:
    from doubleunet_bs.inference.keras_model import Segment


AGREEMENT_FILES = ("bsi_agreement.json", "bsi_agreement.csv", "bsi_agreement.png", "bsi_scans.csv")
"""Of the Bone Scan Index, in a run: `bsi_agreement.write_agreement` and a picture."""


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
        raise RunError(f"{run.path}: no fold is trained yet: run the train command first")
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
        evaluate_fold(run, dataset, folds, number, settings)
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


def check_lesions(run: Run) -> None:
    """Raises `RunError` for a run of the skeleton experiment, whose figures are others."""
    if run.experiment.is_skeleton:
        raise RunError(
            f"{run.path}: a run of the skeleton experiment: evaluate it alone, without --ensemble and --predictions"
        )


def _open_model(path: Path, threads: int | None) -> "Segment":
    import_tensorflow(threads)
    # Imported here: kept predictions and wrong commands are answered without TensorFlow.
    from doubleunet_bs.inference.keras_model import Segmenter

    return Segmenter.from_keras(path)


def evaluate_fold(
    run: Run, dataset: ShardedDataset, folds: Folds, fold: int, settings: EvaluationSettings
) -> FoldScores:
    """Score a fold as `score_fold` does and write its `scores.json`."""
    scores = score_fold(run, dataset, folds, fold, settings)
    write_scores(run.fold_path(fold) / SCORES, scores)
    return scores


def score_fold(run: Run, dataset: ShardedDataset, folds: Folds, fold: int, settings: EvaluationSettings) -> FoldScores:
    """Predict with `model.keras` of a fold what is not predicted yet, into `predictions/`, and score it.

    Predicted are the test scans, the validation scans (for the minimum lesion size) and normal scans that the fold has
    not been trained on.

    Raises:
        RunError: the fold is not trained, or was trained on another split of the scans.
        SettingsError: fold out of range.
    """
    split = folds.split(fold)
    trained = open_fold(run, fold)
    if trained.folds_sha256 not in (None, folds.sha256()):
        raise RunError(
            f"{run.path / 'folds.json'}: not the split that fold {fold} was trained with: restore the file or train "
            "the fold again"
        )
    normals, reason = unseen_normals(run.experiment, folds, fold) if settings.normals else ((), NOT_ASKED)
    stored = StoredPredictions(
        trained.path / PREDICTIONS, (trained.weights_sha256,), dataset.fingerprint, run.experiment.has_benign
    )
    scorer = Scorer(dataset, stored, settings)
    scorer.predict(
        (*split.test, *split.validation, *normals),
        lambda: _open_model(trained.model_path, settings.threads),
        f"fold {fold}: unseen scans",
    )
    scans = scorer.score(split.test)
    scores = FoldScores(
        fold=fold,
        scans=scans,
        threshold=scorer.threshold(grey_histograms(dataset, scorer.numbers(split.validation)), split.test),
        about={
            **about_scores(
                run,
                dataset,
                [trained.precision],
                model={
                    "weights_sha256": trained.weights_sha256,
                    "best_epoch": trained.best_epoch,
                    "validation_f1": trained.validation_f1,
                },
            ),
            "folds_sha256": folds.sha256(),
            "validation_scans": list(split.validation),
        },
        unit=scorer.unit.name,
        overlap=settings.overlap,
        normals=scorer.score(normals),
        normals_reason=reason,
        postprocessed=scorer.postprocess(split.validation, split.test, scans),
    )
    if settings.pictures:
        scorer.draw(split.test)
    return scores


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
    if scores.overlap != settings.overlap:
        raise RunError(
            f"{path}: scored with a lesion overlap of {scores.overlap:g}, not {settings.overlap:g}: "
            "evaluate all folds again"
        )
    if (scores.normals_reason != NOT_ASKED) != settings.normals:
        raise RunError(
            f"{path}: scored {'without' if settings.normals else 'with'} normal scans, unlike now: "
            "evaluate all folds again"
        )
    return scores
