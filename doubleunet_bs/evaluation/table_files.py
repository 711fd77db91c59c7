"""`summary.csv` for a spreadsheet and `table.tex` for a paper: the table of a run."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from doubleunet_bs.evaluation.statistics import Interval
from doubleunet_bs.evaluation.summary import Figures, Mean, Summary, figures, postprocessed_figures, threshold_figures
from doubleunet_bs.evaluation.tables import interval_note, percent, span, undefined_note
from doubleunet_bs.files import write_text

CSV, TEX = "summary.csv", "table.tex"
COLUMNS = ("method", "row", "scans", "precision", "sensitivity", "f1", "f1_is")
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
OF_MEANS, OF_FOLDS, POOLED = "of the means", "mean over folds", "pooled over scans"


def write_tables(folder: Path, summary: Summary) -> None:
    """Write both files into the run folder, each whole or not at all."""
    write_text(folder / CSV, summary_csv(summary))
    write_text(folder / TEX, summary_tex(summary))


def summary_csv(summary: Summary) -> str:
    """One line a fold, then mean, mean of F1, standard deviation and 95 % interval, for each method.

    Figures are fractions, the paper's too; an undefined one is an empty cell. `f1_is` says how the F1 of a line came
    about. Notes of what the figures may be held against are the last lines, in the first column, after a "#".
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    methods = [
        ("Double U-Net", figures, summary.mean),
        ("intensity threshold", threshold_figures, summary.threshold_mean),
    ]
    if summary.postprocessed_mean:
        methods.insert(1, ("Double U-Net, smallest-lesion filter", postprocessed_figures, summary.postprocessed_mean))
    for number, (method, of_fold, mean) in enumerate(methods):
        rows = [
            (f"fold {fold.fold}" if fold.fold else "ensemble", len(fold.scans), of_fold(fold)) for fold in summary.folds
        ]
        for name, scans, row in rows:
            writer.writerow([method, name, scans, *_cells(row), POOLED])
        if len(rows) > 1:
            writer.writerows([method, name, "", *_cells(row), how] for name, row, how in _mean_rows(mean))
        if not number:
            writer.writerows([method, name, "", *_cells(row), how] for name, row, how in _interval_rows(summary))
    paper = summary.provenance.paper
    if paper:
        row = tuple(round(value / 100, 6) for value in (paper.precision, paper.sensitivity, paper.f1))
        writer.writerow([f"paper, Table {paper.table} (other scans)", "mean", "", *_cells(row), OF_MEANS])
    for note in summary.provenance.notes:
        writer.writerow([f"# {note}", *[""] * (len(COLUMNS) - 1)])
    return text.getvalue()


def summary_tex(summary: Summary) -> str:
    """A `tabular` in per cent as the paper prints it (package booktabs), the 95 % intervals among its rows.

    Notes stand as comments above it and, in lines as long as the text is wide, below it.
    """
    notes = [note for note in (undefined_note(summary), interval_note(summary)) if note] + summary.provenance.notes
    lines = [
        *(f"% {note}" for note in notes),
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        r"Fold & Precision & Sensitivity & F1-score \\",
        r"\midrule",
    ]
    lines += [_tex_row(str(fold.fold or "ensemble"), figures(fold)) for fold in summary.folds]
    if len(summary.folds) > 1:
        mean = summary.mean
        lines += [
            r"\midrule",
            _tex_row("Mean (F1 of the means)", (mean.precision, mean.sensitivity, mean.f1_of_means)),
            _tex_row("Mean of F1", (None, None, mean.f1_mean), blank=True),
            _tex_row("SD", (mean.precision_sd, mean.sensitivity_sd, mean.f1_sd)),
        ]
    lines += _tex_intervals(summary)
    paper = summary.provenance.paper
    if paper:
        cells = " & ".join(f"{value:.2f}" for value in (paper.precision, paper.sensitivity, paper.f1))
        lines += [r"\midrule", rf"Paper, Table {paper.table} (other scans) & {cells} \\"]
    lines += [r"\bottomrule", r"\end{tabular}"]
    # Not a row: a note is a sentence, and as a cell that cannot break it would push the figures off the page.
    lines += [
        r"\par\smallskip",
        r"\parbox{\linewidth}{\footnotesize\raggedright",
        *(rf"{_escape(note)}\par" for note in notes),
        "}",
    ]
    return "\n".join([*lines, ""])


def _mean_rows(mean: Mean) -> list[tuple[str, Figures, str]]:
    return [
        ("mean", (mean.precision, mean.sensitivity, mean.f1_of_means), OF_MEANS),
        ("mean of F1", (None, None, mean.f1_mean), OF_FOLDS),
        ("standard deviation", (mean.precision_sd, mean.sensitivity_sd, mean.f1_sd), OF_FOLDS),
    ]


def _interval_rows(summary: Summary) -> list[tuple[str, Figures, str]]:
    found = summary.intervals
    rows = []
    if found.precision is None and found.sensitivity is None and found.f1_mean is None:
        return rows
    for place, name in ((0, "lower"), (1, "upper")):
        precision, sensitivity, of_means, of_folds = (
            interval and interval[place]
            for interval in (found.precision, found.sensitivity, found.f1_of_means, found.f1_mean)
        )
        name = f"95 % interval, {name}"
        if len(summary.folds) == 1:
            rows.append((name, (precision, sensitivity, of_folds), POOLED))
            continue
        rows += [(name, (precision, sensitivity, of_means), OF_MEANS), (name, (None, None, of_folds), OF_FOLDS)]
    return rows


def _tex_intervals(summary: Summary) -> list[str]:
    found = summary.intervals
    if not interval_note(summary):
        return []
    first = (found.precision, found.sensitivity, found.f1_of_means)
    if len(summary.folds) == 1:
        return [r"\midrule", _tex_spans(r"95\,\% interval", first)]
    return [
        _tex_spans(r"95\,\% interval (F1 of the means)", first),
        _tex_spans(r"95\,\% interval, mean of F1", (found.f1_mean,)),
    ]


def _tex_spans(name: str, intervals: Sequence[Interval]) -> str:
    cells = [""] * (3 - len(intervals)) + ["--" if interval is None else span(interval) for interval in intervals]
    return rf"{name} & {' & '.join(cells)} \\"


def _cells(row: Sequence[float | None]) -> list[str]:
    return ["" if value is None else repr(float(value)) for value in row]


def _tex_row(name: str, row: Figures, blank: bool = False) -> str:
    cells = ("" if value is None and blank else "--" if value is None else percent(value) for value in row)
    return rf"{name} & {' & '.join(cells)} \\"


def _escape(text: str) -> str:
    return text.translate(_ESCAPED)
