"""An exported model in a TensorFlow session, as TF Serving runs it: no Keras.

Its settings are the session's own, but for two: which operations bfloat16 leaves in float32 can be said to TensorFlow
by environment variables only, which hold for the whole process (TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_INFERLIST_REMOVE
and ..._DENYLIST_ADD). They are set when the first engine with bfloat16 is opened.
"""

import logging
import os
from pathlib import Path

import numpy as np

from doubleunet_bs.errors import SettingsError
from doubleunet_bs.inference.endpoints import ENDPOINT, INPUT, MASK, PROBABILITY
from doubleunet_bs.inference.engines import check_images, damaged
from doubleunet_bs.tensorflow_setup import import_tensorflow

# What TensorFlow's bfloat16 rewriting leaves in float32: probabilities need more than eight bits.
_FLOAT32_OPERATIONS = "Softmax,Sigmoid"


class TensorFlowEngine:
    """See `engines`. With a GPU the graph is compiled by XLA.

    Args:
        path: the SavedModel folder.
        bfloat16: multiply in bfloat16 where no GPU computes.

    Raises:
        RunError: the folder is damaged, or no model of this package.
        SettingsError: the environment tells TensorFlow another division between bfloat16 and float32.
    """

    def __init__(self, path: Path, bfloat16: bool):
        tf = import_tensorflow()
        gpu = bool(tf.config.list_physical_devices("GPU"))
        config = tf.compat.v1.ConfigProto()
        config.gpu_options.allow_growth = True
        if gpu:
            config.graph_options.optimizer_options.global_jit_level = tf.compat.v1.OptimizerOptions.ON_1
        elif bfloat16:
            _keep_in_float32()
            rewriting = config.graph_options.rewrite_options
            rewriting.auto_mixed_precision_onednn_bfloat16 = type(rewriting).ON
        graph = tf.Graph()
        session = tf.compat.v1.Session(graph=graph, config=config)
        logger = tf.get_logger()
        level = logger.level
        logger.setLevel(logging.ERROR)  # The loader calls itself deprecated; nothing else has settings of its own.
        try:
            with graph.as_default():
                meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(path))
            signature = meta.signature_def[ENDPOINT]
            if set(signature.inputs) != {INPUT} or set(signature.outputs) != {PROBABILITY, MASK}:
                raise ValueError("other inputs or outputs")
            image = signature.inputs[INPUT]
            if image.dtype != tf.uint8.as_datatype_enum or len(image.tensor_shape.dim) != 3:
                raise ValueError("other inputs or outputs")
            self._run = session.make_callable(
                [signature.outputs[name].name for name in (PROBABILITY, MASK)], feed_list=[image.name]
            )
        except (OSError, ValueError, LookupError, TypeError, RuntimeError, tf.errors.OpError) as cause:
            raise damaged(path, cause) from None
        finally:
            logger.setLevel(level)
        self._session = session  # It holds the variables.
        self.image_shape = tuple(int(dimension.size) for dimension in image.tensor_shape.dim[1:])
        self.name = f"tensorflow {tf.__version__}, " + (
            "GPU, XLA" if gpu else "CPU, bfloat16" if bfloat16 else "CPU, float32"
        )

    def __call__(self, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Segment images: see `engines`."""
        check_images(grey, self.image_shape)
        probability, mask = self._run(grey)
        return probability, mask


def _keep_in_float32() -> None:
    """Set the two variables; another value of them is the user's, and masks computed with it would be others."""
    for change in ("INFERLIST_REMOVE", "DENYLIST_ADD"):
        name = f"TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_{change}"
        if os.environ.setdefault(name, _FLOAT32_OPERATIONS) != _FLOAT32_OPERATIONS:
            raise SettingsError(
                f"{name} is set to {os.environ[name]!r} in the environment: unset it, or choose the precision float32"
            )
