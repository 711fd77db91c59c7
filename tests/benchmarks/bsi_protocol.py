"""Validate the Bone Scan Index on phantoms as the commercial programs did (Anand et al., J Nucl Med 2016;57:41).

The true index is Imbriaco's, in three dimensions. It is measured from three pairs of masks:
  true masks          drawn lesions and regions: what is lost here is lost by two projections and by what is seen
  predicted lesions   lesions of --model, drawn regions
  all predicted       lesions of --model, regions of --skeleton
Neither network may have been trained on seed 101 or 202.

Examples:
  python tests/benchmarks/bsi_protocol.py --workers 2
  python tests/benchmarks/bsi_protocol.py --workers 2 --model RUN/fold_01 --skeleton SKELETON/fold_01 --phantoms DIR
"""

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import numpy as np

from doubleunet_bs.bsi import bone_scan_index, choose_table
from doubleunet_bs.bsi.agreement import REPEATABILITY_FROM, agreement
from doubleunet_bs.bsi.index import ESTIMATORS
from doubleunet_bs.constants import METASTATIC, VIEWS
from doubleunet_bs.findings.skeleton_result import find_index
from doubleunet_bs.inference.predictor import Predictor
from doubleunet_bs.phantom import make_phantom
from doubleunet_bs.phantom.camera import COLUMNS, FIELD_OF_VIEW_MM, Acquisition
from doubleunet_bs.phantom.scan import PhantomScan
from doubleunet_bs.scans.bone_scan import BoneScan

LINEARITY_SEED, PRECISION_SEED = 101, 202
GROUPS = (0.5, 1.0, 3.0, 5.0, 10.0)
TRUE, LESIONS, ALL = "true masks", "predicted lesions", "all predicted"
# Of ten patients of the linearity so many are scanned again, and so many at other counts and by another camera.
REPEATED, RESCANNED = 7, 4
# Counts of both views. The first is the reference of the others.
COUNTS = (3e6, 1.5e6, 0.5e6, 0.2e6)
CAMERA_MM, CAMERA_BLUR = 2.7, 1.3


def scan_again(first: PhantomScan, name: str) -> PhantomScan:
    """The same patient on another scan: "again", "camera", or a number of counts."""
    if name == "again":
        # Off the table and on it again.
        return make_phantom(first.seed, first.index, wanted_index=first.wanted_index, repeat=1)
    drawn = first.acquisition
    if name == "camera":
        acquisition = _other_camera(drawn)
    else:
        acquisition = dataclasses.replace(drawn, counts=float(name) / (1 + drawn.posterior_share))
    with patch("doubleunet_bs.phantom.scan.draw_acquisition", lambda rng, height_cm: acquisition):
        scan = make_phantom(first.seed, first.index, wanted_index=first.wanted_index)
    rng = np.random.default_rng((first.seed, first.index, len(name)))
    noise = {view: np.minimum(rng.poisson(scan.mean[view]), 65535).astype(np.uint16) for view in VIEWS}
    return dataclasses.replace(scan, **noise)


def _other_camera(drawn: Acquisition) -> Acquisition:
    """Larger pixels, a wider point spread, twice the speed of the table and so half the counts."""
    old, half = drawn.camera, FIELD_OF_VIEW_MM / CAMERA_MM / 2
    first, last = ((row - old.top_row) * old.spacing_mm / CAMERA_MM + old.top_row for row in old.field_rows)
    camera = dataclasses.replace(
        old,
        spacing_mm=CAMERA_MM,
        field_columns=(round(COLUMNS / 2 - half), round(COLUMNS / 2 + half)),
        field_rows=(int(first), int(last)),
        blur=CAMERA_BLUR,
    )
    return dataclasses.replace(drawn, camera=camera, speed=2 * drawn.speed, counts=drawn.counts / 2)


def make_scans(task: tuple[Path, int, int, float, tuple[str, ...]]) -> list[Path]:
    """Write the scans of one patient with their true masks into a folder, unless they are there."""
    folder, seed, index, wanted, again = task
    paths = [folder / f"{seed}_{index:03d}_{wanted:g}_{name}.npz" for name in ("first", *again)]
    if all(path.exists() for path in paths):
        return paths
    first = make_phantom(seed, index, wanted_index=wanted)
    for path, name in zip(paths, ("first", *again), strict=True):
        scan = first if name == "first" else scan_again(first, name)
        drawn = {f"lesions_{view}": mask == METASTATIC for view, mask in scan.lesions.items()}
        drawn |= {f"regions_{view}": mask for view, mask in scan.regions().items()}
        true = scan.true_index(choose_table(sex=scan.patient.sex)[0])
        views = {view: getattr(scan, view) for view in VIEWS}
        spacing = scan.pixel_spacing_mm[0]
        np.savez_compressed(path, true=true, sex=scan.patient.sex, spacing=spacing, **views, **drawn)
    return paths


