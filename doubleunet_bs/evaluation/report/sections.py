"""The parts of the report that are text and tables."""

from collections.abc import Mapping
from typing import Any

from doubleunet_bs.evaluation.statistics import Interval
from doubleunet_bs.evaluation.breakdown import by_size, by_view
from doubleunet_bs.evaluation.lesions import LesionCounts
from doubleunet_bs.evaluation.report.markup import notes, percent, table, text, with_unit
from doubleunet_bs.evaluation.summary import Mean, Summary, figures, postprocessed_figures, threshold_figures
from doubleunet_bs.evaluation.tables import folds_in_mean, interval_note, undefined_detection
from doubleunet_bs.preparation.records import PATIENTS
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.training.experiments import Experiment
from doubleunet_bs.words import counted


def head(summary: Summary, image: tuple[int, int], trained: str) -> str:
    """Title, what the scans are, and the figures somebody looks for first."""
    changed = summary.changed_settings
    kind = (
        f"Settings changed against the paper's row of that name: {', '.join(changed)}."
        if changed
        else "All settings are those of the paper's row of that name."
    )
    notes_of = summary.provenance.notes
    warning = f'<p class="banner">{text(notes_of[0])}</p>' if summary.provenance.scans != PATIENTS else ""
    mean, lesions, found = summary.mean, summary.lesions, summary.detection_mean
    tiles = [
        ("F1, pixels", with_unit(mean.f1_of_means), _labelled(summary.intervals.f1_of_means)),
        ("precision, pixels", with_unit(mean.precision), _labelled(summary.intervals.precision)),
        ("sensitivity, pixels", with_unit(mean.sensitivity), _labelled(summary.intervals.sensitivity)),
        ("lesions found", with_unit(lesions.sensitivity), f"{lesions.found} of {lesions.true}"),
        ("predicted lesions right", with_unit(lesions.precision), f"{lesions.right} of {lesions.predicted}"),
        ("patients detected", with_unit(found["sensitivity"]), _of_folds(summary, "sensitivity")),
        _normals_tile(summary),
    ]
    boxes = "".join(
        f"<div>{text(label)}<b>{value}</b><span class='small'>{text(extra)}</span></div>"
        for label, value, extra in tiles
    )
    rows, columns = image
    return (
        f"<h1>Double U-Net, {text(summary.experiment)}</h1>"
        f"<p>Bone-metastasis lesions on whole-body bone scans. {counted(len(summary.scans), 'scan')} that the network had not "
        f"seen, {rows} x {columns} pixels; {text(trained)}. {text(kind)}</p>"
        f"{warning}<div class='headline'>{boxes}</div>"
        "<p class='small'>Research software, not a medical device, not for diagnosis.</p>"
    )


