"""An exported model in OpenVINO, which reads the SavedModel itself. TensorFlow is not imported."""

import functools
import sys
import threading
from pathlib import Path

import numpy as np

from doubleunet_bs.errors import RunError
from doubleunet_bs.inference.engines import INPUT, MASK, check_images, damaged_model, probability_name

# Otherwise OpenVINO reports its import to Google Analytics and keeps an ID for it in ~/intel (2026.4).
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402
from openvino import opset13 as operations  # noqa: E402

CORE = openvino.Core()
"""The one OpenVINO core of the process.

On processors with AMX each core gives its thread a signal stack and takes it away at its end. With two cores, destroyed
in the order of their making, the thread is left with a stack that is gone, and the next SIGTERM or Ctrl-C ends the
process with a segmentation fault (OpenVINO 2026.4).
"""
# In float32 the weights are read at the first image, from the file by then: another model copied over this one would
# compute under its name, and a truncated file would end the process.
CORE.set_property({"ENABLE_MMAP": False})


def split_convolutions(model: openvino.Model) -> int:
    """Replace each convolution of two or three concatenated maps by the sum of their own convolutions, in place.

    The results differ by the order of a sum only. In bfloat16 OpenVINO 2026.4 copies the maps of a concatenation with
    its slow reference kernel, which takes a tenth of the time of an image. Sums are fused into the convolutions. The
    five narrow maps of an ASPP block stay concatenated: copying them is cheaper.

    Args:
        model: a model with channels first inside.

    Returns:
        How many convolutions were split: eight in a Double U-Net, one per decoder level of both networks.
    """
    found = 0
    for concatenation in model.get_ordered_ops():
        users = [target.get_node() for target in concatenation.output(0).get_target_inputs()]
        if concatenation.get_type_name() != "Concat" or [user.get_type_name() for user in users] != ["Convolution"]:
            continue
        maps = [concatenation.input_value(place) for place in range(concatenation.get_input_size())]
        if concatenation.get_attributes()["axis"] != 1 or len(maps) > 3:
            continue
        [convolution] = users
        channels = [one.partial_shape[1].get_length() for one in maps]
        weights = operations.variadic_split(convolution.input_value(1), 1, channels)
        form = convolution.get_attributes()
        sizes = [form[name] for name in ("strides", "pads_begin", "pads_end", "dilations")]
        terms = [
            operations.convolution(one, weights.output(place), *sizes, auto_pad=form["auto_pad"])
            for place, one in enumerate(maps)
        ]
        convolution.output(0).replace(functools.reduce(operations.add, terms).output(0))
        found += 1
    return found


class OpenVinoEngine:
    """An `engines.Engine`. OpenVINO reads the endpoint `serving_default`.

    Args:
        path: the SavedModel folder.
        bfloat16: multiply in bfloat16.

    Raises:
        RunError: the folder is damaged, or not a model of this package.
    """

    def __init__(self, path: Path, bfloat16: bool):
        precision = "bf16" if bfloat16 else "f32"
        try:
            model = CORE.read_model(str(path))
            names = {name for output in model.outputs for name in output.names}
            shape = model.input(INPUT).partial_shape
            self._probability = probability_name(names)
            if not {self._probability, MASK} <= names or shape.rank.get_length() != 3:
                raise RunError(f"{path}: a SavedModel, but not one of this package: other inputs or outputs")
            self.image_shape = (shape[1].get_length(), shape[2].get_length())
            split_convolutions(model)
            self._model = CORE.compile_model(
                model, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
            )
        except (RuntimeError, OSError) as cause:
            raise damaged_model(path, cause) from cause
        self._threads = threading.local()
        version = openvino.__version__.split("-")[0]
        self.name = f"openvino {version}, CPU, {'bfloat16' if bfloat16 else 'float32'}"

    def __call__(self, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `engines.Engine`."""
        check_images(grey, self.image_shape)
        # A request computes one thing at a time: each thread has its own.
        request = getattr(self._threads, "request", None)
        if request is None:
            request = self._threads.request = self._model.create_infer_request()
        answer = request.infer({INPUT: np.ascontiguousarray(grey)})
        # The request writes its next answer over this one.
        return answer[self._probability].copy(), answer[MASK].copy()
