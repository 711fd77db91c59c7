"""Does `rank` choose better scans to annotate than chance? A simulation on phantoms.

    python tests/benchmarks/simulate_ranking.py --out DIR [--seeds 1,2,3] [--start 16 --added 12]
    python tests/benchmarks/simulate_ranking.py --out DIR --table

Half of the pool have metastases. For each seed --start scans of the pool are annotated, half of them with metastases, a
network is trained on them and `rank` orders the rest of the pool by entropy. Then --added of them are annotated, the
first ones of the ranking or random ones, and a new network is trained on all annotated scans, for as many steps. Test
and validation phantoms are the same for all. Everything goes through the commands `prepare`, `train`, `rank` and
`evaluate`. To fit two CPU cores the matrix is 160 x 128 and the network a Double U-Net of a quarter of the width. One
line of DIR/results.jsonl is one training. A program that was stopped continues. Phantom scores say nothing about
patients.
"""

import argparse
import csv
import importlib
import json
import os
import shutil
import statistics
from pathlib import Path
from unittest import mock

import numpy as np
from measuring import print_environment
from scipy import stats

from doubleunet_bs.__main__ import main as doubleunet
from doubleunet_bs.commands.demo import PHANTOM_KEY, SETTINGS
from doubleunet_bs.files import write_json
from doubleunet_bs.preparation.shards import open_shards
from doubleunet_bs.scans.pseudonyms import Pseudonyms, load_file_table

POOL, VALIDATION, TEST = 80, 10, 40
STEPS, BATCH, WIDTH = 300, 4, 4
STRATEGIES = ("start", "random", "entropy")
SCORES = {"f1": "F1 of pixels", "lesion_f1": "F1 of lesions"}


def narrow_encoder(image, source):
    """VGG19 with a quarter of the filters, its layers named alike."""
    import keras

    x = image
    for block, (convolutions, filters) in enumerate(zip((2, 2, 4, 4, 4), (64, 128, 256, 512, 512), strict=True), 1):
        for number in range(1, convolutions + 1):
            x = keras.layers.Conv2D(
                filters // WIDTH,
                3,
                padding="same",
                activation="relu",
                kernel_initializer="he_normal",
                name=f"block{block}_conv{number}",
            )(x)
        x = keras.layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    return keras.Model(image, x, name="vgg19")


