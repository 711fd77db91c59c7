"""Several runs on the same folds, side by side."""

import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from doubleunet_bs import __version__
from doubleunet_bs.dataset.joined_shards import Paths
from doubleunet_bs.display import PHANTOM_NOTE
from doubleunet_bs.errors import RunError, SettingsError, counted
from doubleunet_bs.evaluation.charts import mark_figure, paired_chart, write_figures
from doubleunet_bs.evaluation.evaluate import check_lesions, open_run_data, provenance_of_runs, read_folds, score_fold
from doubleunet_bs.evaluation.paper_tables import Provenance
from doubleunet_bs.evaluation.scorer import EvaluationSettings
from doubleunet_bs.evaluation.scores.fold_scores import FoldScores, precision_entry
from doubleunet_bs.evaluation.scores.statistics import Comparison, compare_scans, holm_corrected
from doubleunet_bs.evaluation.summary import Mean, mean_of_folds
from doubleunet_bs.evaluation.tables import Table, percent, table_text
from doubleunet_bs.files import csv_text, write_json, write_text
from doubleunet_bs.preparation.records import PHANTOMS
from doubleunet_bs.runs.run_folder import FOLDS, Run, open_run

METHOD = (
    "Dice per scan, second minus first; two-sided Wilcoxon signed-rank test without the scans that do not differ, p "
    "also after Holm's correction for the number of pairs; effect size: matched-pairs rank-biserial correlation, -1 to "
    "1; median difference with 95 % bootstrap interval over patients"
)


_MEANS = {
    "precision": "precision",
    "sensitivity": "sensitivity",
    "F1 [1]": "f1_of_means",
    "F1 [2]": "f1_mean",
    "SD of F1": "f1_sd",
}


@dataclasses.dataclass(frozen=True)
class RunComparison:
    """What `compare_runs` found.

    Attributes:
        names: of the runs, as they are called in tables: the folder names, or whole paths where those repeat.
        experiments: name of each run's experiment, "(changed)" where it is not the paper's row.
        differences: setting -> its value in each run, for every setting in which they differ, and "precision".
        folds: those that all runs have.
        left_out: (name, fold) of folds that only some have.
        scores: for each run its scores of `folds`.
        comparisons: every pair of runs.
        provenance: of the scans.
    """

    names: tuple[str, ...]
    experiments: tuple[str, ...]
    differences: dict[str, tuple[Any, ...]]
    folds: tuple[int, ...]
    left_out: tuple[tuple[str, int], ...]
    scores: tuple[tuple[FoldScores, ...], ...]
    comparisons: tuple[Comparison, ...]
    provenance: Provenance

    @property
    def means(self) -> tuple[Mean, ...]:
        """Of each run over the folds they have in common."""
        return tuple(mean_of_folds([fold.pooled.figures for fold in folds]) for folds in self.scores)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; figures are fractions."""
        return {
            "version": __version__,
            "method": METHOD,
            "data": self.provenance.to_json(),
            "differences": {
                setting: dict(zip(self.names, values, strict=True)) for setting, values in self.differences.items()
            },
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
            "pairs": [dataclasses.asdict(comparison) for comparison in self.comparisons],
        }


def compare_runs(
    paths: Sequence[str | os.PathLike],
    fold: int | None = None,
    data: Paths | None = None,
    settings: EvaluationSettings | None = None,
) -> RunComparison:
    """Evaluate several runs on the same folds of the same shards and compare them scan by scan.

    Folds that not all runs have trained are left out. Predictions are kept. Scores, tables and report of a run are not
    touched: they may belong to other settings.

    Args:
        paths: two run folders or more.
        fold: one fold; None for all.
        data: the shards of all runs, when they have moved.
        settings: of the evaluation.

    Raises:
        RunError: other shards, another split into folds, or no fold in common; nothing is predicted then.
        SettingsError: fewer than two runs, or a run twice.
    """
    if len(paths) < 2:
        raise SettingsError("only one run is named: a comparison needs at least two")
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise SettingsError("a run is named twice: name each once")
    settings = settings or EvaluationSettings()
    runs = [open_run(path) for path in paths]
    for run in runs:
        check_lesions(run)
    dataset = open_run_data(runs[0], data)
    folds = read_folds(runs[0], dataset)
    for run in runs[1:]:
        run.check_data(dataset, dataset.path)
        if read_folds(run, dataset).sha256() != folds.sha256():
            raise RunError(
                f"{run.path}: its folds are not those of {runs[0].path}: "
                f"train a new run with --folds-file {runs[0].path / FOLDS}"
            )
    names = tuple(run.path.resolve().name for run in runs)
    if len(set(names)) < len(names):
        names = tuple(str(run.path) for run in runs)
    trained = [run.trained_folds() for run in runs]
    common = tuple(sorted(set.intersection(*map(set, trained)) & set(trained[0] if fold is None else [fold])))
    if not common:
        there = [f"{name}: {', '.join(map(str, own)) or 'none'}" for name, own in zip(names, trained, strict=True)]
        wanted = "no fold that all runs have trained" if fold is None else f"fold {fold} is not trained in all runs"
        raise RunError(f"{runs[0].path} and others: {wanted} ({'; '.join(there)})")
    scores = tuple(tuple(score_fold(run, dataset, folds, number, settings) for number in common) for run in runs)
    scans = [tuple(scan for score in folds for scan in score.scans) for folds in scores]
    pairs = [
        compare_scans(names[a], names[b], scans[a], scans[b]) for a, b in itertools.combinations(range(len(runs)), 2)
    ]
    left_out = tuple(
        (name, number)
        for name, own in zip(names, trained, strict=True)
        for number in own
        if number not in common and fold is None
    )
    experiments = tuple(run.experiment.name + ("" if run.is_paper_row else " (changed)") for run in runs)
    of = dataclasses.replace(provenance_of_runs(runs, dataset), row=None)
    return RunComparison(
        names, experiments, _differences(runs, scores), common, left_out, scores, holm_corrected(pairs), of
    )


def format_comparison(comparison: RunComparison) -> str:
    """Means and F1 by fold with one line a run, as in the paper's Table 2, and pairs as text, in %."""
    rows = [
        [name, *(percent(getattr(mean, key)) for key in _MEANS.values()), *(percent(fold.pooled.f1) for fold in folds)]
        for name, mean, folds in zip(comparison.names, comparison.means, comparison.scores, strict=True)
    ]
    differences = [
        f"{setting} {' / '.join('-' if value is None else str(value) for value in values)}"
        for setting, values in comparison.differences.items()
    ]
    notes = [
        "",
        *(f"{name}: {what}" for name, what in zip(comparison.names, comparison.experiments, strict=True)),
        f"Differ in: {', '.join(differences)}." if differences else "The runs have the same settings.",
        "Metastatic pixels in %. Means over folds: [1] of mean precision and mean sensitivity, [2] of the folds' F1. "
        "Then the F1 of each fold.",
        *(
            f"{name}: mean precision and [1] without {counted(silent, 'fold')} that predicted nothing."
            for name, mean in zip(comparison.names, comparison.means, strict=True)
            if (silent := len(comparison.folds) - mean.folds["precision"])
        ),
        "",
        "Dice per scan, second minus first, in percentage points:",
        *(_pair_line(pair, len(comparison.comparisons) > 1) for pair in comparison.comparisons),
        "",
        f"{METHOD}.",
    ]
    if comparison.left_out:
        left_out = ", ".join(f"fold {fold} of {name}" for name, fold in comparison.left_out)
        notes.append(f"Left out, since not all runs have it: {left_out}.")
    notes += comparison.provenance.notes
    return table_text(Table(("run", *_MEANS, *(f"fold {fold}" for fold in comparison.folds)), rows, notes=notes))


