"""Score a run of the skeleton experiment: Dice, precision and sensitivity of every region in every view.

Each fold gets `scores.json` and, in `predictions/`, the predicted index masks and a picture of every test scan. The run
gets `summary.json` and `report.html`.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from doubleunet_bs.bsi.regions import REGIONS
from doubleunet_bs.constants import VIEWS
from doubleunet_bs.dataset.joined_shards import Paths
from doubleunet_bs.dataset.skeleton import SkeletonDataset
from doubleunet_bs.display import (
    PHANTOM_NOTE,
    as_rgb,
    clinical_display,
    enlarged,
    hex_colour,
    paint,
    region_picture,
    save_png,
)
from doubleunet_bs.errors import RunError
from doubleunet_bs.evaluation.evaluate import about_scores, open_run_data, read_folds
from doubleunet_bs.evaluation.scan_figures import png_uri
from doubleunet_bs.evaluation.scorer import EvaluationSettings
from doubleunet_bs.evaluation.scores.fold_scores import SCORES
from doubleunet_bs.evaluation.stored_predictions import PREDICTIONS
from doubleunet_bs.evaluation.tables import percent
from doubleunet_bs.files import write_json, write_text
from doubleunet_bs.inference.model_folder import open_fold
from doubleunet_bs.pixel_counts import PixelCounts
from doubleunet_bs.preparation.records import PHANTOMS, scans_are
from doubleunet_bs.runs.run_folder import Run, open_run
from doubleunet_bs.templates import render_page
from doubleunet_bs.tensorflow_setup import import_tensorflow

if TYPE_CHECKING:
    from doubleunet_bs.inference.keras_model import CasePrediction

ALL_VIEWS = ("both", *VIEWS)
FORMAT = "skeleton scores 1"
PICTURES_IN_REPORT = 6


@dataclasses.dataclass(frozen=True)
class RegionScore:
    """One region over some scans.

    Attributes:
        name: of the region.
        views: "both", "anterior" and "posterior" -> pixels, pooled over the scans.
        dice_per_scan: Dice of both views together for each scan; None where the region is neither there nor predicted.
    """

    name: str
    views: dict[str, PixelCounts]
    dice_per_scan: tuple[float | None, ...]

    @property
    def mean_dice(self) -> float | None:
        """Mean of the scans' Dice; None without one."""
        values = [value for value in self.dice_per_scan if value is not None]
        return float(np.mean(values)) if values else None

    def to_json(self) -> dict[str, Any]:
        """Counts and figures, as fractions."""
        views = {view: counts.to_json() for view, counts in self.views.items()}
        return {"region": self.name, "views": views, "dice_per_scan": list(self.dice_per_scan)}


@dataclasses.dataclass(frozen=True)
class SkeletonScores:
    """The scores of some scans: of a fold, or of all test scans of a run.

    Attributes:
        cases: the scans. regions: one entry for each region.
    """

    cases: tuple[str, ...]
    regions: tuple[RegionScore, ...]

    @property
    def mean_dice(self) -> float | None:
        """Mean of the pooled Dice of the regions, both views; None where no region has one."""
        values = [value for region in self.regions if (value := region.views["both"].f1) is not None]
        return float(np.mean(values)) if values else None

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        regions = [region.to_json() for region in self.regions]
        return {"mean_dice": self.mean_dice, "cases": list(self.cases), "regions": regions}


