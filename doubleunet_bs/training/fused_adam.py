"""Adam as one operation per variable in place of a dozen (paper, section 2.6; the optimizer is decided here)."""

from collections.abc import Sequence

import keras
import tensorflow as tf


class FusedAdam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` with TensorFlow's own kernel for its formula: equal to rounding, one pass over memory.

    Its variables have the names and shapes of Keras' Adam, so that either continues the other's checkpoint; with `late`
    there is one more, "late_steps".

    Args:
        late: variables that join after the others, all at once. Adam divides its averages by how full they are, which
            it takes from the number of steps: counted with the others' steps, the still empty averages of the late ones
            would pass for full, and since that of the squares fills more slowly, their first steps would be several times
            the learning rate. They have a count of their own.

    Raises:
        ValueError: with `amsgrad`, which the kernel does not have.
    """

    def __init__(self, *args, late: Sequence[keras.Variable] = (), **kwargs):
        super().__init__(*args, **kwargs)
        if self.amsgrad:
            raise ValueError("FusedAdam has no amsgrad: use keras.optimizers.Adam")
        self._late_ids, self._late = {id(variable) for variable in late}, set()

    def build(self, variables):
        """Make the variables of the optimizer."""
        if self.built:
            return
        super().build(variables)
        self._late = {place for place, variable in enumerate(variables) if id(variable) in self._late_ids}
        if self._late:
            self._late_steps = self.add_variable((), dtype="int", aggregation="only_first_replica", name="late_steps")

    def apply(self, grads, trainable_variables=None):
        """Update some variables, or all of them."""
        super().apply(grads, trainable_variables)
        updated = self._trainable_variables if trainable_variables is None else trainable_variables
        if self._late and any(self._get_variable_index(variable) in self._late for variable in updated):
            self._late_steps.assign_add(1)

    def update_step(self, gradient, variable, learning_rate):
        """Update one variable and its two moments."""
        dtype = tf.as_dtype(variable.dtype)
        place = self._get_variable_index(variable)
        steps = self._late_steps if place in self._late else self.iterations
        step = tf.cast(steps.value + 1, dtype)
        beta_1, beta_2 = tf.constant(self.beta_1, dtype), tf.constant(self.beta_2, dtype)
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
