"""Training steps on a GPU: images a second, memory, and where the card's time goes. Runs on a CPU too, to try it out.

    python tests/benchmarks/bench_gpu.py [--precision mixed_bfloat16] [--batches 4 8 16]
    python tests/benchmarks/bench_gpu.py --torch
    DOUBLEUNET_BS_FAST_KERNELS=off python tests/benchmarks/bench_gpu.py --profile

The step is that of `train`, fed as in training; `--torch` takes the step of an equal PyTorch network instead. Each
batch size starts with three steps that do not count. Set TF_FORCE_GPU_ALLOW_GROWTH=true beside other programs on the
card.
"""

import argparse
import collections
import glob
import statistics
import tempfile
import time

from bench_training_step import make_batch, new_network, own_trainer
from measuring import print_environment

TERAFLOP_PER_PIXEL = 1.6 / (640 * 512)
"""Of a training step: three times the 2 x 269 G multiplications and additions of a pass over 640 x 512 pixels."""


def time_batches(step, batches: list[int], rows: int, columns: int, seconds: float, memory) -> None:
    """Print a line for each batch size."""
    for batch in batches:
        grey, labels = make_batch(rows, columns, batch)
        start = time.perf_counter()
        loss = step(grey, labels)
        first = time.perf_counter() - start
        for _ in range(2):
            step(grey, labels)
        times: list[float] = []
        while len(times) < 5 or sum(times) < seconds:
            start = time.perf_counter()
            step(grey, labels)
            times.append(time.perf_counter() - start)
        rate = batch / statistics.median(times)
        print(
            f"batch {batch:3}: {rate:7.1f} images a second, step {1000 * statistics.median(times):.1f} ms "
            f"({1000 * min(times):.1f} - {1000 * max(times):.1f}, {len(times)} steps), "
            f"{rate * rows * columns * TERAFLOP_PER_PIXEL:.0f} TFLOP/s, peak {memory():.2f} GB, "
            f"first step {first:.0f} s, first loss {loss:.5f}",
            flush=True,
        )


def profile(step, rows: int, columns: int, batch: int) -> None:
    """Milliseconds of the GPU in a step, by operation and by kernel, from TensorFlow's profiler."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    grey, labels = make_batch(rows, columns, batch)
    for _ in range(3):
        step(grey, labels)
    space = xplane_pb2.XSpace()
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        step(grey, labels)
        tf.profiler.experimental.stop()
        with open(glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)[0], "rb") as file:
            space.ParseFromString(file.read())
    tables = {"operation": collections.Counter(), "kernel": collections.Counter()}
    for plane in space.planes:
        if not plane.name.startswith("/device:GPU"):
            continue
        names = {number: entry.name for number, entry in plane.stat_metadata.items()}
        # Streams hold what ran; the other lines sum the same up by step, module or operation.
        for event in (event for line in plane.lines if line.name.startswith("Stream") for event in line.events):
            milliseconds = event.duration_ps / 1e9
            tables["kernel"][plane.event_metadata[event.metadata_id].name] += milliseconds
            for entry in event.stats:
                if names.get(entry.metadata_id) == "tf_op":
                    operation = (entry.str_value or names.get(entry.ref_value, "")).rpartition(":")[2]
                    tables["operation"][operation] += milliseconds
    whole = sum(tables["kernel"].values())
    print(f"{rows} x {columns}, batch {batch}: {whole:.1f} ms of the GPU in a step")
    for name, table in tables.items():
        for kind, milliseconds in table.most_common(20):
            print(f"  {name} {milliseconds:9.2f} ms {milliseconds / whole:6.1%}  {kind[:90]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--columns", type=int, default=512)
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 8, 16], metavar="N")
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), default="mixed_bfloat16")
    parser.add_argument("--seconds", type=float, default=2.0, help="of steps that count, for each batch")
    parser.add_argument("--torch", action="store_true", help="PyTorch, channels_last, instead")
    parser.add_argument("--profile", action="store_true", help="print where the time of the first batch goes")
    args = parser.parse_args()
    from doubleunet_bs.tensorflow_setup import import_tensorflow

    tf = import_tensorflow()
    gpus = tf.config.list_physical_devices("GPU")
    card = tf.config.experimental.get_device_details(gpus[0]).get("device_name") if gpus else "no GPU"
    print_environment("tensorflow", "keras", *(["torch"] if args.torch else []))
    print(f"{card}, {'PyTorch' if args.torch else 'this project'}, {args.rows} x {args.columns}, {args.precision}")
    if args.torch:
        # Both frameworks would take the whole memory of the card.
        tf.config.set_visible_devices([], "GPU")
        from plain_training import torch_trainer
        from torch_twin import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        network = new_network(args.rows, args.columns, "float32")
        step = torch_trainer(network, args.precision != "float32", device)

        def memory() -> float:
            return torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else float("nan")

    else:
        step = own_trainer(args.rows, args.columns, args.precision, "all")

        def memory() -> float:
            return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e9 if gpus else float("nan")

    if args.profile:
        profile(step, args.rows, args.columns, args.batches[0])
    else:
        time_batches(step, args.batches, args.rows, args.columns, args.seconds, memory)


if __name__ == "__main__":
    main()
