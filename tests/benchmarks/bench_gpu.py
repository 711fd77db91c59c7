"""Training steps on a GPU: images a second, memory, and where the card's time goes. Runs on a CPU too, to try it out.

    python tests/benchmarks/bench_gpu.py [--precision mixed_bfloat16] [--batches 4 8 16]
    DOUBLEUNET_BS_FAST_KERNELS=off python tests/benchmarks/bench_gpu.py --profile

--torch [--compile]  the step of an equal PyTorch network, also by torch.compile
--xla                the step compiled with XLA on one device, with layers of Keras and doubling as shifted sums
--predict            the graph that an export holds, at --batches 1 8, in the chosen precision
--devices N          the card (or CPU) as N logical devices, in float32 without TensorFloat-32 if that is the precision
--rest               all that has never been measured on a GPU: one run of each, in a process of its own

The step is that of `train`, fed as in training. Each batch size starts with three steps that do not count. Their losses
are printed: they agree between all ways, to the precision. Set TF_FORCE_GPU_ALLOW_GROWTH=true beside other programs on
the card.
"""

import argparse
import collections
import dataclasses
import glob
import os
import statistics
import subprocess
import sys
import tempfile
import time

from bench_training_step import make_batch, new_network, own_trainer
from measuring import print_environment

TERAFLOP_PER_PIXEL = 1.6 / (640 * 512)
"""Of a training step: three times the 2 x 269 G multiplications and additions of a pass over 640 x 512 pixels."""
LOGICAL_MEGABYTES = 60_000
"""What `--devices` splits, of a card of 80 GB."""
LIMIT = 150
"""Seconds of one run of `--rest`."""
REST = (
    "--precision mixed_float16 --batches 4",
    "--precision float32 --batches 4 --devices 1",
    "--precision float32 --batches 4 --devices 2",
    "--precision float32 --batches 4 --devices 4",
    "--predict --batches 1 8",
    "--predict --batches 1 8 --precision float32",
    "--torch --compile --batches 4",
    "--batches 16 32",
    "--xla --batches 4",
)
"""What `--rest` runs, the surest first."""


