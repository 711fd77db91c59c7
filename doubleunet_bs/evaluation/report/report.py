"""From a scored run to `report.html`: the values of the templates in `templates/`, section by section."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from doubleunet_bs import __version__
from doubleunet_bs.constants import TRUE_POSITIVE, TRUTH
from doubleunet_bs.display import PHANTOM_NOTE
from doubleunet_bs.errors import counted
from doubleunet_bs.evaluation.froc import CANDIDATE_FROM, LIMIT
from doubleunet_bs.evaluation.report.charts import (
    FIGURES,
    dice_chart,
    f1_chart,
    froc_chart,
    hex_colour,
    loss_chart,
    map_chart,
    mark_figure,
    scan_chart,
    size_chart,
    svg_uri,
    write_figures,
)
from doubleunet_bs.evaluation.report.scan_figures import (
    OUTLINE_TRANSFORM,
    ErrorMaps,
    chosen_scans,
    scan_figure,
    with_unit,
)
from doubleunet_bs.evaluation.scores import ScanScore
from doubleunet_bs.evaluation.statistics import Distribution, Interval
from doubleunet_bs.evaluation.stored_predictions import PREDICTIONS, read_prediction
from doubleunet_bs.evaluation.summary import (
    Summary,
    by_size,
    by_view,
    denominator,
    folds_in_mean,
    undefined_detection,
)
from doubleunet_bs.evaluation.tables import (
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
from doubleunet_bs.files import write_text
from doubleunet_bs.preparation.records import PATIENTS, PHANTOMS
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.preparation.shards import ShardedDataset
from doubleunet_bs.templates import render_page
from doubleunet_bs.training.experiments import Experiment
from doubleunet_bs.training.history import read_history
from doubleunet_bs.training.run_folder import HISTORY, Run

REPORT = "report.html"
PACKAGE = "doubleunet_bs.evaluation.report"


LAYERS = (
    ("truth", "true lesions", True),
    ("prediction", "predicted lesions", True),
    ("probability", "probability map", False),
)
"""Name, label and whether it is shown at the start."""
COLOURS = {"truth": hex_colour(TRUTH), "prediction": hex_colour(TRUE_POSITIVE), "probability": "#e69f00"}

_THRESHOLD_OF_FOLDS = (
    "Threshold: the best single grey level, chosen on the validation scans. Minimum size: predicted lesions under an "
    "area are dropped where that helps on the validation scans. The raw figures stay the result."
)
_THRESHOLD_OF_ENSEMBLE = (
    "Threshold: the best single grey level, chosen on the scans of the cross-validation. An ensemble has no validation "
    "scans of its own, and so no minimum size."
)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text; `strong` are the numbers of rows to stress."""

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    strong: Sequence[int] = ()
    notes: Sequence[str] = ()


