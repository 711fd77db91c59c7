"""Several runs on the same folds, side by side."""

import csv
import dataclasses
import io
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from doubleunet_bs import __version__
from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.evaluation.evaluate_run import open_run_data, provenance_of_runs, read_folds, score_fold
from doubleunet_bs.evaluation.fold_scores import FoldScores, arithmetic_of
from doubleunet_bs.evaluation.paper_tables import Provenance
from doubleunet_bs.evaluation.scorer import EvaluationSettings
from doubleunet_bs.evaluation.statistics import Comparison, compare_scans, holm_corrected
from doubleunet_bs.evaluation.summary import Mean, figures, mean_of_folds
from doubleunet_bs.evaluation.tables import percent
from doubleunet_bs.files import write_json, write_text
from doubleunet_bs.preparation.shards import ShardedDataset
from doubleunet_bs.training.run_folder import Run, open_run

METHOD = (
    "Dice per scan, second minus first; two-sided Wilcoxon signed-rank test without the scans that do not differ, p "
    "also after Holm's correction for the number of pairs; effect size: matched-pairs rank-biserial correlation, -1 to "
    "1; median difference with 95 % bootstrap interval over patients"
)


@dataclasses.dataclass(frozen=True)
class RunComparison:
    """What `compare_runs` found.

    Attributes:
        names: of the runs, as they are called in tables: the folder names, or whole paths where those repeat.
        experiments: name of each run's experiment, with the settings that were changed and the arithmetic, if noted.
        folds: those that all runs have.
        left_out: (name, fold) of folds that only some have.
        scores: for each run its scores of `folds`.
        comparisons: every pair of runs.
        provenance: of the scans.
    """

    names: tuple[str, ...]
    experiments: tuple[str, ...]
    folds: tuple[int, ...]
    left_out: tuple[tuple[str, int], ...]
    scores: tuple[tuple[FoldScores, ...], ...]
    comparisons: tuple[Comparison, ...]
    provenance: Provenance

    @property
    def means(self) -> tuple[Mean, ...]:
        """Of each run over the folds they have in common."""
        return tuple(mean_of_folds([figures(fold) for fold in folds]) for folds in self.scores)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; figures are fractions."""
        return {
            "version": __version__,
            "method": METHOD,
            "data": self.provenance.to_json(),
            "folds": list(self.folds),
            "left_out": [{"run": name, "fold": fold} for name, fold in self.left_out],
            "runs": [
                {
                    "run": name,
                    "experiment": experiment,
                    "mean": dataclasses.asdict(mean),
                    "folds": [{"fold": fold.fold, **fold.pooled.to_json()} for fold in folds],
                }
                for name, experiment, mean, folds in zip(
                    self.names, self.experiments, self.means, self.scores, strict=True
                )
            ],
            "pairs": [
                {
                    key: list(value) if isinstance(value, tuple) else value
                    for key, value in dataclasses.asdict(comparison).items()
                }
                for comparison in self.comparisons
            ],
        }


def compare_runs(
    paths: Sequence[str | os.PathLike],
    fold: int | None = None,
    data: str | os.PathLike | None = None,
    settings: EvaluationSettings | None = None,
) -> RunComparison:
    """Evaluate several runs on the same folds of the same shards and compare them scan by scan.

    Runs that cannot be compared are refused before anything is predicted. Folds that not all runs have trained are left
    out of the comparison. Predictions of the folds are kept; scores, tables and report of a run are left as they are,
    since they may belong to other settings.

    Args:
        paths: two run folders or more.
        fold: one fold; None for all.
        data: the shards of all runs, when they have moved.
        settings: of the evaluation.

    Raises:
        RunError: other shards, another division into folds, or no fold in common; the difference is named.
        SettingsError: fewer than two runs, or a run twice.
    """
    if len(paths) < 2:
        raise SettingsError("two runs or more are needed for a comparison")
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise SettingsError("a run is named twice")
    settings = settings or EvaluationSettings()
    runs = [open_run(path) for path in paths]
    dataset = _check_same(runs, data)
    common = sorted(set.intersection(*(set(run.trained_folds()) for run in runs)))
    names = _names(runs)
    if fold is not None:
        common = [number for number in common if number == fold]
    if not common:
        trained = "; ".join(
            f"{name}: {', '.join(map(str, run.trained_folds())) or 'none'}"
            for name, run in zip(names, runs, strict=True)
        )
        wanted = "no fold that all runs have trained" if fold is None else f"fold {fold} is not trained in all runs"
        raise RunError(f"{runs[0].path} and others: {wanted} ({trained})")
    scores = tuple(tuple(score_fold(run, dataset, number, settings) for number in common) for run in runs)
    scans = [tuple(scan for score in folds for scan in score.scans) for folds in scores]
    pairs = [
        compare_scans(names[a], names[b], scans[a], scans[b]) for a, b in itertools.combinations(range(len(runs)), 2)
    ]
    left_out = tuple(
        (name, number)
        for name, run in zip(names, runs, strict=True)
        for number in run.trained_folds()
        if number not in common and fold is None
    )
    experiments = tuple(_label(run, folds) for run, folds in zip(runs, scores, strict=True))
    of = provenance_of_runs(runs, dataset).without_paper()
    return RunComparison(names, experiments, tuple(common), left_out, scores, holm_corrected(pairs), of)


def format_comparison(comparison: RunComparison) -> str:
    """F1 by fold, means and pairs as text, in per cent."""
    width = max(12, *(len(name) + 2 for name in comparison.names))
    lines = [f"{'F1 of fold':>12}" + "".join(f"{name:>{width}}" for name in comparison.names)]
    rule = "-" * len(lines[0])
    lines.append(rule)
    for place, fold in enumerate(comparison.folds):
        row = (folds[place].pooled.f1 for folds in comparison.scores)
        lines.append(f"{fold:>12}" + "".join(f"{percent(value):>{width}}" for value in row))
    lines.append(rule)
    for label, name in (
        ("precision", "precision"),
        ("sensitivity", "sensitivity"),
        ("F1 [1]", "f1_of_means"),
        ("F1 [2]", "f1_mean"),
        ("SD of F1", "f1_sd"),
    ):
        lines.append(f"{label:>12}" + "".join(f"{percent(getattr(mean, name)):>{width}}" for mean in comparison.means))
    lines += [
        "",
        *(f"{name}: {what}" for name, what in zip(comparison.names, comparison.experiments, strict=True)),
        "Pixels of the metastatic class in per cent. Means over the folds: [1] of mean precision and mean sensitivity, "
        "[2] of the folds' F1.",
        "",
        "Dice per scan, second minus first (points: per cent):",
    ]
    for pair in comparison.comparisons:
        interval = (
            "" if pair.interval is None else f" (95 % {100 * pair.interval[0]:+.2f} to {100 * pair.interval[1]:+.2f})"
        )
        median = "-" if pair.median_difference is None else f"{100 * pair.median_difference:+.2f} points"
        test = (
            "no scan differs, so there is no test"
            if pair.p is None
            else f"p {_p(pair.p)}"
            + (f", corrected {_p(pair.p_holm)}" if len(comparison.comparisons) > 1 else "")
            + f", rank-biserial {pair.rank_biserial:+.2f}"
        )
        lines.append(
            f"  {pair.first} -> {pair.second}: {pair.scans} scans, {pair.ties} equal"
            + (f", {pair.undefined} undefined" if pair.undefined else "")
            + f"; median {median}{interval}; {test}"
        )
    lines += ["", f"{METHOD}."]
    if comparison.left_out:
        left_out = ", ".join(f"fold {fold} of {name}" for name, fold in comparison.left_out)
        lines.append(f"Left out, since not all runs have it: {left_out}.")
    return "\n".join(lines + comparison.provenance.notes)


def comparison_csv(comparison: RunComparison) -> str:
    """One line a scan: the Dice of each run as a fraction, an empty cell where undefined; notes after a "#"."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["fold", "case", "patient", *comparison.names])
    for place, fold in enumerate(comparison.folds):
        tables = [{scan.case: scan for scan in folds[place].scans} for folds in comparison.scores]
        for case, scan in tables[0].items():
            dice = [table[case].dice for table in tables]
            writer.writerow([fold, case, scan.patient, *("" if value is None else repr(value) for value in dice)])
    writer.writerows([f"# {note}"] for note in comparison.provenance.notes)
    return text.getvalue()


