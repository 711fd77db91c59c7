"""The devices that train: replicas, precision, and the memory that a training needs."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled  # TensorFlow has no public one

from doubleunet_bs.errors import SettingsError
from doubleunet_bs.network.double_unet import check_encoder_weights
from doubleunet_bs.runs.experiments import Experiment
from doubleunet_bs.tensorflow_setup import bfloat16_instruction, keep_freed_memory
from doubleunet_bs.training.fast_kernels import can_train_in, has_avx2_alone, has_bfloat16_kernels

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclasses.dataclass(frozen=True)
class DeviceSettings:
    """What the user asks of the devices.

    Attributes:
        devices: "all" GPUs (the CPU when there is none), "cpu", or GPU numbers as "0,2".
        precision: one of `PRECISIONS`, or "auto", see `choose_precision`.
        deterministic: only kernels that give the same bits every time.
    """

    devices: str = "all"
    precision: str = "float32"
    deterministic: bool = False


@dataclasses.dataclass(frozen=True)
class Replicas:
    """Opened devices. Each trains a copy of the network on its part of a batch.

    Attributes:
        strategy: places the copies.
        devices: short names for the terminal: "GPU:0".
        precision: of the layers, one of `PRECISIONS`. Heads and losses are float32 in any case.
        reason: why this precision, for the terminal.
    """

    strategy: tf.distribute.Strategy
    devices: tuple[str, ...]
    precision: str = "float32"
    reason: str = ""

    @property
    def count(self) -> int:
        """Number of copies of the network."""
        return self.strategy.num_replicas_in_sync

    @property
    def gpu_numbers(self) -> list[int]:
        """The numbers of the chosen GPUs. Empty on the CPU."""
        return [int(name.removeprefix("GPU:")) for name in self.devices if name.startswith("GPU:")]


def open_devices(
    experiment: Experiment, image_shape: tuple[int, int], settings: DeviceSettings | None = None
) -> Replicas:
    """Open the devices and check that they can train an experiment. ImageNet weights are downloaded if they are needed.

    Args:
        experiment: what will be trained.
        image_shape: (rows, columns) of the prepared images.
        settings: what the user asks for. None: all GPUs, or the CPU, in float32.

    Raises:
        SettingsError, RunError: devices, batch size, precision, memory or encoder weights make it impossible.
    """
    settings = settings or DeviceSettings()
    keep_freed_memory()
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    replicas = open_replicas(settings.devices)
    check_batch_size(experiment.batch_size, replicas.count, experiment.accumulate)
    replicas = choose_precision(replicas, settings.precision)
    check_memory(experiment, image_shape, replicas)
    # A fold that starts from an earlier run has its encoder from there.
    if not experiment.start_from:
        check_encoder_weights(experiment.encoder_weights)
    return replicas


def open_replicas(devices: str = "all") -> Replicas:
    """Open the chosen devices in float32: `DeviceSettings.devices`, or logical CPUs as "cpu:0,1".

    Raises `SettingsError` for a device that does not exist.
    """
    gpus, cpus = tf.config.list_logical_devices("GPU"), tf.config.list_logical_devices("CPU")
    if devices == "all":
        chosen = gpus or cpus[:1]
    elif devices == "cpu":
        chosen = cpus[:1]
    else:
        kind, _, numbers = devices.rpartition(":")
        available = {"": gpus, "gpu": gpus, "cpu": cpus}.get(kind, [])
        try:
            wanted = [int(number) for number in numbers.split(",")]
        except ValueError:
            wanted = [-1]
        if not set(wanted) <= set(range(len(available))) or len(set(wanted)) < len(wanted):
            raise SettingsError(f"--devices {devices}: this machine has {len(gpus)} GPU(s): use all, cpu, or 0,1")
        chosen = [available[number] for number in wanted]
    names = [device.name for device in chosen]
    short = tuple(name.split("/")[-1].removeprefix("device:") for name in names)
    return Replicas(strategy=tf.distribute.MirroredStrategy(names), devices=short)


def check_batch_size(batch_size: int, replicas: int, accumulate: int = 1) -> None:
    """Refuse (`SettingsError`) a batch that leaves one of the micro-batches of a replica without an image."""
    if batch_size < replicas * accumulate:
        raise SettingsError(
            f"--batch-size {batch_size} is too small for {replicas} device(s) and --accumulate {accumulate}: "
            f"use {replicas * accumulate} or more"
        )


def sum_over_replicas(sums: tf.Tensor) -> tf.Tensor:
    """Add a tensor up over all replicas, with the same result in each. Call it inside `strategy.run`."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return sums
    return context.all_reduce(tf.distribute.ReduceOp.SUM, sums)