def write_report(
    run: Run,
    dataset: ShardedDataset,
    summary: Summary,
    folder: Path | None = None,
    figures: str | None = None,
    agreement: tuple[Table, str] | None = None,
) -> Path:
    """Write the report of a run, or of its ensemble, as one file from kept predictions; nothing is predicted.

    Args:
        run: the opened run.
        dataset: the shards of the scans in `summary`.
        summary: at least one scored fold.
        folder: where the ensemble's scores and predictions are; None for the run's folds.
        figures: also write each figure as a file of this kind, "pdf", "svg" or "png", into `figures/`.
        agreement: table and picture (data URI) of the Bone Scan Index; None where it was not asked for.

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

    def warnings(case: str) -> Sequence[str]:
        return dataset.cases[numbers[case]].warnings

    scans = [(fold.fold, scan) for fold in summary.folds for scan in fold.scans]
    mark = PHANTOM_NOTE if summary.provenance.scans == PHANTOMS else ""
    charts = {
        "loss": loss_chart(histories),
        "f1": f1_chart(histories),
        "dice": dice_chart([(fold.fold, fold.scans) for fold in summary.folds]),
        "lesion_sizes": size_chart(by_size(summary.scans, summary.unit)),
        "froc": froc_chart([(fold.fold, fold.comparable.froc) for fold in summary.folds]),
    }
    for chart in charts.values():
        mark_figure(chart, "phantoms" if mark else "")
    maps = ErrorMaps(dataset.image_shape)
    for fold, scan in scans:
        maps.add(*images(fold, scan.case)[:3], warnings(scan.case))
    folds = run.experiment.folds
    sentence = "trained and tested on the published split" if folds == 1 else f"{len(trained)} of {folds} folds trained"
    if folder:
        sentence += ", their class probabilities averaged; the scans are from outside of the cross-validation"
    chosen = chosen_scans(scans)
    page = render_page(
        PACKAGE,
        "report.html",
        **head(summary, dataset.image_shape, sentence),
        pixels=pixel_table(summary),
        starred=any(epoch.val_f1 for _, epochs in histories for epoch in epochs),
        charts={name: svg_uri(chart, name) for name, chart in charts.items()},
        dice=dice_sentence(summary.dice),
        scans=scan_table(scans),
        layers=LAYERS,
        colours=COLOURS,
        outline_transform=OUTLINE_TRANSFORM,
        chosen=[
            scan_figure(what, fold, scan, images(fold, scan.case), warnings(scan.case)) for what, fold, scan in chosen
        ],
        lesions=lesion_table(summary),
        views=view_table(summary),
        patients=patient_table(summary),
        comparable=comparable_table(summary),
        agreement=agreement,
        maps=maps,
        mark=mark,
        **settings_section(run.experiment, run.data, dataset.fingerprint, summary.training_precision),
    )
    path = (folder or run.path) / REPORT
    write_text(path, page)
    if figures:
        for what, fold, scan in chosen:
            grey, labels, mask, _ = images(fold, scan.case)
            charts[f"{what}_{scan.case}"] = mark_figure(scan_chart(grey, labels, mask, warnings(scan.case)), mark)
        for name, mean, share, colour in maps.maps():
            charts[name.lower().replace(" ", "_")] = mark_figure(
                map_chart(name, mean, share, colour, maps.warnings), mark
            )
        write_figures(path.parent / FIGURES, charts, figures)
    return path


def head(summary: Summary, image: tuple[int, int], trained: str) -> dict[str, Any]:
    """Title, what the scans are, and (name, figure, note) of what somebody looks for first."""
    changed = summary.changed_settings
    kind = (
        f"Settings changed against the paper's row of that name: {', '.join(changed)}."
        if changed
        else "All settings are those of the paper's row of that name."
    )
    mean, lesions, patients = summary.mean, summary.lesions, summary.detection_mean
    found = summary.intervals
    return {
        "title": f"Double U-Net, {summary.experiment}",
        "introduction": (
            f"Bone-metastasis lesions on whole-body bone scans. {counted(len(summary.scans), 'scan')} that the network "
            f"had not seen, {image[0]} x {image[1]} pixels; {trained}. {kind}"
        ),
        "warning": summary.provenance.notes[0] if summary.provenance.scans != PATIENTS else "",
        "quality_warning": quality_warning(summary),
        "tiles": [
            ("F1, pixels", with_unit(mean.f1_of_means), _interval_text(found.f1_of_means)),
            ("precision, pixels", with_unit(mean.precision), _interval_text(found.precision)),
            ("sensitivity, pixels", with_unit(mean.sensitivity), _interval_text(found.sensitivity)),
            (
                "sensitivity, lesions",
                with_unit(lesions.sensitivity),
                f"{lesions.found} of {lesions.true} true lesions detected",
            ),
            (
                "precision, lesions",
                with_unit(lesions.precision),
                f"{lesions.right} of {lesions.predicted} predicted lesions match",
            ),
            # Without the specificity a model that calls everybody positive looks perfect.
            (
                "sensitivity (patients with metastases)",
                with_unit(patients["sensitivity"]),
                _patients_behind(summary, "sensitivity", "patients"),
            ),
            ("specificity (normal patients without a finding)", *_specificity(summary)),
        ],
    }


def pixel_table(summary: Summary) -> Table:
    """The paper's table: pixels by fold, means, intervals. Beside them threshold and minimum lesion size."""
    paper = summary.provenance.paper
    names = {
        "standard deviation": "SD",
        "interval": "95 % interval",
        "interval of F1": "95 % interval",
        "paper": f"paper, Table {paper.table}: other scans" if paper else "",
    }
    marks = note_marks(summary)
    table, rows = summary_rows(summary), []
    for row in table:
        cells = [_dash(cell) for cell in (*row.model, row.threshold[2], row.minimum_size[2])]
        name = f"{names.get(row.kind, row.kind)} {marks.get(row.kind, '')}".strip()
        rows.append([name if row.fold is None else _fold_name(row.fold), str(row.scans or ""), *cells])
    first, *rest = table_notes(summary)
    notes = [
        first,
        "Precision (positive predictive value): share of the predicted pixels that are metastatic. Sensitivity "
        "(recall): share of the metastatic pixels that are predicted. F1: the harmonic mean of the two, "
        "2 TP / (2 TP + FP + FN). Dice: the same formula on the pixels of one scan.",
        _THRESHOLD_OF_ENSEMBLE if summary.is_ensemble else _THRESHOLD_OF_FOLDS,
        *rest,
    ]
    head = ["", "scans", "precision", "sensitivity", "F1", "threshold: F1", "minimum size: F1"]
    return Table(head, rows, [number for number, row in enumerate(table) if row.kind == "mean"], notes)


