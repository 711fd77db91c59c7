"""Import TensorFlow without its start-up chatter and what it does not need, and with the CPU kernels it should use."""

import contextlib
import ctypes
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

BFLOAT16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")
"""Processor flags that mean multiplication in bfloat16."""

_IMPORTING = threading.Lock()


def processor_flags(cpuinfo: str | Path = "/proc/cpuinfo") -> frozenset[str]:
    """Instruction sets that may be used: those of the processor up to ONEDNN_MAX_CPU_ISA, oneDNN's own variable.

    Empty where that file does not exist.
    """
    try:
        text = Path(cpuinfo).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    found = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    flags = found.group(1).split() if found else []
    limit = (os.environ.get("ONEDNN_MAX_CPU_ISA") or "ALL").upper()
    hidden: tuple[str, ...] = ()
    if not any(name in limit for name in ("ALL", "DEFAULT", "AMX", "AVX10")):
        above_avx512 = ("amx",) if "BF16" in limit or "FP16" in limit else ("amx", "avx512_bf16")
        hidden = above_avx512 if limit.startswith("AVX512") else ("amx", "avx512")
    return frozenset(flag for flag in flags if not flag.startswith(hidden))


def bfloat16_instruction() -> str | None:
    """The flag by which the processor multiplies bfloat16 in hardware; None without one, or where nothing is said."""
    flags = processor_flags()
    return next((flag for flag in BFLOAT16_INSTRUCTIONS if flag in flags), None)


def has_avx2_alone() -> bool:
    """Whether oneDNN may use AVX2 here, but not AVX-512."""
    flags = processor_flags()
    return "avx2" in flags and "avx512f" not in flags


def may_have_gpus(devices: Path = Path("/dev")) -> bool:
    """Whether TensorFlow may find an NVIDIA GPU: it has a device file, and the environment does not hide it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return False
    # Linux, and Linux under Windows.
    return any(devices.glob("nvidia[0-9]*")) or (devices / "dxg").exists()


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next training step, where it would give large blocks back to the system.

    Fresh memory has to be mapped page by page. That took 3 to 17 % of a step's processor time on two CPU cores, and
    keeping it 2 to 4 % more memory. Nothing happens without glibc.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((-4, 0), (-1, 2**31 - 1)):  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
            mallopt(option, value)


def import_tensorflow(threads: int | None = None, onednn: bool = True):
    """Import and return TensorFlow, which computes on `threads` threads (None: all cores), with or without oneDNN.

    Native code writes some lines to standard error before logging is set up; they are held back while the import runs
    and shown only if it fails. `onednn` has no effect where TensorFlow has been imported before, or where the user set
    TF_ENABLE_ONEDNN_OPTS.

    Native messages below fatal stay hidden, since oneDNN reports each integer operation it leaves to others as an
    error; what fails reaches Python as an exception. `TF_CPP_MIN_LOG_LEVEL=0` shows everything.

    Keras is told that scikit-learn and matplotlib are not installed, unless they have been imported already: it would
    import both for `keras.wrappers` and `keras.visualization`, which this package does not use and which then do not
    work in this process. Both can be imported as ever once this returns.

    Threads may call this at once: the first imports and the others wait. What other threads write to standard error
    meanwhile is lost, except with `TF_CPP_MIN_LOG_LEVEL=0`.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", str(int(onednn)))
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with _IMPORTING:
        if not {"keras", "tensorflow"} <= sys.modules.keys():
            _import_quietly()
    import tensorflow

    if threads:
        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(threads)
    return tensorflow


def _import_quietly() -> None:
    with _native_stderr_held() as show, _left_out("sklearn", "matplotlib"):
        import keras  # noqa: F401
        import tensorflow

        # Looking for GPUs is what fails noisily on a machine that has none; where there is one, the reason is wanted.
        if not tensorflow.config.list_physical_devices("GPU") and may_have_gpus():
            show()


@contextlib.contextmanager
def _left_out(*packages: str) -> Iterator[None]:
    """Let the import of packages that are not imported yet fail inside, as if they were not installed."""
    hidden = [name for name in packages if name not in sys.modules]
    # None is Python's own way to say so.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextlib.contextmanager
def _native_stderr_held() -> Iterator[Callable[[], None]]:
    """Send file descriptor 2 into a temporary file; what is yielded, or a failure, copies it back to the terminal."""
    if os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0":
        yield lambda: None
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        original = os.dup(2)
        os.dup2(held.fileno(), 2)

        def show() -> None:
            held.seek(0)
            os.write(original, held.read())

        try:
            yield show
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):
                show()
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)
