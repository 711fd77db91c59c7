"""The tables of a summary, each made once: for the terminal, the report of a run, `summary.csv` and `table.tex`.

`summary_rows` is the paper's table (section 3): folds, means, deviations, intervals, the paper's own row.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from doubleunet_bs.errors import counted
from doubleunet_bs.evaluation.scores.comparable_scores import LIMIT
from doubleunet_bs.evaluation.scores.lesions import CANDIDATE_FROM
from doubleunet_bs.evaluation.scores.scan_scores import ScanScore
from doubleunet_bs.evaluation.scores.statistics import Distribution
from doubleunet_bs.evaluation.summary import (
    Mean,
    Summary,
    by_size,
    by_view,
    denominator,
    folds_in_mean,
    folds_note,
    interval_note,
    undefined_detection,
    undefined_note,
)
from doubleunet_bs.inference.model_description import USEFUL_F1, with_unit

OF_MEANS, OF_FOLDS, POOLED = "of the means", "mean over folds", "pooled over scans"
_THRESHOLD_OF_FOLDS = (
    "Threshold: the best single grey level, chosen on the validation scans. Minimum size: predicted lesions under an "
    "area are dropped where that helps on the validation scans. The raw figures stay the result."
)
_THRESHOLD_OF_ENSEMBLE = (
    "Threshold: the best single grey level, chosen on the scans of the cross-validation. An ensemble has no validation "
    "scans of its own, and so no minimum size."
)
_PLAIN = str.maketrans("–²\u00a0", "-2 ")

BLANK: Literal[""] = ""
Cell = float | tuple[float, float] | None | Literal[""]
"""A fraction, an interval of fractions, undefined (None), or nothing at all (BLANK)."""
Cells = tuple[Cell, Cell, Cell]
"""Precision, sensitivity, F1."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        head, rows: cells. strong: numbers of rows to stress.
        about: what the figures mean, said on a page. notes: what is said wherever the table stands.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    strong: Sequence[int] = ()
    about: Sequence[str] = ()
    notes: Sequence[str] = ()


def table_text(table: Table, title: str = "") -> str:
    """The table and its notes for the terminal, with a title in the first cell where it is given or has one."""
    head = (title or table.head[0], *table.head[1:])
    lines = [[str(cell).translate(_PLAIN) for cell in row] for row in (head, *table.rows)]
    first, *others = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        f"{name:<{first}}" + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, others, strict=True))
        for name, *cells in lines
    ]
    return "\n".join([*(line.rstrip() for line in text), *table.notes])


def summary_text(summary: Summary) -> str:
    """All tables for the terminal, a warning where the model is of no use at the end."""
    tables = (pixel_table, lesion_table, view_table, patient_table, comparable_table)
    parts = [table_text(table(summary)) for table in tables]
    warning = quality_warning(summary)
    return "\n\n".join([*parts, dice_sentence(summary.dice), *([f"Warning: {warning}"] if warning else [])])


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table of pixels.

    Attributes:
        kind: "fold", "mean", "mean of F1", "standard deviation", "interval", "interval of F1" or "paper".
        model, threshold, minimum_size: the network, the best intensity threshold, the network with the
        minimum lesion size.
        f1_is: how the F1 came about.
        fold: its number, 0 for an ensemble; None in rows that are no fold.
        scans: number of test scans of a fold.
    """

    kind: str
    model: Cells
    f1_is: str
    threshold: Cells = (BLANK, BLANK, BLANK)
    minimum_size: Cells = (BLANK, BLANK, BLANK)
    fold: int | None = None
    scans: int | None = None


def summary_rows(summary: Summary) -> list[Row]:
    """Folds, with several of them means and deviations, intervals where they exist, the paper's row where it fits."""
    rows = [
        Row(
            "fold",
            one.pooled.figures,
            POOLED,
            one.threshold.figures,
            one.postprocessed_figures,
            one.fold,
            len(one.scans),
        )
        for one in summary.folds
    ]
    several = len(rows) > 1
    if several:
        methods = [_mean_cells(mean) for mean in (summary.mean, summary.threshold_mean, summary.postprocessed_mean)]
        kinds = ("mean", OF_MEANS), ("mean of F1", OF_FOLDS), ("standard deviation", OF_FOLDS)
        rows += [
            Row(kind, model, f1_is, threshold, minimum_size)
            for (kind, f1_is), model, threshold, minimum_size in zip(kinds, *methods, strict=True)
        ]
    found = summary.intervals
    if interval_note(summary):
        if several:
            rows.append(Row("interval", (found.precision, found.sensitivity, found.f1_of_means), OF_MEANS))
            rows.append(Row("interval of F1", (BLANK, BLANK, found.f1_mean), OF_FOLDS))
        else:
            rows.append(Row("interval", (found.precision, found.sensitivity, found.f1_mean), POOLED))
    if paper := summary.provenance.paper:
        precision, sensitivity, f1 = (round(value / 100, 6) for value in (paper.precision, paper.sensitivity, paper.f1))
        rows.append(Row("paper", (precision, sensitivity, f1), OF_MEANS))
    return rows


