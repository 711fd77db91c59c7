"""Score a run of the skeleton experiment: Dice, precision and sensitivity of every region in every view.

Each fold gets `scores.json` and, in `predictions/`, the predicted index masks and a picture of every test scan. The run
gets `summary.json` and `report.html`.
"""

import dataclasses
import os
import statistics
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from doubleunet_bs.bsi.regions import REGIONS
from doubleunet_bs.constants import VIEWS
from doubleunet_bs.dataset.joined_shards import Paths, SkeletonDataset
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
from doubleunet_bs.evaluation.evaluate import about_scores, open_run_data, open_unseen, read_folds
from doubleunet_bs.evaluation.scan_figures import png_uri
from doubleunet_bs.evaluation.scorer import EvaluationSettings, open_model, predict_scans
from doubleunet_bs.evaluation.scores.fold_scores import SCORES
from doubleunet_bs.evaluation.scores.lesions import view_parts
from doubleunet_bs.evaluation.stored_predictions import PREDICTIONS
from doubleunet_bs.evaluation.tables import Table, percent, unusable_folds
from doubleunet_bs.files import write_json, write_text
from doubleunet_bs.inference.model_folder import open_fold
from doubleunet_bs.pixel_counts import PixelCounts
from doubleunet_bs.preparation.records import PHANTOMS, scans_are
from doubleunet_bs.runs.run_folder import Run, no_trained_fold, open_run
from doubleunet_bs.templates import render_page

if TYPE_CHECKING:
    from doubleunet_bs.inference.keras_model import CasePrediction

FORMAT = "skeleton scores 1"
PICTURES_IN_REPORT = 6
USEFUL_DICE = 0.5
"""Mean Dice of the regions below which a fold is not usable; trained networks of `bsi.md` reach 0.76 to 0.91."""


@dataclasses.dataclass(frozen=True, eq=False)
class SkeletonScores:
    """The scores of some scans: of a fold, or of all test scans of a run.

    Attributes:
        cases: the scans, at least one.
        counts: int64 (scans, 2 views, 12 regions, 3), see `count_regions`.
        warning: a sentence where a fold is not usable, else "".
    """

    cases: tuple[str, ...]
    counts: np.ndarray
    warning: str = ""

    def pixels(self, region: int) -> dict[str, PixelCounts]:
        """ "both", "anterior" and "posterior" -> pixels of a region, pooled over the scans; the first region is 0."""
        own = self.counts[:, :, region].sum(axis=0)
        return dict(zip(("both", *VIEWS), map(_counts, (own.sum(axis=0), *own)), strict=True))

    def dice_per_scan(self, region: int) -> list[float | None]:
        """Dice of both views together for each scan; None where the region is neither there nor predicted."""
        return [_counts(scan).f1 for scan in self.counts[:, :, region].sum(axis=1)]

    @property
    def mean_dice(self) -> float | None:
        """Mean of the pooled Dice of the regions, both views; None where no region has one."""
        return _mean([self.pixels(region)["both"].f1 for region in range(len(REGIONS))])

    def to_json(self) -> dict[str, Any]:
        """A JSON object; figures are fractions."""
        regions = [
            {
                "region": region.name,
                "views": {view: counts.to_json() for view, counts in self.pixels(index).items()},
                "dice_per_scan": self.dice_per_scan(index),
            }
            for index, region in enumerate(REGIONS)
        ]
        return {"mean_dice": self.mean_dice, "cases": list(self.cases), "regions": regions}

    def table(self) -> Table:
        """A row for each region, in %."""
        rows = []
        for index, region in enumerate(REGIONS):
            both, *views = self.pixels(index).values()
            figures = [both.f1, both.precision, both.sensitivity, *(view.f1 for view in views)]
            rows.append([region.name, *map(percent, (*figures, _mean(self.dice_per_scan(index))))])
        head = [
            "region",
            "Dice",
            "precision",
            "sensitivity",
            "Dice anterior",
            "Dice posterior",
            "mean Dice of the scans",
        ]
        note = 'In %, pooled over the pixels of the scans. "-": neither annotated nor predicted.'
        return Table(head, rows, notes=[note, f"Mean Dice of the regions: {percent(self.mean_dice)} %."])


