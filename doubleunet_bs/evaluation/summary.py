"""`summary.json`: the folds of a run side by side and their means (paper, section 3, Tables 1 to 3).

The F1 in the paper's row "Mean" is the harmonic mean of the mean precision and the mean sensitivity, not the mean of
the folds' F1 (Table 1: 62.27 against 60.43). Both are given, each under a name that says which it is.
"""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from doubleunet_bs import __version__
from doubleunet_bs.constants import VIEWS
from doubleunet_bs.errors import counted
from doubleunet_bs.evaluation.paper_tables import Provenance, PublishedScores
from doubleunet_bs.evaluation.scores.comparable_scores import MEANING, ComparableFigure, comparable_figures
from doubleunet_bs.evaluation.scores.fold_scores import FoldScores, precision_entry
from doubleunet_bs.evaluation.scores.lesions import LesionCounts, ScoredLesion, size_class, size_class_names
from doubleunet_bs.evaluation.scores.scan_scores import Detection, ScanScore
from doubleunet_bs.evaluation.scores.statistics import Distribution, Intervals, bootstrap_means, distribution
from doubleunet_bs.pixel_counts import Figures, PixelCounts
from doubleunet_bs.preparation.records import PHANTOMS

FORMAT = 2


def by_view(scans: Sequence[ScanScore]) -> dict[str, tuple[PixelCounts, LesionCounts]]:
    """Pixels and lesions of each view, anterior first."""
    pixels = {view: sum((scan.views[view] for scan in scans), PixelCounts()) for view in VIEWS}
    return {view: (pixels[view], _count(scans, lambda lesion: lesion.view, view)) for view in VIEWS}


def by_size(scans: Sequence[ScanScore], unit: str) -> dict[str, LesionCounts]:
    """Lesions of each size class, the smallest first, empty classes as well.

    True lesions count by their true area, predicted ones by their predicted area. So `sensitivity` and `precision` are
    not of the same lesions, and no F1 follows from the two.
    """
    return {
        name: _count(scans, lambda lesion: size_class(lesion.area, unit), number)
        for number, name in enumerate(size_class_names(unit))
    }


def _count(scans: Sequence[ScanScore], group_of: Callable[[ScoredLesion], object], group: object) -> LesionCounts:
    return LesionCounts.of(
        [lesion for scan in scans for lesion in scan.true_lesions if group_of(lesion) == group],
        [lesion for scan in scans for lesion in scan.predicted_lesions if group_of(lesion) == group],
    )


@dataclasses.dataclass(frozen=True)
class Mean:
    """Means over folds. A fold whose figure is undefined is left out of that mean.

    Attributes:
        precision, sensitivity: arithmetic means over the folds.
        f1_of_means: harmonic mean of the two, as the paper aggregates it; 0 when both are 0.
        f1_mean: arithmetic mean of the folds' F1.
        precision_sd, sensitivity_sd, f1_sd: sample standard deviations over the folds (n - 1); None for one.
        folds: {"precision", "sensitivity", "f1"}: number of folds in each mean.
    """

    precision: float | None
    sensitivity: float | None
    f1_of_means: float | None
    f1_mean: float | None
    precision_sd: float | None
    sensitivity_sd: float | None
    f1_sd: float | None
    folds: dict[str, int]


def mean_of_folds(rows: Sequence[Figures]) -> Mean:
    """Aggregate (precision, sensitivity, F1) of folds, as fractions or in %.

    A mean is None where every fold is undefined. Where no fold predicted anything, but there was something to find, the
    F1 of the means is 0, as that of each fold.

    Example:
        >>> mean = mean_of_folds([(0.5, 0.5, 0.5), (1.0, 0.25, 0.4)])
        >>> mean.precision, mean.sensitivity, mean.f1_of_means, mean.f1_mean
        (0.75, 0.375, 0.5, 0.45)
    """
    columns = [[figure for row in rows if (figure := row[place]) is not None] for place in range(3)]
    precision, sensitivity, f1 = (statistics.fmean(column) if column else None for column in columns)
    deviations = [statistics.stdev(column) if len(column) > 1 else None for column in columns]
    combined = 0.0 if sensitivity == 0 else None
    if precision is not None and sensitivity is not None:
        total = precision + sensitivity
        combined = 2 * precision * sensitivity / total if total else 0.0
    return Mean(
        precision=precision,
        sensitivity=sensitivity,
        f1_of_means=combined,
        f1_mean=f1,
        precision_sd=deviations[0],
        sensitivity_sd=deviations[1],
        f1_sd=deviations[2],
        folds=dict(zip(("precision", "sensitivity", "f1"), map(len, columns), strict=True)),
    )