def _mean_cells(mean: Mean | None) -> tuple[Cells, Cells, Cells]:
    """The cells of mean, mean of F1 and standard deviation."""
    if mean is None:
        return ((None, None, None),) * 3
    return (
        (mean.precision, mean.sensitivity, mean.f1_of_means),
        (BLANK, BLANK, mean.f1_mean),
        (mean.precision_sd, mean.sensitivity_sd, mean.f1_sd),
    )


def quality_warning(summary: Summary) -> str:
    """A sentence where a fold has an F1 below `USEFUL_F1` on its test scans; else empty."""
    return unusable_folds([(fold.fold, fold.pooled.f1) for fold in summary.folds], USEFUL_F1, "F1 on the test scans")


def unusable_folds(folds: Sequence[tuple[int, float | None]], least: float, figure: str) -> str:
    """A sentence that names the (fold, figure) below `least`; "" without any. Fold 0 is the ensemble."""
    weak = [
        f"{f'fold {fold}' if fold else 'ensemble'}: {figure.split()[0]} {percent(value)} %"
        for fold, value in folds
        if value is not None and value < least
    ]
    return f"Model not usable: {figure} is too low ({', '.join(weak)}). Do not rely on its results." if weak else ""


def percent(value: Cell, digits: int = 2, undefined: str = "-") -> str:
    """A cell in %.

    Example:
        >>> percent(0.6227), percent((0.5, 0.71)), percent(None), percent(BLANK)
        ('62.27', '50.0 to 71.0', '-', '')
    """
    if value is None:
        return undefined
    if isinstance(value, tuple):
        return f"{100 * value[0]:.1f} to {100 * value[1]:.1f}"
    return value if isinstance(value, str) else f"{100 * value:.{digits}f}"


def pixel_table(summary: Summary) -> Table:
    """The paper's table: pixels by fold, means, intervals. Beside them threshold and minimum lesion size."""
    paper = summary.provenance.paper
    names = {
        "standard deviation": "SD",
        "interval": "95 % interval",
        "interval of F1": "95 % interval",
        "paper": f"paper, Table {paper.table}: other scans" if paper else "",
    }
    marks = _note_marks(summary)
    table, rows = summary_rows(summary), []
    for row in table:
        cells = [_dash(cell) for cell in (*row.model, row.threshold[2], row.minimum_size[2])]
        name = f"{names.get(row.kind, row.kind)} {marks.get(row.kind, '')}".strip()
        rows.append([name if row.fold is None else fold_name(row.fold), str(row.scans or ""), *cells])
    about = [
        f"Metastatic pixels in %, pooled over the test scans{'' if summary.is_ensemble else ' of a fold'}.",
        "Precision (positive predictive value): share of the predicted pixels that are metastatic. Sensitivity "
        "(recall): share of the metastatic pixels that are predicted. F1: the harmonic mean of the two, "
        "2 TP / (2 TP + FP + FN). Dice: the same formula on the pixels of one scan.",
        _THRESHOLD_OF_ENSEMBLE if summary.is_ensemble else _THRESHOLD_OF_FOLDS,
    ]
    head = ["pixels, %", "scans", "precision", "sensitivity", "F1", "threshold: F1", "minimum size: F1"]
    strong = [number for number, row in enumerate(table) if row.kind == "mean"]
    return Table(head, rows, strong, about, _pixel_notes(summary, marks))


