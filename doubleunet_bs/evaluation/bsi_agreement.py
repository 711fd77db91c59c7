"""Bone Scan Index from predicted masks against annotated ones, and on phantoms against the truth in three dimensions.

Both networks have to be blind to a scan: lesions are those of the fold of the run that tests it, regions those of the
fold of the skeleton run that tests it. The index is computed on the prepared image.
"""

import csv
import dataclasses
import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from doubleunet_bs.bsi import WeightTable, bone_scan_index, choose_table
from doubleunet_bs.bsi.agreement import Agreement, agreement
from doubleunet_bs.bsi.regions import without_posterior_sternum
from doubleunet_bs.constants import METASTATIC, VIEWS
from doubleunet_bs.dataset.joined_shards import Paths, parts_of
from doubleunet_bs.dataset.skeleton import SkeletonDataset
from doubleunet_bs.display import PHANTOM_NOTE
from doubleunet_bs.errors import RunError, counted
from doubleunet_bs.evaluation.charts import agreement_chart, mark_figure, svg_uri, write_figures
from doubleunet_bs.evaluation.evaluate import AGREEMENT_FILES, evaluate_run, open_run_data, read_folds
from doubleunet_bs.evaluation.report import write_report
from doubleunet_bs.evaluation.scorer import EvaluationSettings
from doubleunet_bs.evaluation.skeleton import predict_regions
from doubleunet_bs.evaluation.stored_predictions import PREDICTIONS, read_prediction
from doubleunet_bs.evaluation.summary import Summary
from doubleunet_bs.evaluation.tables import Table
from doubleunet_bs.files import write_json, write_text
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
        table: name of the weight table, the same for all scans.
        notes: what was left out and why, one sentence each.
    """

    scans: tuple[ScanIndex, ...]
    table: str
    notes: tuple[str, ...] = ()

    @property
    def comparisons(self) -> dict[str, Agreement]:
        """Name of a comparison, measured against reference -> its agreement. The truth needs phantoms."""
        known = [(one.predicted, one.annotated, one.true) for one in self.scans if one.true is not None]
        found = {
            "predicted against annotated masks": agreement(
                [one.annotated for one in self.scans], [one.predicted for one in self.scans]
            )
        }
        if known:
            predicted, annotated, true = zip(*known, strict=True)
            found["predicted masks against the truth"] = agreement(true, predicted)
            found["annotated masks against the truth"] = agreement(true, annotated)
        return found

    @property
    def pairs(self) -> dict[str, tuple[list[float], list[float]]]:
        """Name of a comparison -> the values of its reference and the measured ones, for the picture."""
        known = [one for one in self.scans if one.true is not None]
        found = {"annotated": [(one.annotated, one.predicted) for one in self.scans]}
        if known:
            found["true"] = [(one.true or 0.0, one.predicted) for one in known]
        return {name: ([a for a, _ in own], [b for _, b in own]) for name, own in found.items()}

    @property
    def rows(self) -> list[list[str]]:
        """Name of the comparison and the figures of `COLUMNS` as text, in points and %; "-" where undefined."""
        rows = []
        for name, one in self.comparisons.items():
            limits = one.limits or (None, None)
            figures = [f"{value:.3f}" if value is not None else "-" for value in (one.pearson, one.spearman)]
            points = [f"{value:+.2f}" if value is not None else "-" for value in (one.bias, *limits)]
            variation = "-" if one.variation is None else f"{100 * one.variation:.1f} %"
            rows.append([name, str(one.scans), *figures, *points, variation])
        return rows

    @property
    def all_notes(self) -> list[str]:
        """What the figures are, then what is undefined and what was left out."""
        reasons: dict[str, list[str]] = {}
        for name, one in self.comparisons.items():
            if one.note:
                reasons.setdefault(one.note, []).append(name)
        return [
            f"Bone Scan Index in percent of the skeleton by the table {self.table}. Not for diagnosis.",
            "Bias: mean difference in points. Limits: bias minus and plus 1.96 standard deviations (SD) of the "
            "differences (Bland and Altman 1986). Coefficient of variation: SD of the differences / sqrt(2) / mean.",
            *(f"{' and '.join(names)}: {note}." for note, names in reasons.items()),
            *self.notes,
        ]

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "unit": "percent of the skeleton",
            "table": self.table,
            "agreement": {name: one.to_json() for name, one in self.comparisons.items()},
            "notes": self.all_notes,
            "scans": [dataclasses.asdict(one) for one in self.scans],
        }


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
    choose_table(weights)  # complains before the work
    bones = open_run(skeleton)
    if not bones.experiment.is_skeleton:
        raise RunError(f"{bones.path}: not a run of the skeleton experiment: name one with --skeleton")
    summary = evaluate_run(path, fold, data, settings, report=False)
    run = open_run(path)
    dataset = open_run_data(run, data)
    found = measure_agreement(run, dataset, summary, bones, settings, weights)
    write_agreement(run.path, found)
    chart = agreement_chart(found.pairs)
    mark_figure(chart, PHANTOM_NOTE if summary.provenance.scans == PHANTOMS else "")
    write_figures(run.path, {Path(PICTURE).stem: chart}, "png")
    if report:
        shown = Table(("", *COLUMNS), found.rows, notes=found.all_notes), svg_uri(chart, Path(PICTURE).stem)
        write_report(run, dataset, summary, figures=settings.figures, agreement=shown)
    return summary, found


def measure_agreement(
    run: Run,
    dataset: ShardedDataset,
    summary: Summary,
    skeleton: Run,
    settings: EvaluationSettings,
    weights: str | None,
) -> IndexAgreement:
    """Compare the indices of the scored test scans of a run.

    Args:
        run, dataset, summary: an evaluated run of lesions, whose predictions are kept.
        skeleton: a run of the skeleton experiment. Scans are the same where their counts are.
        weights: name of a weight table; None: that of patients whose sex is not known.

    Raises:
        RunError: no skeleton is annotated; its images were prepared differently; no scored scan has an annotated
            skeleton, or a fold that tests it.
        SettingsError: no such table.
    """
    table, _ = choose_table(weights)
    bones = open_run_data(skeleton)
    if not isinstance(bones, SkeletonDataset):
        raise RunError(f"{skeleton.path}: no skeleton is annotated in its shards")
    if changes := bones.settings.image_changes(dataset.settings):
        raise RunError(f"{bones.path}: prepared with other settings than the run's scans ({', '.join(changes)})")
    folds = read_folds(skeleton, bones)
    fold_of = {case: fold for fold in skeleton.trained_folds() for case in folds.split(fold).test}
    place_of = {record.pixel_sha256: index for index, record in enumerate(bones.cases)}
    records = {record.case: record for record in dataset.cases}
    number_of = {record.case: index for index, record in enumerate(dataset.cases)}
    found: dict[int, list[tuple[int, str, int]]] = {}
    unannotated, untested = 0, 0
    for scores in summary.folds:
        for scan in scores.scans:
            place = place_of.get(records[scan.case].pixel_sha256)
            if place is None:
                unannotated += 1
            elif bones.cases[place].case not in fold_of:
                untested += 1
            else:
                found.setdefault(fold_of[bones.cases[place].case], []).append((place, scan.case, scores.fold))
    total = len(summary.scans)
    if not found:
        why = "is tested by a trained fold there: train the others" if untested else "has an annotated skeleton there"
        raise RunError(f"{skeleton.path}: none of {counted(total, 'test scan')} of the run {why}")
    notes = []
    if unannotated:
        notes.append(f"{counted(unannotated, 'scan')} of {total} left out: no annotated skeleton.")
    if untested:
        notes.append(
            f"{counted(untested, 'scan')} of {total} left out: no trained fold of the skeleton run tests them."
        )
    truths = _Truths(dataset, table)
    scans = []
    for fold, own in sorted(found.items()):
        by_place = {place: (case, of) for place, case, of in own}
        for one in predict_regions(skeleton, bones, fold, sorted(by_place), settings):
            case, lesion_fold = by_place[one.index]
            record, labels = records[case], np.asarray(dataset.labels(number_of[case]))
            kept = run.fold_path(lesion_fold) / PREDICTIONS
            mask, *_ = read_prediction(kept, case, dataset.image_shape)
            predicted = _index(mask, one.mask, record, table, dataset.settings.bin)
            annotated = _index(labels == METASTATIC, np.asarray(one.labels), record, table, dataset.settings.bin)
            scans.append(ScanIndex(case, predicted, annotated, truths.of(record)))
    notes += sorted(truths.notes)
    return IndexAgreement(tuple(sorted(scans, key=lambda one: one.case)), table.name, tuple(notes))


def _index(lesions: np.ndarray, regions: np.ndarray, record: CaseRecord, table: WeightTable, bin: int) -> float:
    """The index from two masks of a prepared image, the anterior view on the left."""
    half = lesions.shape[1] // 2
    parts = {view: part for view, part in zip(VIEWS, (np.s_[:, :half], np.s_[:, half:]), strict=True)}
    present = [view for view in VIEWS if view not in record.missing_views]
    bones = {view: regions[parts[view]].astype(np.uint8) for view in present}
    bones, _ = without_posterior_sternum(bones)
    spacing = record.pixel_spacing_mm and (record.pixel_spacing_mm[0] * bin, record.pixel_spacing_mm[1] * bin)
    return bone_scan_index({view: lesions[parts[view]] for view in present}, bones, table, spacing).value


class _Truths:
    """True indices of phantoms, from the `truth.csv` beside the folder of the scan that `SHARDS.files.csv` names.

    The scan has to be the file that was prepared: its SHA-256 is compared.
    """

    def __init__(self, dataset: ShardedDataset, table: WeightTable):
        self.column = f"bsi {table.name}"
        self.notes: set[str] = set()
        self.tables: dict[Path, list[dict[str, str]]] = {}
        self.paths: dict[str, Path] = {}
        for part in parts_of(dataset):
            table_of_files = part.path.parent / f"{part.path.name}.files.csv"
            if table_of_files.is_file():
                self.paths |= {case: Path(own[0]) for case, own in load_file_table(table_of_files).items()}

    def of(self, record: CaseRecord) -> float | None:
        """The true index of a case in percent; None for a patient, and where no truth is found."""
        if not record.phantom:
            return None
        path = self.paths.get(record.case)
        try:
            same = path is not None and hashlib.sha256(path.read_bytes()).hexdigest() == record.source_sha256
        except OSError:
            same = False
        if path is None or not same:
            self.notes.add("Some phantoms have no true index: the files they were prepared from are gone or changed.")
            return None
        table = path.parent.parent / TRUTH_FILE
        if table not in self.tables:
            self.tables[table] = _read_rows(table)
        for row in self.tables[table]:
            if row.get("scan") == path.stem:
                try:
                    return float(row[self.column])
                except (KeyError, ValueError):
                    break
        self.notes.add(
            f"Some phantoms have no true index: {TRUTH_FILE} beside the folder of the scans does not give it."
        )
        return None


def _read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none where it cannot be read."""
    try:
        return list(csv.DictReader(io.StringIO(path.read_text("utf-8"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def write_agreement(folder: Path, found: IndexAgreement) -> None:
    """Write `bsi_agreement.json`, its table as CSV, and the index of each scan as CSV."""
    write_json(folder / JSON, found.to_json())
    table, scans = io.StringIO(), io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("comparison", *COLUMNS, "weight table"))
    for name, one in found.comparisons.items():
        limits = one.limits or (None, None)
        writer.writerow((name, one.scans, one.pearson, one.spearman, one.bias, *limits, one.variation, found.table))
    writer = csv.writer(scans, lineterminator="\n")
    writer.writerow(("case", "predicted", "annotated", "true", "weight table"))
    writer.writerows((*dataclasses.astuple(one), found.table) for one in found.scans)
    write_text(folder / CSV, table.getvalue())
    write_text(folder / SCANS_CSV, scans.getvalue())


def format_agreement(found: IndexAgreement) -> str:
    """The table for the terminal."""
    head = f"{'Bone Scan Index':<36}" + "".join(
        f"{name:>{max(9, len(name) + 2)}}" for name in ("scans", "Pearson", "Spearman", "bias", "limits", "variation")
    )
    lines = [head]
    for name, scans, pearson, spearman, bias, lower, upper, variation in found.rows:
        limits = f"{lower} to {upper}" if lower != "-" else "-"
        lines.append(f"{name:<36}{scans:>9}{pearson:>9}{spearman:>10}{bias:>9}{limits:>17}{variation:>11}")
    return "\n".join([*lines, *(f"  {note}" for note in found.all_notes)])
