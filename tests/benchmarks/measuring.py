"""What the benchmarks share: ways measured in turn, their table, the environment, and packages that only they need.

Ways alternate within one run, so that whatever else the machine does falls on all of them. Beside the time on the clock
stands that of the processor, which says what was computed while others had the cores.
"""

import importlib
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
Found = TypeVar("Found")


class Seconds(NamedTuple):
    """On the clock and of the processor."""

    wall: float
    processor: float

    def __repr__(self) -> str:
        return f"{self.wall:.3f} s, processor {self.processor:.3f} s"


def needed(module: str, command: str):
    """Import a package that only a benchmark needs; where it is missing, say how to install it and end with 2."""
    try:
        return importlib.import_module(module)
    except ImportError:
        print(f"{module} is missing: {command}", file=sys.stderr)
        raise SystemExit(2) from None


def timed(work: Callable, *arguments, **options) -> Seconds:
    """Seconds that a call takes: all threads of this process, and the processes that it starts and waits for."""
    before = _clocks()
    work(*arguments, **options)
    return Seconds(*(end - begin for begin, end in zip(before, _clocks(), strict=True)))


def _clocks() -> Seconds:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Seconds(time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime)


def run_command(command: Sequence, **options) -> str:
    """What a command prints.

    Raises:
        SystemExit: it fails.
    """
    command = [str(part) for part in command]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)[-200:]} failed ({done.returncode}): {done.stderr[-800:]}")
    return done.stdout


def run_for_json(command: Sequence, **options):
    """The last line that a command prints, read as JSON."""
    return json.loads(run_command(command, **options).splitlines()[-1])


def take_turns(ways: dict[str, Callable[[], Found]], rounds: int, warm_up: bool = True) -> dict[str, list[Found]]:
    """What each way returns in each round, the ways in turn. With `warm_up`, one round before them does not count."""
    taken: dict[str, list[Found]] = {name: [] for name in ways}
    for number in range(0 if warm_up else 1, rounds + 1):
        for name, way in ways.items():
            found = way()
            if number:
                taken[name].append(found)
                print(f"round {number}, {name}: {found}", file=sys.stderr, flush=True)
    return taken


def spread(values: Sequence[float], digits: int = 2) -> str:
    """ "median (smallest - largest)"."""
    median, low, high = (f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{median} ({low} - {high})"


def print_table(
    taken: dict[str, list[Seconds]], base: str | None = None, unit: str = "s", per: int = 1, of: str = "run"
) -> None:
    """One line per way: medians and ranges by either clock, and how many times faster than `base` it is.

    A ratio is the median of the rounds' ratios: both times of it come from the same minute.

    Args:
        taken: of `take_turns`. base: the way that all are compared with.
        unit: "s" or "ms". per: how many of what `of` names were done in one measurement.
    """
    scale, digits = {"s": (1 / per, 3), "ms": (1000 / per, 2)}[unit]
    clocks = ("wall", "processor")
    lines = [[f"{unit} a {of}", *clocks, *(f"times faster, {clock}" for clock in clocks if base)]]
    for name, rounds in taken.items():
        cells = [spread([scale * value for value in values], digits) for values in zip(*rounds, strict=True)]
        if base:
            pairs = list(zip(taken[base], rounds, strict=True))
            cells += [
                # A processor may have been used for less than its clock can tell.
                spread([other[clock] / ours[clock] if ours[clock] else float("nan") for other, ours in pairs])
                for clock in (0, 1)
            ]
        lines.append([name, *cells])
    first, *widths = (max(map(len, column)) for column in zip(*lines, strict=True))
    for name, *cells in lines:
        print(f"{name:{first}}" + "".join(f"{cell:>{width + 3}}" for cell, width in zip(cells, widths, strict=True)))
    rounds = len(next(iter(taken.values())))
    print(f"(median and range; rounds in turn: {rounds}{f'; times faster than: {base}' if base else ''})", flush=True)


def print_environment(*modules: str) -> None:
    """Processor, cores, matrix instructions, load of the machine, versions of `modules`, and the command to repeat it.

    What is not installed is left out.
    """
    from doubleunet_bs.tensorflow_setup import processor_flags

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    flags = processor_flags()
    wanted = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    print(f"{model}, {os.cpu_count()} cores, {', '.join(wanted) or 'no flags known'}")
    print("load averages " + ", ".join(f"{value:.1f}" for value in os.getloadavg()) + " (other programs included)")
    found = metadata.packages_distributions()
    packages = [package for module in ("numpy", *modules) for package in sorted(set(found.get(module, ())))]
    versions = [f"{package} {metadata.version(package)}" for package in packages]
    print(", ".join([f"Python {platform.python_version()}", *versions]))
    script = Path(sys.argv[0]).resolve()
    shown = script.relative_to(ROOT) if script.is_relative_to(ROOT) else script.name
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
