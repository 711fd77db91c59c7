"""Whether bfloat16 reaches the F1 of float32: the demo's training on the same folds of the same phantoms, in both.

    python tests/benchmarks/bench_precision_f1.py --shards DEMO/shards --out DIR [--folds 1,2,3] [--epochs 6]

Trains and scores each fold in float32 and in mixed_bfloat16, one after the other, with the settings of the demo, and prints
the pooled F1 on the fold's test phantoms in pairs. Phantom scores are software checks and say nothing about patients.
An interrupted benchmark goes on where it was.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from doubleunet_bs.demo import EXPERIMENT, SETTINGS

ROOT = Path(__file__).resolve().parents[2]
PRECISIONS = ("float32", "mixed_bfloat16")


def train_and_score(shards: str, run: Path, fold: int, epochs: int, precision: str) -> tuple[float, float]:
    """(F1 of the pooled test phantoms, minutes)."""
    changes = {**SETTINGS, "loss_classes": ",".join(map(str, SETTINGS["loss_classes"])), "epochs": epochs}
    settings = [part for name, value in changes.items() for part in ("--set", f"{name}={value}")]
    start = time.monotonic()
    subprocess.run(
        [sys.executable, ROOT / "train.py", "--data", shards, "--run", run, "--experiment", EXPERIMENT]
        + ["--fold", str(fold), "--precision", precision, "--resume", *settings],
        check=True,
    )
    minutes = (time.monotonic() - start) / 60
    subprocess.run([sys.executable, ROOT / "evaluate.py", run, "--fold", str(fold), "--no-pictures"], check=True)
    scores = json.loads((run / f"fold_{fold:02d}" / "scores.json").read_text())
    return scores["pooled"]["f1"], minutes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--folds", default="1,2,3")
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()
    rows = []
    for fold in map(int, args.folds.split(",")):
        rows.append(
            (fold, [train_and_score(args.shards, args.out / name, fold, args.epochs, name) for name in PRECISIONS])
        )
    print(f"\n{'fold':>4}{'float32':>10}{'bfloat16':>10}{'difference':>12}   minutes")
    for fold, ((f1, minutes), (other, other_minutes)) in rows:
        print(
            f"{fold:>4}{100 * f1:>9.1f}%{100 * other:>9.1f}%{100 * (other - f1):>+11.1f}   {minutes:.1f} / {other_minutes:.1f}"
        )
    differences = [100 * (other[0] - first[0]) for _, (first, other) in rows]
    spread = statistics.stdev(first[0] for _, (first, _) in rows) * 100 if len(rows) > 1 else float("nan")
    print(f"mean difference {statistics.fmean(differences):+.1f} points; folds differ by {spread:.1f} (SD, float32)")


if __name__ == "__main__":
    main()
