"""What computes: one exported model, run by TensorFlow, by OpenVINO, or by a model server.

An engine is a callable object:

- `image_shape`: (rows, columns) that it takes;
- `name`: what computes and in which precision, for the output and the record;
- called with (n, rows, columns) uint8 prepared grey images, from any thread, it returns probabilities, float32 of the
  same shape between 0 and 1, and masks, uint8 of 0 and 1.

bfloat16 is used where the processor multiplies it in hardware. It is several times faster there and moves the outline
of a lesion by a pixel here and there; `precision="float32"` leaves it out.
"""

import importlib.util
import os
from pathlib import Path
from typing import Protocol

import numpy as np

from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.tensorflow_setup import bfloat16_instruction

ENGINES = ("auto", "tensorflow", "openvino", "serving")
PRECISIONS = ("auto", "float32")
DEADLINE = 60.0
"""Seconds within which a server must answer, unless the user says otherwise."""


class Engine(Protocol):
    """See the module's text."""

    image_shape: tuple[int, int]
    name: str

    def __call__(self, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


def check_choice(
    engine: str, precision: str = "auto", server: str | None = None, deadline: float | None = None
) -> None:
    """Look whether what a user has chosen goes together and is there, before anything is loaded or asked.

    Args:
        engine, precision: of ENGINES and PRECISIONS.
        server: URL of a model server; None for none.
        deadline: seconds for its answers; None for the usual ones.

    Raises:
        SettingsError: an unknown engine or precision, an engine that is not installed, a server without the engine
            serving or that engine without one, a setting that the engine would ignore, or an impossible value.
    """
    for what, value, choices in (("engine", engine, ENGINES), ("precision", precision, PRECISIONS)):
        if value not in choices:
            raise SettingsError(f"{what} {value!r}: it must be one of {', '.join(choices)}")
    if engine == "openvino" and not has_openvino():
        raise SettingsError("engine openvino: it is not installed; pip install 'doubleunet-bs[openvino]'")
    if (server is None) == (engine == "serving"):
        raise SettingsError("a server and the engine serving go together: give both or neither")
    if engine == "serving":
        from doubleunet_bs.inference.serving_client import check_deadline, parse_server

        parse_server(server)
        if precision != "auto":
            raise SettingsError(f"precision {precision}: the engine serving computes in the server's own; leave it out")
        check_deadline(DEADLINE if deadline is None else deadline)
    elif deadline is not None:
        raise SettingsError("a deadline is for the answers of a server, with the engine serving: leave it out")


def check_exported(path: Path, saved_model: Path | None, engine: str) -> None:
    """Raises `RunError` for a fold without an export that the engine needs.

    Args:
        path: the model folder. saved_model: its export of its present weights; None when it has none.
    """
    if engine == "openvino" and saved_model is None:
        raise RunError(f"{path}: has no saved_model of its present weights; serve-package exports it again")


def has_openvino() -> bool:
    """Whether OpenVINO is installed. It is not imported."""
    return importlib.util.find_spec("openvino") is not None


def choose_local(engine: str) -> str:
    """What "auto" means here: TensorFlow where there is an NVIDIA GPU, else OpenVINO where it is installed."""
    if engine != "auto":
        return engine
    return "openvino" if has_openvino() and not os.path.exists("/dev/nvidia0") else "tensorflow"


def open_local(saved_model: Path, engine: str, precision: str = "auto") -> Engine:
    """An engine on this machine for an exported model.

    Args:
        saved_model: the SavedModel folder.
        engine: "tensorflow" or "openvino".
        precision: "auto" or "float32".

    Raises:
        RunError: the folder is missing, damaged, or no model of this package.
    """
    if not (saved_model / "saved_model.pb").is_file():
        raise RunError(f"{saved_model}: not a SavedModel folder (saved_model.pb is missing)")
    bfloat16 = precision == "auto" and bfloat16_instruction() is not None
    if engine == "openvino":
        from doubleunet_bs.inference.engine_openvino import OpenVinoEngine

        return OpenVinoEngine(saved_model, bfloat16)
    from doubleunet_bs.inference.engine_tensorflow import TensorFlowEngine

    return TensorFlowEngine(saved_model, bfloat16)


def check_images(grey: np.ndarray, image_shape: tuple[int, int]) -> None:
    """Raises `RunError` for images of another size than the model takes."""
    if grey.ndim != 3 or grey.shape[1:] != image_shape:
        raise RunError(
            f"the model takes images of {image_shape[0]} x {image_shape[1]} pixels, "
            f"not {' x '.join(map(str, grey.shape[1:]))}"
        )


def damaged(path: Path, cause: BaseException) -> RunError:
    """The error for a SavedModel that an engine cannot read."""
    reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:160]
    return RunError(f"{path}: not a SavedModel of this package, or damaged ({reason})")
