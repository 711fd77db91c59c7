"""Scans per second from tf.data in the paper's fourteen variants, and the cost of a dataset of 100,000 scans.

    python tests/benchmarks/bench_pipeline.py [--scans 192] [--images 1500] [--repeats 5] [--sizes 100 1000 ...]

Three tables, of scans of 640 x 512 pixels in shards on the disk of the temporary folder:

1. Cold: each scan once in random order after the kernel dropped the files from its cache, and the same with the files
   cached. It prints what was read from the disk: 0 MB means that the cache could not be dropped.
2. Warm: the pipeline, and the one usually written for Keras: a generator of float32 images with three channels and
   one-hot float32 labels, the same variants computed with NumPy, batches and prefetching by tf.data.
3. Size: shard files linked under many names stand for a large dataset. Each size is a process of its own: seconds to
   open it, memory, and scans per second. `anonymous` is the memory of the process itself. Mapped shards can be given
   back to the system at any time.

Batches of 4, one replica, two loading threads. Takes a minute or two on two cores. The files take 1 MB per scan.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from bench_prepare import make_scans
from measuring import print_environment, print_table, run_for_json, spread, take_turns, timed

BATCH = 4
LEVELS, REACH = 7, 5.0


def make_shards(folder: Path, scans: int) -> Path:
    from doubleunet_bs.preparation.cohort import CohortJob, prepare_cohort

    make_scans(folder, scans)
    out = folder / "shards"
    prepare_cohort(CohortJob(scans=folder / "scans", labels=folder / "labels", out=out))
    return out


def link_many(shards: Path, out: Path, scans: int) -> None:
    """A data set of at least `scans` cases whose shards are all the first one of `shards`."""
    content = json.loads((shards / "dataset.json").read_text())
    first = content["shards"][0]
    out.mkdir()
    cases = []
    number = -(-scans // first["cases"])
    for shard in range(number):
        for kind in ("counts", "labels"):
            os.link(shards / f"{kind}-00000.npy", out / f"{kind}-{shard:05d}.npy")
        for row, case in enumerate(content["cases"][: first["cases"]]):
            name = hashlib.sha256(f"{shard} {row}".encode()).hexdigest()
            pseudonyms = {"case": f"case-{name[:12]}", "patient": f"patient-{name[12:24]}"}
            cases.append(
                {**case, **pseudonyms, "source_sha256": name, "pixel_sha256": name[::-1], "shard": shard, "row": row}
            )
    text = json.dumps({**content, "shards": [first] * number, "cases": cases}, indent=2)
    (out / "dataset.json").write_text(text)


def pieces(dataset, cases, augmentation, images: int, all_variants: bool = True) -> float:
    """Take `images` images out of the pipeline; how many a second they were."""
    from doubleunet_bs.dataset.pipeline import EpochPlan, training_micro_batches

    plan = EpochPlan(cases, BATCH, 0, augmentation.variants if augmentation else 1, all_variants)
    taken = training_micro_batches(dataset, plan, range(10**6), 1, augmentation=augmentation)
    moments = [time.perf_counter() for _ in taken.take(images // BATCH)]
    # From the first batch on: before it, the pipeline is built.
    return BATCH * (len(moments) - 1) / (moments[-1] - moments[0])


def plain_pieces(dataset, cases, augmentation, images: int) -> None:
    """The same images as a Keras model is usually fed."""
    import tensorflow as tf

    order = np.random.default_rng(0).permutation(len(cases) * 14)[:images]

    def generate():
        for number in order:
            index, variant = int(cases[number // 14]), int(number % 14)
            gain = augmentation.gains(index, variant)[0]
            grey = (
                np.rint(np.minimum(dataset.counts(index).astype(np.float32) * np.float32(gain), np.float32(255))) / 255
            )
            labels = np.asarray(dataset.labels(index))
            if variant % 2:
                grey, labels = grey[:, ::-1], labels[:, ::-1]
            yield np.repeat(grey[..., None], 3, axis=-1), np.eye(3, dtype=np.float32)[labels]

    shape = (*dataset.image_shape, 3)
    signature = (tf.TensorSpec(shape, tf.float32), tf.TensorSpec(shape, tf.float32))
    for _ in tf.data.Dataset.from_generator(generate, output_signature=signature).batch(BATCH).prefetch(4):
        pass


def measure_warm(shards: Path, images: int, repeats: int) -> None:
    from doubleunet_bs.dataset.augmentation import Augmentation
    from doubleunet_bs.preparation.shards import open_shards

    dataset = open_shards(shards)
    cases = range(len(dataset))
    augmentation = Augmentation(dataset, cases)
    images -= images % BATCH
    base = "float32, one-hot, generator"
    ways = {
        base: partial(timed, plain_pieces, dataset, cases, augmentation, images),
        "this pipeline, 14 variants": partial(timed, pieces, dataset, cases, augmentation, images),
        "this pipeline, as prepared": partial(timed, pieces, dataset, cases, None, images),
    }
    seconds = take_turns(ways, repeats)
    print(f"warm: {images} images of {len(dataset)} scans")
    print_table(seconds, base, "ms", images, "scan")
    for name, found in seconds.items():
        clock, processor = (sorted(images / pair[kind] for pair in found)[len(found) // 2] for kind in (0, 1))
        print(f"{name:<34}{clock:>10.0f} scans/s on the clock{2 * processor:>10.0f} scans/s of two cores")
    print(flush=True)


def child(folder: Path, images: int, mode: str) -> dict:
    return run_for_json([sys.executable, __file__, "--measure", folder, "--images", images, "--mode", mode])


def forget(folder: Path) -> None:
    """Ask the kernel to drop the files from its cache."""
    for path in folder.glob("*.npy"):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure_cold(shards: Path, scans: int, repeats: int) -> None:
    def cold() -> dict:
        forget(shards)
        return child(shards, scans, "once")

    found = take_turns({"cold": cold, "warm": partial(child, shards, scans, "once")}, repeats, warm_up=False)
    print(f"each of {scans} scans once, in random order{'scans/s (clock)':>24}{'MB from disk':>24}")
    for name, rounds in found.items():
        rate, read = spread([one["rate"] for one in rounds], 0), spread([one["read"] / 1e6 for one in rounds], 0)
        print(f"{name:<40}{rate:>27}{read:>24}")
    print(flush=True)


def measure_sizes(folder: Path, shards: Path, sizes: list[int], images: int) -> None:
    print(
        f"{'scans':>8}{'open s (CPU)':>14}{'anonymous MB':>14}{'a scan KB':>11}{'mapped MB':>11}{'files open':>12}"
        f"{'scans/s (CPU, 2 cores)':>24}"
    )
    base = None
    for size in sizes:
        out = folder / f"many{size}"
        link_many(shards, out, size)
        found = child(out, images, "many")
        base = base or found
        more = (found["anonymous"] - base["anonymous"]) / max(1, found["scans"] - base["scans"]) / 1e3
        each = f"{more:.1f}" if found["scans"] > base["scans"] else "-"
        print(
            f"{found['scans']:>8}{found['open']:>14.2f}{found['anonymous'] / 1e6:>14.0f}{each:>11}"
            f"{found['mapped'] / 1e6:>11.0f}{found['files']:>12}{found['rate_cpu']:>24.0f}",
            flush=True,
        )
    print()


def measure_here(folder: Path, images: int, mode: str) -> None:
    """In a process of its own: print one JSON line."""
    from doubleunet_bs.tensorflow_setup import import_tensorflow

    import_tensorflow()
    from doubleunet_bs.dataset.augmentation import Augmentation
    from doubleunet_bs.preparation.shards import open_shards

    begin = time.process_time()
    dataset = open_shards(folder)
    opened = time.process_time() - begin
    # The gains of some hundred cases stand for those of all: they are 112 bytes and less than a millisecond each.
    cases = range(len(dataset))
    augmentation = None if mode == "once" else Augmentation(dataset, cases[:: max(1, len(cases) // 500)])
    shown = cases if augmentation is None else list(augmentation._places)
    read = disk_bytes()
    begin = time.process_time()
    rate = pieces(dataset, shown, augmentation, images)
    processor = time.process_time() - begin
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    anonymous, mapped = (int(status[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile"))
    result = {
        "scans": len(dataset),
        "open": opened,
        "anonymous": anonymous,
        "mapped": mapped,
        "read": disk_bytes() - read,
    }
    result |= {"rate": rate, "rate_cpu": 2 * images / processor, "files": len(os.listdir("/proc/self/fd"))}
    print(json.dumps(result))


def disk_bytes() -> int:
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["read_bytes"])


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=192)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10000, 100000])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--mode", choices=("once", "many"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure_here(args.measure, args.images, args.mode)
        return
    from doubleunet_bs.tensorflow_setup import import_tensorflow

    import_tensorflow()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shards = make_shards(folder, args.scans)
        # First, while this process has nothing mapped: the kernel does not forget what is.
        measure_cold(shards, args.scans, min(3, args.repeats))
        measure_warm(shards, args.images, args.repeats)
        measure_sizes(folder, shards, args.sizes, args.images)
    print_environment("tensorflow", "cv2")


if __name__ == "__main__":
    main()
