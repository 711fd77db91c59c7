"""Devices, replicas, and the one sum that has to cross them."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from doubleunet_bs.errors import SettingsError
from doubleunet_bs.tensorflow_setup import bfloat16_instruction
from doubleunet_bs.training.cpu_kernels import can_train_in, has_bfloat16_kernels
from doubleunet_bs.training.experiments import Experiment


@dataclasses.dataclass(frozen=True)
class Replicas:
    """A strategy and what to print about it."""

    strategy: tf.distribute.Strategy
    devices: tuple[str, ...]

    @property
    def count(self) -> int:
        return self.strategy.num_replicas_in_sync


def open_replicas(devices: str = "all") -> Replicas:
    """A MirroredStrategy over the chosen devices.

    Args:
        devices: "all" GPUs (the CPU when there is none), "cpu", or GPU numbers as "0,2". Logical devices count like
            physical ones, also "cpu:0,1" for logical CPUs.

    Raises:
        SettingsError: for a device that does not exist.
    """
    gpus, cpus = tf.config.list_logical_devices("GPU"), tf.config.list_logical_devices("CPU")
    if devices == "all":
        chosen = gpus or cpus[:1]
    elif devices == "cpu":
        chosen = cpus[:1]
    else:
        kind, _, numbers = devices.rpartition(":")
        available = {"": gpus, "gpu": gpus, "cpu": cpus}.get(kind)
        try:
            wanted = [int(number) for number in numbers.split(",")]
        except ValueError:
            wanted = [-1]
        if (
            available is None
            or any(number not in range(len(available)) for number in wanted)
            or len(set(wanted)) < len(wanted)
        ):
            raise SettingsError(
                f"devices {devices!r}: this machine has {len(gpus)} GPU(s); give all, cpu, or numbers such as 0,1"
            )
        chosen = [available[number] for number in wanted]
    names = [device.name for device in chosen]
    return Replicas(strategy=tf.distribute.MirroredStrategy(names), devices=tuple(_short(name) for name in names))


def gpu_numbers(replicas: Replicas) -> list[int]:
    """The numbers of the GPUs that were chosen; empty on the CPU."""
    return [int(name.removeprefix("GPU:")) for name in replicas.devices if name.startswith("GPU:")]


def check_batch_size(batch_size: int, replicas: int, accumulate: int = 1) -> None:
    """Refuse a batch with which a replica would have nothing to do.

    Raises:
        SettingsError: `batch_size` is below `replicas` times `accumulate`, the pieces a batch is taken in.
    """
    if batch_size < replicas * accumulate:
        pieces = f", in {accumulate} pieces each" if accumulate > 1 else ""
        raise SettingsError(
            f"a batch of {batch_size} cannot feed {replicas} replica{'s' if replicas > 1 else ''}{pieces}: use "
            f"--batch-size {replicas * accumulate} or more"
            + (", fewer devices with --devices" if replicas > 1 else "")
            + (", or a smaller --accumulate" if accumulate > 1 else "")
        )


def sum_over_replicas(sums: tf.Tensor) -> tf.Tensor:
    """Add a tensor up over all replicas; in every replica the same result. To be called inside `strategy.run`."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return sums
    return context.all_reduce(tf.distribute.ReduceOp.SUM, sums)


def _short(name: str) -> str:
    return name.split("/")[-1].removeprefix("device:")


PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
XLA = ("auto", "on", "off")


@dataclasses.dataclass(frozen=True)
class Machine:
    """How the arithmetic is done, as decided for the devices at hand. Heads and losses are float32 in any case.

    Attributes:
        precision: one of `PRECISIONS`.
        xla: whether XLA compiles the training step.
        reason: why, one line for the terminal.
    """

    precision: str
    xla: bool
    reason: str


def choose_machine(replicas: Replicas, precision: str = "float32", xla: str = "auto") -> Machine:
    """Settle precision and compilation for some devices.

    Args:
        replicas: the devices.
        precision: one of `PRECISIONS`, or "auto": bfloat16 where the device multiplies matrices in it (GPUs of compute
            capability 8.0 and above, processors with AMX or AVX-512 BF16 if a trial succeeds), float16 with loss scaling on GPUs from 7.0,
            float32 elsewhere.
        xla: "on", "off", or "auto": on for a single GPU in float32, off elsewhere. With several replicas the batch
            normalisation that crosses them cannot be compiled, and in mixed precision XLA refuses the gradient of the
            bilinear doubling.

    Raises:
        SettingsError: an unknown choice, or a precision or XLA where it does not work.
    """
    if precision not in (*PRECISIONS, "auto"):
        raise SettingsError(f"precision {precision}: it must be auto, {', '.join(PRECISIONS)}")
    if xla not in XLA:
        raise SettingsError(f"xla {xla}: it must be {', '.join(XLA)}")
    if xla == "on" and replicas.count > 1:
        raise SettingsError(f"--xla on works with one device; there are {replicas.count}: use --xla off or --devices 0")
    gpu = all(name.startswith("GPU") for name in replicas.devices)
    reason = "fixed; --precision auto chooses by the device"
    if precision == "auto":
        precision, reason = _gpu_precision(replicas) if gpu else _cpu_precision()
    elif not gpu and not can_train_in(precision.removeprefix("mixed_")):
        raise SettingsError(f"--precision {precision} does not work on this processor: use --precision float32 or auto")
    if xla == "on" and precision != "float32":
        raise SettingsError(f"--xla on works with --precision float32, not with {precision}: use --xla off")
    auto = gpu and replicas.count == 1 and precision == "float32"
    return Machine(precision, xla == "on" or (xla == "auto" and auto), reason)


def deterministic_kernels() -> bool:
    """Whether `tf.config.experimental.enable_op_determinism` was called in this process."""
    # TensorFlow lets it be set in public and asked for in its own rooms only.
    from tensorflow.python.framework.config import is_op_determinism_enabled

    return is_op_determinism_enabled()


def _cpu_precision() -> tuple[str, str]:
    fast = bfloat16_instruction()
    # The processor's word is the first look, the trial decides.
    if fast and has_bfloat16_kernels():
        return "mixed_bfloat16", f"chosen: this processor has {fast}"
    return "float32", "chosen: this processor has no bfloat16 matrix arithmetic"


def _gpu_precision(replicas: Replicas) -> tuple[str, str]:
    cards = tf.config.list_physical_devices("GPU")
    capabilities = [
        tf.config.experimental.get_device_details(cards[number]).get("compute_capability", (0, 0))
        for number in gpu_numbers(replicas)
    ]
    lowest = min(capabilities, default=(0, 0))
    said = f"chosen: compute capability {lowest[0]}.{lowest[1]}"
    if lowest >= (8, 0):
        return "mixed_bfloat16", said
    return ("mixed_float16" if lowest >= (7, 0) else "float32"), said


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