def measure(path: Path, lesion_model: Predictor | None, skeleton_model: Predictor | None) -> dict[str, float]:
    """True and measured index of one scan: by column, and by estimator with true masks."""
    with np.load(path) as saved:
        scan = dict(saved)
    spacing, sex = (float(scan["spacing"]),) * 2, str(scan["sex"])
    drawn_lesions = {view: scan[f"lesions_{view}"] for view in VIEWS}
    drawn_regions = {view: scan[f"regions_{view}"] for view in VIEWS}
    table, _ = choose_table(sex=sex)
    found = {"true": float(scan["true"])}
    for estimator in ESTIMATORS:
        result = bone_scan_index(drawn_lesions, drawn_regions, table, spacing, estimator=estimator)
        found[estimator] = result.value
    found[TRUE] = found[ESTIMATORS[0]]
    if lesion_model and skeleton_model:
        views = {view: scan[view] for view in VIEWS}
        whole = BoneScan(**views, pixel_spacing_mm=spacing, case=path.stem, sex=sex, phantom=True)
        lesions, regions = lesion_model.predict(whole), skeleton_model.predict(whole)
        given = dataclasses.replace(regions, masks=drawn_regions)
        found[LESIONS] = find_index(whole, lesions, given, None).index.value
        found[ALL] = find_index(whole, lesions, regions, None).index.value
    return found


def coefficient(first: np.ndarray, second: np.ndarray) -> float:
    """Repeatability coefficient in points: 95 % of the differences without a change of the disease are smaller."""
    return 1.96 * float(np.sqrt(np.mean((second - first) ** 2)))


def print_rows(columns: Sequence[str], rows: dict[str, Callable[[str], str]], published: dict[str, str]) -> None:
    """A table: a row for each figure, a column for each pair of masks, and what is published for aBSI."""
    print(f"{'':<34}" + "".join(f"{name:>20}" for name in columns) + f"{'aBSI, published':>20}")
    for name, figure in rows.items():
        print(f"{name:<34}" + "".join(f"{figure(c):>20}" for c in columns) + f"{published.get(name, ''):>20}")
    print()


