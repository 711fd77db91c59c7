"""The table of `run_phantom_table.py`: the rows, what each step of the method changes on phantoms, both precisions.

Folds: precision, sensitivity and F1 of metastatic pixels, mean and standard deviation over the folds that were scored.
Other phantoms: the folds averaged as one model, on a cohort that none of them has seen, half of it without metastases.

A step (for instance Otsu negatives) is the difference between rows that differ in it only, second minus first. The
table gives the mean and standard deviation of the fold figures over pairs of rows and folds, the Dice per other phantom
with metastases, averaged over the pairs, with Wilcoxon's signed-rank test over the phantoms and Holm's correction over
the steps, and the false-positive lesions. The test does not see how another training of the same rows would differ: the
standard deviation over the folds is the only hint of that.
"""

import statistics
from pathlib import Path
from types import SimpleNamespace

from doubleunet_bs.evaluation.scores.fold_scores import FoldScores, read_scores
from doubleunet_bs.evaluation.scores.statistics import Comparison, compare_scans, holm_corrected
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.runs.experiments import PAPER_EXPERIMENTS

UNSEEN = "unseen"  # the cohort's name, and so that of its folder under RUN/ensemble
PRECISIONS = ("float32", "mixed_bfloat16")
LOSSES = ("dice", "focal-tversky")
FIGURES = ("precision", "sensitivity", "f1")
# What -> pairs of rows that nothing else separates.
STEPS = {
    "background removal (3 classes instead of 1)": [("baseline", "dice")],
    "Focal Tversky instead of Dice": [
        tuple(f"{loss}{rest}" for loss in LOSSES)
        for rest in ("", "-otsu", "-otsu-transfer", "-mining", "-mining-transfer")
    ],
    "Otsu negatives": [(loss, f"{loss}-otsu") for loss in LOSSES],
    "mined negatives": [(loss, f"{loss}-mining") for loss in LOSSES],
    "mined instead of Otsu negatives": [
        (f"{loss}-otsu{rest}", f"{loss}-mining{rest}") for loss in LOSSES for rest in ("", "-transfer")
    ],
    "transfer from prostate phantoms": [
        (f"{loss}-{kind}", f"{loss}-{kind}-transfer") for loss in LOSSES for kind in ("otsu", "mining")
    ],
    "augmentation": [("focal-tversky-otsu-transfer", "focal-tversky-otsu-transfer-augmented")],
}


class Row:
    """What there is of one trained row: `folds`, number -> scores, and `unseen`, or None."""

    def __init__(self, run: Path):
        self.folds: dict[int, FoldScores] = {
            int(file.parent.name.removeprefix("fold_")): read_scores(file)
            for file in sorted(run.glob("fold_*/scores.json"))
        }
        file = run / "ensemble" / UNSEEN / "scores.json"
        self.unseen: FoldScores | None = read_scores(file) if file.exists() else None


def read_rows(out: Path, precision: str) -> dict[str, Row]:
    """Name -> row, of those with a scored fold, in the paper's order."""
    rows = {name: Row(out / precision / name) for name in PAPER_EXPERIMENTS}
    return {name: row for name, row in rows.items() if row.folds}


def table(out: Path, size: int, epochs: dict[str, list[int]]) -> str:
    """Markdown of all that is finished in `out`.

    Args:
        out: the folder of `run_phantom_table.py`.
        size: binning of the counts.
        epochs: precision -> what its rows were trained for.
    """
    rows, columns = PreparationSettings(bin=size).image_shape
    parts = []
    for precision in PRECISIONS:
        found = read_rows(out, precision)
        if not found:
            continue
        trained = " or ".join(map(str, epochs[precision]))
        parts += [
            f"**On phantoms**, {precision}, {rows} x {columns} pixels, {trained} epochs, settings changed against the "
            "paper's rows of these names; %, mean ± SD over the folds:",
            rows_table(found),
            steps_table(found),
        ]
    return "\n\n".join([*parts, *precision_lines(*(read_rows(out, precision) for precision in PRECISIONS))])