def lesion_table(summary: Summary) -> Table:
    """Lesions of all folds together, by view and by size."""
    rows = [
        [name.replace("mm2", "mm²"), *counts, *(_dash(cell, 1) for cell in cells)]
        for name, counts, cells in lesion_rows(summary)
    ]
    overlap = summary.folds[0].overlap if summary.folds else 0.0
    rule = "share a pixel" if not overlap else f"overlap by {overlap:g} (intersection over union)"
    notes = [
        "A lesion is a connected component of metastatic pixels in one view (8-connectivity). "
        f"Two match when they {rule}. FN: true lesions that match no predicted one. FP: predicted lesions that match "
        "no true one.",
        "By size: sensitivity is of the true lesions of this size, precision of the predicted ones of this size.",
    ]
    head = ["lesions", "true", "FN", "predicted", "FP", "precision", "sensitivity", "F1"]
    return Table(head, rows, [0], notes)


def view_table(summary: Summary) -> Table:
    """Pixels by view."""
    rows = [[view, *map(_dash, pixels.figures)] for view, (pixels, _) in by_view(summary.scans).items()]
    return Table(["", "precision", "sensitivity", "F1"], rows)


def patient_table(summary: Summary) -> Table:
    """Patients by fold, and what the minimum lesion size does to them."""
    rows = []
    for fold in summary.folds:
        found = fold.detection
        rows.append(
            [
                _fold_name(fold.fold),
                f"{found.detected} of {found.positives}",
                f"{found.cleared} of {found.normals}" if found.normals else "–",
                patient_figure("auc", found.auc, "–"),
                patient_figure("false_positives_per_normal_scan", found.false_positives_per_normal_scan, "–"),
            ]
        )
    notes = [
        "A patient is called positive when a lesion is predicted in one of their scans. Sensitivity: share of the "
        "patients with metastases who are called positive. Specificity: share of the normal patients without a "
        "finding. AUC: area under the ROC curve, which ranks patients by the largest mean probability of a predicted "
        "lesion (0.5: no better than guessing).",
        *undefined_detection(summary),
    ]
    if summary.filtered:
        after = summary.postprocessed_detection_mean
        wrong = after["false_positives_per_normal_scan"]
        notes.append(
            f"With the minimum lesion size{', mean over the folds' if len(summary.folds) > 1 else ''}: sensitivity "
            f"{_figure_of(summary, 'sensitivity')}, specificity {_figure_of(summary, 'specificity')}, false-positive "
            f"lesions per normal scan {patient_figure('false_positives_per_normal_scan', wrong, 'undefined')}."
        )
    head = ["", "sensitivity", "specificity", "AUC", "false-positive lesions per normal scan"]
    return Table(head, rows, notes=notes)


def comparable_table(summary: Summary) -> Table:
    """Figures as other publications give them."""
    notes = [
        "Of all scans the model has not seen, normal ones as well. An image is one view."
        + (" Means over the folds, whose probabilities are not pooled." if len(summary.folds) > 1 else ""),
        "Dice, mean over images: without images that have no true and no predicted pixel; one with predicted pixels "
        "only has 0.",
        f"FROC: a candidate is a connected area of a probability of at least {CANDIDATE_FROM:g}, ranked by its peak. "
        "It detects the true lesion in which its peak lies; in none it is a false positive.",
        f"FROC area (Bandos et al. 2009): mean sensitivity from 0 to {LIMIT:g} false positives per scan. AUC: area "
        "under the ROC curve of the largest probability. An image is positive where it has a true lesion.",
        *summary.comparable_notes,
    ]
    head = ["", "this run", "published"] if summary.published else ["", "mean" if len(summary.folds) > 1 else ""]
    return Table(head, comparable_rows(summary, "–"), notes=notes)