def table_section(summary: Summary) -> str:
    """The paper's table: pixels by fold, means, intervals; beside them the intensity threshold and the filter."""
    columns = ["", "scans", "precision", "sensitivity", "F1", "threshold: F1", "with filter: F1"]
    rows: list[list] = []
    for fold in summary.folds:
        rows.append(
            [
                f"fold {fold.fold}" if fold.fold else "all folds averaged",
                len(fold.scans),
                *(percent(value, 2) for value in figures(fold)),
                percent(threshold_figures(fold)[2], 2),
                percent(postprocessed_figures(fold)[2], 2),
            ]
        )
    strong = []
    found = summary.intervals
    if len(summary.folds) > 1:
        strong.append(len(rows))
        means: tuple[Mean | None, ...] = (summary.mean, summary.threshold_mean, summary.postprocessed_mean)
        mean = means[0]

        def row(label: str, first: tuple, name: str) -> list:
            beside = (None if each is None else getattr(each, name) for each in means[1:])
            return [label, "", *(value if value == "" else percent(value, 2) for value in (*first, *beside))]

        rows.append(row("mean [1]", (mean.precision, mean.sensitivity, mean.f1_of_means), "f1_of_means"))
        rows.append(row("mean of F1 [2]", ("", "", mean.f1_mean), "f1_mean"))
        rows.append(row("SD", (mean.precision_sd, mean.sensitivity_sd, mean.f1_sd), "f1_sd"))
    spans = tuple(_span(interval) for interval in (found.precision, found.sensitivity, found.f1_of_means))
    if any(spans):
        several = len(summary.folds) > 1
        rows.append(["95 % [1] [3]" if several else "95 % [3]", "", *spans, "", ""])
        if several:
            rows.append(["95 % [2] [3]", "", "", "", _span(found.f1_mean), "", ""])
    paper = summary.provenance.paper
    if paper:
        cells = [f"{value:.2f}" for value in (paper.precision, paper.sensitivity, paper.f1)]
        rows.append([f"paper, Table {paper.table}: other scans", "", *cells, "", ""])
    small = [
        "Pixels of the metastatic class in per cent, pooled over the test scans of a fold.",
        "Precision (positive predictive value): share of the predicted pixels that are metastatic. Sensitivity "
        "(recall): share of the metastatic pixels that are predicted. F1: the harmonic mean of the two, "
        "2 TP / (2 TP + FP + FN). Dice: the same formula on the pixels of one scan.",
    ]
    if len(summary.folds) > 1:
        small += [
            "[1] F1 is the harmonic mean of mean precision and mean sensitivity, as in the paper's tables.",
            "[2] Mean of the folds' own F1; SD is the sample standard deviation over the folds.",
        ]
    if any(spans):
        small.append(f"[3] {interval_note(summary)}")
    small.append(
        "Threshold: the best single grey level, chosen on the validation scans. Filter: predicted lesions under an "
        "area are dropped where that helps on the validation scans; the raw figures stay the result."
    )
    if len(summary.folds) < summary.total_folds:
        small.append(f"{len(summary.folds)} of {summary.total_folds} folds are scored.")
    return f"<h2>Table</h2>{table(columns, rows, strong)}{notes(small + summary.provenance.notes)}"


def lesion_section(summary: Summary, size_chart: str) -> str:
    """Lesions of all folds together, by view and by size, and patients."""
    scans, unit = summary.scans, summary.unit
    columns = ["lesions", "true", "found", "predicted", "right", "precision", "sensitivity", "F1"]
    rows = [["all", *_lesions(summary.lesions)]]
    rows += [[row.view, *_lesions(row.lesions)] for row in by_view(scans)]
    rows += [[row.name.replace("mm2", "mm²"), *_lesions(row.lesions)[:-1], ""] for row in by_size(scans, unit)]
    overlap = summary.folds[0].overlap if summary.folds else 0.0
    rule = "share a pixel" if not overlap else f"overlap by {overlap:g} (intersection over union)"
    small = [
        "A lesion is a connected component of metastatic pixels in one view (8-connectivity). "
        f"Two match when they {rule}.",
        "By size: sensitivity is of the true lesions of this size, precision of the predicted ones of this size.",
    ]
    pixels = [
        [row.view, *(percent(v, 2) for v in (row.pixels.precision, row.pixels.sensitivity, row.pixels.f1))]
        for row in by_view(scans)
    ]
    return (
        f"<h2>Lesions</h2>{table(columns, rows, [0])}{notes(small)}"
        f"<div class='grid'><div class='chart'>{size_chart}</div>"
        f"<div><h3>Pixels by view</h3>{table(['', 'precision', 'sensitivity', 'F1'], pixels)}</div></div>"
        f"<h2>Patients</h2>{_patients(summary)}"
    )


def scan_list(summary: Summary) -> str:
    """Every test scan, the worst first."""
    scans = [(fold.fold, scan) for fold in summary.folds for scan in fold.scans]
    scans.sort(key=lambda item: (-1.0 if item[1].dice is None else item[1].dice, item[1].case))
    rows = [
        [
            scan.case,
            fold or "all",
            *(percent(value) for value in (scan.dice, scan.counts.precision, scan.counts.sensitivity)),
            f"{scan.lesions.found} / {scan.lesions.true}",
            scan.lesions.false_positives,
        ]
        for fold, scan in scans
    ]
    columns = ["scan", "fold", "Dice", "precision", "sensitivity", "lesions found", "wrong lesions"]
    return f"<details><summary>All {len(rows)} scans, the worst first</summary>{table(columns, rows)}</details>"