def time_batches(step, args: argparse.Namespace, memory) -> None:
    """Print a line for each batch size."""
    rows, columns = args.rows, args.columns
    teraflop = rows * columns * TERAFLOP_PER_PIXEL / (3 if args.predict else 1)
    for batch in args.batches:
        grey, labels = make_batch(rows, columns, batch)
        start = time.perf_counter()
        losses = [step(grey, labels)]
        first = time.perf_counter() - start
        losses += [step(grey, labels) for _ in range(2)]
        times: list[float] = []
        while len(times) < 5 or sum(times) < args.seconds:
            start = time.perf_counter()
            step(grey, labels)
            times.append(time.perf_counter() - start)
        rate = batch / statistics.median(times)
        peak = f"{memory() / 1e9:.2f} GB" if memory else "unknown"
        print(
            f"batch {batch:3}: {rate:7.1f} images a second, step {1000 * statistics.median(times):.1f} ms "
            f"({1000 * min(times):.1f} - {1000 * max(times):.1f}, {len(times)} steps), "
            f"{rate * teraflop:.0f} TFLOP/s, peak {peak}, first step {first:.0f} s, "
            f"{'mean probability' if args.predict else 'losses'} {', '.join(f'{loss:.5f}' for loss in losses)}",
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


def doubled(maps, axis: int):
    """Bilinear doubling along an axis as sums of shifted maps, whose gradient XLA can compile."""
    import tensorflow as tf

    first, rest = tf.split(maps, [1, maps.shape[axis] - 1], axis)
    most, last = tf.split(maps, [maps.shape[axis] - 1, 1], axis)
    before, after = tf.concat([first, most], axis), tf.concat([rest, last], axis)
    both = tf.stack([0.75 * maps + 0.25 * before, 0.75 * maps + 0.25 * after], axis + 1)
    shape = [-1, *maps.shape[1:]]
    shape[axis] *= 2
    return tf.reshape(both, shape)


def compile_step(steps) -> None:
    """Let XLA compile the step that `training.steps.Steps` takes on one device."""
    import tensorflow as tf

    for layer in steps.model.layers:
        if getattr(layer, "interpolation", "") == "bilinear":
            layer.call = lambda maps: doubled(doubled(maps, 1), 2)
    step = steps._train_replica

    def compiled(micro_batches, variables):
        function = tf.function(lambda parts: step(parts, variables), jit_compile=True, autograph=False)
        return function(micro_batches)

    steps._train_replica = compiled


def own_step(args: argparse.Namespace, tf):
    """This project's step, or with `--predict` the exported graph. The latter returns the mean probability."""
    from doubleunet_bs.inference.engines import probability_name
    from doubleunet_bs.inference.keras_model import segmentation_function
    from doubleunet_bs.training.devices import open_replicas

    if args.predict:
        graph = tf.function(segmentation_function(new_network(args.rows, args.columns, args.precision)))

        def predict(grey, labels) -> float:
            return float((outputs := graph(tf.constant(grey)))[probability_name(outputs)].numpy().mean())

        return predict
    if args.xla:
        # XLA compiles none of the faster kernels, and no step under MirroredStrategy.
        os.environ["DOUBLEUNET_BS_FAST_KERNELS"] = "off"
        one = tf.distribute.OneDeviceStrategy(f"/device:{open_replicas().devices[0]}")
        replicas = dataclasses.replace(open_replicas(), strategy=one)
        return own_trainer(args.rows, args.columns, args.precision, replicas, compile_step)
    if not args.devices:
        return own_trainer(args.rows, args.columns, args.precision, open_replicas())
    card = next(iter(tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("CPU")))
    limit = {"memory_limit": LOGICAL_MEGABYTES // args.devices} if card.device_type == "GPU" else {}
    parts = [tf.config.LogicalDeviceConfiguration(**limit) for _ in range(args.devices)]
    tf.config.set_logical_device_configuration(card, parts)
    tf.config.experimental.enable_tensor_float_32_execution(False)
    replicas = open_replicas(f"{card.device_type.lower()}:{','.join(map(str, range(args.devices)))}")
    return own_trainer(args.rows, args.columns, args.precision, replicas)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--columns", type=int, default=512)
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 8, 16], metavar="N")
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16", "mixed_float16"), default="mixed_bfloat16")
    parser.add_argument("--seconds", type=float, default=2.0, help="of steps that count, for each batch")
    parser.add_argument("--torch", action="store_true", help="PyTorch, channels_last, instead")
    parser.add_argument("--compile", action="store_true", help="with --torch: by torch.compile")
    parser.add_argument("--xla", action="store_true", help="compile the step with XLA")
    parser.add_argument("--predict", action="store_true", help="predict instead of training")
    parser.add_argument("--devices", type=int, metavar="N", help="split the card into N logical devices")
    parser.add_argument("--profile", action="store_true", help="print where the time of the first batch goes")
    parser.add_argument("--rest", action="store_true", help="measure all that is missing, and nothing else")
    args = parser.parse_args()
    if args.compile and not args.torch:
        parser.error("--compile needs --torch")
    if args.rest:
        size = f"--rows {args.rows} --columns {args.columns} --seconds {args.seconds}"
        for options in REST:
            print(f"\n== {options}", flush=True)
            try:
                subprocess.run([sys.executable, __file__, *options.split(), *size.split()], timeout=LIMIT, check=True)
            except subprocess.TimeoutExpired:
                print(f"stopped after {LIMIT} s", flush=True)
            except subprocess.CalledProcessError as error:
                print(f"exit code {error.returncode}", flush=True)
        return
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
        step = torch_trainer(new_network(args.rows, args.columns, "float32"), args.precision, device, args.compile)
        memory = torch.cuda.max_memory_allocated if device == "cuda" else None
    else:
        step = own_step(args, tf)
        memory = (lambda: tf.config.experimental.get_memory_info("GPU:0")["peak"]) if gpus else None
    if args.profile:
        profile(step, args.rows, args.columns, args.batches[0])
    else:
        time_batches(step, args, memory)


if __name__ == "__main__":
    main()
