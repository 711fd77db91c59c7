"""What a training step will need of a device's memory, known before anything is built (decided here).

The network is the same for every image size and its activations grow with the pixels, so that two measured numbers tell
the need of any batch: bytes per pixel that is in the device at once, and a part that is always there (weights, their
gradients, Adam's two averages, the libraries). Both are from `tests/benchmarks/bench_memory.py` on CPUs, rounded up. On a GPU
the convolutions' work space differs, and no GPU was at hand to measure it: there a batch that does not seem to fit is
warned of and not refused.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from doubleunet_bs.errors import SettingsError
from doubleunet_bs.training.experiments import Experiment
from doubleunet_bs.training.devices import Replicas, gpu_numbers

BYTES_PER_PIXEL = {"float32": 10_000, "mixed_bfloat16": 7_200, "mixed_float16": 7_200}
"""With Keras' own layers, as on GPUs; float16 is taken to need what bfloat16 does."""
CPU_BYTES_PER_PIXEL = {**BYTES_PER_PIXEL, "float32": 9_200, "mixed_bfloat16": 4_800}
"""With the kernels of `training.cpu_kernels`, which float16 does not have."""
CONSTANT_BYTES = 1.5e9


@dataclasses.dataclass(frozen=True)
class MemoryNeed:
    """The need of a run and what there is.

    Attributes:
        needed: bytes on the fullest device; for several replicas on the CPU, which share its memory, on all together.
        total: bytes that this device has, None when unknown.
        advice: what to change when it does not fit.
    """

    needed: float
    total: float | None
    advice: str

    def __str__(self) -> str:
        has = "" if self.total is None else f" of {self.total / 1e9:.1f} GB on the device"
        short = self.total is not None and self.needed > self.total
        warning = f"; it may not fit (the estimate is from CPUs): {self.advice}" if short else ""
        return f"about {self.needed / 1e9:.1f} GB needed{has}{warning}"


def images_at_once(experiment: Experiment, replicas: int = 1) -> int:
    """The most images that a device has in a training step; validation and mining take no more."""
    return -(-experiment.batch_size // (replicas * experiment.accumulate))


def check_memory(
    image_shape: Sequence[int],
    experiment: Experiment,
    replicas: Replicas,
    precision: str,
    total: float | None = None,
) -> MemoryNeed:
    """The memory a run needs.

    Args:
        image_shape: (rows, columns).
        experiment: its batch size and the pieces it is taken in.
        replicas: the devices.
        precision: as settled by `training.machine.choose_machine`.
        total: bytes of a device; None: ask it.

    Raises:
        SettingsError: the processor's memory is smaller; the message says what to change.
    """
    images = images_at_once(experiment, replicas.count)
    on_gpu = replicas.devices[0].startswith("GPU")
    per_pixel = (BYTES_PER_PIXEL if on_gpu else CPU_BYTES_PER_PIXEL)[precision]
    share = CONSTANT_BYTES + images * image_shape[0] * image_shape[1] * per_pixel
    needed = share if on_gpu else share * replicas.count
    total = _device_bytes(replicas) if total is None else total
    changes = []
    # Never one image a piece: the ASPP pooling branch would be normalised over a single value.
    pieces = min(2 * experiment.accumulate, experiment.batch_size // max(2, replicas.count))
    if pieces > experiment.accumulate:
        changes.append(f"--accumulate {pieces}")
    if precision == "float32":
        changes.append("--precision mixed_bfloat16")
    changes += ["a smaller --batch-size", "more devices" if on_gpu else "a coarser matrix (prepare --bin 2)"]
    need = MemoryNeed(needed, total, "use " + ", ".join(changes[:-1]) + f" or {changes[-1]}")
    if total is not None and needed > total and not on_gpu:
        rows, columns = image_shape
        raise SettingsError(
            f"a batch of {experiment.batch_size} images of {rows} x {columns} pixels in {precision} needs about "
            f"{needed / 1e9:.1f} GB, this machine has {total / 1e9:.1f} GB: {need.advice}"
        )
    return need


def _device_bytes(replicas: Replicas) -> float | None:
    chosen = gpu_numbers(replicas)
    if chosen:
        # The only place where TensorFlow says how much it may allocate on a GPU.
        from tensorflow.python.client import device_lib

        names = {f"/device:GPU:{number}" for number in chosen}
        limits = [device.memory_limit for device in device_lib.list_local_devices() if device.name in names]
        return float(min(limits)) if limits else None
    try:
        physical = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return None
    limit = container_limit()
    return physical if limit is None else min(physical, limit)


def container_limit(files: Sequence[str | os.PathLike] | None = None) -> float | None:
    """Bytes that this process may use, the least of its Linux control groups; None when there is no limit or no such file.

    Args:
        files: that hold the limits; None: those of this process, see `limit_files`.
    """
    limits = []
    for file in limit_files() if files is None else files:
        try:
            text = Path(file).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text.isdigit() and int(text) < 2**60:
            limits.append(float(text))
    return min(limits, default=None)


def limit_files(
    membership: str | os.PathLike = "/proc/self/cgroup", root: str | os.PathLike = "/sys/fs/cgroup"
) -> list[Path]:
    """Where the memory limits of this process may stand: its control group's and those above it, of both versions.

    A batch system, or a service of systemd, sets them far below the root. Within a container the root is its own.
    """
    root = Path(root)
    versions = {"": (root, "memory.max"), "memory": (root / "memory", "memory.limit_in_bytes")}
    files = [folder / name for folder, name in versions.values()]
    try:
        lines = Path(membership).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return files
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            if controller in versions and ".." not in path:
                folder, name = versions[controller]
                group = folder / path.lstrip("/")
                files += [level / name for level in (group, *group.parents) if level.is_relative_to(folder)]
    return list(dict.fromkeys(files))