def choose_precision(replicas: Replicas, precision: str) -> Replicas:
    """The same devices with `precision` and `reason` set.

    Args:
        replicas: the devices.
        precision: one of `PRECISIONS`, or "auto": bfloat16 where the device multiplies matrices in it (GPUs of compute
            capability 8.0 and above, processors with AMX or AVX-512 BF16 if a trial succeeds), float16 with loss
            scaling on GPUs from 7.0, float32 elsewhere.

    Raises:
        SettingsError: an unknown choice, or a precision that does not work here.
    """
    if precision not in (*PRECISIONS, "auto"):
        raise SettingsError(f"--precision {precision}: use auto, {', '.join(PRECISIONS)}")
    reason = "fixed; --precision auto chooses by the device"
    if precision == "auto":
        precision, reason = _gpu_precision(replicas) if replicas.gpu_numbers else _cpu_precision()
    elif not replicas.gpu_numbers and not can_train_in(precision.removeprefix("mixed_")):
        raise SettingsError(f"--precision {precision} does not work on this processor: use --precision float32 or auto")
    return dataclasses.replace(replicas, precision=precision, reason=reason)


def _cpu_precision() -> tuple[str, str]:
    fast = bfloat16_instruction()
    # The flag of the processor is the first look, the trial decides.
    if fast and has_bfloat16_kernels():
        return "mixed_bfloat16", f"chosen: this processor has {fast}"
    return "float32", "chosen: this processor has no bfloat16 multiplication"


def gpu_models(replicas: Replicas) -> list[str]:
    """What the chosen GPUs call themselves, such as "NVIDIA H200". Empty on the CPU."""
    return [details.get("device_name", "unknown") for details in _gpu_details(replicas)]


def _gpu_details(replicas: Replicas) -> list[dict[str, Any]]:
    cards = tf.config.list_physical_devices("GPU")
    return [tf.config.experimental.get_device_details(cards[number]) for number in replicas.gpu_numbers]


def _gpu_precision(replicas: Replicas) -> tuple[str, str]:
    capabilities = [details.get("compute_capability", (0, 0)) for details in _gpu_details(replicas)]
    lowest = min(capabilities, default=(0, 0))
    reason = f"chosen: compute capability {lowest[0]}.{lowest[1]}"
    if lowest >= (8, 0):
        return "mixed_bfloat16", reason
    return ("mixed_float16" if lowest >= (7, 0) else "float32"), reason


def deterministic_kernels() -> bool:
    """Whether `tf.config.experimental.enable_op_determinism` was called in this process."""
    return is_op_determinism_enabled()


BYTES_PER_PIXEL = {"float32": 10_000, "mixed_bfloat16": 7_200, "mixed_float16": 7_200}
"""Memory that a pixel of each image takes in a training step, with the layers of Keras. Measured on CPUs. The peak on
a GPU (H200, batch 4 and 8) was 11 to 15 % below `memory_needed`, with the kernels of `training.fast_kernels` 28 %."""
CPU_BYTES_PER_PIXEL = {"float32": 9_200, "mixed_bfloat16": 4_800, "mixed_float16": 7_200}
"""The same with the kernels of `training.fast_kernels`, which float16 does not have."""
AVX2_BYTES_PER_PIXEL = 1_000
"""Further ones of the kernel gradients with AVX2 alone, which hold shifted copies of a layer's maps. Calculated. In all
10,200 a pixel were measured on an EPYC 7003, at 320 x 256."""
CONSTANT_BYTES = 1.5e9


