"""All trained folds together, on scans from outside of the cross-validation (decided here; not in the paper).

The class probabilities of output 2 are averaged over the folds; the segmentation is the likeliest class of the average.
Within the cross-validation there is no such figure: every scan has trained most of the folds. So shards that share a
case, a patient or the counts of a scan with the run's own are refused.

The intensity threshold beside it is chosen on all positive scans of the run, which the ensemble has seen as well. There
is no smallest-lesion filter: no scan is left to learn it on that none of the folds has seen.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from doubleunet_bs import __version__
from doubleunet_bs.errors import DatasetError, RunError
from doubleunet_bs.evaluation.evaluate_run import read_folds
from doubleunet_bs.evaluation.fold_scores import SCORES, FoldScores, ThresholdScore, arithmetic_of, write_scores
from doubleunet_bs.evaluation.paper_tables import provenance
from doubleunet_bs.evaluation.scorer import NOT_ASKED, EvaluationSettings, Scorer, grey_histograms
from doubleunet_bs.evaluation.scores import best_threshold
from doubleunet_bs.evaluation.stored_predictions import PREDICTIONS, StoredPredictions
from doubleunet_bs.evaluation.summary import SUMMARY, Summary
from doubleunet_bs.evaluation.tables import write_tables
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.inference.keras_model import Segment, Segmenter, load_keras_model, mean_of
from doubleunet_bs.inference.trained_fold import open_fold
from doubleunet_bs.preparation.shards import ShardedDataset, open_shards, patients_comparable
from doubleunet_bs.training.run_folder import Run, open_run

ENSEMBLE = "ensemble"


def evaluate_ensemble(
    path: str | os.PathLike,
    data: str | os.PathLike,
    settings: EvaluationSettings | None = None,
    trained_on: Sequence[str | os.PathLike] = (),
    report: bool = True,
) -> tuple[Summary, Path]:
    """Score all trained folds of a run, averaged, on other shards.

    Args:
        path: the run folder.
        data: shards of scans that no fold has seen.
        settings: of the evaluation.
        trained_on: the shards that the run was trained on (and pre-trained, with transfer), when they have moved since:
            without them nobody could tell whether a scan was seen.
        report: write `report.html`.

    Returns:
        The scores, as a summary of one row, and the folder they are in: `RUN/ensemble/NAME`, named after the shards;
        `NAME-FINGERPRINT` where other shards of that name have been scored.

    Raises:
        RunError: no fold is trained; the scans are not prepared as the run's; one of them was seen.
        DatasetError: shards are missing or damaged.
    """
    settings = settings or EvaluationSettings()
    run = open_run(path)
    trained = [open_fold(run, fold) for fold in run.trained_folds()]
    if not trained:
        raise RunError(f"{run.path}: no fold is trained yet; run train.py first")
    seen = open_seen(run, trained_on)
    own = seen[0]
    folds = read_folds(run, own)
    others = open_shards(data, verify=True)
    check_prepared(own, others)
    for shards in seen:
        check_unseen(shards, others)
    folder = _folder(run, others)
    stored = StoredPredictions(folder / PREDICTIONS, tuple(fold.weights_sha256 for fold in trained), others.fingerprint)
    scorer = Scorer(others, stored, settings)
    test = [case.case for case in others.cases if case.group == "positive"]
    normals = [case.case for case in others.cases if case.group == "negative"] if settings.normals else []
    reason = None if normals else "the shards hold no normal scan" if settings.normals else NOT_ASKED
    if not test:
        raise DatasetError(f"{others.path}: no scan with metastases is in it; there is nothing to find")
    scorer.predict(
        (*test, *normals), lambda: ensemble_of([fold.model_path for fold in trained]), "ensemble: unseen scans"
    )
    positives = {case for part in folds.parts for case in part}
    chosen = [index for index, case in enumerate(own.cases) if case.case in positives]
    value, counts = best_threshold(*grey_histograms(own, chosen))
    rows, columns = others.image_shape
    scores = FoldScores(
        fold=0,
        scans=scorer.score(test),
        threshold=ThresholdScore(value, scorer.threshold_counts(value, test), counts.f1),
        about={
            "version": __version__,
            "experiment": run.experiment.name,
            "changed_settings": run.public_changes(),
            "scans_are": provenance(run.experiment, others.cases, others.settings).scans,
            "image": {"rows": rows, "columns": columns, "bin": others.settings.bin},
            "ensemble": [{"fold": fold.fold, "weights_sha256": fold.weights_sha256} for fold in trained],
            **arithmetic_of(fold.arithmetic for fold in trained),
            "data_fingerprint": others.fingerprint,
        },
        unit=scorer.unit.name,
        overlap=settings.overlap,
        normals=scorer.score(normals),
        normals_reason=reason,
    )
    if settings.pictures:
        scorer.draw(test)
    write_scores(folder / SCORES, scores)
    # In the order of `open_seen`; the first is said, since more would not change what the figures are worth.
    stages = zip(("training", "pre-training"), seen, strict=False)
    elsewhere = [stage for stage, shards in stages if patients_comparable(shards, others) is False]
    summary = _summary(run, others, scores, elsewhere[0] if elsewhere else None)
    write_json(folder / SUMMARY, summary.to_json())
    write_tables(folder, summary)
    if report:
        from doubleunet_bs.evaluation.report import write_report

        write_report(run, others, summary, folder)
    return summary, folder


def open_seen(run: Run, trained_on: Sequence[str | os.PathLike] = ()) -> list[ShardedDataset]:
    """The shards that a run was trained on; with transfer, those of its pre-training behind them.

    Args:
        run: the opened run.
        trained_on: folders to look in before those that the run has noted; recognised by their fingerprint.

    Raises:
        DatasetError: shards are missing or damaged.
        RunError: they are others.
    """
    given = {dataset.fingerprint: dataset for dataset in map(open_shards, trained_on)}
    seen = []
    for data in (run.data, run.pretrain_data):
        if data is None:
            continue
        dataset = given.pop(data["fingerprint"], None)
        if dataset is None and not Path(data["path"]).is_dir():
            raise DatasetError(
                f"{data['path']}: the shards that {run.path} was trained on are not there any more; "
                "name them with --trained-on"
            )
        dataset = dataset or open_shards(data["path"])
        if dataset.fingerprint != data["fingerprint"]:
            raise RunError(
                f"{data['path']}: not the shards that {run.path} was trained on; name them with --trained-on"
            )
        seen.append(dataset)
    if given:
        stranger = next(iter(given.values()))
        raise RunError(f"{stranger.path}: given with --trained-on, but {run.path} was not trained on it")
    return seen


def check_prepared(own: ShardedDataset, others: ShardedDataset) -> None:
    """Refuse shards that were prepared otherwise than the run's.

    Raises:
        RunError: naming each setting that differs.
    """
    ours, theirs = own.settings.to_json(), others.settings.to_json()
    different = [f"{name} {theirs[name]} instead of {ours[name]}" for name in ours if theirs[name] != ours[name]]
    if different:
        raise RunError(f"{others.path}: prepared otherwise than the run's scans ({'; '.join(different)})")


def check_unseen(seen: ShardedDataset, others: ShardedDataset) -> None:
    """Refuse shards with a scan or a patient of the shards `seen`.

    Pseudonyms of two shard folders differ when their keys do: scans are compared by their counts as well. A patient
    whose other scan was seen is found by his pseudonym only; where the keys differ, the tables say that he was not looked for.

    Raises:
        RunError: naming the first such scan.
    """
    for what, name in (("case", "case"), ("patient", "patient"), ("counts", "pixel_sha256")):
        known = {getattr(case, name) for case in seen.cases} - {""}
        found = [case.case for case in others.cases if getattr(case, name) in known]
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            raise RunError(
                f"{others.path}: {found[0]}{more} have the {what} of a scan in {seen.path}, which the folds were "
                "trained on; an ensemble is tested on other patients only"
            )


def ensemble_of(paths: Sequence[str | os.PathLike]) -> Segment:
    """A segmentation that averages the class probabilities of several `.keras` files.

    Raises:
        RunError: a file is missing, damaged or another network, or they take images of different sizes.
    """
    models = [load_keras_model(path) for path in paths]
    if len({model.input_shape for model in models}) > 1:
        raise RunError(f"{paths[0]} and others: the folds take images of different sizes")
    shape = models[0].input_shape[1:3]
    return Segmenter.from_function(mean_of(models), shape)


def _folder(run: Run, others: ShardedDataset) -> Path:
    """Where the scores on these shards go: folders of one name must not replace each other's."""
    folder = run.path / ENSEMBLE / others.path.resolve().name
    try:
        there = read_json(folder / SCORES, RunError, "score file")
    except RunError:
        return folder
    of = there.get("data_fingerprint") if isinstance(there, dict) else None
    if of in (None, others.fingerprint):
        return folder
    return folder.with_name(f"{folder.name}-{others.fingerprint[:8]}")


def _summary(run: Run, dataset: ShardedDataset, scores: FoldScores, elsewhere: str | None) -> Summary:
    of = provenance(run.experiment, dataset.cases, dataset.settings).without_paper()
    return Summary(
        experiment=run.experiment.name,
        changed_settings=run.public_changes(),
        total_folds=1,
        folds=(scores,),
        provenance=dataclasses.replace(of, trained_elsewhere=elsewhere),
    )