def _note_marks(summary: Summary) -> dict[str, str]:
    """Kind of a row -> the numbers of its notes, "[1] [3]"; the numbers begin with 1 whichever notes there are."""
    if len(summary.folds) < 2:
        return {"interval": "[1]"}
    return {"mean": "[1]", "mean of F1": "[2]", "interval": "[1] [3]", "interval of F1": "[2] [3]"}


def _pixel_notes(summary: Summary, marks: Mapping[str, str]) -> list[str]:
    """What the marks are, and what the figures can be compared with."""
    scored, notes = len(summary.folds), []
    if any(fold.unoutlined for fold in summary.folds) and not summary.scans:
        notes.append("No metastasis is outlined in these scans: only figures by patient are defined.")
    if scored > 1:
        notes += [
            "[1] F1 is the harmonic mean of mean precision and mean sensitivity, as in the paper's tables.",
            "[2] Mean of the folds' own F1. SD is the sample standard deviation over the folds.",
        ]
    if left_out := undefined_note(summary):
        notes.append(left_out)
    if drawn := interval_note(summary):
        notes.append(f"{marks['interval'].split()[-1]} {drawn}")
    if scores := folds_note(summary):
        notes.append(scores)
    return notes + summary.provenance.notes


def lesion_table(summary: Summary) -> Table:
    """Lesions of all folds together, by view and by size; a size has no F1, see `by_size`."""
    sizes = by_size(summary.scans, summary.unit)
    views = {view: lesions for view, (_, lesions) in by_view(summary.scans).items()}
    rows = []
    for name, one in ({"all": summary.lesions} | views | sizes).items():
        counts = (one.true, one.false_negatives, one.predicted, one.false_positives)
        cells = (one.precision, one.sensitivity, BLANK if name in sizes else one.f1)
        rows.append([name.replace("mm2", "mm²"), *counts, *(_dash(cell, 1) for cell in cells)])
    overlap = summary.folds[0].overlap if summary.folds else 0.0
    rule = "share a pixel" if not overlap else f"overlap by {overlap:g} (intersection over union)"
    about = [
        "A lesion is a connected component of metastatic pixels in one view (8-connectivity). "
        f"Two match when they {rule}. FN: true lesions that match no predicted one. FP: predicted lesions that match "
        "no true one.",
        "By size: sensitivity is of the true lesions of this size, precision of the predicted ones of this size.",
    ]
    head = ["lesions, %", "true", "FN", "predicted", "FP", "precision", "sensitivity", "F1"]
    return Table(head, rows, [0], about)


def view_table(summary: Summary) -> Table:
    """Pixels by view."""
    rows = [[view, *map(_dash, pixels.figures)] for view, (pixels, _) in by_view(summary.scans).items()]
    return Table(["pixels by view, %", "precision", "sensitivity", "F1"], rows)


def patient_table(summary: Summary) -> Table:
    """Patients by fold and their mean, and what the minimum lesion size does to them."""
    rows = []
    for fold in summary.folds:
        found = fold.detection
        counts = (
            f"{found.detected} of {found.positives}",
            f"{found.cleared} of {found.normals}" if found.normals else "–",
        )
        figures = found.auc, found.false_positives_per_normal_scan
        rows.append([fold_name(fold.fold), *counts, *map(patient_figure, ("auc", FALSE_POSITIVES), figures)])
    if len(summary.folds) > 1:
        folds = {key: folds_in_mean(summary, key) for key in summary.detection_mean}
        rows.append(
            ["mean"]
            + [
                patient_figure(key, value) + (f" ({folds[key].removeprefix('mean of ')})" if folds[key] else "")
                for key, value in summary.detection_mean.items()
            ]
        )
    about = [
        "A patient is called positive when a lesion is predicted in one of their scans. Sensitivity: share of the "
        "patients with metastases who are called positive. Specificity: share of the normal patients without a "
        "finding. AUC: area under the ROC curve, which ranks patients by the largest mean probability of a predicted "
        "lesion (0.5: no better than guessing).",
    ]
    notes = undefined_detection(summary)
    if summary.filtered:
        after = summary.postprocessed_detection_mean
        behind = {key: denominator(summary, key, minimum_size=True) for key in ("sensitivity", "specificity")}
        shown = [f"{key} {with_unit(after[key])}" + (f" ({of})" if of else "") for key, of in behind.items()]
        notes.append(
            f"With the minimum lesion size{', mean over the folds' if len(summary.folds) > 1 else ''}: "
            f"{', '.join(shown)}, false-positive lesions per normal scan "
            f"{patient_figure(FALSE_POSITIVES, after[FALSE_POSITIVES], 'undefined')}."
        )
    head = ["patients, mean in %", "sensitivity", "specificity", "AUC", "false-positive lesions per normal scan"]
    return Table(head, rows, about=about, notes=notes)


