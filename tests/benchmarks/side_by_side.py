"""What the benchmarks of this folder have in common: two sides measured in turn, their ratio, and where that was.

Sides alternate within one run, so that what else the machine does falls on both. Beside the time on the clock there is that
of the processor, which says what was computed while others had the cores.
"""

import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata

Seconds = tuple[float, float]
"""On the clock and of the processor."""


def timed(work: Callable[[], object]) -> Seconds:
    """Seconds that a call takes in this process, all its threads included."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def timed_process(command: Sequence[str], **options) -> Seconds:
    """Seconds that a command takes.

    Raises:
        SystemExit: it fails.
    """
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    clock, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))[:200]}: {done.stderr[-500:]}")
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def in_turn(sides: dict[str, Callable[[], Seconds]], repeats: int) -> dict[str, list[Seconds]]:
    """Measure each side `repeats` times, one after the other, in turn; the first turn is a warm-up and does not count."""
    seconds: dict[str, list[Seconds]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, measure in sides.items():
            found = measure()
            if turn:
                seconds[name].append(found)
    return seconds


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 2) -> str:
    """ "median (smallest - largest)"."""
    median, low, high = (scale * value for value in (statistics.median(values), min(values), max(values)))
    return f"{median:.{digits}f} ({low:.{digits}f} - {high:.{digits}f})"


def print_table(seconds: dict[str, list[Seconds]], per: int = 1, unit: str = "run", plain: str | None = None) -> None:
    """Milliseconds per unit of each side, and the ratio of each turn of the plain side to it.

    Args:
        seconds: of `in_turn`. per: units in one measurement.
        plain: the side that others are compared with; the ratio says how many times as fast they are.
    """
    scale = 1000 / per
    header = f"{'ms per ' + unit:<34}{'processor':>24}{'clock':>26}"
    print(header + (f"{'times as fast (processor)':>28}" if plain else ""))
    for name, found in seconds.items():
        clock, processor = ([pair[kind] for pair in found] for kind in (0, 1))
        line = f"{name:<34}{spread(processor, scale):>24}{spread(clock, scale):>26}"
        if plain:
            ratios = [one[1] / other[1] for one, other in zip(seconds[plain], found, strict=True)]
            line += f"{spread(ratios):>28}"
        print(line, flush=True)


def print_environment(packages: Sequence[str] = ("numpy",)) -> None:
    """Machine, load, versions, and the command to repeat it."""
    with open("/proc/cpuinfo") as info:
        model = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), "unknown")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"machine    {os.cpu_count()} cores, {model}; load {load} (1, 5, 15 minutes)")
    print(f"software   Python {platform.python_version()}, {versions}")
    print(f"repeat     python {' '.join(sys.argv)}")
