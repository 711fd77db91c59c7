"""A cohort of phantoms in a folder: DICOM files, Labelme outlines, region masks, patients.csv and truth.csv."""

import csv
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from doubleunet_bs.bsi.regions import REGIONS, WEIGHT_TABLES
from doubleunet_bs.constants import CANCERS, VIEWS
from doubleunet_bs.display import labelme_file, region_picture, save_png
from doubleunet_bs.errors import SettingsError
from doubleunet_bs.files import new_folder
from doubleunet_bs.phantom.dicom import patient_id, write_dicom
from doubleunet_bs.phantom.metastases import LARGEST_INDEX
from doubleunet_bs.phantom.scan import PhantomScan, check_whole, make_phantom, mask_polygons

LABEL = "metastasis"
TRUTH = ("scan", *(f"bsi {name}" for name in WEIGHT_TABLES), *(f"fraction {region.name}" for region in REGIONS))
"""Columns of truth.csv."""


def make_cohort(
    out: str | os.PathLike,
    patients: int,
    cancer: str = "breast",
    positive_fraction: float = 0.9,
    seed: int = 0,
    wanted_index: tuple[float, float] | None = None,
    varied: bool = False,
) -> Path:
    """Write `patients` synthetic scans, one per patient. `out` appears whole or not at all.

    Layout: `scans/phantom_0001.dcm`..., `labels/phantom_0001_anterior.json` and `_posterior.json` for scans with
    metastases (Labelme, raw-view coordinates; no shapes where nothing is seen in that view), `labels/patients.csv`,
    `regions/phantom_0001_anterior.png` and `_posterior.png` (index masks of the regions of the skeleton), and
    `truth.csv`: for each scan the true Bone Scan Index in percent under each weight table and the involved fraction of
    each region, in three dimensions.
    Scan k depends on `seed`, k, `cancer`, `positive_fraction` and `varied`. Positive scans are spread evenly.
    With `wanted_index` it also depends on `patients`.

    Args:
        out: a folder that does not exist yet, or an empty one.
        patients: 1 or more.
        cancer: "breast" or "prostate".
        positive_fraction: share of scans with metastases, 0-1 (paper, section 2.1: 90 of 100).
        seed: 0 or more.
        wanted_index: true Bone Scan Index in percent of the first and the last scan with metastases. Those between are
            spaced evenly on a logarithmic scale. None draws lesions as they are reported.
        varied: builds, postures, uptake and cameras beyond the usual ones, see `patient.vary_patient`.

    Returns:
        `out` as a Path.

    Raises:
        SettingsError: an argument out of range.
        BoneScanError: `out` exists and is not empty.
    """
    patients = check_whole(patients, "patients", 1)
    seed = check_whole(seed, "seed")
    if cancer not in CANCERS:
        raise SettingsError(f"unknown cancer {cancer!r}: choose one of {', '.join(CANCERS)}")
    if not (isinstance(positive_fraction, int | float) and 0 <= positive_fraction <= 1):
        raise SettingsError(f"positive fraction must be between 0 and 1, not {positive_fraction!r}")
    positives = [_is_positive(index, positive_fraction) for index in range(patients)]
    wanted = wanted_indices(wanted_index, positives)
    with new_folder(out) as folder:
        for name in ("scans", "labels", "regions"):
            (folder / name).mkdir()

        def write(index: int, positive: bool, index_of_scan: float | None) -> dict:
            return _write_scan(make_phantom(seed, index, cancer, positive, index_of_scan, varied=varied), folder)

        with (
            ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
            open(folder / "truth.csv", "w", encoding="utf-8", newline="") as file,
        ):
            table = csv.DictWriter(file, TRUTH, lineterminator="\n")
            table.writeheader()
            rows = pool.map(write, range(patients), positives, wanted)
            # The progress bar goes on as results are taken; None: on terminals only.
            table.writerows(tqdm(rows, "phantoms", patients, unit="scan", disable=None))
        with open(folder / "labels" / "patients.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["scan", "patient", "cancer", "metastases"])
            for index, positive in enumerate(positives):
                patient = patient_id(index, cancer, seed, varied)
                writer.writerow([stem(index), patient, cancer, "yes" if positive else "no"])
    return Path(out)


def stem(index: int) -> str:
    """File stem of scan `index` (from 0): "phantom_0001" and so on."""
    return f"phantom_{index + 1:04d}"


def count_positives(patients: int, fraction: float) -> int:
    """How many of the first `patients` scans of a cohort have metastases, rounded up."""
    return math.ceil(patients * fraction - 1e-9)


def _is_positive(index: int, fraction: float) -> bool:
    """Whether scan `index` has metastases, whatever number of scans follows."""
    return count_positives(index + 1, fraction) > count_positives(index, fraction)


def wanted_indices(limits: tuple[float, float] | None, positives: list[bool]) -> list[float | None]:
    """The wanted index of each scan, None for those without metastases."""
    if limits is None:
        return [None] * len(positives)
    low, high = limits
    if not 0 < low <= high <= LARGEST_INDEX:
        raise SettingsError(f"BSI {low:g}:{high:g}: two values above 0 and at most {LARGEST_INDEX:g}, in this order")
    values = iter(np.geomspace(low, high, sum(positives)).tolist())
    return [next(values) if positive else None for positive in positives]


def _write_scan(scan: PhantomScan, folder: Path) -> dict:
    """Write the files of one scan. Returns its row of truth.csv."""
    name = stem(scan.index)
    write_dicom(scan, folder / "scans" / f"{name}.dcm")
    if scan.metastatic:
        for view in VIEWS:
            text = json.dumps(to_labelme(scan, view, f"{name}.dcm"), indent=2) + "\n"
            (folder / "labels" / f"{name}_{view}.json").write_text(text, encoding="utf-8")
    for view, mask in scan.regions().items():
        save_png(folder / "regions" / f"{name}_{view}.png", region_picture(mask))
    figures = {f"bsi {table}": scan.true_index(weights) for table, weights in WEIGHT_TABLES.items()}
    figures |= {f"fraction {region}": fraction for region, fraction in scan.involved.items()}
    return {"scan": name, **{column: f"{value:.5g}" for column, value in figures.items()}}


def to_labelme(scan: PhantomScan, view: str, image_path: str) -> dict:
    """The outlines of one view as Labelme writes them: one polygon per region, coordinates of the raw view."""
    mask: np.ndarray = scan.lesions[view]
    common: dict = {"group_id": None, "description": "", "shape_type": "polygon", "flags": {}}
    shapes = [{"label": LABEL, "points": points, **common} for points in mask_polygons(mask)]
    return labelme_file(shapes, mask.shape, image_path)
