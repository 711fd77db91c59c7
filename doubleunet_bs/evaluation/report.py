"""From a scored run to `report.html`: the values of its template, section by section."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from doubleunet_bs import __version__
from doubleunet_bs.constants import TRUE_POSITIVE, TRUTH
from doubleunet_bs.display import PHANTOM_NOTE, hex_colour
from doubleunet_bs.errors import counted
from doubleunet_bs.evaluation import charts, tables
from doubleunet_bs.evaluation.scan_figures import chosen_scans, error_maps, scan_figure
from doubleunet_bs.evaluation.stored_predictions import PREDICTIONS, read_prediction
from doubleunet_bs.evaluation.summary import Summary, by_size, denominator, folds_in_mean
from doubleunet_bs.evaluation.tables import Table, percent, setting_text
from doubleunet_bs.files import write_text
from doubleunet_bs.inference.model_description import with_unit
from doubleunet_bs.preparation.records import PATIENTS, PHANTOMS
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.preparation.shards import ShardedDataset
from doubleunet_bs.runs.experiments import Experiment
from doubleunet_bs.runs.history import read_history
from doubleunet_bs.runs.run_folder import HISTORY, Run
from doubleunet_bs.templates import render_page

REPORT = "report.html"
PACKAGE = "doubleunet_bs.evaluation"
LAYERS = (
    ("truth", "true lesions", True),
    ("prediction", "predicted lesions", True),
    ("probability", "probability map", False),
)
"""Name, label and whether it is shown at the start."""
COLOURS = {"truth": hex_colour(TRUTH), "prediction": hex_colour(TRUE_POSITIVE), "probability": "#e69f00"}


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
        return dataset.grey(index), np.asarray(dataset.labels(index)), *kept[:2]

    def warnings(case: str) -> Sequence[str]:
        return dataset.cases[numbers[case]].warnings

    scans = [(fold.fold, scan) for fold in summary.folds for scan in fold.scans]
    mark = PHANTOM_NOTE if summary.provenance.scans == PHANTOMS else ""
    drawn = {
        "loss": charts.loss_chart(histories),
        "f1": charts.f1_chart(histories),
        "dice": charts.dice_chart([(fold.fold, fold.scans) for fold in summary.folds]),
        "lesion_sizes": charts.size_chart(by_size(summary.scans, summary.unit)),
        "froc": charts.froc_chart([(fold.fold, fold.comparable.froc) for fold in summary.folds]),
    }
    for chart in drawn.values():
        charts.mark_figure(chart, "phantoms" if mark else "")
    doubts = {line for _, scan in scans for line in warnings(scan.case)}
    maps = {
        name: charts.mark_figure(charts.map_chart(name, mean, share, colour, doubts), mark)
        for name, mean, share, colour in error_maps(images(fold, scan.case)[:3] for fold, scan in scans)
    }
    folds = run.experiment.folds
    sentence = "trained and tested on the published split" if folds == 1 else f"{len(trained)} of {folds} folds trained"
    if folder:
        sentence += ", their class probabilities averaged; the scans are from outside of the cross-validation"
    chosen = chosen_scans(scans)
    page = render_page(
        PACKAGE,
        "report.html",
        **head(summary, dataset.image_shape, sentence),
        pixels=tables.pixel_table(summary),
        starred=any(epoch.val_f1 for _, epochs in histories for epoch in epochs),
        charts={name: charts.svg_uri(chart, name) for name, chart in drawn.items()},
        dice=tables.dice_sentence(summary.dice),
        scans=tables.scan_table(scans),
        layers=LAYERS,
        colours=COLOURS,
        chosen=[
            scan_figure(what, fold, scan, images(fold, scan.case), warnings(scan.case)) for what, fold, scan in chosen
        ],
        lesions=tables.lesion_table(summary),
        views=tables.view_table(summary),
        patients=tables.patient_table(summary),
        comparable=tables.comparable_table(summary),
        agreement=agreement,
        maps={name: charts.svg_uri(chart, name) for name, chart in maps.items()},
        mark=mark,
        **settings_section(run.experiment, run.data, dataset.fingerprint, summary.training_precision),
    )
    path = (folder or run.path) / REPORT
    write_text(path, page)
    if figures:
        for what, fold, scan in chosen:
            chart = charts.scan_chart(*images(fold, scan.case)[:3], warnings(scan.case))
            drawn[f"{what}_{scan.case}"] = charts.mark_figure(chart, mark)
        drawn |= {name.lower().replace(" ", "_"): chart for name, chart in maps.items()}
        charts.write_figures(path.parent / charts.FIGURES, drawn, figures)
    return path


def head(summary: Summary, image: tuple[int, int], trained: str) -> dict[str, Any]:
    """Title, what the scans are, and (name, figure, note) of what somebody looks for first."""
    changed = summary.changed_settings
    kind = (
        f"Settings changed against the paper's row of that name: {', '.join(changed)}."
        if changed
        else "All settings are those of the paper's row of that name."
    )
    mean, lesions = summary.mean, summary.lesions
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
        "quality_warning": tables.quality_warning(summary),
        "tiles": [
            *(
                (f"{name}, pixels", with_unit(getattr(mean, key)), f"95 % interval {percent(span)}" if span else "")
                for name, key in (("F1", "f1_of_means"), ("precision", "precision"), ("sensitivity", "sensitivity"))
                for span in [getattr(summary.intervals, key)]
            ),
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
            ("sensitivity (patients with metastases)", *_patients(summary, "sensitivity", "patients")),
            ("specificity (normal patients without a finding)", *_patients(summary, "specificity", "normal patients")),
        ],
    }


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
    rows = [[key, setting_text(value), "changed" if key in changed else ""] for key, value in settings.items()]
    return Table([name, "", ""], rows)


def _patients(summary: Summary, key: str, whom: str) -> tuple[str, str]:
    """A figure by patient and of how many it is; why there is no specificity."""
    value = summary.detection_mean[key]
    if key == "specificity" and value is None:
        return "not tested", "; ".join(dict.fromkeys(filter(None, (fold.detection.reason for fold in summary.folds))))
    mean = folds_in_mean(summary, key) or ("mean over folds" if len(summary.folds) > 1 else "")
    return with_unit(value), "; ".join(filter(None, (f"{denominator(summary, key)} {whom}", mean)))
