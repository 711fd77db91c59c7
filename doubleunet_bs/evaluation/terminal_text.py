"""A summary as text for the terminal: the table of pixels, and the figures beyond pixels."""

from collections.abc import Sequence

from doubleunet_bs.errors import counted
from doubleunet_bs.evaluation.summary import (
    Summary,
    by_view,
    denominator,
    folds_in_mean,
    undefined_detection,
)
from doubleunet_bs.evaluation.tables import (
    BLANK,
    Cell,
    comparable_rows,
    lesion_rows,
    note_marks,
    patient_figure,
    percent,
    quality_warning,
    summary_rows,
    table_notes,
)

_WIDTH = 13
_NAMES = {"standard deviation": "SD", "interval": "95 % int.", "interval of F1": ""}
_PATIENTS = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "auc": "AUC",
    "false_positives_per_normal_scan": "false-positive lesions per normal scan",
}


def format_summary(summary: Summary) -> str:
    """`summary_rows` as text, in %; an undefined figure is a dash."""
    marks = {kind: f"   {mark}" for kind, mark in note_marks(summary).items()}
    marks["paper"] = "   other scans: see below"
    lines = [
        f"{'':>6}{'test':>6}   {summary.method:^{3 * _WIDTH}}   {'best intensity threshold':^{3 * _WIDTH + 8}}",
        f"{'fold':>6}{'scans':>6}   {_header()}   {'grey >=':>8}{_header()}",
    ]
    rule = "-" * len(lines[-1])
    lines.append(rule)
    for row in summary_rows(summary):
        if row.kind in ("mean", "paper"):
            lines.append(rule)
        level: int | str = BLANK
        label = f"{_NAMES.get(row.kind, row.kind):>12}"
        if row.kind == "fold":
            label, level = f"{row.fold or 'all':>6}{row.scans:>6}", "-" if row.level is None else row.level
        line = f"{label}   {_row(row.model)}"
        if row.threshold != (BLANK, BLANK, BLANK):
            line += f"   {level:>8}{_row(row.threshold)}"
        lines.append(line + marks.get(row.kind, ""))
    warning = quality_warning(summary)
    return "\n".join([*lines, "", *table_notes(summary), *([f"Warning: {warning}"] if warning else [])])


def format_details(summary: Summary) -> str:
    """The figures beyond pixels as text: minimum lesion size, lesions, views, sizes, patients, what others publish,
    Dice per scan."""
    dice = summary.dice
    undefined = f" ({dice.undefined} undefined)" if dice.undefined else ""
    overlap = summary.folds[0].overlap if summary.folds else 0.0
    rule = "one common pixel" if not overlap else f"an overlap of {overlap:g}"
    return "\n".join(
        [
            *_minimum_size_lines(summary),
            "",
            f"Lesions (8-connected, matched by {rule}); FN: true ones not detected, FP: predicted ones that match none",
            f"{'':>18}{'true':>8}{'FN':>8}{'predicted':>11}{'FP':>8}{_header()}",
            *(
                f"{name:>18}{true:>8}{fn:>8}{predicted:>11}{fp:>8}{_row(cells)}".rstrip()
                for name, (true, fn, predicted, fp), cells in lesion_rows(summary)
            ),
            "",
            "Pixels by view:",
            f"{'':>18}{_header()}",
            *(f"{view:>18}{_row(pixels.figures)}" for view, (pixels, _) in by_view(summary.scans).items()),
            "",
            *_patient_lines(summary),
            "",
            *_comparable_lines(summary),
            "",
            f"Dice per scan, {counted(dice.scans, 'scan')}{undefined}: median {percent(dice.median)}, "
            f"quartiles {percent(dice.lower_quartile)} to {percent(dice.upper_quartile)}, "
            f"range {percent(dice.minimum)} to {percent(dice.maximum)}, "
            f"mean {percent(dice.mean)}, SD {percent(dice.sd)}",
        ]
    )


def _minimum_size_lines(summary: Summary) -> list[str]:
    after = summary.postprocessed_mean
    if after is None:
        return ["No minimum lesion size: there are no validation scans to learn it on."]
    lines = [
        "With the minimum lesion size of each fold (learnt on its validation scans; the raw figures stay the result):"
    ]
    for fold in summary.folds:
        if fold.postprocessed:
            smallest = fold.postprocessed.filter.smallest
            what = "no minimum helps" if smallest is None else f"from {smallest:.0f} {summary.unit}"
            lines.append(f"{fold.fold:>6}{'':>6}   {_row(fold.postprocessed_figures)}   {what}")
    if len(summary.folds) > 1:
        lines.append(f"{'mean':>12}   {_row((after.precision, after.sensitivity, after.f1_of_means))}   [1]")
    return lines


def _patient_lines(summary: Summary) -> list[str]:
    head = "Patients" + (", mean over the folds: " if len(summary.folds) > 1 else ": ")
    lines = [head + _patient_figures(summary)]
    if summary.filtered:
        lines.append(f"  with the minimum lesion size: {_patient_figures(summary, minimum_size=True)}")
    return lines + [f"  {line}" for line in undefined_detection(summary)]


def _comparable_lines(summary: Summary) -> list[str]:
    several = ", means over the folds" if len(summary.folds) > 1 else ""
    lines = [f"To compare with other publications, all unseen scans, an image is one view{several}:"]
    for name, value, *published in comparable_rows(summary):
        known = f"   published: {published[0]}" if any(published) else ""
        lines.append(f"{name:>52}{value:>13}{known}")
    return lines + [f"  {line}" for line in summary.comparable_notes]


def _patient_figures(summary: Summary, minimum_size: bool = False) -> str:
    mean, parts = summary.postprocessed_detection_mean if minimum_size else summary.detection_mean, []
    for key, name in _PATIENTS.items():
        notes = filter(None, (denominator(summary, key, minimum_size), folds_in_mean(summary, key, minimum_size)))
        note = "; ".join(notes)
        parts.append(f"{name} {patient_figure(key, mean[key])}" + (f" ({note})" if note else ""))
    return ", ".join(parts)


def _header() -> str:
    return "".join(f"{name:>{_WIDTH}}" for name in ("precision", "sensitivity", "F1"))


def _row(cells: Sequence[Cell]) -> str:
    return "".join(f"{percent(cell):>{_WIDTH}}" for cell in cells)
