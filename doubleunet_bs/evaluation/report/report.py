"""From a scored run to `report.html`."""

from pathlib import Path

import numpy as np

from doubleunet_bs import __version__
from doubleunet_bs.evaluation.breakdown import by_size
from doubleunet_bs.evaluation.report.charts import dice_chart, f1_chart, loss_chart, size_chart
from doubleunet_bs.evaluation.report.error_maps import ErrorMaps
from doubleunet_bs.evaluation.report.markup import text
from doubleunet_bs.evaluation.report.scan_figures import chosen_scans, scan_figure
from doubleunet_bs.evaluation.report.sections import head, lesion_section, scan_list, settings_section, table_section
from doubleunet_bs.evaluation.report.style import LAYERS, STYLE
from doubleunet_bs.evaluation.stored_predictions import PREDICTIONS, read_prediction
from doubleunet_bs.evaluation.summary import Summary
from doubleunet_bs.files import write_text
from doubleunet_bs.preparation.shards import ShardedDataset
from doubleunet_bs.training.history import read_history
from doubleunet_bs.training.run_folder import HISTORY, Run
from doubleunet_bs.words import counted

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
