"""What computes, the choice of it, and what it asks: TensorFlow, OpenVINO or a model server, endpoints of a model.

bfloat16 is used where the processor multiplies it in hardware. It is several times faster there and moves the outline
of a lesion by a pixel here and there; `precision="float32"` turns it off.
"""

import importlib.util
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np

from doubleunet_bs.constants import RAW_SHAPE
from doubleunet_bs.errors import RunError, SettingsError, missing_extra
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.tensorflow_setup import may_have_gpus

ENGINES = ("auto", "tensorflow", "openvino", "serving")
PRECISIONS = ("auto", "float32")
DEADLINE = 60.0
"""Default number of seconds within which a server must answer."""

ROUNDING = 1e-5
"""By how much a probability may exceed 1: engines round in their own ways."""

ENDPOINT, INPUT = "serving_default", "image"
PROBABILITY, MASK = "metastatic_probability", "mask"
REGION_PROBABILITY = "region_probability"
"""Instead of PROBABILITY in a model of the skeleton, whose mask holds the numbers of regions."""

RAW_ENDPOINT, RAW_INPUT = "raw_counts", "counts"
GAINS, BODY, STATUS = "gains", "body", "status"
STATUS_REASONS = ("ok", "missing-view", "no-body", "too-dark")
"""What the values 0, 1, 2, 3 of `status` mean: the reasons of `prepare_scan`'s errors."""

DESCRIPTION_ENDPOINT, DESCRIPTION_INPUT, DESCRIPTION_OUTPUT = "model_description", "query", "description"
"""The model's description as a string: a model server gives out no files, so clients ask it this way."""

_LIMIT = "a model server has a largest number of scans in one request, its max_batch_size"


