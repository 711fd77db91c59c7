"""An exported model in OpenVINO, which reads the SavedModel itself. TensorFlow is not imported."""

import functools
import threading
from pathlib import Path

import numpy as np

from doubleunet_bs.inference.engines import check_images, damaged
from doubleunet_bs.deployment.openvino_graph import split_convolutions
from doubleunet_bs.evaluation.endpoint_names import INPUT, MASK, PROBABILITY

_creation = threading.Lock()


def shared_core():
    """The process's one OpenVINO core.

    On processors with AMX a core gives the thread a signal stack of its own and takes it away with itself. With two of
    them, the first one gone first, the thread keeps a stack that is no longer there, and the next SIGTERM or Ctrl-C ends
    the process with a segmentation fault (OpenVINO 2026.4).
    """
    with _creation:
        return _make_core()


@functools.cache
def _make_core():
    import openvino

    return openvino.Core()


class OpenVinoEngine:
    """See `engines`. OpenVINO reads the endpoint `serving_default`.

    Args:
        path: the SavedModel folder.
        bfloat16: multiply in bfloat16.

    Raises:
        RunError: the folder is damaged, or no model of this package.
    """

    def __init__(self, path: Path, bfloat16: bool):
        import openvino

        precision = "bf16" if bfloat16 else "f32"
        try:
            core = shared_core()
            model = core.read_model(str(path))
            names = {name for output in model.outputs for name in output.names}
            shape = model.input(INPUT).partial_shape
            if not {PROBABILITY, MASK} <= names or shape.rank.get_length() != 3:
                raise RuntimeError("other inputs or outputs")
            self.image_shape = (shape[1].get_length(), shape[2].get_length())
            split_convolutions(model)
            self._model = core.compile_model(
                model, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
            )
        except (RuntimeError, OSError) as cause:
            raise damaged(path, cause) from None
        self._threads = threading.local()
        version = openvino.__version__.split("-")[0]
        self.name = f"openvino {version}, CPU, {'bfloat16' if bfloat16 else 'float32'}"

    def __call__(self, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Segment images: see `engines`."""
        check_images(grey, self.image_shape)
        # A request computes one thing at a time, so that each thread has its own.
        request = getattr(self._threads, "request", None)
        if request is None:
            request = self._threads.request = self._model.create_infer_request()
        answer = request.infer({INPUT: np.ascontiguousarray(grey)})
        # The request writes its next answer over this one.
        return answer[PROBABILITY].copy(), answer[MASK].copy()
