"""The work of `rank`: a table of scans, the least certain first, and outlines of the first ones to correct."""

import csv
import dataclasses
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from doubleunet_bs.constants import CLASS_NAMES, NON_METASTATIC, VIEWS
from doubleunet_bs.display import png_bytes
from doubleunet_bs.errors import DatasetError, ScanError, SettingsError, counted, printable
from doubleunet_bs.files import new_folder, write_text
from doubleunet_bs.findings.lesion_list import find_areas
from doubleunet_bs.inference.committee import Committee, Uncertainty
from doubleunet_bs.preparation.case import prepare_scan
from doubleunet_bs.preparation.shards import DATASET, open_shards
from doubleunet_bs.results.input_scans import list_scans, scan_name
from doubleunet_bs.results.labelme_output import annotation_paths, class_label, lesion_shapes, write_annotations
from doubleunet_bs.results.overlay import view_pictures
from doubleunet_bs.scans.scan_files import ScanFiles

TABLE, OUTLINES = "ranking.csv", "outlines"
SHOWN = 10
"""Lines of the table that are printed."""


@dataclasses.dataclass(frozen=True)
class RankingTask:
    """What a user asks `rank` for.

    Attributes:
        scans: folder, file or archive of scans, or a folder of shards.
        out: new folder for the table and the outlines.
        outlines: number of scans to write outlines of; not of shards, which hold no raw views.
        by: "entropy" or "disagreement".
        allow_missing_view: accept scans of one view.
    """

    scans: str
    out: Path
    outlines: int = 0
    by: str = "entropy"
    allow_missing_view: bool = False

    @property
    def are_shards(self) -> bool:
        """Whether the scans are a folder written by `prepare`."""
        return (Path(self.scans) / DATASET).is_file()


@dataclasses.dataclass(frozen=True)
class RankedScan:
    """A scan and what the model says of it. `files` is None, and `path` empty, for a case of shards."""

    case: str
    path: str
    entropy: float
    disagreement: float | None
    metastatic_pixels: int
    files: ScanFiles | None = None

    @classmethod
    def of(cls, case: str, found: Uncertainty, files: ScanFiles | None = None) -> "RankedScan":
        path = " + ".join(files.full_paths) if files else ""
        return cls(case, path, found.entropy, found.disagreement, int((found.mask == 1).sum()), files)


def rank_scans(task: RankingTask, model: Path) -> int:
    """Rank scans, write the table and the first outlines, and print the first lines.

    Args:
        task: what is asked for.
        model: see `Committee`.

    Returns:
        0 when all scans are ranked, else 1.

    Raises:
        BoneScanError: options that do not go together, or nothing can be ranked. Nothing is written.
    """
    if task.are_shards and task.outlines:
        raise SettingsError(f"{task.scans}: shards hold no raw views: leave out --outlines, or name the scans instead")
    if task.outlines < 0:
        raise SettingsError(f"--outlines {task.outlines}: give a number of scans")
    problems: list[str] = []
    with new_folder(task.out) as new:
        committee = Committee(model)
        if task.by == "disagreement" and len(committee) == 1:
            raise SettingsError(f"{model}: one fold cannot disagree: name a run of several folds, or leave out --by")
        print(f"model     {committee.text}", flush=True)
        for warning in committee.warnings:
            print(f"warning   {warning}", flush=True)
        for path in committee.gone:
            print(f"note      {path}: is gone: scans of it are not left out", flush=True)
        ranked = list(_of_shards(task, committee) if task.are_shards else _of_scans(task, committee, problems))
        for problem in problems:
            print(f"error: {problem}", file=sys.stderr)
        if not ranked:
            raise ScanError(f"{task.scans}: no scan is left to rank: name scans that the model has not seen", "empty")
        ranked.sort(key=lambda scan: (-getattr(scan, task.by), scan.path, scan.case))
        write_text(new / TABLE, table_text(ranked), mode=0o600)
        for scan in ranked[: task.outlines]:
            assert scan.files is not None  # of shards there are no outlines
            write_outlines(new / OUTLINES, scan.files, committee, task.allow_missing_view)
    if len(ranked) > SHOWN:
        print(f"the first {SHOWN} of {len(ranked)}:")
    for rank, scan in enumerate(ranked[:SHOWN], start=1):
        name = printable(scan_name(scan.files.sources)) if scan.files else scan.case
        print(f"{rank:>6}  {getattr(scan, task.by):.5f}  {name}")
    print(f"{counted(len(ranked), 'scan')} by {task.by}: {task.out / TABLE}, for you only")
    if task.outlines:
        print(f"outlines to correct in Labelme, then for `prepare --labels`: {task.out / OUTLINES}")
    return 1 if problems else 0


