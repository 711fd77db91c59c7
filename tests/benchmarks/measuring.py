"""What the benchmarks share: turns taken in one run, medians and spread, the environment, and packages that only they need."""

import importlib
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


def needed(module: str, command: str):
    """Import a package that only a benchmark needs; where it is missing, say how to install it and end with 2."""
    try:
        return importlib.import_module(module)
    except ImportError:
        print(f"{module} is missing: {command}", file=sys.stderr)
        raise SystemExit(2) from None


def take_turns(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """(wall seconds, processor seconds of this process) of each way in each round; every way once before, unmeasured.

    The ways alternate, so that whatever else the machine does is shared by all of them.
    """
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for number in range(1, rounds + 1):
        for name, way in ways.items():
            wall, processor = time.perf_counter(), time.process_time()
            way()
            taken[name].append((time.perf_counter() - wall, time.process_time() - processor))
            wall, processor = taken[name][-1]
            print(f"round {number}, {name}: {wall:.3f} s, processor {processor:.3f} s", file=sys.stderr, flush=True)
    return taken


def print_ratios(taken: dict[str, list[tuple[float, float]]], base: str, unit: str = "s") -> None:
    """One line per way: medians and range, and how many times faster than `base`, by either clock.

    The ratio is the median of the rounds' ratios: both times of a ratio come from the same minute.
    """
    print(
        f"{'':34}{'wall ' + unit:>9}  {'(range)':<17}{'processor ' + unit:>12}{'times faster, wall':>20}{'processor':>11}"
    )
    for name, times in taken.items():
        wall, processor = zip(*times, strict=True)
        ratios = [
            statistics.median(
                ours[clock] and theirs[clock] / ours[clock] for ours, theirs in zip(times, taken[base], strict=True)
            )
            for clock in (0, 1)
        ]
        spread = f"({min(wall):.3f} - {max(wall):.3f})"
        print(
            f"{name:34}{statistics.median(wall):>9.3f}  {spread:<17}{statistics.median(processor):>12.3f}"
            f"{ratios[0]:>20.2f}{ratios[1]:>11.2f}"
        )
    print(f"(times faster than: {base}; medians of {len(taken[base])} rounds in turn)", flush=True)


def print_environment(*packages: str) -> None:
    """Processor, cores, matrix instructions, load of the machine, versions of `packages`, and the command to repeat it."""
    from doubleunet_bs.processor import processor_flags

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    flags = processor_flags()
    wanted = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    print(
        f"{model}, {os.cpu_count()} cores, {', '.join(wanted) or 'no flags known'}; Python {platform.python_version()}"
    )
    print("load averages " + ", ".join(f"{value:.1f}" for value in os.getloadavg()) + " (other programs included)")
    versions = [f"{name} {getattr(sys.modules[name], '__version__', '?')}" for name in packages if name in sys.modules]
    print(", ".join(versions))
    root = Path(__file__).resolve().parents[2]
    script = Path(sys.argv[0]).resolve()
    shown = script.relative_to(root) if script.is_relative_to(root) else script.name
    print(f"repeat with: python {shlex.join([str(shown), *sys.argv[1:]])}", flush=True)


def largest_difference(value, other) -> float:
    """Largest absolute difference of two arrays."""
    return float(np.max(np.abs(np.asarray(value, np.float64) - np.asarray(other, np.float64))))


def free_memory_gb() -> float:
    """Memory that programs can still have, as Linux tells it; infinite where it does not."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return float("inf")
    return next(int(line.split()[1]) / 2**20 for line in lines if line.startswith("MemAvailable"))
