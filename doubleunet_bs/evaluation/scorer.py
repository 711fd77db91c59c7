"""Cases of opened shards -> predictions -> scores and pictures, for a fold, an ensemble and another program alike."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from tqdm import tqdm

from doubleunet_bs.constants import METASTATIC
from doubleunet_bs.dataset.folds import Folds
from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.evaluation.scan_figures import draw_case
from doubleunet_bs.evaluation.scores.fold_scores import FoldScores, Postprocessed, ThresholdScore
from doubleunet_bs.evaluation.scores.lesions import area_unit, pixel_area
from doubleunet_bs.evaluation.scores.scan_scores import (
    LEVELS,
    ScanScore,
    best_threshold,
    drop_small_lesions,
    learn_minimum_size,
    score_benign,
    score_scan,
)
from doubleunet_bs.evaluation.stored_predictions import StoredPredictions
from doubleunet_bs.pixel_counts import PixelCounts, count_pixels
from doubleunet_bs.preparation.shards import ShardedDataset
from doubleunet_bs.runs.experiments import Experiment
from doubleunet_bs.tensorflow_setup import import_tensorflow

if TYPE_CHECKING:
    from doubleunet_bs.inference.keras_model import CasePrediction, Segment

NOT_ASKED = "normal scans were not scored, as asked"
"""The reason in scores without normal scans. It distinguishes them from scores that had none to score."""


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """How a model is evaluated. Nothing here changes the pixel-wise figures of the paper.

    Attributes:
        batch_size: images predicted at once, at least 1.
        overlap: least overlap of matching lesions, see `scores.lesions`.
        normals: also score the normal scans that the model has not been trained on.
        pictures: draw an overlay of each test scan.
        recompute: ignore kept predictions.
        show_progress: a progress bar on standard error.
        figures: kind of the files of the report's figures, "pdf", "svg" or "png"; None for none.
        threads: of TensorFlow; None: all cores.

    Raises:
        SettingsError: a value out of range.
    """

    batch_size: int = 4
    overlap: float = 0.0
    normals: bool = True
    pictures: bool = True
    recompute: bool = False
    show_progress: bool = True
    figures: str | None = None
    threads: int | None = None

    def __post_init__(self):
        for name, value in (("batch size", self.batch_size), ("threads", self.threads)):
            if value is not None and value < 1:
                raise SettingsError(f"{name} {value}: at least 1")
        if not 0 <= self.overlap < 1:
            raise SettingsError(f"lesion overlap {self.overlap}: at least 0 (one common pixel) and below 1")


def open_model(paths: Sequence[Path], threads: int | None = None) -> "Segment":
    """The segmentation of a `.keras` file; of several the mean of their class probabilities.

    Raises:
        RunError: a file is missing, damaged or another network, or they take images of different sizes.
    """
    import_tensorflow(threads)
    # Imported here: kept predictions and wrong commands are answered without TensorFlow.
    from doubleunet_bs.inference.keras_model import Segmenter, load_keras_model, mean_of

    models = [load_keras_model(path) for path in paths]
    if len({model.input_shape for model in models}) > 1:
        raise RunError(f"{paths[0]} and others: the folds take images of different sizes")
    return Segmenter(mean_of(models) if len(models) > 1 else models[0], models[0].input_shape[1:3])


def predict_scans(
    segment: "Segment", dataset: ShardedDataset, numbers: Sequence[int], settings: EvaluationSettings, what: str
) -> "Iterator[CasePrediction]":
    """Predict scans of the dataset, by their indices, behind a progress bar that says `what`."""
    # Imported here: kept predictions are scored without TensorFlow.
    from doubleunet_bs.inference.keras_model import predict_cases

    found = predict_cases(segment, dataset, numbers, settings.batch_size)
    shown = None if settings.show_progress else True
    yield from tqdm(found, what, len(numbers), unit="scan", disable=shown, dynamic_ncols=True, file=sys.stderr)


def grey_histograms(dataset: ShardedDataset, cases: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """How often each grey level occurs in metastatic pixels and in others of some cases: two int64 arrays (256,)."""
    lesion, other = np.zeros(LEVELS, np.int64), np.zeros(LEVELS, np.int64)
    for index in cases:
        grey, metastatic = dataset.grey(index), dataset.labels(index) == METASTATIC
        lesion += np.bincount(grey[metastatic], minlength=LEVELS)
        other += np.bincount(grey[~metastatic], minlength=LEVELS)
    return lesion, other


def unseen_normals(experiment: Experiment, folds: Folds, fold: int) -> tuple[tuple[str, ...], str | None]:
    """The normal scans that a fold can be tested on, in the order of the folds file; why there are none, or None."""
    if not folds.negatives:
        return (), "the shards hold no normal scan"
    split = folds.split(fold)
    if folds.is_published:
        tested = folds.negative_parts[0]
        return tested, None if tested else "the test part of the published split holds no normal scan"
    seen = {folds.patients[case] for case in (*split.train, *split.validation)}
    trained = set(split.negatives) if experiment.negatives != "none" else set()
    unseen = tuple(case for case in folds.negatives if case not in trained and folds.patients[case] not in seen)
    if unseen:
        return unseen, None
    if trained:
        return (), "the normal scans are training data in every fold of this experiment, as in the paper"
    return (), "every normal scan belongs to a patient whose other scans were trained or validated on"


class Predictions(Protocol):
    """Where the predictions of cases are read from."""

    def read(self, case: str, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Metastatic mask, its probability if known, benign mask if there is such a class; see `StoredPredictions`."""