def table_text(ranked: list[RankedScan]) -> str:
    """The table, one line a scan, the first to annotate first. It names files: for their owner only."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("rank", "case", "entropy", "disagreement", "metastatic_pixels", "path"))
    for rank, scan in enumerate(ranked, start=1):
        disagreement = None if scan.disagreement is None else f"{scan.disagreement:.6g}"
        figures = f"{scan.entropy:.6g}", disagreement, scan.metastatic_pixels
        writer.writerow((rank, scan.case, *figures, printable(scan.path)))
    return text.getvalue()


def _of_shards(task: RankingTask, committee: Committee) -> Iterator[RankedScan]:
    dataset = open_shards(task.scans, verify=True)
    if changes := dataset.settings.image_changes(committee.description.preparation):
        other = ", ".join(changes)
        raise DatasetError(f"{task.scans}: not prepared as the model's scans ({other}): name the scans instead")
    unseen = [number for number, case in enumerate(dataset.cases) if case.pixel_sha256 not in committee.seen]
    _say_left_out(len(dataset) - len(unseen))
    for number in tqdm(unseen, "rank", unit="scan", dynamic_ncols=True, file=sys.stderr, disable=None):
        case = dataset.cases[number]
        yield RankedScan.of(case.case, committee.judge(dataset.grey(number), case.missing_views))


def _of_scans(task: RankingTask, committee: Committee, problems: list[str]) -> Iterator[RankedScan]:
    found = list_scans([task.scans], task.allow_missing_view)
    problems += [f"{printable(file.path)}: {file.message}" for file in found.rejected if file.reason != "duplicate"]
    known, left_out = set(committee.seen), 0
    for files in tqdm(found.scans, "rank", unit="scan", dynamic_ncols=True, file=sys.stderr, disable=None):
        try:
            scan = files.read(task.allow_missing_view)
            prepared = prepare_scan(scan, settings=committee.description.preparation)
        except ScanError as error:
            problems.append(f"{scan_name(files.sources)}: {files.rejection(error).message}")
            continue
        if scan.pixel_sha256 in known:
            left_out += scan.pixel_sha256 in committee.seen
            continue
        known.add(scan.pixel_sha256)
        yield RankedScan.of(scan.case, committee.judge(prepared.grey, scan.missing_views), files)
    _say_left_out(left_out)


def _say_left_out(number: int) -> None:
    if number:
        print(f"left out  {counted(number, 'scan')} of the shards that the model was trained on")


def write_outlines(folder: Path, files: ScanFiles, committee: Committee, allow_missing_view: bool = False) -> None:
    """Write what the folds find in a scan as one Labelme file per view, where `prepare` looks for its annotation.

    The scan is read again: not all scans of an archive fit into memory.
    """
    scan = files.read(allow_missing_view)
    prepared = prepare_scan(scan, settings=committee.description.preparation)
    masks = prepared.map_back(committee.judge(prepared.grey, scan.missing_views).mask)
    classes = committee.description.preparation.classes
    labels = {1: class_label(classes), 2: class_label(classes, NON_METASTATIC, CLASS_NAMES[NON_METASTATIC])}
    present = [view for view in VIEWS if view not in scan.missing_views]
    # Below folders named like those of the scans, so that scans of one name in several folders stay apart.
    places = dict(zip(VIEWS, (folder / files.folders[0], folder / files.folders[-1]), strict=True))
    paths = {view: annotation_paths(places[view], files.sources, [view])[view] for view in present}
    shapes = {
        view: [
            shape
            for number, label in labels.items()
            for shape in lesion_shapes(find_areas((masks[view] == number).astype(np.uint8)), label)
        ]
        for view in present
    }
    shown = view_pictures(scan)
    write_annotations(paths, shapes, scan.anterior.shape, {view: png_bytes(shown[view]) for view in present})