@dataclasses.dataclass(frozen=True)
class Summary:
    """The scored folds of a run.

    Attributes:
        experiment: its name.
        changed_settings: what differs from the paper's row of that name, in the experiment and in the preparation.
        total_folds: number of folds of the cross-validation, scored or not.
        folds: scores in the order of the folds.
        provenance: of the scans.
        method: what found the lesions, as the tables name it.
    """

    experiment: str
    changed_settings: dict[str, Any]
    total_folds: int
    folds: tuple[FoldScores, ...]
    provenance: Provenance = Provenance(PHANTOMS)  # Without it no figure stands beside the paper's
    method: str = "Double U-Net"

    @property
    def is_ensemble(self) -> bool:
        """Whether these are the scores of all folds averaged, on scans outside of the cross-validation."""
        return [fold.fold for fold in self.folds] == [0]

    @property
    def mean(self) -> Mean:
        """Of the model."""
        return mean_of_folds([fold.pooled.figures for fold in self.folds])

    @property
    def threshold_mean(self) -> Mean:
        """Of the intensity threshold on the same folds."""
        return mean_of_folds([fold.threshold.figures for fold in self.folds])

    @property
    def postprocessed_mean(self) -> Mean | None:
        """Of the model with the minimum lesion size; None when no fold could learn one."""
        rows = [fold.postprocessed_figures for fold in self.folds if fold.postprocessed]
        return mean_of_folds(rows) if rows else None

    @functools.cached_property
    def intervals(self) -> Intervals:
        """95 % intervals of `mean`."""
        return bootstrap_means([fold.scans for fold in self.folds])

    @property
    def scans(self) -> tuple[ScanScore, ...]:
        """All test scans, fold after fold."""
        return tuple(scan for fold in self.folds for scan in fold.scans)

    @property
    def lesions(self) -> LesionCounts:
        """Lesions of all test scans."""
        return sum((fold.lesions for fold in self.folds), LesionCounts())

    @property
    def dice(self) -> Distribution:
        """Dice per test scan."""
        return distribution([scan.dice for scan in self.scans])

    @property
    def detection_mean(self) -> dict[str, float | None]:
        """Figures by patient: means over the folds where each is defined. Models are not pooled."""
        return _detection_mean([fold.detection for fold in self.folds])

    @property
    def comparable(self) -> list[ComparableFigure]:
        """Figures as other publications give them: means over the folds where each is defined."""
        benign = [fold.benign for fold in self.folds if fold.benign]
        return comparable_figures([fold.comparable for fold in self.folds], benign)

    @property
    def published(self) -> PublishedScores | None:
        """What others reached on the same test part; None for other scans, or where not all kept scans are scored."""
        return self.provenance.published if self._unseen == self.provenance.test_scans else None

    @property
    def _unseen(self) -> int:
        """Scans, normal ones as well, that were scored."""
        return sum(len(fold.scans) + len(fold.normals) for fold in self.folds)

    @property
    def comparable_notes(self) -> list[str]:
        """What is undefined among the figures to compare, and what the published ones are."""
        reasons: dict[str, list[str]] = {}
        for fold in self.folds:
            for name, reason in fold.comparable.undefined.items():
                if name not in reasons.setdefault(reason, []):
                    reasons[reason].append(name)
        notes = [f"Undefined, {reason}: {'; '.join(names)}." for reason, names in reasons.items()]
        if any(fold.benign for fold in self.folds):
            notes.append("Benign lesions: in test scans and normal scans, matched as metastatic ones are.")
        found = self.provenance.published
        if self.published:
            notes.append(f"Published: {self.published.source}. {self.published.note}")
            if self._unseen != self.published.scans:
                notes.append(
                    f"{self._unseen} of {self.published.scans} published test scans are scored here; the others were "
                    "left out by prepare."
                )
        elif found:
            of = f"{self._unseen} of the {self.provenance.test_scans} test scans of these shards"
            notes.append(f"The published scores are left out: {of} are scored.")
        return notes

    @property
    def filtered(self) -> bool:
        """Whether any fold keeps a minimum lesion size."""
        return any(fold.postprocessed and fold.postprocessed.filter.smallest is not None for fold in self.folds)

    @property
    def postprocessed_detection_mean(self) -> dict[str, float | None]:
        """`detection_mean` with the minimum lesion size, over the folds that could learn one."""
        return _detection_mean([found for fold in self.folds if (found := fold.postprocessed_detection)])

    @property
    def training_precision(self) -> str | None:
        """The precision of the training, "float32" for instance; None where it is not recorded."""
        return precision_entry(fold.about.get("arithmetic") for fold in self.folds).get("arithmetic")

    @property
    def unit(self) -> str:
        """Of areas."""
        return self.folds[0].unit if self.folds else "pixels"

    def to_json(self) -> dict[str, Any]:
        """A JSON object with one row per fold, the means, and the figures beyond pixels."""
        lesion_mean = mean_of_folds([fold.lesions.figures for fold in self.folds])
        return {
            "format": FORMAT,
            "version": __version__,
            "experiment": self.experiment,
            "changed_settings": self.changed_settings,
            **precision_entry([self.training_precision]),
            "data": self.provenance.to_json(),
            "cross_validation_folds": self.total_folds,
            "f1_of_means": "harmonic mean of mean precision and mean sensitivity, as in the paper's tables",
            "f1_mean": "mean of the folds' own F1, with the sample standard deviation f1_sd",
            "folds": [fold.row() for fold in self.folds],
            "mean": dataclasses.asdict(self.mean),
            "interval_95": {
                "meaning": "percentile bootstrap: patients drawn with replacement within each fold, folds and means "
                "computed again",
                **dataclasses.asdict(self.intervals),
            },
            "threshold_mean": dataclasses.asdict(self.threshold_mean),
            "postprocessed_mean": dataclasses.asdict(after) if (after := self.postprocessed_mean) else None,
            "lesions": {"pooled": self.lesions.to_json(), "mean": dataclasses.asdict(lesion_mean)},
            "views": {
                view: {"pixels": pixels.to_json(), "lesions": lesions.to_json()}
                for view, (pixels, lesions) in by_view(self.scans).items()
            },
            "sizes": [
                {"size": name} | {key: value for key, value in lesions.to_json().items() if key != "f1"}
                for name, lesions in by_size(self.scans, self.unit).items()
            ],
            "detection_mean": self.detection_mean,
            "postprocessed_detection_mean": self.postprocessed_detection_mean,
            "comparable": {
                "meaning": MEANING,
                "figures": [dataclasses.asdict(one) for one in self.comparable],
                "published": self.published and {**dataclasses.asdict(self.published), "scored": self._unseen},
            },
            "dice_per_scan": dataclasses.asdict(self.dice),
        }


