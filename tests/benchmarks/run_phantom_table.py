"""The twelve experiments on phantoms, and bfloat16 compared with float32.

    python tests/benchmarks/run_phantom_table.py --out DIR [--rows NAME ...] [--folds 1,2,3] [--epochs 20]
    python tests/benchmarks/run_phantom_table.py --out DIR --table FILE

Makes 50 breast phantoms (45 with metastases) and 50 prostate phantoms (25 with metastases), prepares them with one key,
and trains and scores the rows on the same folds with the same settings. Reduced against the paper: counts summed over
4 x 4 pixels, 5 folds (27 scans train, 9 validate, 9 test), few epochs, batches of 2, a random encoder, and the demo's
learning rate, schedule and batch normalisation. Loss terms are the paper's. With `--lesion-loss` only the metastatic
term is left, as in the demo; Otsu's and mined negatives are then the same to the loss.
A row with augmentation shows one of its fourteen variants per scan and epoch. Rows with normal scans take more steps in
as many epochs. Rows with transfer are pre-trained for as many epochs on the prostate phantoms with metastases only:
half of that cohort is normal, so three in ten batches of two have no lesion, and with Focal Tversky the network then
called nothing metastatic (10 epochs of one seed and two continuations of 20 on breast phantoms, 6 epochs of another
seed). With the paper's batches of four it did after 7 epochs (one run). Dice learnt in either case.

Each row is trained in DIR/PRECISION/ROW. Its averaged folds are scored on 60 other phantoms, half of them without
metastases. An interrupted run continues. Once the cohorts exist, several processes may train different rows in DIR.
`phantom_table.py` explains the table. Phantom scores say nothing about patients.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from measuring import print_environment
from phantom_table import PRECISIONS, UNSEEN, table

from doubleunet_bs.commands.demo import PHANTOM_KEY, SETTINGS
from doubleunet_bs.runs.experiments import PAPER_EXPERIMENTS

ROOT = Path(__file__).resolve().parents[2]
# Name -> cancer, patients, part with metastases (paper, sections 2.1 and 2.6), seed. The demo, on which settings were
# tried, uses other seeds.
COHORTS = {
    "breast": ("breast", 50, 0.9, 100),
    "prostate": ("prostate", 50, 0.5, 101),
    UNSEEN: ("breast", 60, 0.5, 102),
}
BIN, FOLDS = 4, 5


def run(*command) -> None:
    subprocess.run([sys.executable, *map(str, command)], check=True, cwd=ROOT)


def make_cohorts(out: Path) -> None:
    """DIR/NAME: shards. Those that train together have common pseudonyms."""
    from doubleunet_bs.phantom import make_cohort
    from doubleunet_bs.scans.pseudonyms import Pseudonyms

    key = out / "key.json"
    if not key.exists():
        Pseudonyms(PHANTOM_KEY).save(key)
    for name, (cancer, patients, part, seed) in COHORTS.items():
        phantoms = out / f"{name}_phantoms"
        if not phantoms.exists():
            make_cohort(phantoms, patients, cancer=cancer, positive_fraction=part, seed=seed)
        if not (out / name).exists():
            # Other phantoms than the two cohorts': with a key of their own they share no pseudonym either.
            same = () if name == UNSEEN else ("--key", key)
            run(
                *("-m", "doubleunet_bs", "prepare", "--scans", phantoms / "scans", "--labels", phantoms / "labels"),
                *("--out", out / name, "--bin", BIN, *same),
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
        options += ["--pretrain-data", out / "prostate", "--set", "pretrain_negatives=none"]
    run(
        *(
            "-m",
            "doubleunet_bs",
            "train",
            "--data",
            out / "breast",
            "--run",
            folder,
            "--experiment",
            row,
            "--folds",
            FOLDS,
            "--fold",
            fold,
        ),
        *("--precision", precision, "--resume", *options),
    )
    run("-m", "doubleunet_bs", "evaluate", folder, "--fold", fold, "--no-pictures")


def score_unseen(out: Path, row: str, precision: str) -> None:
    """The folds of a row as one model on the cohort that none of them has seen; anew when folds have been added."""
    folder = out / precision / row
    file = folder / "ensemble" / UNSEEN / "scores.json"
    folds = sorted(int(path.parent.name.removeprefix("fold_")) for path in folder.glob("fold_*/scores.json"))
    if file.exists() and [fold["fold"] for fold in json.loads(file.read_text())["ensemble"]] == folds:
        return
    run("-m", "doubleunet_bs", "evaluate", folder, "--ensemble", "--data", out / UNSEEN, "--no-pictures", "--no-report")


def epochs_of(folder: Path) -> int | None:
    """What a run was trained for; None when there is none."""
    file = folder / "experiment.json"
    return json.loads(file.read_text())["experiment"]["epochs"] if file.exists() else None


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
            score_unseen(args.out, row, args.precision)
    epochs = {
        precision: sorted({epochs_of(file.parent) for file in (args.out / precision).glob("*/experiment.json")})
        for precision in PRECISIONS
    }
    text = table(args.out, BIN, epochs)
    print(text)
    if args.table:
        args.table.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
