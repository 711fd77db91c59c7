"""The tables that `evaluate.py` prints."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from doubleunet_bs.errors import counted
from doubleunet_bs.evaluation.statistics import Interval
from doubleunet_bs.evaluation.summary import (
    SUMMARY,
    Figures,
    Mean,
    Summary,
    by_size,
    by_view,
    figures,
    postprocessed_figures,
    threshold_figures,
)
from doubleunet_bs.files import write_json, write_text

_WIDTH = 13
_NEED_NORMALS = {"specificity": "specificity", "AUC": "auc", "false positives": "false_positives_per_normal_scan"}
_DETECTION = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "AUC": "auc",
    "false-positive lesions per normal scan": "false_positives_per_normal_scan",
}
_DIGITS = {"auc": ".3f", "false_positives_per_normal_scan": ".2f"}


def format_summary(summary: Summary) -> str:
    """The folds and their means as text, in per cent; an undefined figure is a dash.

    Beside each fold stands what the best single intensity threshold reaches on the same scans. Under the means stands
    the row of the paper, when the run is an unchanged row of it and its scans are of patients.
    """
    lines = [
        f"{'':>6}{'test':>6}   {'Double U-Net':^{3 * _WIDTH}}   {'best intensity threshold':^{3 * _WIDTH + 8}}",
        f"{'fold':>6}{'scans':>6}   {_header()}   {'grey >=':>8}{_header()}",
    ]
    rule = "-" * len(lines[-1])
    lines.append(rule)
    for fold in summary.folds:
        value = "-" if fold.threshold.value is None else fold.threshold.value
        lines.append(
            f"{fold.fold or 'all':>6}{len(fold.scans):>6}   {_row(figures(fold))}   {value:>8}"
            f"{_row(threshold_figures(fold))}"
        )
    if len(summary.folds) > 1:
        lines += [rule, *_mean_lines(summary.mean, summary.threshold_mean)]
    if summary.folds:
        lines += _interval_lines(summary)
    paper = summary.provenance.paper
    if paper:
        row = _row(tuple(f"{value:.2f}" for value in (paper.precision, paper.sensitivity, paper.f1)))
        lines += [rule, f"{'paper':>12}   {row}   other scans: see below"]
    return "\n".join(lines + [""] + _notes(summary))


def format_details(summary: Summary) -> str:
    """The figures beyond pixels as text: post-processing, lesions, views, sizes, patients, Dice per scan."""
    scans, unit = summary.scans, summary.unit
    lesions = summary.lesions
    lines = ["With the smallest-lesion filter of each fold (learnt on its validation scans; beside the raw figures):"]
    for fold in summary.folds:
        if fold.postprocessed:
            smallest = fold.postprocessed.filter.smallest
            what = "no filter helps" if smallest is None else f"from {smallest:.0f} {unit}"
            lines.append(f"{fold.fold:>6}{'':>6}   {_row(postprocessed_figures(fold))}   {what}")
    after = summary.postprocessed_mean
    if after is None:
        lines = ["No smallest-lesion filter: there are no validation scans to learn it on."]
    elif len(summary.folds) > 1:
        lines.append(f"{'mean':>12}   {_row((after.precision, after.sensitivity, after.f1_of_means))}   [1]")
    overlap = summary.folds[0].overlap if summary.folds else 0.0
    rule = "one common pixel" if not overlap else f"an overlap of {overlap:g}"
    lines += ["", f"Lesions (8-connected, matched by {rule}):  true / found, predicted / right", _lesion_header()]
    lines.append(_lesion_row("all", lesions))
    lines += [_lesion_row(row.view, row.lesions) for row in by_view(scans)]
    lines += [_lesion_row(row.name, row.lesions, f1=False) for row in by_size(scans, unit)]
    lines += ["", "Pixels by view:", f"{'':>18}{_header()}"]
    for row in by_view(scans):
        lines.append(f"{row.view:>18}{_row((row.pixels.precision, row.pixels.sensitivity, row.pixels.f1))}")
    lines += ["", *_detection_lines(summary)]
    dice = summary.dice
    lines += [
        "",
        f"Dice per scan, {counted(dice.scans, 'scan')}"
        + (f" ({dice.undefined} undefined)" if dice.undefined else "")
        + ": "
        f"median {percent(dice.median)}, quartiles {percent(dice.lower_quartile)} to {percent(dice.upper_quartile)}, "
        f"range {percent(dice.minimum)} to {percent(dice.maximum)}, mean {percent(dice.mean)}, SD {percent(dice.sd)}",
    ]
    return "\n".join(lines)


def percent(value: float | None) -> str:
    """A fraction in per cent with two decimals as in the paper's tables, "-" when undefined."""
    return "-" if value is None else f"{100 * value:.2f}"


def span(interval: Interval) -> str:
    """An interval of fractions in per cent with one decimal, "-" when undefined."""
    return "-" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def interval_note(summary: Summary) -> str:
    """What the 95 % intervals are of, as a sentence; "" when there is none."""
    found = summary.intervals
    if found.precision is None and found.sensitivity is None and found.f1_mean is None:
        return ""
    return (
        f"95 % interval: {found.resamples} bootstrap draws (seed {found.seed}) of "
        f"{counted(found.patients, 'patient')}, within each fold."
    )


def undefined_note(summary: Summary) -> str:
    """Which means leave folds out, as a sentence; "" when none does, and for a single fold."""
    scored = len(summary.folds)
    partial = {name: count for name, count in summary.mean.folds.items() if count < scored}
    if scored < 2 or not partial:
        return ""
    left_out = ", ".join(f"{name} ({scored - count})" for name, count in partial.items())
    return f"Undefined in some folds, which are left out of that mean: {left_out}."


