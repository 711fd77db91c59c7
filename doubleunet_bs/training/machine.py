"""What a run may choose for the machine it runs on, and what is recommended there (decided here)."""

import dataclasses

import tensorflow as tf

from doubleunet_bs.errors import SettingsError
from doubleunet_bs.processor import bfloat16_instruction
from doubleunet_bs.training.devices import Replicas, gpu_numbers

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
            capability 8.0 and above, processors with AMX or AVX-512 BF16), float16 with loss scaling on GPUs from 7.0,
            float32 elsewhere.
        xla: "on", "off", or "auto": on for a single GPU in float32, off elsewhere. With several replicas the batch
            normalisation that crosses them cannot be compiled, and in mixed precision XLA refuses the gradient of the
            bilinear doubling.

    Raises:
        SettingsError: an unknown choice, or XLA where it does not work.
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
    if fast:
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
