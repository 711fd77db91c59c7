"""Bone Scan Index from predicted masks against annotated ones, and on phantoms against the truth in three dimensions.

Both networks have to be blind to a scan: lesions are those of the fold of the run that tests it, regions those of the
fold of the skeleton run that tests it. The index is computed on the prepared image.
"""

import csv
import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from doubleunet_bs.bsi import WeightTable, bone_scan_index, choose_table
from doubleunet_bs.bsi.agreement import Agreement, agreement
from doubleunet_bs.bsi.regions import without_posterior_sternum
from doubleunet_bs.constants import METASTATIC
from doubleunet_bs.dataset.joined_shards import Paths, SkeletonDataset, parts_of
from doubleunet_bs.display import PHANTOM_NOTE
from doubleunet_bs.errors import RunError, counted
from doubleunet_bs.evaluation.charts import agreement_chart, mark_figure, svg_uri, write_figures
from doubleunet_bs.evaluation.evaluate import AGREEMENT_FILES, evaluate_run, open_run_data, read_folds
from doubleunet_bs.evaluation.report import write_report
from doubleunet_bs.evaluation.scorer import EvaluationSettings
from doubleunet_bs.evaluation.scores.lesions import view_parts
from doubleunet_bs.evaluation.skeleton import predict_regions
from doubleunet_bs.evaluation.stored_predictions import PREDICTIONS, read_prediction
from doubleunet_bs.evaluation.summary import Summary
from doubleunet_bs.evaluation.tables import Table
from doubleunet_bs.files import csv_text, write_json, write_text
from doubleunet_bs.preparation.records import PHANTOMS, CaseRecord
from doubleunet_bs.preparation.shards import ShardedDataset
from doubleunet_bs.runs.run_folder import Run, open_run
from doubleunet_bs.scans.pseudonyms import load_file_table

JSON, CSV, PICTURE, SCANS_CSV = AGREEMENT_FILES
TRUTH_FILE = "truth.csv"
COLUMNS = ("scans", "Pearson", "Spearman", "bias", "lower limit", "upper limit", "coefficient of variation")


@dataclasses.dataclass(frozen=True)
class ScanIndex:
    """The index of one scan in percent: from predicted and annotated masks, and true, None where it is not known."""

    case: str
    predicted: float
    annotated: float
    true: float | None = None


@dataclasses.dataclass(frozen=True)
class IndexAgreement:
    """The indices of the scans that both networks have not seen.

    Attributes:
        scans: those with an annotated skeleton, each tested by a fold of either run.
        weights: name of the weight table, the same for all scans.
        notes: what was left out and why, one sentence each.
    """

    scans: tuple[ScanIndex, ...]
    weights: str
    notes: tuple[str, ...] = ()

    @property
    def comparisons(self) -> dict[str, Agreement]:
        """Name of a comparison, measured against reference -> its agreement. The truth needs phantoms."""
        known = [(one.predicted, one.annotated, one.true) for one in self.scans if one.true is not None]
        annotated, predicted = [one.annotated for one in self.scans], [one.predicted for one in self.scans]
        found = {"predicted against annotated masks": agreement(annotated, predicted)}
        if known:
            measured, drawn, true = (list(values) for values in zip(*known, strict=True))
            found["predicted masks against the truth"] = agreement(true, measured)
            found["annotated masks against the truth"] = agreement(true, drawn)
        return found

    @property
    def pairs(self) -> dict[str, tuple[list[float], list[float]]]:
        """Name of a reference -> its values and those of predicted masks, for the picture."""
        found = {"annotated": [(one.annotated, one.predicted) for one in self.scans]}
        if known := [(one.true, one.predicted) for one in self.scans if one.true is not None]:
            found["true"] = known
        return {name: ([a for a, _ in own], [b for _, b in own]) for name, own in found.items()}

    @property
    def table(self) -> Table:
        """A row for each comparison, in points and %, with what the figures are and what was left out."""
        rows = []
        reasons: dict[str, list[str]] = {}
        for name, one in self.comparisons.items():
            figures = [*(_text(value, ".3f") for value in (one.pearson, one.spearman)), *map(_text, _points(one))]
            rows.append([name, str(one.scans), *figures, _text(one.variation, ".1%").replace("%", " %")])
            reasons.setdefault(one.note, []).append(name)
        notes = [
            f"Bone Scan Index in percent of the skeleton by the table {self.weights}. Not for diagnosis.",
            "Bias: mean difference in points. Limits: bias minus and plus 1.96 standard deviations (SD) of the "
            "differences (Bland and Altman 1986). Coefficient of variation: SD of the differences / sqrt(2) / mean.",
            *(f"{' and '.join(names)}: {note}." for note, names in reasons.items() if note),
            *self.notes,
        ]
        return Table(("", *COLUMNS), rows, notes=notes)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "unit": "percent of the skeleton",
            "table": self.weights,
            "agreement": {name: dataclasses.asdict(one) for name, one in self.comparisons.items()},
            "notes": self.table.notes,
            "scans": [dataclasses.asdict(one) for one in self.scans],
        }


