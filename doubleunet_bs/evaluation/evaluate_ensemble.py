"""All trained folds together, on scans from outside of the cross-validation. The paper has no ensemble.

The class probabilities of output 2 are averaged over the folds. The segmentation is the likeliest class of the average.
Within the cross-validation there is no such figure, since most of the folds were trained on every scan. So shards that
share a case, a patient or the counts of a scan with the run's own are refused.

The intensity threshold beside it is chosen on all positive scans of the run. There is no minimum lesion size: every
scan of the run was seen by some fold, so none is left to learn it on.
"""

import dataclasses
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from doubleunet_bs.dataset.joined_shards import (
    Paths,
    as_paths,
    check_no_common_scan,
    check_prepared_alike,
    join_shards,
    open_all_shards,
    parts_of,
)
from doubleunet_bs.errors import DatasetError, RunError
from doubleunet_bs.evaluation.evaluate import about_scores, check_lesions, read_folds
from doubleunet_bs.evaluation.paper_tables import provenance
from doubleunet_bs.evaluation.report import write_report
from doubleunet_bs.evaluation.scorer import NOT_ASKED, EvaluationSettings, Scorer, grey_histograms
from doubleunet_bs.evaluation.scores.fold_scores import SCORES, FoldScores, write_scores
from doubleunet_bs.evaluation.stored_predictions import PREDICTIONS, StoredPredictions
from doubleunet_bs.evaluation.summary import Summary
from doubleunet_bs.evaluation.write_summary import write_summary
from doubleunet_bs.files import read_json
from doubleunet_bs.inference.model_folder import TrainedFold, open_fold
from doubleunet_bs.preparation.records import UNOUTLINED
from doubleunet_bs.preparation.shards import ShardedDataset, open_shards, patients_comparable
from doubleunet_bs.runs.cohorts import recorded_shards
from doubleunet_bs.runs.run_folder import Run, no_trained_fold, open_run

ENSEMBLE = "ensemble"


def evaluate_ensemble(
    path: str | os.PathLike,
    data: Paths,
    settings: EvaluationSettings | None = None,
    trained_on: Sequence[str | os.PathLike] = (),
    report: bool = True,
) -> tuple[Summary, Path]:
    """Score all trained folds of a run, averaged, on other shards.

    Args:
        path: the run folder.
        data: shards of scans that no fold has seen, one folder or several.
        settings: of the evaluation.
        trained_on: the shards of the training (and pre-training) when they have moved: no scan may be among them.
        report: write `report.html`.

    Returns:
        The scores, as a summary of one row, and the folder they are in: `RUN/ensemble/NAME`, named after the shards;
        `NAME-FINGERPRINT` where other shards of that name have been scored.

    Raises:
        RunError: no fold is trained.
        DatasetError: shards are missing, damaged or not prepared as the run's; one of the scans or patients was seen.
    """
    settings = settings or EvaluationSettings()
    run = open_run(path)
    check_lesions(run)
    trained = [open_fold(run, fold) for fold in run.trained_folds()]
    if not trained:
        raise no_trained_fold(run)
    others = open_all_shards(as_paths(data), verify=True, other_patients=True)
    seen = open_seen(run, trained_on)
    own = seen["training"]
    check_prepared_alike(own[0], others)
    for shards in itertools.chain(*seen.values()):
        check_no_common_scan(shards, others)
        check_no_common_scan(shards, others, patients=True)
    folder = _folder(run, others)
    scores = _score(run, trained, join_shards(own), others, folder, settings)
    write_scores(folder / SCORES, scores)
    of = provenance(run.experiment, others.cases, others.settings, others.sources)
    # The first is named: a second would not change what the figures are worth.
    elsewhere = next(
        (stage for stage, own in seen.items() if any(patients_comparable(one, others) is False for one in own)), None
    )
    summary = Summary(
        experiment=run.experiment.name,
        changed_settings=run.public_changes(),
        total_folds=1,
        folds=(scores,),
        provenance=dataclasses.replace(of, row=None, published=None, trained_elsewhere=elsewhere),
    )
    write_summary(folder, summary)
    if report:
        write_report(run, others, summary, folder, settings.figures)
    return summary, folder


