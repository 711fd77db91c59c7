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
from doubleunet_bs.processor import bfloat16_instruction

ENGINES = ("auto", "tensorflow", "openvino", "serving")
PRECISIONS = ("auto", "float32")


class Engine(Protocol):
    """See the module's text."""

    image_shape: tuple[int, int]
    name: str

    def __call__(self, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


def check_choice(engine: str, precision: str) -> None:
    """Raises `SettingsError` for an unknown engine or precision, or an engine that is not installed."""
    for what, value, choices in (("engine", engine, ENGINES), ("precision", precision, PRECISIONS)):
        if value not in choices:
            raise SettingsError(f"{what} {value!r}: it must be one of {', '.join(choices)}")
    if engine == "openvino" and not has_openvino():
        raise SettingsError("engine openvino: it is not installed; pip install 'doubleunet-bs[openvino]'")


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
        from doubleunet_bs.deployment.engine_openvino import OpenVinoEngine

        return OpenVinoEngine(saved_model, bfloat16)
    from doubleunet_bs.deployment.engine_tensorflow import TensorFlowEngine

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