def rows_table(found: dict[str, Row]) -> str:
    lines = [
        "| experiment | folds | precision | sensitivity | F1 | other phantoms: F1 "
        "| false-positive lesions per normal scan | AUC |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        pooled = [scores.pooled for scores in row.folds.values()]
        cells = [mean_sd([100 * getattr(counts, figure) for counts in pooled]) for figure in FIGURES]
        if row.unseen:
            detection = row.unseen.detection
            false = detection.false_positives_per_normal_scan
            cells += [f"{100 * row.unseen.pooled.f1:.1f}", f"{false:.2f}", f"{detection.auc:.2f}"]
        else:
            cells += ["–"] * 3
        lines.append(f"| `{name}` | {', '.join(map(str, row.folds))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def steps_table(found: dict[str, Row]) -> str:
    """Steps of which no pair of rows is finished are left out."""
    pairs_of = {
        step: [(found[first], found[second]) for first, second in pairs if first in found and second in found]
        for step, pairs in STEPS.items()
    }
    tested = {c.first: c for c in holm_corrected([compare_unseen(*item) for item in pairs_of.items()])}
    lines = [
        "| step | differences by fold | precision | sensitivity | F1 | other phantoms: Dice per scan, median (95 %) "
        "| p (Holm) | false-positive lesions per normal scan |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for step, pairs in pairs_of.items():
        by_fold = [
            (first.folds[fold].pooled, second.folds[fold].pooled)
            for first, second in pairs
            for fold in sorted(first.folds.keys() & second.folds.keys())
        ]
        if not by_fold:
            continue
        cells = [str(len(by_fold))] + [
            mean_sd([100 * (getattr(b, figure) - getattr(a, figure)) for a, b in by_fold], sign="+")
            for figure in FIGURES
        ]
        comparison = tested[step]
        if comparison.p_holm is None:
            cells += ["–"] * 3
        else:
            low, high = comparison.interval
            false = [
                second.unseen.detection.false_positives_per_normal_scan
                - first.unseen.detection.false_positives_per_normal_scan
                for first, second in _both_unseen(pairs)
            ]
            cells += [
                f"{100 * comparison.median_difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})",
                f"{comparison.p_holm:.3f}",
                f"{statistics.fmean(false):+.2f}",
            ]
        lines.append(f"| {step} | {' | '.join(cells)} |")
    return "\n".join(lines)


def compare_unseen(step: str, pairs: list[tuple[Row, Row]]) -> Comparison:
    """Dice per phantom that no fold has seen, averaged over the first rows of all pairs and over the second."""
    pairs = _both_unseen(pairs)
    sides = ([pair[side].unseen.scans for pair in pairs] for side in (0, 1))
    return compare_scans(step, step, *map(_mean_dice, sides))


def _both_unseen(pairs: list[tuple[Row, Row]]) -> list[tuple[Row, Row]]:
    return [(first, second) for first, second in pairs if first.unseen and second.unseen]


def _mean_dice(rows: list) -> list[SimpleNamespace]:
    """Scans of several models with the mean of their Dice. All have true pixels, so Dice is never undefined."""
    return [
        SimpleNamespace(case=same[0].case, patient=same[0].patient, dice=statistics.fmean(scan.dice for scan in same))
        for same in zip(*rows, strict=True)
    ]


def precision_lines(single: dict[str, Row], half: dict[str, Row]) -> list[str]:
    """How far bfloat16 is from float32, fold by fold, where rows were trained in both."""
    lines, differences = [], []
    for name in single.keys() & half.keys():
        for fold in sorted(single[name].folds.keys() & half[name].folds.keys()):
            first, second = (100 * rows[name].folds[fold].pooled.f1 for rows in (single, half))
            differences.append(second - first)
            lines.append(
                f"{name}, fold {fold}: F1 {first:.1f} in float32, {second:.1f} in bfloat16 ({second - first:+.1f})"
            )
    if differences:
        lines.append(
            f"bfloat16 - float32: {mean_sd(differences, sign='+')} points (mean ± SD of {len(differences)} pairs)"
        )
    return ["\n".join(lines)] if lines else []


def mean_sd(values: list[float], sign: str = "") -> str:
    if not values:
        return "–"
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{sign}.1f}{deviation}"
