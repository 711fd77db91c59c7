"""From a scored run to `report.html`: the values of the templates in `templates/`, section by section."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from doubleunet_bs.constants import TRUE_POSITIVE, TRUTH
from doubleunet_bs.display import PHANTOM_NOTE
from doubleunet_bs.evaluation.charts import (
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
from doubleunet_bs.evaluation.report_sections import (
    Table,
    comparable_table,
    dice_sentence,
    head,
    lesion_table,
    patient_table,
    pixel_table,
    scan_table,
    settings_section,
    view_table,
)
from doubleunet_bs.evaluation.scan_figures import (
    OUTLINE_TRANSFORM,
    ErrorMaps,
    chosen_scans,
    scan_figure,
)
from doubleunet_bs.evaluation.stored_predictions import PREDICTIONS, read_prediction
from doubleunet_bs.evaluation.summary import (
    Summary,
    by_size,
)
from doubleunet_bs.files import write_text
from doubleunet_bs.preparation.records import PHANTOMS
from doubleunet_bs.preparation.shards import ShardedDataset
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