def report(values: dict[tuple[int, int, float, str], dict[str, float]], columns: Sequence[str]) -> None:
    """Print all tables."""
    print("Phantoms. These figures say nothing about patients.\n")

    def of(seed: int, name: str, column: str, wanted: float | None = None) -> np.ndarray:
        keys = [k for k in values if k[0] == seed and k[3] == name and wanted in (None, k[2])]
        return np.array([values[key][column] for key in keys])

    def both(name: str, reference: str, column: str) -> tuple[np.ndarray, np.ndarray]:
        """The index on scans called `name`, and on those called `reference` of the same patients."""
        keys = [k for k in values if k[3] == name]
        pairs = [(values[*key[:3], reference][column], values[key][column]) for key in keys]
        first, second = np.array(pairs).T
        return first, second

    true = of(LINEARITY_SEED, "first", "true")
    print(f"Linearity: {len(true)} scans, BSI 0.1 to 13")
    rows = {c: agreement(true, of(LINEARITY_SEED, "first", c)) for c in (*columns, *ESTIMATORS)}

    def limits(c: str) -> str:
        return f"{rows[c].bias:+.2f} +- {rows[c].limits[1] - rows[c].bias:.2f}"

    figures = {
        "Pearson": lambda c: f"{rows[c].pearson:.3f}",
        "Spearman": lambda c: f"{rows[c].spearman:.3f}",
        "bias with 95 % limits, points": limits,
        "median of measured / true": lambda c: f"{rows[c].ratio:.2f}",
    }
    print_rows(columns, figures, {"Pearson": "0.995"})
    print("The same by estimator, true masks")
    print_rows(ESTIMATORS, figures, {})

    print(f"Precision: {len(of(PRECISION_SEED, 'first', TRUE, GROUPS[0]))} scans at each BSI")

    def spread(wanted: float) -> Callable[[str], str]:
        def cell(column: str) -> str:
            own = of(PRECISION_SEED, "first", column, wanted)
            return f"{own.mean():.2f}, {100 * own.std(ddof=1) / own.mean():.0f} %"

        return cell

    print_rows(
        (*columns, *ESTIMATORS[1:]),
        {f"{g:g}: mean, variation": spread(g) for g in GROUPS},
        {f"{g:g}: mean, variation": "< 20 %" for g in GROUPS},
    )
    if not any(key[3] == "again" for key in values):
        return
    print(f"Repeated: {len(of(LINEARITY_SEED, 'again', TRUE))} patients scanned twice")
    pairs = {c: both("again", "first", c) for c in columns}

    def difference(c: str) -> str:
        change = pairs[c][1] - pairs[c][0]
        return f"{change.mean():+.2f} +- {change.std(ddof=1):.2f}"

    def repeatable(low: float, high: float) -> Callable[[str], str]:
        def cell(c: str) -> str:
            first, second = pairs[c]
            own = (low <= (first + second) / 2) & ((first + second) / 2 < high)
            return f"{coefficient(first[own], second[own]):.2f} ({own.sum()})"

        return cell

    print_rows(
        columns,
        {
            "difference, points": difference,
            "repeatability coefficient (pairs)": repeatable(0, np.inf),
            f"index below {REPEATABILITY_FROM:g}": repeatable(0, REPEATABILITY_FROM),
            f"index from {REPEATABILITY_FROM:g}": repeatable(REPEATABILITY_FROM, np.inf),
        },
        {"difference, points": "0.05 +- 0.15", "repeatability coefficient (pairs)": "0.30"},
    )
    names = [f"{c:g}" for c in COUNTS]
    print(f"Counts: {len(of(LINEARITY_SEED, names[0], TRUE))} patients, distance to the index at 3 million counts")

    def distance(name: str) -> Callable[[str], str]:
        def cell(column: str) -> str:
            first, second = both(name, names[0], column)
            return f"{abs(second - first).mean():.2f} +- {abs(second - first).std(ddof=1):.2f}"

        return cell

    published = dict(zip(names[1:], ("0.20 +- 0.26", "0.57 +- 0.38", "4.67 +- 0.85"), strict=True))
    print_rows(columns, {name: distance(name) for name in names[1:]}, published)
    print("Another camera, table twice as fast: the same patients")
    cameras = {c: agreement(*both("camera", "first", c)) for c in columns}
    print_rows(
        columns,
        {
            "Pearson": lambda c: f"{cameras[c].pearson:.3f}",
            "bias with 95 % limits": lambda c: (
                f"{cameras[c].bias:+.2f} +- {cameras[c].limits[1] - cameras[c].bias:.2f}"
            ),
        },
        {},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="FOLD", help="trained fold or saved_model of lesions; with --skeleton")
    parser.add_argument("--skeleton", metavar="FOLD", help="the same of the skeleton; with --model")
    parser.add_argument("--scans", type=int, default=50, help="phantoms of the linearity (default %(default)s)")
    parser.add_argument("--group", type=int, default=10, help="phantoms of each group (default %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="number of processes (default %(default)s)")
    parser.add_argument("--phantoms", metavar="DIR", help="keep the phantoms, and use those that are there")
    parser.add_argument("--json", metavar="FILE", help="also write all values")
    args = parser.parse_args()
    if bool(args.model) != bool(args.skeleton):
        parser.error("give --model and --skeleton together")
    models = (Predictor(args.model), Predictor(args.skeleton, skeleton=True)) if args.model else (None, None)
    columns = (TRUE, LESIONS, ALL) if args.model else (TRUE,)
    with tempfile.TemporaryDirectory() as spare:
        folder = Path(args.phantoms or spare)
        folder.mkdir(parents=True, exist_ok=True)
        tasks = []
        for k, wanted in enumerate(np.geomspace(0.1, 13, args.scans).round(4).tolist()):
            again = ("again",) if k % 10 < REPEATED else ()
            again += (*(f"{c:g}" for c in COUNTS), "camera") if k % 10 < RESCANNED else ()
            tasks.append((folder, LINEARITY_SEED, k, wanted, again))
        tasks += [
            (folder, PRECISION_SEED + g, k, wanted, ()) for g, wanted in enumerate(GROUPS) for k in range(args.group)
        ]
        values = {}
        with ProcessPoolExecutor(args.workers, get_context("spawn")) as pool:
            for task, paths in zip(tasks, pool.map(make_scans, tasks), strict=True):
                for path, name in zip(paths, ("first", *task[4]), strict=True):
                    seed = min(task[1], PRECISION_SEED)
                    values[seed, task[2], task[3], name] = measure(path, *models)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump([{"scan": key, **value} for key, value in values.items()], file)
    report(values, columns)


if __name__ == "__main__":
    main()
