"""From a scored run to `report.html`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from doubleunet_bs import __version__
from doubleunet_bs.errors import counted
from doubleunet_bs.evaluation.lesions import LesionCounts
from doubleunet_bs.evaluation.report.charts import dice_chart, f1_chart, loss_chart, size_chart
from doubleunet_bs.evaluation.report.markup import LAYERS, STYLE, notes, percent, table, text, with_unit
from doubleunet_bs.evaluation.report.scan_figures import ErrorMaps, chosen_scans, scan_figure
from doubleunet_bs.evaluation.statistics import Interval
from doubleunet_bs.evaluation.stored_predictions import PREDICTIONS, read_prediction
from doubleunet_bs.evaluation.summary import (
    Mean,
    Summary,
    by_size,
    by_view,
    figures,
    postprocessed_figures,
    threshold_figures,
)
from doubleunet_bs.evaluation.tables import folds_in_mean, interval_note, undefined_detection
from doubleunet_bs.files import write_text
from doubleunet_bs.preparation.records import PATIENTS
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.preparation.shards import ShardedDataset
from doubleunet_bs.training.experiments import Experiment
from doubleunet_bs.training.history import read_history
from doubleunet_bs.training.run_folder import HISTORY, Run


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


REPORT = "report.html"


def write_report(run: Run, dataset: ShardedDataset, summary: Summary, folder: Path | None = None) -> Path:
    """Write the report of a run, or of its ensemble, from kept predictions; nothing is predicted.

    The page needs no network, no script and no second file.

    Args:
        run: the opened run.
        dataset: the shards of the scans in `summary`.
        summary: at least one scored fold.
        folder: where the ensemble's scores and predictions are; None for the run's folds.

    Returns:
        The file.

    Raises:
        RunError: a kept prediction or a training history is missing or damaged.
    """
    numbers = {case.case: index for index, case in enumerate(dataset.cases)}
    trained = run.trained_folds() if folder else [fold.fold for fold in summary.folds]
    histories = [(fold, read_history(run.fold_path(fold) / HISTORY)) for fold in trained]

    def images(fold: int, case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        kept = read_prediction((folder or run.fold_path(fold)) / PREDICTIONS, case, dataset.image_shape)
        index = numbers[case]
        return dataset.grey(index), np.asarray(dataset.labels(index)), *kept

    scans = [(fold.fold, scan) for fold in summary.folds for scan in fold.scans]
    maps = ErrorMaps.empty(dataset.image_shape)
    for fold, scan in scans:
        maps.add(*images(fold, scan.case)[:3])
    chosen = "".join(
        scan_figure(what, fold, scan, *images(fold, scan.case)) for what, fold, scan in chosen_scans(scans)
    )
    sentence = f"{len(trained)} of {run.experiment.folds} folds trained"
    if folder:
        sentence += ", their class probabilities averaged; the scans are from outside of the cross-validation"
    body = "".join(
        [
            head(summary, dataset.image_shape, sentence),
            table_section(summary),
            "<h2>Training</h2><div class='grid'>",
            f"<div class='chart'>{loss_chart(histories)}</div><div class='chart'>{f1_chart(histories)}</div></div>",
            "<p class='small'>One pair of lines a fold; the star is the epoch that is tested.</p>",
            "<h2>Scan by scan</h2>",
            f"<div class='grid'><div class='chart'>"
            f"{dice_chart([(fold.fold, fold.scans) for fold in summary.folds])}</div>{_dice_text(summary)}</div>",
            scan_list(summary),
            "<h2>Best, median and worst scans</h2>",
            _switches(),
            f"<div class='scans grid'>{chosen}</div>",
            lesion_section(summary, size_chart(by_size(summary.scans, summary.unit))),
            "<h2>Where the errors are</h2>",
            f"<p class='small'>All {maps.scans} test scans laid over each other, each body centred in its window; "
            "behind them their mean. The colour says in what share of the scans a pixel is wrong, smoothed over the "
            f"pixels around it, so that single errors are spread out.</p><div class='grid'>{maps.figures()}</div>",
            settings_section(run.experiment, run.data, __version__, dataset.fingerprint, summary.arithmetic),
        ]
    )
    path = (folder or run.path) / REPORT
    write_text(path, _page(f"Double U-Net, {summary.experiment}", body))
    return path


def _page(title: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # Nothing but what is in the file may be loaded, and nothing may run.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f'<link rel="icon" href="data:,"><title>{text(title)}</title><style>{STYLE}</style></head>'
        f"<body><main>{body}</main></body></html>\n"
    )


def _switches() -> str:
    boxes = []
    for name, label, colour, on in LAYERS:
        boxes.append(
            f'<input type="checkbox" class="switch" id="show-{name}"{" checked" if on else ""}>'
            f'<label for="show-{name}"><span class="swatch" style="background:{colour}"></span>'
            f"{text(label)}</label><br>"
        )
    return "".join(boxes)


def _dice_text(summary: Summary) -> str:
    dice = summary.dice
    if dice.median is None:
        return "<p>No scan has a Dice coefficient.</p>"
    sd = "" if dice.sd is None else f", SD {100 * dice.sd:.1f}"
    undefined = (
        f" {counted(dice.undefined, 'scan')} without: nothing there, nothing predicted." if dice.undefined else ""
    )
    return (
        f"<p>Dice of {counted(dice.scans, 'scan')}: median {100 * dice.median:.1f} %, the middle half between "
        f"{100 * dice.lower_quartile:.1f} and {100 * dice.upper_quartile:.1f} %, range {100 * dice.minimum:.1f} to "
        f"{100 * dice.maximum:.1f} %, mean {100 * dice.mean:.1f} %{sd}.{undefined}</p>"
    )