def settings_section(
    experiment: Experiment, data: Mapping[str, Any], version: str, shown: str, arithmetic: str | None
) -> str:
    """What was trained, on what, and what is shown.

    Args:
        experiment: of the run.
        data: of the run: "preparation" and "fingerprint" of the shards that it was trained on.
        version: of the package.
        shown: fingerprint of the shards of the scans in the report; an ensemble's are others.
        arithmetic: in which it was trained, None where nobody has noted it.
    """
    experiment = experiment.public()
    changed = experiment.changed_settings()
    rows = [[name, _plain(value), "changed" if name in changed else ""] for name, value in experiment.to_json().items()]
    differs = PreparationSettings.from_json(data["preparation"]).changes()
    prepared = [[name, _plain(value), "changed" * (name in differs)] for name, value in data["preparation"].items()]
    shards = f"shards of these scans {shown[:16]}…"
    if shown != data["fingerprint"]:
        shards += f", trained on the shards {data['fingerprint'][:16]}…"
    if arithmetic:
        shards += f"; trained in {arithmetic} arithmetic"
    return (
        f"<h2>Settings</h2><details><summary>Experiment, preparation, version</summary>"
        f"{table(['experiment', '', ''], rows)}{table(['preparation', '', ''], prepared)}"
        f"<p class='small'>doubleunet_bs {text(version)}; {text(shards)}</p></details>"
    )


def _normals_tile(summary: Summary) -> tuple[str, str, str]:
    """What stands beside the detected patients: without it a model that calls everybody positive looks perfect."""
    specificity = summary.detection_mean["specificity"]
    if specificity is not None:
        return "normal patients cleared", with_unit(specificity), _of_folds(summary, "specificity")
    reasons = dict.fromkeys(fold.detection.reason for fold in summary.folds if fold.detection.reason)
    return "normal patients cleared", "not tested", "; ".join(reasons)


def _of_folds(summary: Summary, key: str) -> str:
    return folds_in_mean(summary, key) or ("mean over folds" if len(summary.folds) > 1 else "")


def _patients(summary: Summary) -> str:
    rows = []
    for fold in summary.folds:
        found = fold.detection
        rows.append(
            [
                f"fold {fold.fold}" if fold.fold else "all folds averaged",
                f"{found.detected} / {found.positives}",
                f"{found.cleared} / {found.normals}" if found.normals else None,
                None if found.auc is None else f"{found.auc:.3f}",
                None
                if found.false_positives_per_normal_scan is None
                else f"{found.false_positives_per_normal_scan:.2f}",
            ]
        )
    small = [
        "A patient is called positive when a lesion is predicted in one of his scans. Sensitivity: share of the "
        "positives detected; specificity: share of the normals cleared; AUC: area under the ROC curve, which ranks "
        "patients by the largest mean probability of a predicted lesion (0.5: no better than guessing).",
        *undefined_detection(summary),
    ]
    if summary.filtered:
        after = summary.postprocessed_detection_mean
        wrong = after["false_positives_per_normal_scan"]
        small.append(
            f"With the smallest-lesion filter{', mean over the folds' if len(summary.folds) > 1 else ''}: positives "
            f"detected {with_unit(after['sensitivity'])}, normals cleared {with_unit(after['specificity'])}, wrong lesions "
            f"per normal scan {'undefined' if wrong is None else format(wrong, '.2f')}."
        )
    columns = ["", "positives detected", "normals cleared", "AUC", "wrong lesions per normal scan"]
    return table(columns, rows) + notes(small)


def _lesions(counts: LesionCounts) -> list:
    figures_of = (percent(value) for value in (counts.precision, counts.sensitivity, counts.f1))
    return [counts.true, counts.found, counts.predicted, counts.right, *figures_of]


def _span(interval: Interval) -> str:
    return "" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def _labelled(interval: Interval) -> str:
    return "" if interval is None else f"95 %: {_span(interval)}"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {part}" for name, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