def narrow():
    """Within it `double_unet` builds the narrow network."""
    # The package holds the function under the module's name.
    module = importlib.import_module("doubleunet_bs.network.double_unet")
    filters = {
        name: tuple(number // WIDTH for number in getattr(module, name))
        for name in ("DECODER_FILTERS", "ENCODER2_FILTERS")
    }
    return mock.patch.multiple(
        module, vgg19_encoder=narrow_encoder, ASPP_FILTERS=module.ASPP_FILTERS // WIDTH, **filters
    )


def command(*arguments) -> None:
    if code := doubleunet([str(one) for one in arguments]):
        raise SystemExit(f"{arguments[0]} ended with exit code {code}")


def make_cohort(out: Path) -> None:
    """DIR/phantoms with all labels, DIR/key.json, and DIR/fixed: shards of the phantoms that validate and test."""
    if not (out / "phantoms").exists():
        number = VALIDATION + TEST + POOL
        part = (number - POOL // 2) / number
        command("phantom", "--out", out / "phantoms", "--patients", number, "--positive-fraction", part, "--seed", 170)
        Pseudonyms(PHANTOM_KEY).save(out / "key.json")
    positive = [name for name in names(out) if is_positive(out, name)]
    if not (out / "fixed").exists():
        prepare(out, out / "fixed", positive[: VALIDATION + TEST])


def names(out: Path) -> list[str]:
    return sorted(path.stem for path in (out / "phantoms" / "scans").iterdir())


def is_positive(out: Path, name: str) -> bool:
    return any((out / "phantoms" / "labels").glob(f"{name}_*.json"))


def link(out: Path, folder: Path, chosen: list[str]) -> Path:
    """A folder of some scans, with their labels and their lines of patients.csv beside it in FOLDER-labels."""
    labels = folder.with_name(f"{folder.name}-labels")
    for place in (folder, labels):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    source = out / "phantoms"
    for name in chosen:
        os.link(source / "scans" / f"{name}.dcm", folder / f"{name}.dcm")
        for path in (source / "labels").glob(f"{name}_*.json"):
            os.link(path, labels / path.name)
    with open(source / "labels" / "patients.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    with open(labels / "patients.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([rows[0], *(row for row in rows[1:] if row[0] in chosen)])
    return folder


def prepare(out: Path, shards: Path, chosen: list[str]) -> Path:
    scans = link(out, out / "linked" / shards.name, chosen)
    labels = scans.with_name(f"{scans.name}-labels")
    command("prepare", "--scans", scans, "--labels", labels, "--out", shards, "--bin", 4, "--key", out / "key.json")
    return shards


def train(out: Path, run: Path, shards: list[Path], seed: int) -> dict[str, float]:
    """Train on all scans but those of DIR/fixed, and return the scores of the test phantoms in percent."""
    fixed = open_shards(out / "fixed")
    files = load_file_table(out / "fixed.files.csv")
    ordered = sorted((case.case for case in fixed.cases), key=lambda case: files[case])
    cases = [case for one in shards for case in open_shards(one).cases]
    positive, negative = ([case.case for case in cases if case.group == group] for group in ("positive", "negative"))
    parts = [ordered[VALIDATION:], ordered[:VALIDATION], positive]
    shutil.rmtree(run, ignore_errors=True)
    folds = out / "folds.json"
    write_json(
        folds, {"format": 1, "seed": None, "rule": "test, validation, training", "parts": parts, "negatives": negative}
    )
    changes = {**SETTINGS, "loss_classes": 2, "batch_size": BATCH, "epochs": round(STEPS / (len(cases) / BATCH))}
    options = [part for name, value in changes.items() for part in ("--set", f"{name}={value}")]
    with narrow():
        command(
            *("train", "--data", out / "fixed", *shards, "--run", run, "--experiment", "dice-otsu"),
            *("--folds-file", folds, "--folds", 3, "--fold", 1, "--seed", seed, "--precision", "float32", *options),
        )
    command("evaluate", run, "--fold", 1, "--no-pictures", "--no-report", "--no-normals")
    found = json.loads((run / "fold_01" / "scores.json").read_text())
    return {"f1": 100 * (found["pooled"]["f1"] or 0), "lesion_f1": 100 * (found["lesions"]["f1"] or 0)}


def simulate(out: Path, seed: int, number: int, added: int) -> None:
    """One seed: the trainings that are not in results.jsonl yet."""
    rng = np.random.default_rng(seed)
    held_out = {Path(path).stem for paths in load_file_table(out / "fixed.files.csv").values() for path in paths}
    positive = [name for name in names(out) if is_positive(out, name) and name not in held_out]
    normal = [name for name in names(out) if not is_positive(out, name)][: POOL // 2]
    drawn = [*rng.permutation(positive)[: POOL // 2], *rng.permutation(normal)]
    start = [*map(str, drawn[: number // 2]), *map(str, drawn[POOL // 2 :][: number // 2])]
    rest = sorted(set(map(str, drawn)) - set(start))
    done = {entry["strategy"] for entry in results(out) if entry["seed"] == seed}
    folder = out / f"seed_{seed}"
    first = folder / "start"
    if not first.exists():
        prepare(out, first, start)
    for strategy in STRATEGIES:
        if strategy in done:
            continue
        shards, chosen = [first], []
        if strategy == "random":
            chosen = [str(name) for name in rng.permutation(rest)[:added]]
        elif strategy == "entropy":
            scans = link(out, folder / "pool", rest)
            shutil.rmtree(folder / "ranking", ignore_errors=True)
            command("rank", scans, "--model", folder / "run_start" / "fold_01", "--out", folder / "ranking")
            with open(folder / "ranking" / "ranking.csv", encoding="utf-8", newline="") as file:
                chosen = [Path(row["path"]).stem for row in csv.DictReader(file)][:added]
        if chosen:
            shutil.rmtree(folder / strategy, ignore_errors=True)
            shards.append(prepare(out, folder / strategy, chosen))
        entry = {
            "seed": seed,
            "start": number,
            "added": added,
            "strategy": strategy,
            **train(out, folder / f"run_{strategy}", shards, seed),
            "with_metastases": sum(is_positive(out, one) for one in chosen),
        }
        with open(out / "results.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def results(out: Path) -> list[dict]:
    path = out / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(out: Path) -> str:
    """Every complete seed, and the paired differences over the seeds with their 95% t intervals."""
    found = {(entry["seed"], entry["strategy"]): entry for entry in results(out)}
    seeds = sorted({seed for seed, _ in found if all((seed, strategy) in found for strategy in STRATEGIES)})
    if len(seeds) < 2:
        return f"{len(seeds)} seeds are complete: at least 2 are needed"
    lines = []
    for score, title in SCORES.items():
        lines += [f"| {title}, phantoms | {' | '.join(STRATEGIES)} |", "|---|---|---|---|"]
        for seed in seeds:
            cells = [f"{found[seed, strategy][score]:.1f} %" for strategy in STRATEGIES]
            lines.append(f"| seed {seed} | {' | '.join(cells)} |")
        for one, other in (("random", "start"), ("entropy", "start"), ("entropy", "random")):
            differences = [found[seed, one][score] - found[seed, other][score] for seed in seeds]
            lines.append(f"{one} less {other}: {interval(differences)}")
        lines.append("")
    lines.append("with metastases, of those added:")
    for one in STRATEGIES[1:]:
        mean, low, high = bounds([found[seed, one]["with_metastases"] for seed in seeds])
        lines.append(f"{one} {mean:.1f} ({low:.1f} to {high:.1f})")
    return "\n".join(lines)


def bounds(values: list[float]) -> tuple[float, float, float]:
    """Mean and 95% t interval."""
    mean, error = statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5
    half = stats.t.ppf(0.975, len(values) - 1) * error
    return mean, mean - half, mean + half


def interval(differences: list[float]) -> str:
    """Mean and 95% t interval of paired differences in points, and how many are above 0."""
    mean, low, high = bounds(differences)
    above = sum(one > 0 for one in differences)
    return f"{mean:+.1f} points ({low:+.1f} to {high:+.1f}), above 0 in {above} of {len(differences)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--start", type=int, default=16, metavar="N", help="scans annotated first (default 16)")
    parser.add_argument("--added", type=int, default=12, metavar="N", help="scans annotated then (default 12)")
    parser.add_argument("--table", action="store_true", help="train nothing, print the table of what there is")
    args = parser.parse_args()
    if not args.table:
        if any((entry["start"], entry["added"]) != (args.start, args.added) for entry in results(args.out)):
            parser.error(f"{args.out} holds other numbers of scans: give another --out")
        print_environment()
        args.out.mkdir(parents=True, exist_ok=True)
        args.out = args.out.resolve()
        make_cohort(args.out)
        for seed in map(int, args.seeds.split(",")):
            simulate(args.out, seed, args.start, args.added)
    print(table(args.out))


if __name__ == "__main__":
    main()
