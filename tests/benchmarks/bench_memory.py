"""Peak memory of a training step: the figures behind the estimate that `train` prints.

    python tests/benchmarks/bench_memory.py [--rows 320] [--columns 256] [--batches 1,2,4]

Each line is a process of its own that takes two training steps of the real network on one device and prints its peak
resident memory (on a GPU: the peak of TensorFlow's allocator). Two batch sizes give the slope, in bytes per pixel, and
the constant part.
"""

import argparse
import sys

from measuring import ROOT, print_environment, run_for_json

STEP = """
import json, resource, sys
sys.path.insert(0, sys.argv[1])
rows, columns, batch, accumulate = map(int, sys.argv[2:6])
precision = sys.argv[6]
from doubleunet_bs.tensorflow_setup import import_tensorflow
tf = import_tensorflow()
import keras, numpy as np
from doubleunet_bs.network import double_unet
from doubleunet_bs.runs.experiments import paper_experiment
from doubleunet_bs.training.fast_kernels import FusedAdam
from doubleunet_bs.training.devices import open_replicas
from doubleunet_bs.training.steps import Steps, make_loss
experiment = paper_experiment("focal-tversky-otsu")
replicas = open_replicas("all")
keras.config.set_dtype_policy(precision)
with replicas.strategy.scope():
    model = double_unet((rows, columns, 3), 3)
    optimizer = FusedAdam(1e-4)
    optimizer.build(model.trainable_variables)
steps = Steps(model, optimizer, make_loss(experiment), replicas, accumulate=accumulate)
share = batch // accumulate
piece = {"grey": np.zeros((share, rows, columns), np.uint8), "labels": np.ones((share, rows, columns), np.uint8),
         "weights": np.ones(share, np.float32), "index": np.arange(share, dtype=np.int32)}
data = tf.data.Dataset.from_tensors(piece).repeat()
iterator = iter(replicas.strategy.distribute_datasets_from_function(lambda context: data))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
for _ in range(2):
    steps.train(iterator)
if replicas.devices[0].startswith("GPU"):
    peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"device": replicas.devices[0], "before": before, "peak": peak}))
"""


def measure(rows: int, columns: int, batch: int, accumulate: int, precision: str) -> dict:
    """Peak memory of a process that takes two steps."""
    return run_for_json([sys.executable, "-c", STEP, ROOT, rows, columns, batch, accumulate, precision])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=320)
    parser.add_argument("--columns", type=int, default=256)
    parser.add_argument("--batches", default="1,2,4")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--precisions", default="float32,mixed_bfloat16")
    args = parser.parse_args()
    batches = [int(batch) for batch in args.batches.split(",")]
    print(f"{args.rows} x {args.columns} pixels, batches in {args.accumulate} micro-batch(es)")
    print(f"{'precision':16}{'batch':>6}{'peak GB':>9}{'bytes a pixel':>15}  {'device'}")
    for precision in args.precisions.split(","):
        first = None
        for batch in batches:
            found = measure(args.rows, args.columns, batch, args.accumulate, precision)
            first = first or (batch, found["peak"])
            more = (batch - first[0]) * args.rows * args.columns
            slope = f"{(found['peak'] - first[1]) / more:.0f}" if more else "-"
            print(f"{precision:16}{batch:>6}{found['peak'] / 1e9:>9.2f}{slope:>15}  {found['device']}", flush=True)
    print()
    print_environment("tensorflow", "keras")


if __name__ == "__main__":
    main()
