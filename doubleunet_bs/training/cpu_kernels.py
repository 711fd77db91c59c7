"""Layers of the network by TensorFlow kernels that do the same in fewer passes over memory, on CPUs (decided here).

Keras writes batch normalisation as a dozen elementwise operations on a float32 copy, resizes through a clipped float32
copy, and takes a dilated convolution apart into hundreds of small images (3 rows of 1 pixel at rate 18). On a processor with fast
matrix units these cost as much as the convolutions. The layers, their weights and what they compute stay: results differ by
rounding only, and a saved model knows nothing of it.
"""

import functools
from collections.abc import Callable

import keras
import tensorflow as tf

_DTYPES = ("float32", "bfloat16")


def use_cpu_kernels(model: keras.Model) -> int:
    """Give the layers of a model that runs on CPUs their faster kernels, from its next call on.

    Taken: batch normalisation in training that is not synchronised, bilinear doubling, and, where TensorFlow has a kernel
    for their gradient (with oneDNN), dilated convolutions. Only layers that compute in float32 or bfloat16:
    float64, in which runs are compared beyond rounding, keeps Keras' way.

    Returns:
        The number of layers that were changed.
    """
    changed, dilated = 0, _has_dilated_gradient()
    for layer in model.layers:
        if layer.compute_dtype not in _DTYPES:
            continue
        call = _kernel(layer, dilated)
        if call is not None:
            layer.call = functools.partial(call, layer, type(layer).call)
            changed += 1
    return changed


def _has_dilated_gradient() -> bool:
    """Tried out: neither settings nor the processor tell for certain which kernels TensorFlow has loaded."""

    @tf.function
    def gradient(image, kernel):
        with tf.GradientTape() as tape:
            tape.watch((image, kernel))
            total = tf.reduce_sum(tf.nn.conv2d(image, kernel, 1, "SAME", dilations=2))
        return tape.gradient(total, (image, kernel))

    try:
        gradient(tf.ones((1, 8, 8, 16)), tf.ones((3, 3, 16, 16)))
    except (tf.errors.OpError, ValueError):
        return False
    return True


def _kernel(layer: keras.layers.Layer, dilated: bool) -> Callable | None:
    if isinstance(layer, keras.layers.BatchNormalization):
        plain = not (layer.synchronized or layer.renorm) and layer.scale and layer.center
        return _normalise if plain and layer.axis in (-1, 3) else None
    if isinstance(layer, keras.layers.UpSampling2D):
        return _resize if layer.interpolation == "bilinear" and layer.data_format == "channels_last" else None
    if isinstance(layer, keras.layers.Conv2D) and layer.dilation_rate != (1, 1):
        simple = layer.strides == (1, 1) and layer.padding == "same" and layer.data_format == "channels_last"
        return _convolve if dilated and simple and layer.groups == 1 else None
    return None


def _normalise(layer, plainly, inputs, training=None, mask=None):
    if not training or not layer.trainable or mask is not None or inputs.shape[1:3] == (1, 1):
        # One pixel an image, and it may be one image: the kernel divides by the number of values less one.
        return plainly(layer, inputs, training=training, mask=mask)
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=tf.cast(inputs, layer.compute_dtype),
        scale=tf.convert_to_tensor(layer.gamma),
        offset=tf.convert_to_tensor(layer.beta),
        mean=tf.zeros((0,)),
        variance=tf.zeros((0,)),
        epsilon=layer.epsilon,
        is_training=True,
    )
    # The kernel's variance is that of a sample, Keras averages that of the values themselves.
    values = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
    variance = variance * ((values - 1.0) / values)
    for average, new in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        average.assign(average * layer.momentum + tf.stop_gradient(new) * (1.0 - layer.momentum))
    return outputs


def _resize(layer, plainly, inputs):
    rows, columns = tf.shape(inputs)[1] * layer.size[0], tf.shape(inputs)[2] * layer.size[1]
    resized = tf.raw_ops.ResizeBilinear(images=inputs, size=tf.stack([rows, columns]), half_pixel_centers=True)
    shape = layer.compute_output_shape(inputs.shape)
    # A mean of values lies between them: it needs no clipping on the way back.
    return tf.ensure_shape(tf.cast(resized, inputs.dtype), shape)


def _convolve(layer, plainly, inputs, training=None):
    kernel = tf.convert_to_tensor(layer.kernel)
    outputs = tf.nn.conv2d(inputs, tf.cast(kernel, inputs.dtype), 1, "SAME", dilations=layer.dilation_rate)
    if layer.use_bias:
        outputs = tf.nn.bias_add(outputs, tf.cast(tf.convert_to_tensor(layer.bias), inputs.dtype))
    return outputs if layer.activation is None else layer.activation(outputs)
