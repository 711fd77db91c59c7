"""Validate the Bone Scan Index on phantoms as the commercial programs did (Anand et al., J Nucl Med 2016;57:41).

The true index is Imbriaco's, in three dimensions. The measured one comes from the drawn masks of lesions and regions:
what is lost here is lost by two projections and by what a physician sees, before any network errs.

Example:
  python tests/benchmarks/bsi_protocol.py --workers 2
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from doubleunet_bs.bsi import bone_scan_index, choose_table
from doubleunet_bs.bsi.agreement import agreement
from doubleunet_bs.bsi.index import ESTIMATORS
from doubleunet_bs.constants import METASTATIC
from doubleunet_bs.phantom import make_phantom

LINEARITY_SEED, PRECISION_SEED = 101, 202
GROUPS = (0.5, 1.0, 3.0, 5.0, 10.0)


def measure(task: tuple[int, int, float]) -> dict[str, float]:
    """True and measured index of the phantom (seed, index, wanted index), with true masks."""
    seed, index, wanted = task
    scan = make_phantom(seed, index, wanted_index=wanted)
    table, _ = choose_table(sex=scan.patient.sex)
    lesions = {view: mask == METASTATIC for view, mask in scan.lesions.items()}
    regions = scan.regions()
    found = {"true": scan.true_index(table)}
    for estimator in ESTIMATORS:
        result = bone_scan_index(lesions, regions, table, scan.pixel_spacing_mm, estimator=estimator)
        found[estimator] = result.value
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=50, help="phantoms of the linearity (default %(default)s)")
    parser.add_argument("--group", type=int, default=10, help="phantoms of each group (default %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="number of processes (default %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write all values")
    args = parser.parse_args()
    linear = [(LINEARITY_SEED, k, float(wanted)) for k, wanted in enumerate(np.geomspace(0.1, 13, args.scans))]
    groups = [(PRECISION_SEED + g, k, wanted) for g, wanted in enumerate(GROUPS) for k in range(args.group)]
    with ProcessPoolExecutor(args.workers, get_context("spawn")) as pool:
        values = list(pool.map(measure, linear + groups))
    first, rest = values[: len(linear)], values[len(linear) :]
    true = np.array([value["true"] for value in first])
    print("Phantoms, true masks. These figures say nothing about patients.\n")
    print(f"linearity, {len(first)} scans, BSI 0.1 to 13 %")
    print("estimator    Pearson  Spearman    bias   limits  median ratio")
    for estimator in ESTIMATORS:
        row = agreement(true, np.array([value[estimator] for value in first]))
        print(
            f"{estimator:<10}{row.pearson:>10.3f}{row.spearman:>10.3f}{row.bias:>+8.2f}"
            f"  +-{row.limits[1] - row.bias:5.2f}{row.ratio:>14.2f}"
        )
    print("published for aBSI: Pearson 0.995\n")
    print(f"precision, {args.group} scans at each BSI: mean and coefficient of variation")
    print("estimator " + "".join(f"{wanted:>16.1f}" for wanted in GROUPS))
    for estimator in ESTIMATORS:
        cells = []
        for g in range(len(GROUPS)):
            own = np.array([value[estimator] for value in rest[g * args.group : (g + 1) * args.group]])
            cells.append(f"{own.mean():8.2f}{100 * own.std(ddof=1) / own.mean():6.0f} %")
        print(f"{estimator:<10}" + "".join(cells))
    print("published for aBSI: coefficient of variation below 20 %")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"linearity": first, "precision": rest}, file)


if __name__ == "__main__":
    main()
