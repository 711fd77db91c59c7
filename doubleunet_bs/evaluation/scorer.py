"""Cases of opened shards -> kept predictions -> scores and pictures, for a fold and for an ensemble alike."""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from doubleunet_bs.constants import METASTATIC
from doubleunet_bs.dataset.folds import Folds
from doubleunet_bs.errors import SettingsError
from doubleunet_bs.evaluation.figures import draw_case
from doubleunet_bs.evaluation.scores.fold_scores import Postprocessed, ThresholdScore
from doubleunet_bs.evaluation.scores.lesions import AreaUnit, area_unit
from doubleunet_bs.evaluation.scores.scan_scores import (
    LEVELS,
    ScanScore,
    best_threshold,
    drop_small_lesions,
    learn_minimum_size,
    score_benign,
    score_scan,
)
from doubleunet_bs.evaluation.stored_predictions import StoredPredictions, complete, read_benign, read_prediction
from doubleunet_bs.pixel_counts import PixelCounts, count_pixels
from doubleunet_bs.preparation.shards import ShardedDataset
from doubleunet_bs.runs.experiments import Experiment

if TYPE_CHECKING:
    from doubleunet_bs.inference.keras_model import Segment


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
        if self.batch_size < 1:
            raise SettingsError(f"batch size {self.batch_size}: at least 1")
        if not 0 <= self.overlap < 1:
            raise SettingsError(f"lesion overlap {self.overlap}: at least 0 (one common pixel) and below 1")


class Scorer:
    """Scores cases of opened shards from the predictions that are kept in `stored`."""

    def __init__(self, dataset: ShardedDataset, stored: StoredPredictions, settings: EvaluationSettings):
        self.dataset = dataset
        self.stored = stored
        self.settings = settings
        self.unit: AreaUnit = area_unit(dataset.cases, dataset.settings.bin)
        self._numbers = {case.case: index for index, case in enumerate(dataset.cases)}

    def predict(self, cases: Sequence[str], load: "Callable[[], Segment]", description: str) -> None:
        """Predict what is not kept yet. `load` opens the model; it is called only when something is missing."""

        def predictions(missing: list[str]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
            segment = load()
            # Imported here: kept predictions are scored without TensorFlow.
            from doubleunet_bs.inference.keras_model import predict_cases

            found = predict_cases(segment, self.dataset, self.numbers(missing), self.settings.batch_size)
            bar = tqdm(
                found,
                total=len(missing),
                desc=description,
                unit="scan",
                disable=None if self.settings.show_progress else True,
                dynamic_ncols=True,
                file=sys.stderr,
            )
            for prediction in bar:
                yield self.dataset.cases[prediction.index].case, prediction.mask, prediction.probability

        complete(self.stored, cases, predictions, self.settings.recompute)

    def numbers(self, cases: Sequence[str]) -> list[int]:
        """Their indices in the dataset."""
        return [self._numbers[case] for case in cases]

    def score(self, cases: Sequence[str], smallest: float | None = None) -> tuple[ScanScore, ...]:
        """Score kept predictions, without lesions under the area `smallest` when one is given."""
        return tuple(self._score_case(case, smallest) for case in cases)

    def postprocess(self, validation: Sequence[str], test: Sequence[str], raw: tuple[ScanScore, ...]) -> Postprocessed:
        """Learn the minimum lesion size on the validation scans and score the test scans with it; `raw` has none."""
        learnt = learn_minimum_size(self.score(validation), self.unit.name)
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

    def draw(self, cases: Sequence[str]) -> None:
        """Draw the overlays of `cases` that are not there; a new prediction removes the old one. Remove all others."""
        folder = self.stored.folder
        for case, index in zip(cases, self.numbers(cases), strict=True):
            path = folder / f"{case}.png"
            if not path.is_file():
                mask, _ = read_prediction(self.stored.folder, case, self.dataset.image_shape)
                benign = read_benign(folder, case, self.dataset.image_shape) if self.stored.benign else None
                draw_case(
                    path,
                    case,
                    self.dataset.grey(index),
                    np.asarray(self.dataset.labels(index)),
                    mask,
                    self.dataset.cases[index].phantom,
                    self.dataset.cases[index].warnings,
                    benign,
                )
        # Pictures of scans that are no longer in the test set would look like part of the result.
        for path in folder.glob("case-*.png"):
            if path.stem not in cases:
                path.unlink()

    def _score_case(self, case: str, smallest: float | None) -> ScanScore:
        index = self._numbers[case]
        record = self.dataset.cases[index]
        mask, probability = read_prediction(self.stored.folder, case, self.dataset.image_shape)
        pixel_area = self.unit.of_a_pixel(record)
        if smallest is not None:
            mask = drop_small_lesions(mask, pixel_area, smallest)
        labels = np.asarray(self.dataset.labels(index))
        scan = score_scan(record, labels, mask, probability, pixel_area, self.settings.overlap)
        peaks = {view: peak for view, peak in (scan.peaks or {}).items() if view not in record.missing_views}
        benign = None
        if self.stored.benign:
            found = read_benign(self.stored.folder, case, self.dataset.image_shape)
            benign = score_benign(record, labels, found, pixel_area, self.settings.overlap)
        return dataclasses.replace(scan, peaks=peaks, benign=benign)
