"""How sure a model is of a scan: what `rank` orders by.

Entropy of a pixel: that of its probability of metastatic, in bits. Of a scan: the mean over the prepared image.
Disagreement of several folds: entropy of their mean probability less the mean of their entropies (mutual information;
Houlsby et al., arXiv:1112.5745).
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from doubleunet_bs.constants import VIEWS
from doubleunet_bs.errors import RunError, counted
from doubleunet_bs.inference.engines import Engine, find_fault
from doubleunet_bs.inference.model_folder import find_model
from doubleunet_bs.inference.predictor import open_engine
from doubleunet_bs.preparation.shards import DATASET, open_shards
from doubleunet_bs.runs.cohorts import recorded_shards
from doubleunet_bs.runs.run_folder import EXPERIMENT, open_run


def entropy(probability: np.ndarray) -> np.ndarray:
    """Entropy of two classes in bits: 0 where `probability` is 0 or 1, 1 where it is 0.5. Same shape, float64.

    Example:
        >>> entropy(np.array([0, 0.5, 1])).tolist()
        [0.0, 1.0, 0.0]
    """
    first = np.clip(np.asarray(probability, np.float64), 0, 1)
    both = np.stack([first, 1 - first])
    return np.abs((both * np.log2(both, out=np.zeros_like(both), where=both > 0)).sum(axis=0))


@dataclasses.dataclass(frozen=True)
class Uncertainty:
    """How sure some folds are of a scan.

    Attributes:
        entropy: of their mean probability, mean over the pixels of the views that are there, in bits.
        disagreement: mutual information, the same mean; None with one fold.
        mask: (rows, columns) uint8: 1 where more than half of the folds call the pixel metastatic, else 0. 2 where more
            than half call it benign, of models with that class.
    """

    entropy: float
    disagreement: float | None
    mask: np.ndarray

    @classmethod
    def of(cls, probabilities: np.ndarray, masks: np.ndarray, missing_views: Sequence[str] = ()) -> "Uncertainty":
        """From what the folds say: (folds, rows, columns) float32 between 0 and 1, and masks, uint8."""
        there = np.ones(probabilities.shape[1:], bool)
        for view, half in zip(VIEWS, np.hsplit(there, 2), strict=True):
            # The half of a missing view is empty: what the network finds there means nothing.
            half[:] = view not in missing_views
        total = float(entropy(probabilities.mean(axis=0, dtype=np.float64))[there].mean())
        single = float(np.mean([entropy(one)[there].mean() for one in probabilities]))
        # Rounding may leave the difference a little below zero.
        disagreement = max(total - single, 0.0) if len(masks) > 1 else None
        mask = sum(number * (2 * (masks == number).sum(axis=0) > len(masks)) for number in (1, 2)) * there
        return cls(total, disagreement, np.asarray(mask, np.uint8))


class Committee:
    """A fold, all trained folds of a run, or an exported model, ready to judge prepared images.

    Args:
        path: RUN, RUN/fold_01, or an exported model or ensemble.

    Attributes:
        description: of its first fold: how scans are prepared, for instance.
        seen: hashes of the counts of all scans in the run's shards, of those that are still where they were.
        gone: the other shards, each once.
        warnings: of folds that found nothing, or as good as nothing, on their own validation scans.

    Raises:
        RunError: no model, or one of the skeleton.
    """

    def __init__(self, path: Path):
        self.path = path
        run = open_run(path) if (path / EXPERIMENT).is_file() else None
        paths = [path] if run is None else [run.fold_path(fold) for fold in run.trained_folds()]
        if not paths:
            raise RunError(f"{path}: no fold is trained yet: train one, or name another --model")
        models = [find_model(one) for one in paths]
        self.description = models[0].description
        if self.description.is_skeleton:
            raise RunError(f"{path}: a model of the skeleton: give one of lesions")
        self.seen: set[str] = set()
        self.gone: list[str] = []
        if models[0].trained is not None:
            for _, part in recorded_shards(models[0].trained.run):
                if (Path(part["path"]) / DATASET).is_file():
                    self.seen |= {case.pixel_sha256 for case in open_shards(part["path"]).cases}
                elif part["path"] not in self.gone:
                    self.gone.append(part["path"])
        found = [model.description.quality_warning for model in models]
        self.warnings = [warning for warning in found if warning]
        self._what = self.description.name if run is None else f"{run.experiment.name}, {counted(len(models), 'fold')}"
        self._models = models

    def __len__(self) -> int:
        return len(self._models)

    @functools.cached_property
    def _engines(self) -> list[Engine]:
        # Opened when they are needed: TensorFlow takes seconds to import.
        return [open_engine(model) for model in self._models]

    @property
    def text(self) -> str:
        """Model and engine in one line. Opens the engines."""
        return f"{self._what}, {self._engines[0].name}"

    def judge(self, grey: np.ndarray, missing_views: Sequence[str] = ()) -> Uncertainty:
        """How sure the folds are of a prepared image, (rows, columns) uint8.

        Raises:
            RunError: a fold computes impossible values.
        """
        probabilities, masks = [], []
        for engine in self._engines:
            probability, mask = engine(grey[None])
            if fault := find_fault(probability, mask, (1, *grey.shape), self.description.largest_mask):
                raise RunError(f"{self.path}: the model computes impossible values, {fault}: do not use it")
            probabilities.append(probability[0])
            masks.append(mask[0])
        return Uncertainty.of(np.stack(probabilities), np.stack(masks), missing_views)