class Engine(Protocol):
    """One model, ready to segment prepared images. May be called from several threads.

    Attributes:
        image_shape: (rows, columns) of the images it takes.
        name: what computes and in which precision, for the output and the record.
    """

    image_shape: tuple[int, int]
    name: str

    def __call__(self, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Segment images.

        Args:
            grey: (n, rows, columns) uint8 prepared images, at least one.

        Returns:
            Probabilities of the metastatic class, (n, rows, columns) float32 between 0 and 1, and masks, uint8 of the
            same shape, 1 where metastatic is the most probable class, 2 where benign is, and 0 elsewhere.

        Raises:
            RunError: images of another size.
        """
        ...


def check_choice(
    engine: str, precision: str = "auto", server: str | None = None, deadline: float | None = None
) -> None:
    """Check that the choices of a user fit together, before anything is loaded or asked.

    Args:
        engine, precision: one of ENGINES and of PRECISIONS.
        server: URL of a model server, or None.
        deadline: seconds for its answers; None for `DEADLINE`.

    Raises:
        SettingsError: an unknown value, an engine that is not installed, or a setting that the engine would ignore.
    """
    for what, value, choices in (("engine", engine, ENGINES), ("precision", precision, PRECISIONS)):
        if value not in choices:
            raise SettingsError(f"{what} {value!r}: choose one of {', '.join(choices)}")
    if engine == "openvino" and not has_openvino():
        raise missing_extra("openvino")
    if (server is None) == (engine == "serving"):
        raise SettingsError("--server and --engine serving go together: give both or neither")
    if server is None:
        if deadline is not None:
            raise SettingsError("--deadline is only for --engine serving: leave it out")
        return
    _check_server(server)
    check_serving_installed()
    if precision != "auto":
        raise SettingsError(f"--precision {precision}: the server chooses its own, leave the option out")
    if deadline is not None and not (math.isfinite(deadline) and deadline > 0):
        raise SettingsError(f"a deadline of {deadline:g} s: give a positive number of seconds")


def check_threshold(threshold: float | None) -> None:
    """Raises `SettingsError` unless it is None or a probability above 0 and below 1."""
    if threshold is not None and not 0 < threshold < 1:
        raise SettingsError(f"--threshold {threshold:g}: give a probability above 0 and below 1")


def _check_server(server: str) -> None:
    try:
        parts = urlsplit(server)
        complete = bool(parts.hostname and parts.port)
    except ValueError:
        complete = False
    if not complete or parts.scheme != "grpc" or parts.path.strip("/") or parts.query:
        raise SettingsError(f"server {server!r}: give it as grpc://HOST:PORT")


def check_serving_installed() -> None:
    """Raises `SettingsError` without the extra `serving`."""
    if importlib.util.find_spec("tensorflow_serving") is None:
        raise missing_extra("serving")


def has_openvino() -> bool:
    """Whether OpenVINO is installed. It is not imported."""
    return importlib.util.find_spec("openvino") is not None


def choose_local(engine: str) -> str:
    """What "auto" means here: TensorFlow where there is an NVIDIA GPU, else OpenVINO where it is installed."""
    if engine != "auto":
        return engine
    return "openvino" if has_openvino() and not may_have_gpus() else "tensorflow"


def check_images(grey: np.ndarray, image_shape: tuple[int, int]) -> None:
    """Raises `RunError` for images of another size than the model takes."""
    if grey.ndim != 3 or grey.shape[1:] != image_shape:
        raise RunError(
            f"the model takes images of {image_shape[0]} x {image_shape[1]} pixels, "
            f"not {' x '.join(map(str, grey.shape[1:]))}"
        )


def find_fault(probability: np.ndarray, mask: np.ndarray, shape: tuple[int, ...], largest: int = 1) -> str | None:
    """What is impossible in the answer of an engine; None when it is what `Engine` promises.

    `shape` is the images', `largest` the greatest value of a mask: 1 for lesions, 2 with benign ones, 12 for regions of
    the skeleton.
    """
    for name, array, dtype in ((PROBABILITY, probability, np.float32), (MASK, mask, np.uint8)):
        if array.dtype != dtype or array.shape != shape:
            return f"{name} is {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}"
    # Written so that NaN fails: it compares as false.
    if not ((probability >= 0) & (probability <= 1 + ROUNDING)).all():
        return f"{PROBABILITY if largest <= 2 else REGION_PROBABILITY} is not everywhere between 0 and 1"
    if not (mask <= largest).all():
        return f"{MASK} has other values than 0 {'and 1' if largest == 1 else f'to {largest}'}"
    return None


def damaged_model(path: Path, cause: BaseException, kind: str = "SavedModel") -> RunError:
    """The error for a model that an engine cannot read, with the first line of its cause."""
    reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:160]
    return RunError(f"{path}: damaged, or not a {kind} of this package ({reason})")


def probability_name(outputs: Collection[str]) -> str:
    """The name of the probabilities among the outputs of a model of lesions or of the skeleton."""
    return REGION_PROBABILITY if REGION_PROBABILITY in outputs else PROBABILITY


def describe_endpoints(
    image_shape: tuple[int, int], preparation: PreparationSettings, skeleton: bool = False, benign: bool = False
) -> dict[str, Any]:
    """A JSON object: endpoint -> inputs and outputs -> type, shape (null: any number of scans) and meaning."""
    image, raw = [None, *image_shape], [None, 2, *RAW_SHAPE]
    mask, probability = "1 where metastatic is the most probable class", PROBABILITY
    mask += "; 2 where benign is" if benign else ""
    meaning = "probability of the metastatic class"
    if skeleton:
        mask, probability = "the most probable region, 1 to 12; 0 not bone", REGION_PROBABILITY
        meaning = "probability of the class in the mask"
    endpoints = {
        ENDPOINT: {
            "inputs": {INPUT: _tensor("uint8", image, f"prepared grey images; {_LIMIT}")},
            "outputs": {
                MASK: _tensor("uint8", image, mask),
                probability: _tensor("float32", image, meaning),
            },
        },
        DESCRIPTION_ENDPOINT: {
            "inputs": {DESCRIPTION_INPUT: _tensor("uint8", [None], "any values; one description for each")},
            "outputs": {DESCRIPTION_OUTPUT: _tensor("string", [None], "this JSON")},
        },
    }
    if has_raw_counts(image_shape, preparation):
        views = f"raw anterior and posterior view; a view of zeros is missing; {_LIMIT}"
        endpoints[RAW_ENDPOINT] = {
            "inputs": {RAW_INPUT: _tensor("uint16", raw, views)},
            "outputs": {
                MASK: _tensor("uint8", raw, "as above, in raw pixels; 0 outside the crop"),
                probability: _tensor("float32", raw, "as above, in raw pixels; 0 outside the crop"),
                GAINS: _tensor("float32", [None, 2], "brightness gain of each view"),
                BODY: _tensor("int32", [None, 2, 4], "first and last row, first and last column of the body; -1: none"),
                STATUS: _tensor("uint8", [None], "0: done; else the scan is not segmented and its mask means nothing")
                | {"values": {str(value): reason for value, reason in enumerate(STATUS_REASONS)}},
            },
        }
    return endpoints


def has_raw_counts(image_shape: tuple[int, int], preparation: PreparationSettings) -> bool:
    """Whether the model takes images of the size that the preparation makes of a scan.

    Example:
        >>> has_raw_counts((640, 512), PreparationSettings()), has_raw_counts((160, 128), PreparationSettings())
        (True, False)
    """
    return tuple(image_shape) == preparation.image_shape


def _tensor(dtype: str, shape: list, meaning: str) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "meaning": meaning}
