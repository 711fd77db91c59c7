"""An exported model in a TensorFlow session, as TensorFlow Serving runs it: without Keras.

All settings belong to the session except two: TensorFlow learns which operations stay in float32 from environment
variables of the process (TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_INFERLIST_REMOVE and ..._DENYLIST_ADD). They are set
when the first engine with bfloat16 is opened.
"""

import logging
import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.inference.engines import ENDPOINT, INPUT, MASK, check_images, damaged_model, probability_name

_FLOAT32_OPERATIONS = "Softmax,Sigmoid"
"""What TensorFlow's bfloat16 rewriting leaves in float32: probabilities need more than eight bits."""


class TensorFlowEngine:
    """An `engines.Engine`.

    Args:
        path: the SavedModel folder.
        bfloat16: multiply in bfloat16 where no GPU computes.

    Raises:
        RunError: the folder is damaged, or not a model of this package.
        SettingsError: one of the two environment variables has another value.
    """

    def __init__(self, path: Path, bfloat16: bool):
        gpu = bool(tf.config.list_physical_devices("GPU"))
        config = tf.compat.v1.ConfigProto()
        config.gpu_options.allow_growth = True
        if bfloat16 and not gpu:
            _keep_in_float32()
            rewriting = config.graph_options.rewrite_options
            rewriting.auto_mixed_precision_onednn_bfloat16 = type(rewriting).ON
        graph = tf.Graph()
        session = tf.compat.v1.Session(graph=graph, config=config)
        logger = tf.get_logger()
        level = logger.level
        logger.setLevel(logging.ERROR)  # The loader warns that it is deprecated. Nothing else takes session settings.
        try:
            with graph.as_default():
                meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(path))
        except (OSError, ValueError, LookupError, TypeError, RuntimeError, tf.errors.OpError) as cause:
            raise damaged_model(path, cause) from cause
        finally:
            logger.setLevel(level)
        signature = meta.signature_def[ENDPOINT]
        image, probability = signature.inputs[INPUT], probability_name(set(signature.outputs))
        if (
            (set(signature.inputs), set(signature.outputs)) != ({INPUT}, {probability, MASK})
            or image.dtype != tf.uint8.as_datatype_enum
            or len(image.tensor_shape.dim) != 3
        ):
            raise RunError(f"{path}: a SavedModel, but not one of this package: other inputs or outputs")
        self._run = session.make_callable(
            [signature.outputs[name].name for name in (probability, MASK)], feed_list=[image.name]
        )
        self._session = session  # Holds the variables.
        rows, columns = (int(dimension.size) for dimension in image.tensor_shape.dim[1:])
        self.image_shape = (rows, columns)
        self.name = f"tensorflow {tf.__version__}, " + (
            "GPU, float32" if gpu else "CPU, bfloat16" if bfloat16 else "CPU, float32"
        )

    def __call__(self, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `engines.Engine`."""
        check_images(grey, self.image_shape)
        probability, mask = self._run(grey)
        return probability, mask


def _keep_in_float32() -> None:
    """Set the two variables. Another value is the user's and would give other masks: it is refused."""
    for change in ("INFERLIST_REMOVE", "DENYLIST_ADD"):
        name = f"TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_{change}"
        if os.environ.setdefault(name, _FLOAT32_OPERATIONS) != _FLOAT32_OPERATIONS:
            raise SettingsError(
                f"{name} is set to {os.environ[name]!r} in the environment: unset it, or choose --precision float32"
            )
