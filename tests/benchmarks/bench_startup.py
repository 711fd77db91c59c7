"""Time until every command answers `--help`, and until a training takes its first step.

    python tests/benchmarks/bench_startup.py [--repeats 5] [--bin 4] [--without-training]

`--help` is compared with a Python that does nothing. The training is measured from the command to the end of its first
step. It is compared with the shortest Keras script that does the same with the same network: import Keras, map the
shards, build, compile with a Keras loss, one `train_on_batch`. Making the shards takes half a minute.
"""

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from measuring import ROOT, Seconds, print_environment, print_table, run_command, run_for_json, take_turns, timed

GOAL_SECONDS = 0.3

# With NOTE before them both print seconds since the parent started them: imported, about to take the first step, done
# with it.
NOTE = """
import json, os, resource, sys, time
began = float(os.environ["BEGAN"])
moments = []
def note():
    used = resource.getrusage(resource.RUSAGE_SELF)
    moments.append((time.time() - began, used.ru_utime + used.ru_stime))
"""
OURS = """
import runpy
from doubleunet_bs.tensorflow_setup import import_tensorflow
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
runpy.run_module("doubleunet_bs", run_name="__main__")
"""
PLAIN = """
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

    verbs = {f"doubleunet-bs {verb}": ["-m", "doubleunet_bs", verb] for verb in VERBS}
    return {"train.py": [str(ROOT / "train.py")], "doubleunet-bs": ["-m", "doubleunet_bs"], **verbs}


def measure_help(repeats: int) -> None:
    everything = {"python -c pass": ["-c", "pass"]}
    everything |= {f"{name} --help": [*arguments, "--help"] for name, arguments in commands().items()}
    run = partial(timed, run_command, cwd=ROOT)
    seconds = take_turns({name: partial(run, [sys.executable, *rest]) for name, rest in everything.items()}, repeats)
    print_table(seconds, unit="ms")
    slowest = max(statistics.median(found.wall for found in rounds) for rounds in seconds.values())
    print(f"slowest median {slowest:.2f} s on the clock; goal under {GOAL_SECONDS} s\n", flush=True)


def measure_training(repeats: int, bin: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_shards(folder, 6, bin)

        def ours() -> list[Seconds]:
            with tempfile.TemporaryDirectory(dir=folder) as empty:
                command = ["train", "--data", folder / "shards", "--run", Path(empty) / "run", "--fold", 1]
                command += ["--experiment", "dice", "--folds", 3, "--encoder-weights", "none", "--precision", "auto"]
                return first_step([sys.executable, "-c", NOTE + OURS, *command])

        base = "plain Keras script"
        plain = partial(first_step, [sys.executable, "-c", NOTE + PLAIN, folder / "shards"])
        taken = take_turns({base: plain, "train": ours}, repeats)
    print(f"from the command to the end of the first training step, 640/{bin} x 512/{bin} pixels, batch 4")
    for number, part in enumerate(("training to the end of its first step", "import", "way to the step", "step")):
        print_table({name: [parts[number] for parts in rounds] for name, rounds in taken.items()}, base, of=part)
    print()


def first_step(command: list) -> list[Seconds]:
    """Of a process that reports three moments: from its start to the last, to the first, and between them."""
    environment = {**os.environ, "BEGAN": str(time.time()), "PYTHONPATH": str(ROOT)}
    moments = [(0.0, 0.0), *run_for_json(command, cwd=ROOT, env=environment)]
    parts = [(moments[0], moments[3]), *itertools.pairwise(moments)]
    return [Seconds(end[0] - begin[0], end[1] - begin[1]) for begin, end in parts]


def make_shards(folder: Path, patients: int, bin: int) -> None:
    """Phantoms with metastases in `folder`/phantoms, and `folder`/shards of them."""
    from doubleunet_bs.phantom import make_cohort
    from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort
    from doubleunet_bs.preparation.settings import PreparationSettings

    cohort = make_cohort(folder / "phantoms", patients, positive_fraction=1.0)
    prepare_cohort(
        CohortJob(
            scans=cohort / "scans",
            labels=cohort / "labels",
            out=folder / "shards",
            settings=PreparationSettings(bin=bin),
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
    print_environment("tensorflow", "keras")


if __name__ == "__main__":
    main()
