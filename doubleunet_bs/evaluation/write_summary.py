"""The files of a summary: `summary.json`, `summary.csv` and `table.tex`."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from doubleunet_bs.errors import counted
from doubleunet_bs.evaluation.summary import Summary, folds_note, interval_note, undefined_note
from doubleunet_bs.evaluation.tables import Cell, Row, percent, setting_text, summary_rows
from doubleunet_bs.files import csv_text, write_json, write_text

SUMMARY, CSV, TEX = "summary.json", "summary.csv", "table.tex"
COLUMNS = ("method", "row", "scans", "precision", "sensitivity", "f1", "f1_is", "scans_are")


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
    lines: list[Sequence[object]] = [COLUMNS]
    rows = summary_rows(summary)

    def write(method: str, name: str, cells: Iterable[Cell], row: Row) -> None:
        figures = [repr(float(cell)) if isinstance(cell, float) else "" for cell in cells]
        scans_are = "" if row.kind == "paper" else summary.provenance.scans
        lines.append([method, name, row.scans or "", *figures, row.f1_is, scans_are])

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
    return csv_text(lines)


def summary_tex(summary: Summary) -> str:
    """A `tabular` in % as the paper prints it (package booktabs), with intervals, settings and notes."""
    of = "" if summary.is_ensemble else " of a fold"
    changed = "; ".join(f"{name} {setting_text(value)}" for name, value in summary.changed_settings.items())
    notes = [
        f"Experiment {summary.experiment}{f', changed: {changed}' if changed else ''}.",
        f"Metastatic pixels in %, pooled over the test scans{of} ({counted(len(summary.scans), 'scan')} in all).",
        *(note for note in (undefined_note(summary), interval_note(summary), folds_note(summary)) if note),
        *summary.provenance.notes,
    ]
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