def _points(one: Agreement) -> list[float | None]:
    return [one.bias, *(one.limits or (None, None))]


def _text(value: float | None, form: str = "+.2f") -> str:
    return "-" if value is None else format(value, form)


def evaluate_with_skeleton(
    path: str | os.PathLike,
    skeleton: str | os.PathLike,
    fold: int | None = None,
    data: Paths | None = None,
    settings: EvaluationSettings | None = None,
    report: bool = True,
    weights: str | None = None,
) -> tuple[Summary, IndexAgreement]:
    """`evaluate_run`, and then the agreement of the Bone Scan Index: `bsi_agreement.json`, two CSV files, a picture.

    Args:
        path, fold, data, settings, report: see `evaluate_run`.
        skeleton: a run of the skeleton experiment. weights: see `measure_agreement`.
    """
    settings = settings or EvaluationSettings()
    table, _ = choose_table(weights)
    bones = open_run(skeleton)
    if not bones.experiment.is_skeleton:
        raise RunError(f"{bones.path}: not a run of the skeleton experiment: name one with --skeleton")
    summary = evaluate_run(path, fold, data, settings, report=False)
    run = open_run(path)
    dataset = open_run_data(run, data)
    found = measure_agreement(run, dataset, summary, bones, settings, table)
    write_json(run.path / JSON, found.to_json())
    compared = [
        (name, one.scans, one.pearson, one.spearman, *_points(one), one.variation, table.name)
        for name, one in found.comparisons.items()
    ]
    write_text(run.path / CSV, csv_text([("comparison", *COLUMNS, "weight table"), *compared]))
    scans = [(*dataclasses.astuple(one), table.name) for one in found.scans]
    write_text(run.path / SCANS_CSV, csv_text([("case", "predicted", "annotated", "true", "weight table"), *scans]))
    chart = agreement_chart(found.pairs)
    mark_figure(chart, PHANTOM_NOTE if summary.provenance.scans == PHANTOMS else "")
    write_figures(run.path, {Path(PICTURE).stem: chart}, "png")
    if report:
        shown = found.table, svg_uri(chart, Path(PICTURE).stem)
        write_report(run, dataset, summary, figures=settings.figures, agreement=shown)
    return summary, found