def folds_note(summary: Summary) -> str:
    """Which folds the figures are of, as a sentence; "" where all of a run are scored one by one."""
    members = summary.folds[0].about.get("ensemble", ()) if summary.is_ensemble else ()
    if len(members) == 1:
        return "Only one fold is trained: these are its own figures, not those of an ensemble."
    if members:
        return f"The ensemble averages the probabilities of folds {', '.join(str(one['fold']) for one in members)}."
    scored = len(summary.folds)
    said = f"{scored} of {summary.total_folds} folds {'is' if scored == 1 else 'are'} scored."
    return said if 0 < scored < summary.total_folds else ""


def interval_note(summary: Summary) -> str:
    """What the 95 % intervals are of, as a sentence; "" when there is none."""
    found = summary.intervals
    if found.precision is None and found.sensitivity is None and found.f1_mean is None:
        return ""
    return (
        f"95 % interval: {found.resamples} bootstrap draws (seed {found.seed}) of "
        f"{counted(found.patients, 'patient')}{', within each fold' if len(summary.folds) > 1 else ''}."
    )


def undefined_note(summary: Summary) -> str:
    """Which means leave folds out, as a sentence; "" when none does, and for a single fold."""
    scored = len(summary.folds)
    partial = {name: count for name, count in summary.mean.folds.items() if count < scored}
    if scored < 2 or not partial:
        return ""
    left_out = ", ".join(f"{name} ({scored - count})" for name, count in partial.items())
    return f"Undefined in some folds, which are left out of that mean: {left_out}."


def undefined_detection(summary: Summary) -> list[str]:
    """Which figures by patient are undefined, in which folds, and why: a sentence for each reason."""
    names = {"specificity": "specificity", "auc": "AUC", "false_positives_per_normal_scan": "false positives"}
    lines = []
    for reason in dict.fromkeys(fold.detection.reason for fold in summary.folds if fold.detection.reason):
        folds = [fold for fold in summary.folds if fold.detection.reason == reason]
        # Only what is undefined in a fold with this reason.
        *first, last = [
            name for key, name in names.items() if any(getattr(fold.detection, key) is None for fold in folds)
        ]
        what = ", ".join(first) + f" and {last}"
        where = f" in fold {', '.join(str(f.fold) for f in folds)}" if len(folds) < len(summary.folds) else ""
        lines.append(f"{what[0].upper()}{what[1:]} are undefined{where}: {reason}.")
    return lines


def folds_in_mean(summary: Summary, key: str) -> str:
    """Of how many folds the mean `key` of `Summary.detection_mean` is, where it is undefined in others; else ""."""
    defined = sum(getattr(fold.detection, key) is not None for fold in summary.folds)
    return f"mean of {defined} of {len(summary.folds)} folds" if 0 < defined < len(summary.folds) else ""


def denominator(summary: Summary, key: str, minimum_size: bool = False) -> str:
    """How many of how many a figure by patient is, over all folds: "0 of 4"; "" where it is undefined, and for AUC."""
    names = {
        "sensitivity": ("detected", "of", "positives"),
        "specificity": ("cleared", "of", "normals"),
        "false_positives_per_normal_scan": ("false_positives", "in", "normal_scans"),
    }
    found = [fold.postprocessed_detection if minimum_size else fold.detection for fold in summary.folds]
    if key not in names:
        return ""
    part, word, whole = names[key]
    number, total = (sum(getattr(one, name) for one in found if one) for name in (part, whole))
    return f"{number} {word} {total}" if total else ""


def _detection_mean(found: Sequence[Detection]) -> dict[str, float | None]:
    means = {}
    for name in ("sensitivity", "specificity", "auc", "false_positives_per_normal_scan"):
        column = [figure for one in found if (figure := getattr(one, name)) is not None]
        means[name] = statistics.fmean(column) if column else None
    return means