def scan_table(scans: Sequence[tuple[int, ScanScore]]) -> Table:
    """Every test scan, the worst first; `scans` are (fold, score)."""
    ordered = sorted(scans, key=lambda item: (-1.0 if item[1].dice is None else item[1].dice, item[1].case))
    rows = [
        [
            scan.case,
            fold or "all",
            *(_dash(value, 1) for value in (scan.dice, scan.counts.precision, scan.counts.sensitivity)),
            f"{scan.lesions.found} of {scan.lesions.true}",
            scan.lesions.false_positives,
        ]
        for fold, scan in ordered
    ]
    return Table(["scan", "fold", "Dice", "precision", "sensitivity", "lesions detected", "FP lesions"], rows)


def dice_sentence(dice: Distribution) -> str:
    """The Dice of the scans in a sentence."""
    if dice.median is None:
        return "No scan has a Dice coefficient."
    sd = "" if dice.sd is None else f", SD {percent(dice.sd, 1)}"
    undefined = (
        f" {counted(dice.undefined, 'scan')} without: nothing there, nothing predicted." if dice.undefined else ""
    )
    return (
        f"Dice of {counted(dice.scans, 'scan')}: median {percent(dice.median, 1)} %, the middle half between "
        f"{percent(dice.lower_quartile, 1)} and {percent(dice.upper_quartile, 1)} %, range {percent(dice.minimum, 1)} "
        f"to {percent(dice.maximum, 1)} %, mean {percent(dice.mean, 1)} %{sd}.{undefined}"
    )


def settings_section(
    experiment: Experiment, data: Mapping[str, Any], shown: str, precision: str | None
) -> dict[str, Any]:
    """What was trained, on what, and what is shown: the scans of the shards with the fingerprint `shown`."""
    experiment = experiment.public()
    changed = experiment.changed_settings()
    differs = PreparationSettings.from_json(data["preparation"]).changes()
    shards = f"shards of these scans {shown[:16]}…"
    if shown != data["fingerprint"]:
        shards += f", trained on the shards {data['fingerprint'][:16]}…"
    if precision:
        shards += f"; training precision {precision}"
    return {
        "experiment": _setting_table("experiment", experiment.to_json(), changed),
        "preparation": _setting_table("preparation", data["preparation"], differs),
        "version": f"doubleunet_bs {__version__}; {shards}",
    }


def _setting_table(name: str, settings: Mapping[str, Any], changed: Mapping[str, Any] | Sequence[str]) -> Table:
    rows = [[key, _plain(value), "changed" if key in changed else ""] for key, value in settings.items()]
    return Table([name, "", ""], rows)


def _specificity(summary: Summary) -> tuple[str, str]:
    """The figure and a note, which says why where there is none."""
    specificity = summary.detection_mean["specificity"]
    if specificity is not None:
        return with_unit(specificity), _patients_behind(summary, "specificity", "normal patients")
    reasons = dict.fromkeys(fold.detection.reason for fold in summary.folds if fold.detection.reason)
    return "not tested", "; ".join(reasons)


def _patients_behind(summary: Summary, key: str, whom: str) -> str:
    """Of how many patients a figure is, and that it is a mean over folds."""
    mean = folds_in_mean(summary, key) or ("mean over folds" if len(summary.folds) > 1 else "")
    return "; ".join(part for part in (f"{denominator(summary, key)} {whom}", mean) if part)


def _figure_of(summary: Summary, key: str) -> str:
    """A figure by patient with the minimum lesion size, and of how many it is."""
    behind = denominator(summary, key, minimum_size=True)
    return with_unit(summary.postprocessed_detection_mean[key]) + (f" ({behind})" if behind else "")


def _dash(value: Cell, digits: int = 2) -> str:
    return percent(value, digits, "–")


def _fold_name(fold: int) -> str:
    return f"fold {fold}" if fold else "all folds averaged"


def _interval_text(interval: Interval) -> str:
    return "" if interval is None else f"95 % interval {percent(interval)}"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {part}" for name, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
