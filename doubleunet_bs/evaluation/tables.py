"""The table that `evaluate.py` prints."""

from doubleunet_bs.evaluation.summary import Mean, Summary, figures, threshold_figures

_WIDTH = 13


def format_summary(summary: Summary) -> str:
    """The folds and their means as text, in per cent; an undefined figure is a dash.

    Beside each fold stands what the best single intensity threshold reaches on the same scans.
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
            f"{fold.fold:>6}{len(fold.scans):>6}   {_row(figures(fold))}   {value:>8}{_row(threshold_figures(fold))}"
        )
    if len(summary.folds) > 1:
        lines += [rule, *_mean_lines(summary.mean, summary.threshold_mean)]
    return "\n".join(lines + [""] + _notes(summary))


def percent(value: float | None) -> str:
    """A fraction in per cent with two decimals as in the paper's tables, "-" when undefined."""
    return "-" if value is None else f"{100 * value:.2f}"


def _mean_lines(mean: Mean, threshold: Mean) -> list[str]:
    def line(label: str, *rows: tuple[float | str | None, ...]) -> str:
        return f"{label:>12}   {_row(rows[0])}   {'':>8}{_row(rows[1])}"

    both = (mean, threshold)
    return [
        line("mean", *((each.precision, each.sensitivity, each.f1_of_means) for each in both)) + "  [1]",
        line("mean of F1", *(("", "", each.f1_mean) for each in both)) + "  [2]",
        line("SD", *((each.precision_sd, each.sensitivity_sd, each.f1_sd) for each in both)),
    ]


def _notes(summary: Summary) -> list[str]:
    notes = ["Pixels of the metastatic class in per cent, pooled over the test scans of a fold."]
    scored = len(summary.folds)
    if scored > 1:
        notes += [
            "[1] F1 is the harmonic mean of mean precision and mean sensitivity, as in the paper's tables.",
            "[2] mean of the folds' own F1; SD is the sample standard deviation over the folds.",
        ]
        partial = {name: count for name, count in summary.mean.folds.items() if count < scored}
        if partial:
            left_out = ", ".join(f"{name} ({scored - count})" for name, count in partial.items())
            notes.append(f"Undefined in some folds, which are left out of that mean: {left_out}.")
    if scored < summary.total_folds:
        notes.append(f"{scored} of {summary.total_folds} folds are scored.")
    return notes


def _header() -> str:
    return "".join(f"{name:>{_WIDTH}}" for name in ("precision", "sensitivity", "F1"))


def _row(values: tuple[float | str | None, ...]) -> str:
    return "".join(f"{value if isinstance(value, str) else percent(value):>{_WIDTH}}" for value in values)
