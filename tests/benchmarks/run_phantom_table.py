"""The twelve experiments on phantoms, and bfloat16 beside float32.

    python tests/benchmarks/run_phantom_table.py --out DIR [--rows NAME ...] [--folds 1,2,3] [--epochs 20] [--precision mixed_bfloat16]
    python tests/benchmarks/run_phantom_table.py --out DIR --table FILE

Makes 50 breast phantoms (45 with metastases, as in the paper's 100) and 50 prostate phantoms (25 with, as there), prepares
them with one key, and trains and scores the rows on the same folds with the same settings. Reduced against the paper: counts
summed over 4 x 4 pixels, 5 folds (27 scans train, 9 validate, 9 test), few epochs, batches of 2, a random encoder, and
learning rate, schedule and batch normalisation as the demo has them for short runs. Loss terms are the paper's unless
`--lesion-loss` leaves the metastatic one alone, as the demo does; Otsu's and mined negatives are then the same to the loss. A
row with augmentation shows one of its fourteen variants a scan and epoch. Rows with normal scans take more steps in as
many epochs; rows with transfer have been trained before, as in the paper.

Each row is trained in DIR/PRECISION/ROW. What is finished is kept: an interrupted run goes on; once the cohorts are made, several
processes may train different rows in DIR. With rows in both precisions the table says how far they are apart, fold by fold.
Phantom scores say nothing about patients.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from measuring import print_environment

from doubleunet_bs.demo import PHANTOM_KEY, SETTINGS
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.training.experiments import PAPER_EXPERIMENTS

ROOT = Path(__file__).resolve().parents[2]
COHORTS = {"breast": 0.9, "prostate": 0.5}  # cancer: part with metastases (paper, sections 2.1 and 2.6)
PATIENTS, BIN, FOLDS = 50, 4, 5
SEED = 100  # Phantoms that the demo, on which settings were tried, does not have.
PRECISIONS = ("float32", "mixed_bfloat16")


def run(*command) -> None:
    subprocess.run([sys.executable, *map(str, command)], check=True, cwd=ROOT)


def make_cohorts(out: Path) -> None:
    """DIR/breast and DIR/prostate: shards with common pseudonyms."""
    from doubleunet_bs.scans.phantom import make_cohort
    from doubleunet_bs.scans.pseudonyms import Pseudonyms

    key = out / "key.json"
    if not key.exists():
        Pseudonyms(PHANTOM_KEY).save(key)
    for seed, (cancer, part) in enumerate(COHORTS.items(), start=SEED):
        phantoms = out / f"{cancer}_phantoms"
        if not phantoms.exists():
            make_cohort(phantoms, PATIENTS, cancer=cancer, positive_fraction=part, seed=seed, workers=2)
        if not (out / cancer).exists():
            run(
                *("-m", "doubleunet_bs", "prepare", "--scans", phantoms / "scans", "--labels", phantoms / "labels"),
                *("--out", out / cancer, "--bin", BIN, "--key", key),
            )


def train_and_score(out: Path, row: str, fold: int, epochs: int, precision: str, lesion_loss: bool) -> None:
    folder = out / precision / row
    if epochs_of(folder) not in (None, epochs):
        raise SystemExit(
            f"{folder}: trained for {epochs_of(folder)} epochs, not {epochs}; give the same --epochs, or another --out"
        )
    if (folder / f"fold_{fold:02d}" / "scores.json").exists():
        return
    changes = {**SETTINGS, "loss_classes": "2" if lesion_loss else "1,2", "epochs": epochs}
    options = [part for name, value in changes.items() for part in ("--set", f"{name}={value}")]
    if PAPER_EXPERIMENTS[row].variants > 1:
        # One of the variants a scan and epoch, drawn anew: all of them would be fourteen times the steps of other rows.
        options += ["--set", "variants_per_epoch=one"]
    if PAPER_EXPERIMENTS[row].transfer:
        options += ["--pretrain-data", out / "prostate"]
    run(
        *("train.py", "--data", out / "breast", "--run", folder, "--experiment", row, "--folds", FOLDS, "--fold", fold),
        *("--precision", precision, "--resume", *options),
    )
    run("evaluate.py", folder, "--fold", fold, "--no-pictures")


def epochs_of(folder: Path) -> int | None:
    """What a run was trained for; None when there is none."""
    file = folder / "experiment.json"
    return json.loads(file.read_text())["experiment"]["epochs"] if file.exists() else None


def scores(folder: Path) -> dict[int, dict]:
    """Fold -> its pooled scores, of the folds that have been scored."""
    return {
        int(file.parent.name.removeprefix("fold_")): json.loads(file.read_text())["pooled"]
        for file in sorted(folder.glob("fold_*/scores.json"))
    }


def mean_sd(values: list[float], digits: int = 1) -> str:
    if not values:
        return "–"
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}"


def table(out: Path) -> str:
    """Markdown: mean and standard deviation over the folds of each row, and the pairs of precisions."""
    lines = []
    for precision in PRECISIONS:
        found = {row: scores(out / precision / row) for row in PAPER_EXPERIMENTS}
        found = {row: folds for row, folds in found.items() if folds}
        if not found:
            continue
        epochs = sorted({epochs_of(out / precision / row) for row in found})
        rows, columns = PreparationSettings(bin=BIN).image_shape
        lines += [
            f"**On phantoms**, {precision}, {rows} x {columns} pixels, {' or '.join(map(str, epochs))} epochs, settings changed "
            "against the paper's rows of these names; mean ± SD over the folds:",
            "",
            "| experiment | folds | precision | sensitivity | F1 |",
            "|---|---|---|---|---|",
        ]
        for row, folds in found.items():
            columns = [
                mean_sd([100 * score[key] for score in folds.values() if score[key] is not None])
                for key in ("precision", "sensitivity", "f1")
            ]
            lines.append(f"| {row} | {', '.join(map(str, folds))} | {' | '.join(columns)} |")
        lines.append("")
    differences = []
    for row in PAPER_EXPERIMENTS:
        single, half = (scores(out / precision / row) for precision in PRECISIONS)
        for fold in sorted(single.keys() & half.keys()):
            first, second = 100 * single[fold]["f1"], 100 * half[fold]["f1"]
            differences.append(second - first)
            lines.append(
                f"{row}, fold {fold}: F1 {first:.1f} in float32, {second:.1f} in bfloat16 ({second - first:+.1f})"
            )
    if differences:
        lines.append(f"bfloat16 - float32: {mean_sd(differences)} points (mean ± SD of {len(differences)} pairs)")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--rows", nargs="+", choices=PAPER_EXPERIMENTS, default=list(PAPER_EXPERIMENTS))
    parser.add_argument("--folds", default="1,2,3")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lesion-loss", action="store_true", help="the loss term of the metastatic class alone")
    parser.add_argument("--precision", choices=PRECISIONS, default="mixed_bfloat16")
    parser.add_argument("--table", type=Path, help="train nothing: write the table of what there is to this file")
    args = parser.parse_args()
    if not args.table:
        print_environment()
        args.out.mkdir(parents=True, exist_ok=True)
        args.out = args.out.resolve()
        make_cohorts(args.out)
        for row in args.rows:
            for fold in map(int, args.folds.split(",")):
                train_and_score(args.out, row, fold, args.epochs, args.precision, args.lesion_loss)
    text = table(args.out)
    print(text)
    if args.table:
        args.table.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