def _pair_line(pair: Comparison, several: bool) -> str:
    scans = f"{pair.scans} scans, {pair.ties} equal" + (f", {pair.undefined} undefined" if pair.undefined else "")
    median = "-" if pair.median_difference is None else f"{100 * pair.median_difference:+.2f} points"
    if pair.interval is not None:
        median += f" (95 % {100 * pair.interval[0]:+.2f} to {100 * pair.interval[1]:+.2f})"
    test = "no scan differs, so there is no test"
    if pair.p is not None and pair.p_holm is not None:
        corrected = f", corrected {_p(pair.p_holm)}" if several else ""
        test = f"p {_p(pair.p)}{corrected}, rank-biserial {pair.rank_biserial:+.2f}"
    return f"  {pair.first} -> {pair.second}: {scans}; median {median}; {test}"


def _dice_of_scans(comparison: RunComparison) -> Iterator[tuple[int, str, str, list[float | None]]]:
    """(fold, case, patient, Dice in each run) of every test scan."""
    for place, fold in enumerate(comparison.folds):
        tables = [{scan.case: scan for scan in folds[place].scans} for folds in comparison.scores]
        for case, scan in tables[0].items():
            yield fold, case, scan.patient, [table[case].dice for table in tables]


def write_comparison(folder: str | os.PathLike, comparison: RunComparison) -> None:
    """Write `comparison.json`, `.csv`, `.txt`, `.svg` and `.png` into a folder, made when it is new."""
    folder = Path(folder)
    write_json(folder / "comparison.json", comparison.to_json())
    # One line a scan: the Dice of each run as a fraction, an empty cell where undefined.
    of = comparison.provenance.scans
    scans = [(fold, case, patient, of, *dice) for fold, case, patient, dice in _dice_of_scans(comparison)]
    head = ("fold", "case", "patient", "scans_are", *(f"dice_{name}" for name in comparison.names))
    write_text(folder / "comparison.csv", csv_text([head, *scans]))
    write_text(folder / "comparison.txt", format_comparison(comparison) + "\n")
    figure = paired_chart(comparison.names, [dice for *_, dice in _dice_of_scans(comparison)])
    mark_figure(figure, PHANTOM_NOTE if of == PHANTOMS else "")
    for kind in ("svg", "png"):
        write_figures(folder, {"comparison": figure}, kind)


def _differences(runs: Sequence[Run], scores: Sequence[Sequence[FoldScores]]) -> dict[str, tuple[Any, ...]]:
    settings = [
        {
            **run.experiment.public().to_json(),
            "precision": precision_entry(fold.about.get("arithmetic") for fold in folds).get("arithmetic"),
        }
        for run, folds in zip(runs, scores, strict=True)
    ]
    names = dict.fromkeys(name for own in settings for name in own if name != "name")
    values = {name: tuple(own.get(name) for own in settings) for name in names}
    return {name: each for name, each in values.items() if any(value != each[0] for value in each)}


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
