"""Time of one training step on a CPU: this project, the original model built plainly in Keras, and PyTorch.

    python tests/benchmarks/bench_training_step.py [--rows 320] [--columns 256] [--batch 4] [--rounds 5]
    python tests/benchmarks/bench_training_step.py --apart [--rows 160] [--columns 128] [--ways NAME ...]
    python tests/benchmarks/bench_training_step.py --profile [--precision mixed_bfloat16]

All ways start from the same weights and take the same grey images and labels in turn, in one process. The first loss of
each is printed and must agree. The plain way: float32 images of three channels, float one-hot targets, `model.compile`
and `train_on_batch`. PyTorch: an equal network, channels_last, fused Adam. A step at 640 x 512 with batch 4 takes up to
14 GB in float32. The command checks that the largest step fits into the free memory.

`--apart` runs each way in a process of its own, three steps that do not count and five that do. Only so this project
keeps freed memory for the next step, as it does in training, but with `--give-back`: the setting holds for a whole
process. `--one NAME` is one such process: it prints the seconds and the processor seconds of a step.

`--profile` prints where the time of this project's step goes, by kind of operation.

Needed for this alone: pip install torch
"""

import argparse
import collections
import gc
import glob
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial

import numpy as np
from measuring import Seconds, free_memory_gb, print_environment, print_table, run_for_json, take_turns, timed

from doubleunet_bs.tensorflow_setup import keep_freed_memory

BYTES_PER_PIXEL = {"float32": 12_000, "mixed_bfloat16": 7_000}
Step = Callable[[np.ndarray, np.ndarray], float]


def new_network(rows: int, columns: int, precision: str, synchronized: bool = False):
    """The real network, the same random weights each time."""
    import keras

    from doubleunet_bs.network import double_unet

    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(precision)
    try:
        return double_unet((rows, columns, 3), head_bias=[-0.1, -2.5, -5.0], synchronized=synchronized)
    finally:
        keras.config.set_dtype_policy("float32")