def count_regions(labels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Compare predicted with annotated regions of one scan.

    Args:
        labels, mask: (rows, columns) uint8 numbers of regions; anterior view on the left.

    Returns:
        int64 (2 views, 12 regions, 3): true positives, false positives and false negatives.

    Example:
        >>> count_regions(np.array([[1, 1, 0, 4]], np.uint8), np.array([[1, 2, 0, 4]], np.uint8))[0, :2].tolist()
        [[1, 0, 1], [0, 1, 0]]
    """
    size, half = len(REGIONS) + 1, labels.shape[1] // 2
    counts = np.empty((2, len(REGIONS), 3), np.int64)
    for view, part in enumerate((np.s_[:, :half], np.s_[:, half:])):
        pairs = np.bincount(labels[part].ravel().astype(np.int64) * size + mask[part].ravel(), minlength=size * size)
        table = pairs.reshape(size, size)
        true = np.diag(table)
        counts[view] = np.stack([true, table.sum(axis=0) - true, table.sum(axis=1) - true], axis=1)[1:]
    return counts


def summarise(cases: Sequence[str], counts: Sequence[np.ndarray]) -> SkeletonScores:
    """The scores of scans from their `count_regions`, at least one."""
    stacked = np.stack(counts)
    regions = []
    for index, region in enumerate(REGIONS):
        own = stacked[:, :, index]
        pooled = [own.sum(axis=(0, 1)), *own.sum(axis=0)]
        dice = tuple(PixelCounts(*map(int, scan)).f1 for scan in own.sum(axis=1))
        views = {view: PixelCounts(*map(int, numbers)) for view, numbers in zip(ALL_VIEWS, pooled, strict=True)}
        regions.append(RegionScore(region.name, views, dice))
    return SkeletonScores(tuple(cases), tuple(regions))


def evaluate_skeleton(
    path: str | os.PathLike,
    fold: int | None = None,
    data: Paths | None = None,
    settings: EvaluationSettings | None = None,
    report: bool = True,
) -> SkeletonScores:
    """Score one fold of a run of the skeleton experiment, or all that are trained.

    Args: see `evaluate.evaluate_run`.

    Returns:
        The scores over the test scans of all folds that were scored now.

    Raises:
        RunError, SettingsError, DatasetError: see `evaluate.evaluate_run`.
    """
    settings = settings or EvaluationSettings()
    run = open_run(path)
    trained = run.trained_folds()
    if fold is not None and fold not in trained or not trained:
        raise RunError(f"{run.path}: {'no fold' if fold is None else f'fold {fold}'} is trained yet: train it first")
    dataset = open_run_data(run, data)
    if not isinstance(dataset, SkeletonDataset):
        raise RunError(f"{run.path}: not a run of the skeleton experiment: score it with evaluate_run")
    cases: list[str] = []
    counts: list[np.ndarray] = []
    for number in trained if fold is None else [fold]:
        names, found = _score_fold(run, dataset, number, settings)
        scores = summarise(names, found)
        about = about_scores(run, dataset, [open_fold(run, number).precision], fold=number)
        write_json(run.fold_path(number) / SCORES, {"format": FORMAT, **about, **scores.to_json()})
        cases += names
        counts += found
    scores = summarise(cases, counts)
    about = about_scores(run, dataset, [], folds=trained if fold is None else [fold])
    write_json(run.path / "summary.json", {"format": FORMAT, **about, **scores.to_json()})
    if report:
        _write_report(run, dataset, scores)
    return scores


def predict_regions(
    run: Run, dataset: SkeletonDataset, fold: int, numbers: Sequence[int], settings: EvaluationSettings
) -> "Iterator[CasePrediction]":
    """Predict scans of the dataset, by their indices, with a fold of a run of the skeleton experiment.

    Raises:
        RunError: the fold was trained on another split.
    """
    trained, folds = open_fold(run, fold), read_folds(run, dataset)
    if trained.folds_sha256 not in (None, folds.sha256()):
        raise RunError(f"{run.path / 'folds.json'}: not the split that fold {fold} was trained with: restore the file")
    import_tensorflow(settings.threads)
    # Imported here: wrong commands are answered without TensorFlow.
    from doubleunet_bs.inference.keras_model import Segmenter, predict_cases

    found = predict_cases(Segmenter.from_keras(trained.model_path), dataset, numbers, settings.batch_size)
    shown = None if settings.show_progress else True
    yield from tqdm(found, f"skeleton, fold {fold}: test scans", len(numbers), unit="scan", disable=shown)


def _score_fold(
    run: Run, dataset: SkeletonDataset, fold: int, settings: EvaluationSettings
) -> tuple[list[str], list[np.ndarray]]:
    """Predict the test scans of a fold; keep their masks and draw them."""
    test = set(read_folds(run, dataset).split(fold).test)
    numbers = [index for index, case in enumerate(dataset.cases) if case.case in test]
    folder = run.fold_path(fold) / PREDICTIONS
    folder.mkdir(exist_ok=True)
    names, counts = [], []
    for one in predict_regions(run, dataset, fold, numbers, settings):
        record = dataset.cases[one.index]
        save_png(mask_path(run, fold, record.case), region_picture(one.mask))
        if settings.pictures:
            save_png(folder / f"{record.case}.png", draw_regions(one.grey, one.labels, one.mask))
        names.append(record.case)
        counts.append(count_regions(one.labels, one.mask))
    return names, counts


def mask_path(run: Run, fold: int, case: str) -> Path:
    """Where the predicted index mask of a test scan is kept."""
    return run.fold_path(fold) / PREDICTIONS / f"{case}_regions.png"


def draw_regions(grey: np.ndarray, *masks: np.ndarray) -> np.ndarray:
    """The prepared image, and beside it the same with the regions of each mask: uint8 (rows, columns, 3)."""
    scale = max(1, 640 // grey.shape[0])
    background = clinical_display(grey)
    panels = [as_rgb(background)]
    for mask in masks:
        coloured = paint(background, *((mask == region.number, region.colour) for region in REGIONS))
        panels.append((0.6 * coloured + 0.4 * panels[0]).astype(np.uint8))
    return np.hstack([enlarged(panel, scale) for panel in panels])


def format_scores(scores: SkeletonScores) -> str:
    """A table for the terminal."""
    lines = ["                        Dice  precision  sensitivity   anterior  posterior   mean over scans"]
    for row in _rows(scores):
        name, dice, precision, sensitivity, anterior, posterior, mean = row
        lines.append(f"{name:<20}{dice:>8}{precision:>11}{sensitivity:>13}{anterior:>11}{posterior:>11}{mean:>18}")
    lines.append(f"{'mean of the regions':<20}{percent(scores.mean_dice):>8}")
    return "\n".join(lines)


def _rows(scores: SkeletonScores) -> list[list[str]]:
    rows = []
    for region in scores.regions:
        both = region.views["both"]
        figures = [both.f1, both.precision, both.sensitivity, *(region.views[view].f1 for view in VIEWS)]
        rows.append([region.name, *map(percent, figures), percent(region.mean_dice)])
    return rows


def _write_report(run: Run, dataset: SkeletonDataset, scores: SkeletonScores) -> None:
    pictures: list[tuple[str, str]] = []
    for path in sorted(run.path.glob(f"fold_*/{PREDICTIONS}/*_regions.png")):
        case = path.name.removesuffix("_regions.png")
        index = next((k for k, record in enumerate(dataset.cases) if record.case == case), None)
        if case in scores.cases and index is not None and len(pictures) < PICTURES_IN_REPORT:
            mask = np.array(Image.open(path))
            picture = draw_regions(dataset.grey(index), np.asarray(dataset.labels(index)), mask)
            pictures.append((case, png_uri(picture)))
    page = render_page(
        "doubleunet_bs.evaluation",
        "skeleton.html",
        title=f"Skeleton: {run.path.name}",
        phantoms=PHANTOM_NOTE if scans_are(dataset.cases) == PHANTOMS else "",
        scans=len(scores.cases),
        mean=percent(scores.mean_dice),
        rows=_rows(scores),
        legend=[(region.name, hex_colour(region.colour)) for region in REGIONS],
        pictures=pictures,
        sources=[source.text for source in dataset.sources],
    )
    write_text(run.path / "report.html", page)
