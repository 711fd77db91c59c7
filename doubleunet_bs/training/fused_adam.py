"""Adam as one operation per variable in place of a dozen (paper, section 2.6; the optimizer is decided here)."""

import keras
import tensorflow as tf


class FusedAdam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` with TensorFlow's own kernel for its formula: equal to rounding, one pass over memory.

    Its variables have the names and shapes of Keras' Adam, so that either continues the other's checkpoint.

    Raises:
        ValueError: with `amsgrad`, which the kernel does not have.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.amsgrad:
            raise ValueError("FusedAdam has no amsgrad: use keras.optimizers.Adam")

    def update_step(self, gradient, variable, learning_rate):
        """Update one variable and its two moments."""
        dtype = tf.as_dtype(variable.dtype)
        step = tf.cast(self.iterations.value + 1, dtype)
        beta_1, beta_2 = tf.constant(self.beta_1, dtype), tf.constant(self.beta_2, dtype)
        place = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[place]),
            v=_handle(self._velocities[place]),
            beta1_power=beta_1**step,
            beta2_power=beta_2**step,
            lr=tf.cast(learning_rate, dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.constant(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )


def _handle(variable):
    """The resource of a Keras variable, or of the part of it on the device where a strategy updates it."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle
