"""The tables of a summary: functions give the rows, and thin writers save and typeset them.

`summary_rows` is the paper's table (section 3): folds, means, deviations, intervals, the paper's own row. It is saved
as `summary.csv` and `table.tex`, printed (`evaluation.terminal_text`) and shown in the report.
"""

import csv
import dataclasses
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from doubleunet_bs.evaluation.summary import (
    SUMMARY,
    Mean,
    Summary,
    by_size,
    by_view,
    interval_note,
    undefined_note,
)
from doubleunet_bs.files import write_json, write_text
from doubleunet_bs.inference.model_description import USEFUL_F1

CSV, TEX = "summary.csv", "table.tex"
COLUMNS = ("method", "row", "scans", "precision", "sensitivity", "f1", "f1_is", "scans_are")
OF_MEANS, OF_FOLDS, POOLED = "of the means", "mean over folds", "pooled over scans"

BLANK: Literal[""] = ""
Cell = float | tuple[float, float] | None | Literal[""]
"""A fraction, an interval of fractions, undefined (None), or nothing at all (BLANK)."""
Cells = tuple[Cell, Cell, Cell]
"""Precision, sensitivity, F1."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table of pixels.

    Attributes:
        kind: "fold", "mean", "mean of F1", "standard deviation", "interval", "interval of F1" or "paper".
        model, threshold, minimum_size: the network, the best intensity threshold, the network with the
        minimum lesion size.
        f1_is: how the F1 came about.
        fold: its number, 0 for an ensemble; None in rows that are no fold.
        scans, level: number of test scans of a fold; grey level of its threshold.
    """

    kind: str
    model: Cells
    f1_is: str
    threshold: Cells = (BLANK, BLANK, BLANK)
    minimum_size: Cells = (BLANK, BLANK, BLANK)
    fold: int | None = None
    scans: int | None = None
    level: int | None = None


def summary_rows(summary: Summary) -> list[Row]:
    """Folds, with several of them means and deviations, intervals where they exist, the paper's row where it fits."""
    rows = [
        Row(
            "fold",
            fold.pooled.figures,
            POOLED,
            fold.threshold.figures,
            fold.postprocessed_figures,
            fold.fold,
            len(fold.scans),
            fold.threshold.value,
        )
        for fold in summary.folds
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
    paper = summary.provenance.paper
    if paper:
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
    weak = [fold for fold in summary.folds if fold.pooled.f1 is not None and fold.pooled.f1 < USEFUL_F1]
    if not weak:
        return ""
    names = ", ".join(
        f"{f'fold {fold.fold}' if fold.fold else 'ensemble'}: F1 {percent(fold.pooled.f1)} %" for fold in weak
    )
    return f"Model not usable: F1 on the test scans is too low ({names}). Do not rely on its results."


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


# --- notes


def note_marks(summary: Summary) -> dict[str, str]:
    """Kind of a row -> the numbers of its notes, "[1] [3]"; the numbers begin with 1 whichever notes there are."""
    if len(summary.folds) < 2:
        return {"interval": "[1]"}
    return {"mean": "[1]", "mean of F1": "[2]", "interval": "[1] [3]", "interval of F1": "[2] [3]"}


def table_notes(summary: Summary) -> list[str]:
    """The notes under the table of pixels: what `note_marks` are, and what the figures can be compared with."""
    scored = len(summary.folds)
    of_a_fold = "" if summary.is_ensemble else " of a fold"
    notes = [f"Metastatic pixels in %, pooled over the test scans{of_a_fold}."]
    if any(fold.unoutlined for fold in summary.folds) and not summary.scans:
        notes.append("No metastasis is outlined in these scans: only figures by patient are defined.")
    if summary.is_ensemble and len(summary.folds[0].about.get("ensemble", ())) == 1:
        notes.append("Only one fold is trained: these are its own figures, not those of an ensemble.")
    if scored > 1:
        notes += [
            "[1] F1 is the harmonic mean of mean precision and mean sensitivity, as in the paper's tables.",
            "[2] Mean of the folds' own F1. SD is the sample standard deviation over the folds.",
        ]
    if left_out := undefined_note(summary):
        notes.append(left_out)
    if drawn := interval_note(summary):
        notes.append(f"{note_marks(summary)['interval'].split()[-1]} {drawn}")
    if 0 < scored < summary.total_folds:
        notes.append(f"{scored} of {summary.total_folds} folds are scored.")
    return notes + summary.provenance.notes


# --- summary.json, summary.csv, table.tex


def write_summary(folder: Path, summary: Summary) -> None:
    """Write `summary.json`, `summary.csv` and `table.tex` into a folder, each whole or not at all."""
    write_json(folder / SUMMARY, summary.to_json())
    write_text(folder / CSV, summary_csv(summary))
    write_text(folder / TEX, summary_tex(summary))


def summary_csv(summary: Summary) -> str:
    """One line a fold, then mean, mean of F1, standard deviation and 95 % interval, for each method.

    Figures are fractions, an undefined one is an empty cell. `f1_is` says how the F1 of a line came about, `scans_are`
    whether the scans are of patients or phantoms. The notes are in `summary.json`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    rows = summary_rows(summary)

    def write(method: str, name: str, cells: Iterable[Cell], row: Row) -> None:
        figures = [repr(float(cell)) if isinstance(cell, float) else "" for cell in cells]
        scans_are = "" if row.kind == "paper" else summary.provenance.scans
        writer.writerow([method, name, row.scans or "", *figures, row.f1_is, scans_are])

    methods = {summary.method: "model", "intensity threshold": "threshold"}
    if summary.postprocessed_mean:
        methods = {summary.method: "model", f"{summary.method}, minimum lesion size": "minimum_size"} | methods
    for method, name in methods.items():
        for row in rows:
            if row.kind in ("fold", "mean", "mean of F1", "standard deviation"):
                label = row.kind if row.fold is None else f"fold {row.fold}" if row.fold else "ensemble"
                write(method, label, getattr(row, name), row)
        if name == "model":
            for place, bound in enumerate(("lower", "upper")):
                for row in rows:
                    if row.kind in ("interval", "interval of F1"):
                        cells = [cell[place] if isinstance(cell, tuple) else None for cell in row.model]
                        write(method, f"95 % interval, {bound}", cells, row)
    for row in rows:
        if row.kind == "paper" and summary.provenance.paper:
            write(f"paper, Table {summary.provenance.paper.table} (other scans)", "mean", row.model, row)
    return text.getvalue()


def summary_tex(summary: Summary) -> str:
    """A `tabular` in % as the paper prints it (package booktabs), with intervals and notes."""
    notes = [note for note in (undefined_note(summary), interval_note(summary)) if note] + summary.provenance.notes
    several = len(summary.folds) > 1
    paper = summary.provenance.paper
    names = {
        "mean": "Mean (F1 of the means)",
        "mean of F1": "Mean of F1",
        "standard deviation": "SD",
        "interval": r"95\,\% interval (F1 of the means)" if several else r"95\,\% interval",
        "interval of F1": r"95\,\% interval, mean of F1",
        "paper": f"Paper, Table {paper.table} (other scans)" if paper else "",
    }
    lines = [
        r"% needs \usepackage{booktabs}",
        *(f"% {note}" for note in notes),
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        r"Fold & Precision & Sensitivity & F1-score \\",
        r"\midrule",
    ]
    for row in summary_rows(summary):
        if row.kind in ("mean", "paper") or (row.kind == "interval" and not several):
            lines.append(r"\midrule")
        name = names[row.kind] if row.fold is None else str(row.fold or "ensemble")
        lines.append(rf"{name} & {' & '.join(percent(cell, undefined='--') for cell in row.model)} \\")
    # Below and not in a row: a note is a sentence, and in a cell that cannot break it would widen the table.
    lines += [
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip",
        r"\parbox{\linewidth}{\footnotesize\raggedright",
        *(rf"{note.translate(_ESCAPED)}\par" for note in notes),
        "}",
    ]
    return "\n".join([*lines, ""])


_ESCAPED = str.maketrans(
    {
        **{character: rf"\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    }
)


def lesion_rows(summary: Summary) -> list[tuple[str, tuple[int, int, int, int], Cells]]:
    """Name, (true, FN, predicted, FP) and figures of all test lesions, of each view and of each size (without F1)."""
    rows = {"all": summary.lesions} | {view: lesions for view, (_, lesions) in by_view(summary.scans).items()}
    sizes = by_size(summary.scans, summary.unit)
    return [
        (
            name,
            (lesions.true, lesions.false_negatives, lesions.predicted, lesions.false_positives),
            (lesions.precision, lesions.sensitivity, BLANK if name in sizes else lesions.f1),
        )
        for name, lesions in (rows | sizes).items()
    ]


def comparable_rows(summary: Summary, undefined: str = "-") -> list[list[str]]:
    """Name, value and, where it can be compared, published value of each figure to compare.

    The number of folds is said where a mean leaves some out.
    """
    rows = []
    for one in summary.comparable:
        value = percent(one.mean, undefined=undefined)
        if one.mean is not None:
            value = f"{value} %" if one.percent else f"{one.mean:.3f}"
        if 0 < one.folds < len(summary.folds):
            value += f" ({one.folds} of {len(summary.folds)} folds)"
        published = [summary.published.figures.get(one.name, "")] if summary.published else []
        rows.append([one.name, value, *published])
    return rows


def patient_figure(key: str, value: float | None, undefined: str = "-") -> str:
    """A figure by patient: AUC and false-positive lesions as numbers, the others in %."""
    digits = {"auc": ".3f", "false_positives_per_normal_scan": ".2f"}
    return format(value, digits[key]) if value is not None and key in digits else percent(value, undefined=undefined)