class Scorer:
    """Scores cases of opened shards from their predictions."""

    def __init__(self, dataset: ShardedDataset, predictions: Predictions, settings: EvaluationSettings):
        self.dataset = dataset
        self.predictions = predictions
        self.settings = settings
        self.unit = area_unit(dataset.cases)
        self._numbers = {case.case: index for index, case in enumerate(dataset.cases)}

    def predict(self, stored: StoredPredictions, cases: Sequence[str], models: Sequence[Path], what: str) -> None:
        """Predict with the mean of `models` what is not kept yet; they are opened only when something is missing."""
        if self.settings.recompute:
            stored.clear()
        if missing := stored.missing(cases):
            segment = open_model(models, self.settings.threads)
            found = predict_scans(segment, self.dataset, self.numbers(missing), self.settings, what)
            stored.keep((self.dataset.cases[one.index].case, one.mask, one.probability) for one in found)

    def numbers(self, cases: Sequence[str]) -> list[int]:
        """Their indices in the dataset."""
        return [self._numbers[case] for case in cases]

    def fold_scores(
        self,
        fold: int,
        test: Sequence[str],
        histograms: tuple[np.ndarray, np.ndarray],
        about: dict[str, Any],
        normals: tuple[Sequence[str], str | None] = ((), NOT_ASKED),
        **others: Any,
    ) -> FoldScores:
        """The scores of a fold on its test scans.

        Args:
            histograms: `grey_histograms` of the scans that the intensity threshold is chosen on.
            normals: normal scans, and why there are none. fold, about, others: see `FoldScores`.
        """
        return FoldScores(
            fold,
            self.score(test),
            self.threshold(histograms, test),
            about,
            self.unit,
            self.settings.overlap,
            self.score(normals[0]),
            normals[1],
            **others,
        )

    def score(self, cases: Sequence[str], smallest: float | None = None) -> tuple[ScanScore, ...]:
        """Score predictions, without lesions under the area `smallest` when one is given."""
        return tuple(self._score_case(case, smallest) for case in cases)

    def postprocess(self, validation: Sequence[str], test: Sequence[str], raw: tuple[ScanScore, ...]) -> Postprocessed:
        """Learn the minimum lesion size on the validation scans and score the test scans with it; `raw` has none."""
        learnt = learn_minimum_size(self.score(validation), self.unit)
        scans = raw if learnt.smallest is None else self.score(test, learnt.smallest)
        # What follows from probabilities is that of the raw scans.
        return Postprocessed(learnt, tuple(dataclasses.replace(scan, candidates=None, peaks=None) for scan in scans))

    def threshold(self, histograms: tuple[np.ndarray, np.ndarray], test: Sequence[str]) -> ThresholdScore:
        """The best single intensity threshold of `grey_histograms`, scored on the scans `test`."""
        value, chosen = best_threshold(*histograms)
        if value is None:
            return ThresholdScore(None, None, chosen.f1)
        images = ((self.dataset.labels(index), self.dataset.grey(index)) for index in self.numbers(test))
        counts = sum((count_pixels(labels, grey >= value) for labels, grey in images), PixelCounts())
        return ThresholdScore(value, counts, chosen.f1)

    def draw(self, folder: Path, cases: Sequence[str]) -> None:
        """Draw the overlays of `cases` that are not there; a new prediction removes the old one. Remove all others."""
        for case, index in zip(cases, self.numbers(cases), strict=True):
            path = folder / f"{case}.png"
            if not path.is_file():
                mask, _, benign = self.predictions.read(case, self.dataset.image_shape)
                record, labels = self.dataset.cases[index], np.asarray(self.dataset.labels(index))
                draw_case(path, record, self.dataset.grey(index), labels, mask, benign)
        # Pictures of scans that are no longer in the test set would look like part of the result.
        for path in folder.glob("case-*.png"):
            if path.stem not in cases:
                path.unlink()

    def _score_case(self, case: str, smallest: float | None) -> ScanScore:
        index = self._numbers[case]
        record, labels = self.dataset.cases[index], np.asarray(self.dataset.labels(index))
        mask, probability, benign = self.predictions.read(case, self.dataset.image_shape)
        area, overlap = pixel_area(record, self.unit, self.dataset.settings.bin), self.settings.overlap
        if smallest is not None:
            mask = drop_small_lesions(mask, area, smallest)
        scan = score_scan(record, labels, mask, probability, area, overlap)
        if scan.peaks is not None:
            peaks = {view: peak for view, peak in scan.peaks.items() if view not in record.missing_views}
            scan = dataclasses.replace(scan, peaks=peaks)
        if benign is None:
            return scan
        return dataclasses.replace(scan, benign=score_benign(record, labels, benign, area, overlap))
