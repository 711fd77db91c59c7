"""Devices, replicas, and the one sum that has to cross them."""

import dataclasses

import tensorflow as tf

from doubleunet_bs.errors import SettingsError


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