def _score(
    run: Run,
    trained: Sequence[TrainedFold],
    own: ShardedDataset,
    others: ShardedDataset,
    folder: Path,
    settings: EvaluationSettings,
) -> FoldScores:
    """Predict the scans of `others` with the average of the folds, score them and draw them."""
    weights, benign = tuple(fold.weights_sha256 for fold in trained), run.experiment.has_benign
    stored = StoredPredictions(folder / PREDICTIONS, weights, others.fingerprint, benign)
    scorer = Scorer(others, stored, settings)
    test, normals, unoutlined = (
        [case.case for case in others.cases if case.group == group] for group in ("positive", "negative", UNOUTLINED)
    )
    if not test and not unoutlined:
        raise DatasetError(f"{others.path}: no scan with metastases is in it: add some to test on")
    reason = None if normals else "the shards hold no normal scan"
    if not settings.normals:
        normals, reason = [], NOT_ASKED
    models = [fold.model_path for fold in trained]
    scorer.predict(stored, (*test, *normals, *unoutlined), models, "ensemble: unseen scans")
    members = [{"fold": fold.fold, "weights_sha256": fold.weights_sha256} for fold in trained]
    about = about_scores(run, others, [fold.precision for fold in trained], ensemble=members)
    positives = {case for part in read_folds(run, own).parts for case in part}
    histograms = grey_histograms(own, [index for index, case in enumerate(own.cases) if case.case in positives])
    unoutlined_scores = scorer.score(unoutlined)
    if settings.pictures:
        scorer.draw(stored.folder, test)
    return scorer.fold_scores(0, test, histograms, about, (normals, reason), unoutlined=unoutlined_scores)


def open_seen(run: Run, trained_on: Sequence[str | os.PathLike] = ()) -> dict[str, list[ShardedDataset]]:
    """The shards that a run was trained on, by stage: "training", "pre-training", and what it started from.

    Args:
        run: the opened run.
        trained_on: folders to use instead of those that the run has recorded, recognised by their fingerprint.

    Raises:
        DatasetError: shards are missing or damaged.
        RunError: they are others.
    """
    given = {dataset.fingerprint: dataset for dataset in map(open_shards, trained_on)}
    seen: dict[str, list[ShardedDataset]] = {}
    for stage, part in recorded_shards(run):
        dataset = given.get(part["fingerprint"])
        if dataset is None and not Path(part["path"]).is_dir():
            raise DatasetError(
                f"{part['path']}: the shards that {run.path} was trained on are gone: name them with --trained-on"
            )
        dataset = dataset or open_shards(part["path"])
        if dataset.fingerprint != part["fingerprint"]:
            raise RunError(
                f"{part['path']}: not the shards that {run.path} was trained on: name them with --trained-on"
            )
        seen.setdefault(stage, []).append(dataset)
    used = {dataset.fingerprint for datasets in seen.values() for dataset in datasets}
    for fingerprint, stranger in given.items():
        if fingerprint not in used:
            raise RunError(f"{stranger.path}: given with --trained-on, but {run.path} was not trained on it")
    return seen


def _folder(run: Run, others: ShardedDataset) -> Path:
    """Where the scores on these shards go. Other shards of the same name get a folder of their own."""
    folder = run.path / ENSEMBLE / "+".join(part.path.resolve().name for part in parts_of(others))
    try:
        there = read_json(folder / SCORES, RunError, "score file")
    except RunError:
        return folder
    of = there.get("data_fingerprint") if isinstance(there, dict) else None
    if of in (None, others.fingerprint):
        return folder
    return folder.with_name(f"{folder.name}-{others.fingerprint[:8]}")
