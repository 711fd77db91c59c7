"""How long every command takes to answer `--help`, and a training to take its first step.

    python tests/benchmarks/bench_startup.py [--repeats 5] [--bin 4] [--without-training]

`--help` is measured beside a Python that does nothing. The training is measured from the command to the end of its first step,
beside the shortest Keras script that does the same with the same network: import Keras, map the shards, build, compile with
a Keras loss, one `train_on_batch`. Phantoms and shards for it are made in a temporary folder, which takes half a minute.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from side_by_side import Seconds, in_turn, print_environment, print_table, spread, timed_process

ROOT = Path(__file__).resolve().parents[2]
GOAL_SECONDS = 0.3

# Both print seconds since the parent started them: imported, about to take the first step, done with it.
OURS = """
import json, os, resource, runpy, sys, time
began = float(os.environ["BEGAN"])
moments = []
def note():
    used = resource.getrusage(resource.RUSAGE_SELF)
    moments.append((time.time() - began, used.ru_utime + used.ru_stime))
from doubleunet_bs.quiet import import_tensorflow
import_tensorflow()
note()
from doubleunet_bs.training.steps import Steps
train = Steps.train
def first(self, *arguments):
    note()
    train(self, *arguments)
    note()
    print(json.dumps(moments), flush=True)
    os._exit(0)
Steps.train = first
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
PLAIN = """
import json, os, resource, sys, time
began = float(os.environ["BEGAN"])
moments = []
def note():
    used = resource.getrusage(resource.RUSAGE_SELF)
    moments.append((time.time() - began, used.ru_utime + used.ru_stime))
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, tensorflow
note()
import numpy as np
from doubleunet_bs.network import double_unet
counts, labels = (np.load(f"{sys.argv[1]}/{kind}-00000.npy", mmap_mode="r") for kind in ("counts", "labels"))
model = double_unet((*counts.shape[1:], 3), 3)
model.compile(keras.optimizers.Adam(1e-4), loss=[keras.losses.Dice(), keras.losses.Dice()])
image = np.minimum(counts[:4, ..., None], 255).astype(np.float32).repeat(3, axis=-1) / 255
truth = keras.utils.to_categorical(labels[:4], 3)
note()
model.train_on_batch(image, [truth, truth])
note()
print(json.dumps(moments), flush=True)
os._exit(0)
"""


def commands() -> dict[str, list[str]]:
    """Everything that has a `--help`."""
    from doubleunet_bs.__main__ import VERBS

    verbs = {f"doubleunet_bs {verb}": ["-m", "doubleunet_bs", verb] for verb in VERBS}
    scripts = {name: [str(ROOT / name)] for name in ("train.py", "evaluate.py")}
    return {**scripts, "doubleunet_bs": ["-m", "doubleunet_bs"], **verbs}


def measure_help(repeats: int) -> None:
    sides = {"python -c pass": lambda: timed_process([sys.executable, "-c", "pass"], cwd=ROOT)}
    for name, arguments in commands().items():
        command = [sys.executable, *arguments, "--help"]
        sides[f"{name} --help"] = lambda command=command: timed_process(command, cwd=ROOT)
    seconds = in_turn(sides, repeats)
    print_table(seconds)
    slowest = max(statistics.median(pair[0] for pair in found) for found in seconds.values())
    print(f"slowest median {slowest:.2f} s on the clock; goal under {GOAL_SECONDS} s\n", flush=True)


def measure_training(repeats: int, bin: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_shards(folder, bin)
        moments: dict[str, list[list[Seconds]]] = {"train.py": [], "plain Keras script": []}
        number = 0

        def ours() -> Seconds:
            nonlocal number
            number += 1
            command = [ROOT / "train.py", "--data", folder / "shards", "--run", folder / f"run{number}", "--fold", 1]
            command += ["--experiment", "dice", "--folds", 3, "--encoder-weights", "none", "--precision", "auto"]
            moments["train.py"].append(first_step([sys.executable, "-c", OURS, *command]))
            return moments["train.py"][-1][-1]

        def plain() -> Seconds:
            moments["plain Keras script"].append(first_step([sys.executable, "-c", PLAIN, folder / "shards"]))
            return moments["plain Keras script"][-1][-1]

        in_turn({"train.py": ours, "plain Keras script": plain}, repeats)
    print(f"from the command to the end of the first training step, 640/{bin} x 512/{bin} pixels, batch 4")
    for kind, name in ((1, "processor seconds"), (0, "clock seconds")):
        print(f"{name:<22}{'imports':>22}{'until the step':>22}{'the step':>22}{'all':>24}")
        for side, runs in moments.items():
            parts = [
                [run[0][kind], run[1][kind] - run[0][kind], run[2][kind] - run[1][kind], run[2][kind]]
                for run in runs[1:]
            ]
            columns = [spread(column) for column in zip(*parts, strict=True)]
            print(f"{side:<22}" + "".join(f"{column:>22}" for column in columns[:3]) + f"{columns[3]:>24}", flush=True)
        pairs = zip(moments["plain Keras script"][1:], moments["train.py"][1:], strict=True)
        print(f"plain / train.py      {spread([one[2][kind] / other[2][kind] for one, other in pairs])}")
    print()


def first_step(command: list) -> list[Seconds]:
    """(clock, processor) at the three moments that the process reports."""
    environment = {**os.environ, "BEGAN": str(time.time()), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([str(part) for part in command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the training failed: {done.stderr[-800:]}")
    return [tuple(moment) for moment in json.loads(done.stdout.strip().splitlines()[-1])]


def make_shards(folder: Path, bin: int) -> None:
    from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort
    from doubleunet_bs.preparation.settings import PreparationSettings
    from doubleunet_bs.scans.phantom import make_cohort

    cohort = make_cohort(folder / "phantoms", 6, positive_fraction=1.0, workers=2, progress=False)
    prepare_cohort(
        CohortJob(
            scans=cohort / "scans",
            labels=cohort / "labels",
            out=folder / "shards",
            settings=PreparationSettings(bin=bin),
            progress=False,
        )
    )


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bin", type=int, choices=(1, 2, 4), default=4)
    parser.add_argument("--without-training", action="store_true", help="only --help")
    args = parser.parse_args()
    measure_help(args.repeats)
    if not args.without_training:
        measure_training(args.repeats, args.bin)
    print_environment(("tensorflow", "keras", "numpy"))


if __name__ == "__main__":
    main()