def write_comparison(folder: str | os.PathLike, comparison: RunComparison) -> None:
    """Write `comparison.json`, `comparison.csv` and `comparison.txt` into a folder, made when it is new."""
    folder = Path(folder)
    write_json(folder / "comparison.json", comparison.to_json())
    write_text(folder / "comparison.csv", comparison_csv(comparison))
    write_text(folder / "comparison.txt", format_comparison(comparison) + "\n")


def _check_same(runs: Sequence[Run], data: str | os.PathLike | None) -> ShardedDataset:
    """Refuse runs whose scans or folds differ; returns the shards of all of them."""
    first = runs[0]
    for run in runs[1:]:
        if run.data["fingerprint"] != first.data["fingerprint"]:
            raise RunError(
                f"{run.path}: trained on other shards than {first.path} ({run.data['path']} and {first.data['path']}); "
                "only runs on the same shards can be compared"
            )
    dataset = open_run_data(first, data)
    folds = [read_folds(run, dataset) for run in runs]
    for run, own in zip(runs[1:], folds[1:], strict=True):
        if own.sha256() != folds[0].sha256():
            raise RunError(
                f"{run.path}: {_difference(folds[0], own)} in {first.path}; only runs on the same folds can be "
                f"compared: copy {first.path / 'folds.json'} into a new run folder before training"
            )
    return dataset


def _difference(ours, theirs) -> str:
    if len(ours) != len(theirs):
        return f"has {len(theirs)} folds, not the {len(ours)}"
    for number, (own, other) in enumerate(zip(ours.parts, theirs.parts, strict=True), start=1):
        if own != other:
            return f"fold {number} tests {len(set(other) - set(own))} scans that it does not test (or in another order)"
    return "other normal scans than"


def _names(runs: Sequence[Run]) -> tuple[str, ...]:
    short = [run.path.resolve().name for run in runs]
    return tuple(short if len(set(short)) == len(short) else map(str, (run.path for run in runs)))


def _label(run: Run, folds: Sequence[FoldScores]) -> str:
    """What the run trained, so that two that differ in their settings or their arithmetic are told apart."""
    changed = run.changed_settings()
    arithmetic = arithmetic_of(fold.arithmetic for fold in folds).get("arithmetic")
    return (
        run.experiment.name
        + (f" (changed: {', '.join(changed)})" if changed else "")
        + (f", trained in {arithmetic}" if arithmetic else "")
    )


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