def own_trainer(rows: int, columns: int, precision: str, replicas=None, change=lambda steps: None) -> Step:
    """This project's step, fed as in training: by an iterator of a distributed dataset of uint8 arrays.

    The devices are the CPU by default. `change` may alter the `Steps` before the first one is taken.
    """
    import keras
    import tensorflow as tf

    from doubleunet_bs.runs.experiments import paper_experiment
    from doubleunet_bs.training.devices import choose_precision, open_replicas
    from doubleunet_bs.training.fast_kernels import FusedAdam
    from doubleunet_bs.training.steps import Steps, make_loss

    replicas = choose_precision(replicas or open_replicas("cpu"), precision)
    with replicas.strategy.scope():
        model = new_network(rows, columns, precision, synchronized=replicas.count > 1)
        optimizer = FusedAdam(1e-4)
        if precision == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(model.trainable_variables)
    steps = Steps(model, optimizer, make_loss(paper_experiment("focal-tversky-otsu")), replicas)
    change(steps)
    iterators = {}

    def step(grey: np.ndarray, labels: np.ndarray) -> float:
        if id(grey) not in iterators:
            count = len(grey)
            piece = {
                "grey": grey,
                "labels": labels,
                "weights": np.ones(count, np.float32),
                "index": np.arange(count, dtype=np.int32),
            }
            data = tf.data.Dataset.from_tensors(piece)
            if replicas.count > 1:
                data = data.unbatch().batch(count // replicas.count, drop_remainder=True)
            data = data.repeat()
            iterators[id(grey)] = iter(replicas.strategy.distribute_datasets_from_function(lambda context: data))
        return steps.train(iterators[id(grey)])[0]

    return step


def plain(rows: int, columns: int, precision: str) -> Step:
    from plain_training import plain_trainer

    return plain_trainer(new_network(rows, columns, precision))


def torch_way(rows: int, columns: int, precision: str) -> Step:
    from plain_training import torch_trainer

    return torch_trainer(new_network(rows, columns, "float32"), precision)


BASE = "plain Keras, float32"
WAYS: dict[str, tuple[str, Callable[[int, int], Step]]] = {
    BASE: ("float32", lambda r, c: plain(r, c, "float32")),
    "plain Keras, bfloat16": ("mixed_bfloat16", lambda r, c: plain(r, c, "mixed_bfloat16")),
    "this project, float32": ("float32", lambda r, c: own_trainer(r, c, "float32")),
    "this project, bfloat16": ("mixed_bfloat16", lambda r, c: own_trainer(r, c, "mixed_bfloat16")),
    "torch, float32": ("float32", lambda r, c: torch_way(r, c, "float32")),
    "torch, bfloat16": ("mixed_bfloat16", lambda r, c: torch_way(r, c, "mixed_bfloat16")),
}


def make_batch(rows: int, columns: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright body, and labels of all classes in it: what the numbers are changes no time."""
    rng = np.random.default_rng(0)
    grey = rng.poisson(10, (batch, rows, columns)).astype(np.uint8)
    labels = np.zeros((batch, rows, columns), np.uint8)
    labels[:, rows // 4 :] = 1
    labels[:, rows // 2 : rows // 2 + 8, columns // 3 : columns // 3 + 8] = 2
    return grey + 60 * (labels == 1).astype(np.uint8) + 120 * (labels == 2).astype(np.uint8), labels


def profile(rows: int, columns: int, batch: int, precision: str) -> None:
    """Time of one step by kind of operation, from TensorFlow's own profiler."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    step = own_trainer(rows, columns, precision)
    grey, labels = make_batch(rows, columns, batch)
    for _ in range(3):
        wall, processor = timed(step, grey, labels)
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        step(grey, labels)
        tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace()
        with open(glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)[0], "rb") as file:
            space.ParseFromString(file.read())
    total, number = collections.Counter(), collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name, _, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
                # Operations of the graph are named "path/of/it:Kind"; "A::B" is the machinery around them.
                if name and not name.endswith(":") and kind.isidentifier():
                    total[kind] += event.duration_ps / 1e9
                    number[kind] += 1
    print(f"\n{rows} x {columns}, batch {batch}, {precision}: a step takes {wall:.2f} s wall, ")
    print(f"{processor:.2f} s processor; milliseconds in operations (they overlap on several cores):")
    whole = sum(total.values())
    for kind, milliseconds in total.most_common(24):
        print(f"  {kind:44}{number[kind]:>6}{milliseconds:>10.1f}{milliseconds / whole:>8.1%}")


def apart(name: str, rows: int, columns: int, batch: int, give_back: bool) -> Seconds:
    """Mean seconds of a step of one way, in a new process."""
    size = [f"--rows={rows}", f"--columns={columns}", f"--batch={batch}"]
    return Seconds(*run_for_json([sys.executable, __file__, *size, *["--give-back"] * give_back, "--one", name]))


def run_one(name: str, rows: int, columns: int, batch: int, give_back: bool) -> None:
    """What the process of `apart` does."""
    if name.startswith("this project") and not give_back:
        keep_freed_memory()
    step, data = WAYS[name][1](rows, columns), make_batch(rows, columns, batch)
    for _ in range(3):
        step(*data)
    taken = [timed(step, *data) for _ in range(5)]
    print(json.dumps(np.mean(taken, axis=0).tolist()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=320)
    parser.add_argument("--columns", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="NAME", help="; ".join(WAYS))
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--give-back", action="store_true", help="do not keep freed memory")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), default="mixed_bfloat16")
    args = parser.parse_args()
    pixels = args.rows * args.columns * args.batch
    chosen = [args.precision] if args.profile else [WAYS[name][0] for name in [BASE, *args.ways]]
    need = max(BYTES_PER_PIXEL[precision] for precision in chosen) * pixels / 2**30 + 1.0 * len(chosen)
    if need > free_memory_gb():
        raise SystemExit(
            f"about {need:.0f} GB are needed, {free_memory_gb():.0f} GB are free: a smaller --batch, or fewer --ways"
        )
    from doubleunet_bs.tensorflow_setup import import_tensorflow

    import_tensorflow()
    if args.profile:
        print_environment("tensorflow", "keras")
        profile(args.rows, args.columns, args.batch, args.precision)
        return
    size = args.rows, args.columns, args.batch, args.give_back
    if args.one:
        run_one(args.one, *size)
        return
    names = [BASE, *(name for name in args.ways if name != BASE)]
    if args.apart:
        print_environment("tensorflow", "keras", "torch")
        print(f"\n{args.rows} x {args.columns}, batch {args.batch}, each way in a process of its own")
        print_table(
            take_turns({name: partial(apart, name, *size) for name in names}, args.rounds, False), BASE, of="step"
        )
        return
    steps = {name: WAYS[name][1](args.rows, args.columns) for name in names}
    grey, labels = make_batch(args.rows, args.columns, args.batch)
    print_environment("tensorflow", "keras", "torch")
    print(f"\n{args.rows} x {args.columns}, batch {args.batch}; the first loss of each way:")
    first = {}
    for name, step in steps.items():
        first[name] = step(grey, labels)
        gc.collect()
        print(f"  {name:32}{first[name]:.5f}", flush=True)
        if not abs(first[name] - first[BASE]) < (1e-3 if "float32" in name else 3e-2):
            raise SystemExit(f"{name} does not take the same step")
    print()
    ways = {name: partial(timed, step, grey, labels) for name, step in steps.items()}
    print_table(take_turns(ways, args.rounds), BASE, of="step")


if __name__ == "__main__":
    main()