FALSE_POSITIVES = "false_positives_per_normal_scan"


def patient_figure(key: str, value: float | None, undefined: str = "–") -> str:
    """A figure by patient: AUC and false-positive lesions as numbers, the others in %."""
    digits = {"auc": ".3f", FALSE_POSITIVES: ".2f"}
    return format(value, digits[key]) if value is not None and key in digits else percent(value, undefined=undefined)


def comparable_table(summary: Summary) -> Table:
    """Figures as other publications give them. The number of folds is said where a mean leaves some out."""
    several = len(summary.folds) > 1
    rows = []
    for one in summary.comparable:
        value = "–" if one.mean is None else f"{percent(one.mean)} %" if one.percent else f"{one.mean:.3f}"
        if 0 < one.folds < len(summary.folds):
            value += f" ({one.folds} of {len(summary.folds)} folds)"
        published = [summary.published.figures.get(one.name, "")] if summary.published else []
        # A figure and its unit stay on one line of a phone.
        rows.append([one.name, *(cell.replace(" %", "\u00a0%") for cell in (value, *published))])
    about = [
        "All scans that the model has not seen, normal ones included. An image is one view."
        + (" Means over the folds, whose probabilities are not pooled." if several else ""),
        "Dice, mean over images: images without true and predicted pixels are left out. An image with predicted but no "
        "true pixels counts as 0.",
        f"FROC: a candidate is a connected area of a probability of at least {CANDIDATE_FROM:g}, ranked by its peak. "
        "It detects the true lesion in which its peak lies. If it lies in none, it is a false positive.",
        f"FROC area (Bandos et al. 2009): mean sensitivity from 0 to {LIMIT:g} false positives per scan. AUC: area "
        "under the ROC curve of the largest probability. An image is positive where it has a true lesion.",
    ]
    head = ["all unseen scans", *(["this run", "published"] if summary.published else ["mean" if several else ""])]
    return Table(head, rows, about=about, notes=summary.comparable_notes)


def scan_table(scans: Sequence[tuple[int, ScanScore]]) -> Table:
    """Every test scan, the worst first; `scans` are (fold, score)."""
    ordered = sorted(scans, key=lambda item: (-1.0 if item[1].dice is None else item[1].dice, item[1].case))
    rows = [
        [
            scan.case,
            fold or "all",
            *(_dash(value, 1) for value in (scan.dice, scan.counts.precision, scan.counts.sensitivity)),
            f"{scan.lesions.found} of {scan.lesions.true}",
            scan.lesions.false_positives,
        ]
        for fold, scan in ordered
    ]
    return Table(["scan", "fold", "Dice, %", "precision, %", "sensitivity, %", "lesions detected", "FP lesions"], rows)


def dice_sentence(dice: Distribution) -> str:
    """The Dice of the scans in a sentence."""
    if dice.median is None:
        return "No scan has a Dice coefficient."
    sd = "" if dice.sd is None else f", SD {percent(dice.sd, 1)}"
    undefined = (
        f" {counted(dice.undefined, 'scan')} without: nothing there, nothing predicted." if dice.undefined else ""
    )
    return (
        f"Dice of {counted(dice.scans, 'scan')}: median {percent(dice.median, 1)} %, interquartile range "
        f"{percent(dice.lower_quartile, 1)} to {percent(dice.upper_quartile, 1)} %, range {percent(dice.minimum, 1)} "
        f"to {percent(dice.maximum, 1)} %, mean {percent(dice.mean, 1)} %{sd}.{undefined}"
    )


def setting_text(value: Any) -> str:
    """A setting of an experiment or a preparation in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {part}" for name, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def fold_name(fold: int) -> str:
    """ "fold 3"; 0 is the ensemble."""
    return f"fold {fold}" if fold else "ensemble"


def _dash(value: Cell, digits: int = 2) -> str:
    return percent(value, digits, "–")
