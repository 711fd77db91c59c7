"""Score masks that another program, such as nnU-Net, predicted for the folds of a run: same scans, same figures."""

import dataclasses
import os
from pathlib import Path

import numpy as np
from PIL import Image

from doubleunet_bs import __version__
from doubleunet_bs.constants import BENIGN, METASTATIC
from doubleunet_bs.errors import RunError
from doubleunet_bs.evaluation.evaluate import check_lesions, open_run_data, read_folds
from doubleunet_bs.evaluation.paper_tables import Provenance
from doubleunet_bs.evaluation.scorer import NOT_ASKED, EvaluationSettings, Scorer, grey_histograms
from doubleunet_bs.evaluation.scores.fold_scores import SCORES, FoldScores, write_scores
from doubleunet_bs.evaluation.scores.scan_scores import score_benign, score_scan
from doubleunet_bs.evaluation.stored_predictions import PREDICTIONS, StoredPredictions
from doubleunet_bs.evaluation.summary import Summary
from doubleunet_bs.evaluation.write_summary import write_summary
from doubleunet_bs.files import file_inside
from doubleunet_bs.preparation.records import scans_are
from doubleunet_bs.runs.run_folder import open_run


def evaluate_predictions(
    path: str | os.PathLike,
    predictions: str | os.PathLike,
    data: str | os.PathLike | None = None,
    settings: EvaluationSettings | None = None,
) -> Summary:
    """Score PREDICTIONS/fold_01/CASE.png and so on: class masks of the test scans of each fold.

    Writes `scores.json` into each of these folders and `summary.json`, `summary.csv` and `table.tex` into PREDICTIONS.
    A mask says nothing of probabilities: figures that need them are left out, as are normal scans.

    Args:
        path: the run, trained or not: its folds and its shards.
        predictions: folder, whose name is that of the method in the tables. Its PNG files have the size of the prepared
            image and the values 0 air, 1 non-metastatic, 2 metastatic, 3 benign where the shards have it.
        data: the shards, where they are no longer where they were during training.
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
    numbers = [fold for fold in range(1, len(folds) + 1) if (folder / f"fold_{fold:02d}").is_dir()]
    if not numbers:
        raise RunError(f"{folder}: no folder fold_01 ... fold_{len(folds):02d} with predicted masks")
    scored, has_benign = [], dataset.settings.benign == "own"
    # All masks are read before anything is written.
    for fold in numbers:
        split, where = folds.split(fold), folder / f"fold_{fold:02d}"
        scorer = Scorer(dataset, StoredPredictions(where / PREDICTIONS, (), dataset.fingerprint), settings)
        scans = []
        for case, index in zip(split.test, scorer.numbers(split.test), strict=True):
            record = dataset.cases[index]
            found = read_mask(where, case, dataset.image_shape, BENIGN if has_benign else METASTATIC)
            area = scorer.unit.of_a_pixel(record)
            labels = np.asarray(dataset.labels(index))
            scan = score_scan(record, labels, found == METASTATIC, None, area, settings.overlap)
            if has_benign:
                benign = score_benign(record, labels, found == BENIGN, area, settings.overlap)
                scan = dataclasses.replace(scan, benign=benign)
            scans.append(scan)
        about = {
            "version": __version__,
            "experiment": folder.resolve().name,
            "scans_are": scans_are(dataset.cases),
            "data_fingerprint": dataset.fingerprint,
            "folds_sha256": folds.sha256(),
        }
        histograms = grey_histograms(dataset, scorer.numbers(split.validation))
        threshold = scorer.threshold(histograms, split.test)
        scored.append(
            FoldScores(
                fold, tuple(scans), threshold, about, scorer.unit.name, settings.overlap, normals_reason=NOT_ASKED
            )
        )
    summary = Summary(
        experiment=folder.resolve().name,
        changed_settings={},
        total_folds=len(folds),
        folds=tuple(scored),
        method=folder.resolve().name,
        provenance=Provenance(
            scans_are(dataset.cases),
            dataset.settings.changes(),
            sources=tuple(source.text for source in dataset.sources),
        ),
    )
    for scores in scored:
        write_scores(folder / f"fold_{scores.fold:02d}" / SCORES, scores)
    write_summary(folder, summary)
    return summary


def read_mask(folder: Path, case: str, shape: tuple[int, int], largest: int = METASTATIC) -> np.ndarray:
    """The class mask of a case, uint8 of `shape`.

    Raises:
        RunError: missing, not a PNG of one channel, of another size, or with values above `largest`.
    """
    path = file_inside(folder, f"{case}.png", RunError)
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            if picture.size != (shape[1], shape[0]):
                found = f"{picture.size[1]} x {picture.size[0]}"
                raise RunError(f"{path}: a mask of {found} pixels; the prepared image has {shape[0]} x {shape[1]}")
            mask = np.asarray(picture)
    except FileNotFoundError:
        raise RunError(f"{path}: missing: predict all test scans of the fold") from None
    except (OSError, SyntaxError, ValueError) as cause:
        raise RunError(f"{path}: not a readable PNG ({cause})") from None
    if mask.ndim != 2 or mask.max(initial=0) > largest:
        values = f"{', '.join(map(str, range(largest)))} and {largest}"
        raise RunError(f"{path}: not a class mask: values must be {values}, one channel")
    return mask.astype(np.uint8)