def folds_in_mean(summary: Summary, key: str, filtered: bool = False) -> str:
    """ "mean of 1 of 3 folds" where a patient-level figure is defined in some folds only, else "".

    Args:
        summary: of the run.
        key: of `Summary.detection_mean`.
        filtered: of the figures with the smallest-lesion filter.
    """
    found = [fold.postprocessed_detection if filtered else fold.detection for fold in summary.folds]
    defined = sum(one is not None and one.to_json()[key] is not None for one in found)
    some = 0 < defined < len(summary.folds)
    return f"mean of {defined} of {counted(len(summary.folds), 'fold')}" if some else ""


def undefined_detection(summary: Summary) -> list[str]:
    """Which patient-level figures are undefined, in which folds, and why: a sentence for each reason."""
    lines = []
    for reason in dict.fromkeys(fold.detection.reason for fold in summary.folds if fold.detection.reason):
        # What is undefined in a fold with this reason, and nothing that is given beside it.
        folds = [fold for fold in summary.folds if fold.detection.reason == reason]
        rows = [fold.detection.to_json() for fold in folds]
        *first, last = [name for name, key in _NEED_NORMALS.items() if any(row[key] is None for row in rows)]
        what = ", ".join(first) + f" and {last}"
        where = f" in fold {', '.join(str(f.fold) for f in folds)}" if len(folds) < len(summary.folds) else ""
        lines.append(f"{what[0].upper()}{what[1:]} are undefined{where}: {reason}.")
    return lines


def _mean_lines(mean: Mean, threshold: Mean) -> list[str]:
    def line(label: str, *rows: tuple[float | str | None, ...]) -> str:
        return f"{label:>12}   {_row(rows[0])}   {'':>8}{_row(rows[1])}"

    both = (mean, threshold)
    return [
        line("mean", *((each.precision, each.sensitivity, each.f1_of_means) for each in both)) + "  [1]",
        line("mean of F1", *(("", "", each.f1_mean) for each in both)) + "  [2]",
        line("SD", *((each.precision_sd, each.sensitivity_sd, each.f1_sd) for each in both)),
    ]


def _interval_lines(summary: Summary) -> list[str]:
    found = summary.intervals
    if not interval_note(summary):
        return []
    lines = [f"{'95 %':>12}   {_row(tuple(map(span, (found.precision, found.sensitivity, found.f1_of_means))))}"]
    if len(summary.folds) > 1:
        lines[0] += "   [1] [3]"
        lines.append(f"{'':>12}   {_row(('', '', span(found.f1_mean)))}   [2] [3]")
    else:
        lines[0] += "   [1]"
    return lines


def _notes(summary: Summary) -> list[str]:
    notes = ["Pixels of the metastatic class in per cent, pooled over the test scans of a fold."]
    scored = len(summary.folds)
    if scored > 1:
        notes += [
            "[1] F1 is the harmonic mean of mean precision and mean sensitivity, as in the paper's tables.",
            "[2] mean of the folds' own F1; SD is the sample standard deviation over the folds.",
        ]
    if undefined := undefined_note(summary):
        notes.append(undefined)
    if drawn := interval_note(summary):
        notes.append(f"[{3 if scored > 1 else 1}] {drawn}")
    if 0 < scored < summary.total_folds:
        notes.append(f"{scored} of {summary.total_folds} folds are scored.")
    return notes + summary.provenance.notes


def _detection_lines(summary: Summary) -> list[str]:
    head = "Patients" + (", mean over the folds: " if len(summary.folds) > 1 else ": ")
    lines = [head + _detection_figures(summary)]
    if summary.filtered:
        lines.append(f"  with the smallest-lesion filter: {_detection_figures(summary, filtered=True)}")
    return lines + [f"  {line}" for line in undefined_detection(summary)]


def _detection_figures(summary: Summary, filtered: bool = False) -> str:
    mean, parts = summary.postprocessed_detection_mean if filtered else summary.detection_mean, []
    for name, key in _DETECTION.items():
        value = mean[key]
        figure = "-" if value is None else format(value, _DIGITS[key]) if key in _DIGITS else percent(value)
        parts.append(f"{name} {figure}" + (f" ({of})" if (of := folds_in_mean(summary, key, filtered)) else ""))
    return ", ".join(parts)


def _lesion_header() -> str:
    return f"{'':>18}{'true':>8}{'found':>8}{'predicted':>11}{'right':>8}{_header()}"


def _lesion_row(label: str, lesions, f1: bool = True) -> str:
    counts = f"{lesions.true:>8}{lesions.found:>8}{lesions.predicted:>11}{lesions.right:>8}"
    return f"{label:>18}{counts}{_row((lesions.precision, lesions.sensitivity, lesions.f1 if f1 else ''))}".rstrip()


def _header() -> str:
    return "".join(f"{name:>{_WIDTH}}" for name in ("precision", "sensitivity", "F1"))


def _row(values: Sequence[float | str | None]) -> str:
    return "".join(f"{value if isinstance(value, str) else percent(value):>{_WIDTH}}" for value in values)


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


def write_summary(folder: Path, summary: Summary) -> None:
    """Write `summary.json`, `summary.csv` and `table.tex` into a folder, each whole or not at all."""
    write_json(folder / SUMMARY, summary.to_json())
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