def images_at_once(experiment: Experiment, replicas: int = 1) -> int:
    """The most images that a device has in a training step. Validation and mining take no more."""
    return -(-experiment.batch_size // (replicas * experiment.accumulate))


def memory_needed(experiment: Experiment, image_shape: tuple[int, int], replicas: Replicas) -> float:
    """Estimated bytes on a GPU, or on the CPU for all replicas together."""
    per_pixel = (BYTES_PER_PIXEL if replicas.gpu_numbers else CPU_BYTES_PER_PIXEL)[replicas.precision]
    if not replicas.gpu_numbers and replicas.precision == "float32" and has_avx2_alone():
        per_pixel += AVX2_BYTES_PER_PIXEL
    share = CONSTANT_BYTES + images_at_once(experiment, replicas.count) * image_shape[0] * image_shape[1] * per_pixel
    return share if replicas.gpu_numbers else share * replicas.count


def memory_advice(
    experiment: Experiment, image_shape: tuple[int, int], replicas: Replicas, available: float | None = None
) -> str:
    """What to change when the memory does not suffice, each change enough by itself: "use --accumulate 2 or ...".

    Without `available` bytes, fewer than were needed, the images at once are halved.
    """

    def fits(images: int, precision: str = replicas.precision) -> bool:
        changed = dataclasses.replace(experiment, batch_size=images * replicas.count, accumulate=1)
        needed = memory_needed(changed, image_shape, dataclasses.replace(replicas, precision=precision))
        return available is None or needed <= available

    at_once = images_at_once(experiment, replicas.count)
    # At least two images in a micro-batch: the ASPP pooling branch would be normalised over a single value.
    fewer = next((images for images in range(at_once if available else at_once // 2, 1, -1) if fits(images)), 0)
    changes = []
    if fewer:
        micro_batches = -(-experiment.batch_size // (fewer * replicas.count))
        if experiment.batch_size // (micro_batches * replicas.count) >= 2:
            changes.append(f"--accumulate {micro_batches}")
        smaller = fewer * replicas.count * experiment.accumulate
        changes += [f"--batch-size {smaller}"] if smaller < experiment.batch_size else []
    if replicas.precision == "float32" and fits(at_once, "mixed_bfloat16"):
        changes.append("--precision mixed_bfloat16")
    last = "more devices" if replicas.gpu_numbers else "a coarser matrix (prepare --bin 2)"
    return "use " + " or ".join(filter(None, [", ".join(changes), last]))


def check_memory(
    experiment: Experiment, image_shape: tuple[int, int], replicas: Replicas, available: float | None = None
) -> str:
    """Compare the memory that a training on the CPU needs with `available` bytes, by default those of this machine.

    Returns:
        One line for the terminal. On GPUs, whose memory is not asked for, it has the estimate alone.

    Raises:
        SettingsError: the memory is too small. The message says what to change.
    """
    needed = memory_needed(experiment, image_shape, replicas)
    if replicas.gpu_numbers:
        return f"about {needed / 1e9:.1f} GB needed on each"
    available = memory_limit() if available is None else available
    if needed > available:
        advice = memory_advice(experiment, image_shape, replicas, available)
        raise SettingsError(
            f"training needs about {needed / 1e9:.1f} GB, this machine has {available / 1e9:.1f} GB: {advice}"
        )
    return f"about {needed / 1e9:.1f} GB needed of {available / 1e9:.1f} GB"


def memory_limit(membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that this process may use: the machine's memory, or less in a batch job or a container.

    Limits are read from version 2 of Linux' control groups, of this process and those above it.
    """
    limits = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    lines = membership.read_text(encoding="utf-8").splitlines() if membership.exists() else []
    innermost = root / next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    for folder in (innermost, *innermost.parents):
        file = folder / "memory.max"
        if folder.is_relative_to(root) and file.is_file():
            text = file.read_text(encoding="ascii").strip()
            limits += [] if text == "max" else [float(text)]
    return min(limits)