def measure_agreement(
    run: Run,
    dataset: ShardedDataset,
    summary: Summary,
    skeleton: Run,
    settings: EvaluationSettings,
    table: WeightTable,
) -> IndexAgreement:
    """Compare the indices of the scored test scans of a run.

    Args:
        run, dataset, summary: an evaluated run of lesions, whose predictions are kept.
        skeleton: a run of the skeleton experiment. Scans are the same where their counts are.
        table: of weights.

    Raises:
        RunError: no skeleton is annotated; its images were prepared differently; no scored scan has an annotated
            skeleton, or a fold that tests it.
    """
    bones = open_run_data(skeleton)
    if not isinstance(bones, SkeletonDataset):
        raise RunError(f"{skeleton.path}: no skeleton is annotated in its shards")
    if changes := bones.settings.image_changes(dataset.settings):
        raise RunError(f"{bones.path}: prepared with other settings than the run's scans ({', '.join(changes)})")
    folds = read_folds(skeleton, bones)
    fold_of = {case: fold for fold in skeleton.trained_folds() for case in folds.split(fold).test}
    place_of = {record.pixel_sha256: index for index, record in enumerate(bones.cases)}
    number_of = {record.case: index for index, record in enumerate(dataset.cases)}
    # Fold of the skeleton -> place of a scan there -> its number here, and the fold of lesions that tests it.
    found: dict[int, dict[int, tuple[int, int]]] = {}
    unannotated = untested = 0
    for scores in summary.folds:
        for scan in scores.scans:
            number = number_of[scan.case]
            place = place_of.get(dataset.cases[number].pixel_sha256)
            fold = None if place is None else fold_of.get(bones.cases[place].case)
            if place is None:
                unannotated += 1
            elif fold is None:
                untested += 1
            else:
                found.setdefault(fold, {})[place] = number, scores.fold
    total = len(summary.scans)
    if not found:
        why = "is tested by a trained fold there: train the others" if untested else "has an annotated skeleton there"
        raise RunError(f"{skeleton.path}: none of {counted(total, 'test scan')} of the run {why}")
    reasons = {"no annotated skeleton": unannotated, "no trained fold of the skeleton run tests them": untested}
    notes = [f"{counted(own, 'scan')} of {total} left out: {why}." for why, own in reasons.items() if own]
    scans = []
    for fold, own in sorted(found.items()):
        for one in predict_regions(skeleton, bones, fold, sorted(own), settings):
            number, lesion_fold = own[one.index]
            record, labels = dataset.cases[number], np.asarray(dataset.labels(number))
            mask, *_ = read_prediction(run.fold_path(lesion_fold) / PREDICTIONS, record.case, dataset.image_shape)
            predicted = _index(mask, one.mask, record, table, dataset.settings.bin)
            annotated = _index(labels == METASTATIC, np.asarray(one.labels), record, table, dataset.settings.bin)
            scans.append(ScanIndex(record.case, predicted, annotated))
    truth, unknown = true_indices(dataset, [number_of[one.case] for one in scans], table)
    scans = [dataclasses.replace(one, true=truth.get(one.case)) for one in sorted(scans, key=lambda one: one.case)]
    return IndexAgreement(tuple(scans), table.name, (*notes, *unknown))


def _index(lesions: np.ndarray, regions: np.ndarray, record: CaseRecord, table: WeightTable, bin: int) -> float:
    """The index from two masks of a prepared image, the anterior view on the left."""
    present = [(view, part) for view, part in view_parts(lesions) if view not in record.missing_views]
    bones, _ = without_posterior_sternum({view: regions[part].astype(np.uint8) for view, part in present})
    spacing = record.pixel_spacing_mm and (record.pixel_spacing_mm[0] * bin, record.pixel_spacing_mm[1] * bin)
    return bone_scan_index({view: lesions[part] for view, part in present}, bones, table, spacing).value


def true_indices(
    dataset: ShardedDataset, numbers: Sequence[int], table: WeightTable
) -> tuple[dict[str, float], list[str]]:
    """Case -> true index in percent, of phantoms, and why some have none.

    From the `truth.csv` beside the folder of the scan that `SHARDS.files.csv` names. The scan has to be the file that
    was prepared: its SHA-256 is compared.
    """
    paths: dict[str, Path] = {}
    for part in parts_of(dataset):
        files = part.path.parent / f"{part.path.name}.files.csv"
        if files.is_file():
            paths |= {case: Path(own[0]) for case, own in load_file_table(files).items()}
    found: dict[str, float] = {}
    reasons = set()
    for record in (dataset.cases[number] for number in numbers):
        path = paths.get(record.case)
        if not record.phantom:
            continue
        if path is None or not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != record.source_sha256:
            reasons.add("the files they were prepared from are gone or changed")
        elif path.stem in (values := _read_truth(path.parent.parent / TRUTH_FILE, f"bsi {table.name}")):
            found[record.case] = values[path.stem]
        else:
            reasons.add(f"{TRUTH_FILE} beside the folder of the scans does not give it")
    return found, [f"Some phantoms have no true index: {reason}." for reason in sorted(reasons)]


def _read_truth(path: Path, column: str) -> dict[str, float]:
    """Name of a scan -> its true index; empty where the table cannot be read."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return {row["scan"]: float(row[column]) for row in csv.DictReader(file)}
    except (OSError, csv.Error, KeyError, ValueError, TypeError):
        return {}
