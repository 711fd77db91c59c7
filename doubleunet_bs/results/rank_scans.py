"""The work of `rank`: a table of scans, the least certain first, and outlines of the first ones to correct."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from doubleunet_bs.constants import CLASS_NAMES, NON_METASTATIC, VIEWS
from doubleunet_bs.display import png_bytes
from doubleunet_bs.errors import DatasetError, ScanError, SettingsError, counted, printable
from doubleunet_bs.files import csv_text, new_folder, write_text
from doubleunet_bs.findings.lesion_list import find_areas
from doubleunet_bs.inference.committee import Committee, Uncertainty
from doubleunet_bs.preparation.case import prepare_scan
from doubleunet_bs.preparation.shards import DATASET, open_shards
from doubleunet_bs.results.input_scans import COPY, list_scans, scan_name
from doubleunet_bs.results.labelme_output import annotation_paths, class_label, lesion_shapes, write_annotations
from doubleunet_bs.results.overlay import view_pictures
from doubleunet_bs.scans.scan_files import ScanFiles

TABLE, OUTLINES = "ranking.csv", "outlines"
SHOWN = 10
"""Lines of the table that are printed."""


Ranked = tuple[dict[str, Any], ScanFiles | None]
"""The line of a scan in the table, and its files; None for a case of shards."""


def rank_scans(
    scans: str, model: Path, out: Path, outlines: int = 0, by: str = "entropy", allow_missing_view: bool = False
) -> int:
    """Rank scans, write the table and the first outlines, and print the first lines.

    Args:
        scans: folder, file or archive of scans, or a folder of shards.
        model: see `Committee`.
        out: new folder for the table and the outlines.
        outlines: number of scans to write outlines of; not of shards, which hold no raw views.
        by: "entropy" or "disagreement".
        allow_missing_view: accept scans of one view.

    Returns:
        0 when all scans are ranked, else 1.

    Raises:
        BoneScanError: options that do not go together, or nothing can be ranked. Nothing is written.
    """
    are_shards = (Path(scans) / DATASET).is_file()
    if are_shards and outlines:
        raise SettingsError(f"{scans}: shards hold no raw views: leave out --outlines, or name the scans instead")
    if outlines < 0:
        raise SettingsError(f"--outlines {outlines}: give a number of scans")
    problems: list[str] = []
    with new_folder(out) as new:
        committee = Committee(model)
        if by == "disagreement" and len(committee) == 1:
            raise SettingsError(f"{model}: one fold cannot disagree: name a run of several folds, or leave out --by")
        print(f"model     {committee.text}", flush=True)
        for warning in committee.warnings:
            print(f"warning   {warning}", flush=True)
        for path in committee.gone:
            print(f"note      {path}: is gone: scans of it are not left out", flush=True)
        found = (
            _of_shards(scans, committee) if are_shards else _of_scans(scans, committee, allow_missing_view, problems)
        )
        ranked = sorted(found, key=lambda one: (-one[0][by], one[0]["path"], one[0]["case"]))
        if not ranked and len(problems) == 1:
            raise ScanError(problems[0])
        for problem in problems:
            print(f"error: {problem}", file=sys.stderr)
        if not ranked:
            raise ScanError(f"{scans}: no usable scan that the model has not seen: name other scans", "empty")
        write_text(new / TABLE, _table_text(ranked), mode=0o600)
        for _, files in ranked[:outlines]:
            assert files is not None  # of shards there are no outlines
            _write_outlines(new / OUTLINES, files, committee, allow_missing_view)
    if len(ranked) > SHOWN:
        print(f"the first {SHOWN} of {len(ranked)}:")
    for rank, (line, files) in enumerate(ranked[:SHOWN], start=1):
        print(f"{rank:>6}  {line[by]:.5f}  {printable(scan_name(files.sources)) if files else line['case']}")
    print(f"{counted(len(ranked), 'scan')} by {by}: {out / TABLE}, for you only")
    if outlines:
        print(f"outlines to correct in Labelme, then for `prepare --labels`: {out / OUTLINES}")
    return 1 if problems else 0


def _ranked(case: str, found: Uncertainty, files: ScanFiles | None = None) -> Ranked:
    line = {
        "case": case,
        "entropy": found.entropy,
        "disagreement": found.disagreement,
        "metastatic_pixels": int((found.mask == 1).sum()),
        "path": " + ".join(files.full_paths) if files else "",
    }
    return line, files


def _table_text(ranked: list[Ranked]) -> str:
    """The table, one line a scan, the first to annotate first. It names files: for their owner only."""
    lines: list[list[object]] = [["rank", *ranked[0][0]]]
    for rank, (line, _) in enumerate(ranked, start=1):
        values = (f"{value:.6g}" if isinstance(value, float) else value for value in line.values())
        lines.append([rank, *(printable(value) if isinstance(value, str) else value for value in values)])
    return csv_text(lines)


def _of_shards(shards: str, committee: Committee) -> Iterator[Ranked]:
    dataset = open_shards(shards, verify=True)
    if changes := dataset.settings.image_changes(committee.description.preparation):
        other = ", ".join(changes)
        raise DatasetError(f"{shards}: not prepared as the model's scans ({other}): name the scans instead")
    unseen = [number for number, case in enumerate(dataset.cases) if case.pixel_sha256 not in committee.seen]
    _say_left_out(len(dataset) - len(unseen))
    for number in tqdm(unseen, "rank", unit="scan", dynamic_ncols=True, file=sys.stderr, disable=None):
        case = dataset.cases[number]
        yield _ranked(case.case, committee.judge(dataset.grey(number), case.missing_views))


def _of_scans(scans: str, committee: Committee, allow_missing_view: bool, problems: list[str]) -> Iterator[Ranked]:
    found = list_scans([scans], allow_missing_view)
    problems += [f"{printable(file.path)}: {file.message}" for file in found.rejected if file.reason != COPY]
    known, left_out = set(committee.seen), 0
    for files in tqdm(found.scans, "rank", unit="scan", dynamic_ncols=True, file=sys.stderr, disable=None):
        try:
            scan = files.read(allow_missing_view)
            prepared = prepare_scan(scan, settings=committee.description.preparation)
        except ScanError as error:
            problems.append(f"{scan_name(files.sources)}: {files.rejection(error).message}")
            continue
        if scan.pixel_sha256 in known:
            left_out += scan.pixel_sha256 in committee.seen
            continue
        known.add(scan.pixel_sha256)
        yield _ranked(scan.case, committee.judge(prepared.grey, scan.missing_views), files)
    _say_left_out(left_out)


def _say_left_out(number: int) -> None:
    if number:
        print(f"left out  {counted(number, 'scan')} of the shards that the model was trained on")


def _write_outlines(folder: Path, files: ScanFiles, committee: Committee, allow_missing_view: bool) -> None:
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
