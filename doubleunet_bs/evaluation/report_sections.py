"""The sections of a run's report as values of its templates: head, tables, sentences, settings."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from doubleunet_bs import __version__
from doubleunet_bs.errors import counted
from doubleunet_bs.evaluation.scan_figures import (
    with_unit,
)
from doubleunet_bs.evaluation.scores.froc import CANDIDATE_FROM, LIMIT
from doubleunet_bs.evaluation.scores.scan_scores import ScanScore
from doubleunet_bs.evaluation.scores.statistics import Distribution, Interval
from doubleunet_bs.evaluation.summary import (
    Summary,
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
from doubleunet_bs.preparation.records import PATIENTS
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.runs.experiments import Experiment

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
    scans = counted(len(summary.scans), "scan")
    if not summary.scans and (unoutlined := sum(len(fold.unoutlined) + len(fold.normals) for fold in summary.folds)):
        scans = f"{counted(unoutlined, 'scan')} without outlines"
    return {
        "title": f"Double U-Net, {summary.experiment}",
        "introduction": (
            f"Bone-metastasis lesions on whole-body bone scans. {scans} that the network "
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
        "All scans that the model has not seen, normal ones included. An image is one view."
        + (" Means over the folds, whose probabilities are not pooled." if len(summary.folds) > 1 else ""),
        "Dice, mean over images: images without true and predicted pixels are left out. An image with predicted but no "
        "true pixels counts as 0.",
        f"FROC: a candidate is a connected area of a probability of at least {CANDIDATE_FROM:g}, ranked by its peak. "
        "It detects the true lesion in which its peak lies. If it lies in none, it is a false positive.",
        f"FROC area (Bandos et al. 2009): mean sensitivity from 0 to {LIMIT:g} false positives per scan. AUC: area "
        "under the ROC curve of the largest probability. An image is positive where it has a true lesion.",
        *summary.comparable_notes,
    ]
    head = ["", "this run", "published"] if summary.published else ["", "mean" if len(summary.folds) > 1 else ""]
    # A figure and its unit stay on one line of a phone.
    rows = [
        [name, *(cell.replace(" %", "\u00a0%") for cell in cells)] for name, *cells in comparable_rows(summary, "–")
    ]
    return Table(head, rows, notes=notes)


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