def _counts(numbers: np.ndarray) -> PixelCounts:
    return PixelCounts(*numbers.tolist())


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return statistics.fmean(defined) if defined else None


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
    size, counts = len(REGIONS) + 1, []
    for _, part in view_parts(labels):
        pairs = np.bincount(labels[part].ravel().astype(np.int64) * size + mask[part].ravel(), minlength=size * size)
        table = pairs.reshape(size, size)
        true = np.diag(table)
        counts.append(np.stack([true, table.sum(axis=0) - true, table.sum(axis=1) - true], axis=1)[1:])
    return np.stack(counts)


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
    if not trained:
        raise no_trained_fold(run)
    if fold is not None and fold not in trained:
        raise RunError(f"{run.path}: fold {fold} is not trained yet: train it first")
    dataset = open_run_data(run, data)
    if not isinstance(dataset, SkeletonDataset):
        raise RunError(f"{run.path}: not a run of the skeleton experiment: score it with evaluate_run")
    numbers = trained if fold is None else [fold]
    folds = {number: _score_fold(run, dataset, number, settings) for number in numbers}
    weak = unusable_folds(
        [(number, scores.mean_dice) for number, scores in folds.items()],
        USEFUL_DICE,
        "Dice of the regions on the test scans",
    )
    for number, scores in folds.items():
        about = about_scores(run, dataset, [open_fold(run, number).precision], fold=number)
        write_json(run.fold_path(number) / SCORES, {"format": FORMAT, **about, **scores.to_json()})
    cases = tuple(case for scores in folds.values() for case in scores.cases)
    pooled = SkeletonScores(cases, np.concatenate([scores.counts for scores in folds.values()]), weak)
    about = about_scores(run, dataset, [], folds=numbers)
    write_json(run.path / "summary.json", {"format": FORMAT, **about, **pooled.to_json()})
    if report:
        _write_report(run, dataset, pooled)
    return pooled


def predict_regions(
    run: Run, dataset: SkeletonDataset, fold: int, numbers: Sequence[int], settings: EvaluationSettings
) -> "Iterator[CasePrediction]":
    """Predict scans of the dataset, by their indices, with a fold of a run of the skeleton experiment.

    Raises:
        RunError: the fold was trained on another split.
    """
    trained = open_unseen(run, read_folds(run, dataset), fold)
    segment = open_model([trained.model_path], settings.threads)
    yield from predict_scans(segment, dataset, numbers, settings, f"skeleton, fold {fold}: test scans")


def _score_fold(run: Run, dataset: SkeletonDataset, fold: int, settings: EvaluationSettings) -> SkeletonScores:
    """Predict the test scans of a fold; keep their masks and draw them."""
    test = set(read_folds(run, dataset).split(fold).test)
    numbers = [index for index, case in enumerate(dataset.cases) if case.case in test]
    folder = run.fold_path(fold) / PREDICTIONS
    folder.mkdir(exist_ok=True)
    cases, counts = [], []
    for one in predict_regions(run, dataset, fold, numbers, settings):
        record = dataset.cases[one.index]
        save_png(folder / f"{record.case}_regions.png", region_picture(one.mask))
        if settings.pictures:
            save_png(folder / f"{record.case}.png", draw_regions(one.grey, one.labels, one.mask))
        cases.append(record.case)
        counts.append(count_regions(one.labels, one.mask))
    return SkeletonScores(tuple(cases), np.stack(counts))


def draw_regions(grey: np.ndarray, *masks: np.ndarray) -> np.ndarray:
    """The prepared image, and beside it the same with the regions of each mask: uint8 (rows, columns, 3)."""
    scale = max(1, 640 // grey.shape[0])
    background = clinical_display(grey)
    panels = [as_rgb(background)]
    for mask in masks:
        coloured = paint(background, *((mask == region.number, region.colour) for region in REGIONS))
        panels.append((0.6 * coloured + 0.4 * panels[0]).astype(np.uint8))
    return np.hstack([enlarged(panel, scale) for panel in panels])


def _write_report(run: Run, dataset: SkeletonDataset, scores: SkeletonScores) -> None:
    pictures: list[tuple[str, str]] = []
    numbers = {record.case: index for index, record in enumerate(dataset.cases)}
    for path in sorted(run.path.glob(f"fold_*/{PREDICTIONS}/*_regions.png")):
        case = path.name.removesuffix("_regions.png")
        if case in scores.cases and len(pictures) < PICTURES_IN_REPORT:
            index, mask = numbers[case], np.array(Image.open(path))
            picture = draw_regions(dataset.grey(index), np.asarray(dataset.labels(index)), mask)
            pictures.append((case, png_uri(picture)))
    page = render_page(
        "doubleunet_bs.evaluation",
        "skeleton.html",
        title=f"Skeleton: {run.path.name}",
        phantoms=PHANTOM_NOTE if scans_are(dataset.cases) == PHANTOMS else "",
        scans=len(scores.cases),
        warning=scores.warning,
        regions=scores.table(),
        legend=[(region.name, hex_colour(region.colour)) for region in REGIONS],
        pictures=pictures,
        sources=[source.text for source in dataset.sources],
    )
    write_text(run.path / "report.html", page)
