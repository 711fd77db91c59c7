"""Experimental speed-ups: faster TensorFlow kernels for some layers of the network, and a fused Adam.

Keras writes batch normalisation as a dozen elementwise operations on a float32 copy. It resizes through a clipped
float32 copy, and it splits a dilated convolution into hundreds of small images. On a processor with fast matrix units
these cost as much as the other convolutions, and on a GPU more. The kernels here compute the same in fewer passes over
memory: results differ by rounding only, and a saved model does not know of them.

Each kernel is tried out before it is used, in the precision that will run, because neither the processor nor the
settings tell for certain which kernels TensorFlow has loaded. The environment variable DOUBLEUNET_BS_FAST_KERNELS=off
keeps the layers of Keras. The fused Adam does not depend on the processor and stays.
"""

import functools
import os
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from doubleunet_bs.tensorflow_setup import has_avx2_alone

SWITCH = "DOUBLEUNET_BS_FAST_KERNELS"
_DTYPES = ("float32", "bfloat16")


def use_fast_kernels(model: keras.Model, device: str = "CPU:0") -> int:
    """Give the layers of a model their faster kernels from its next call on, and return how many were changed.

    Replaced are batch normalisation in training that is not synchronised, bilinear doubling and dilated convolutions,
    where the layer computes in float32 or bfloat16 and the kernel and its gradient work in that precision on `device`.
    On a CPU with AVX2 alone the gradients of 3 x 3 convolutions in float32 become matrix products.
    Float64, in which runs are compared beyond rounding, keeps the layers of Keras.
    """
    if os.environ.get(SWITCH, "on") == "off":
        return 0
    changed = 0
    for layer in model.layers:
        call = _kernel(layer)
        if call is None and "CPU" in device.upper() and _is_plain_3x3(layer) and has_avx2_alone():
            call = _convolve_by_products
        if call is not None and layer.compute_dtype in _DTYPES and kernel_works(call, layer.compute_dtype, device):
            layer.call = functools.partial(call, layer, type(layer).call)
            changed += 1
    return changed


@functools.cache
def kernel_works(call: Callable, dtype: str, device: str = "CPU:0") -> bool:
    """Whether TensorFlow computes a kernel of this file and its gradient on a device ("GPU:0"), found by trying."""
    settings = {"dtype": _policy(dtype), "name": "trial"}
    if call is _normalise:
        layer = keras.layers.BatchNormalization(**settings)
    elif call is _resize:
        layer = keras.layers.UpSampling2D(2, interpolation="bilinear", **settings)
    else:
        rate = 2 if call is _convolve else 1
        layer = keras.layers.Conv2D(16, 3, padding="same", dilation_rate=rate, kernel_initializer="ones", **settings)
    training = {} if call is _resize else {"training": True}
    return _computes(layer, lambda image: call(layer, type(layer).call, image, **training), dtype, device)


@functools.cache
def has_bfloat16_kernels() -> bool:
    """Whether convolutions in bfloat16 run on oneDNN's kernels here, found by trying.

    The trial is a dilated convolution, whose gradient oneDNN alone computes. Where it fails, TensorFlow multiplies
    bfloat16 number by number, many times slower than float32, or not at all.
    """
    return kernel_works(_convolve, "bfloat16")


@functools.cache
def can_train_in(dtype: str) -> bool:
    """Whether TensorFlow computes a plain convolution and its gradient in a precision on this CPU, however slowly."""
    layer = keras.layers.Conv2D(
        16, 3, padding="same", kernel_initializer="ones", dtype=_policy(dtype), name="trial_of_precision"
    )
    return _computes(layer, layer, dtype, "CPU:0")


def _policy(dtype: str) -> str:
    """The Keras policy under which a layer computes in a precision and keeps its weights in float32."""
    return dtype if dtype == "float32" else f"mixed_{dtype}"


def _computes(layer: keras.layers.Layer, function: Callable, dtype: str, device: str) -> bool:
    """Try a function of an image that uses a layer, with all its gradients, as a part of a graph on a device."""

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((1, 8, 8, 16), dtype)])
    def gradients(image):
        with tf.GradientTape() as tape:
            tape.watch(image)
            total = tf.reduce_sum(function(image))
        return tape.gradient(total, [image, *(variable.value for variable in layer.trainable_variables)])

    try:
        with tf.device(device):
            layer.build((1, 8, 8, 16))
            gradients.get_concrete_function()(tf.ones((1, 8, 8, 16), dtype))
    except (tf.errors.OpError, ValueError):
        return False
    return True


def _kernel(layer: keras.layers.Layer) -> Callable | None:
    """The kernel for a layer, None for a layer that has none."""
    if isinstance(layer, keras.layers.BatchNormalization):
        plain = not (layer.synchronized or layer.renorm) and layer.scale and layer.center
        return _normalise if plain and layer.axis in (-1, 3) else None
    if isinstance(layer, keras.layers.UpSampling2D):
        return _resize if layer.interpolation == "bilinear" and layer.data_format == "channels_last" else None
    if isinstance(layer, keras.layers.Conv2D) and layer.dilation_rate != (1, 1):
        simple = layer.strides == (1, 1) and layer.padding == "same" and layer.data_format == "channels_last"
        return _convolve if simple and layer.groups == 1 else None
    return None


def _is_plain_3x3(layer: keras.layers.Layer) -> bool:
    if not isinstance(layer, keras.layers.Conv2D) or layer.compute_dtype != "float32":
        return False
    form = layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding, layer.groups, layer.data_format
    return form == ((3, 3), (1, 1), (1, 1), "same", 1, "channels_last")


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


def _convolve_by_products(layer, plainly, inputs, training=None):
    outputs = _convolution(inputs, tf.convert_to_tensor(layer.kernel))
    if layer.use_bias:
        outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(layer.bias))
    return outputs if layer.activation is None else layer.activation(outputs)


@tf.custom_gradient
def _convolution(images, kernel):
    def gradients(upstream):
        of_images = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(images), filter=kernel, out_backprop=upstream, strides=[1, 1, 1, 1], padding="SAME"
        )
        # Otherwise the copies of all layers' maps would be made in the forward pass, and held until they are needed.
        with tf.control_dependencies([upstream]):
            return of_images, kernel_gradient(images, upstream)

    return tf.nn.conv2d(images, kernel, 1, "SAME"), gradients


def kernel_gradient(images: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    """The gradient of a 3 x 3 convolution (stride 1, "same") with respect to its kernel, as three matrix products.

    With AVX2 alone oneDNN's own kernel for it ("jit:avx2") is slower than they are: assets/docs/benchmarks.md.

    Args:
        images: (n, rows, columns, channels) float32, the input of the convolution.
        upstream: (n, rows, columns, filters) float32, the gradient of its output.

    Returns:
        (3, 3, channels, filters) float32.
    """
    columns, channels, filters = images.shape[2], images.shape[3], upstream.shape[3]
    # The narrower maps are laid side by side, shifted by a column each.
    if channels < filters:
        images = _shifted(images, (0, 1, 2))
    else:
        upstream = _shifted(upstream, (2, 1, 0))
    # Rows of zeros part the images. So a shift by a row is a shift of all pixels in line, which copies nothing.
    left = tf.reshape(tf.pad(images, [[0, 0], [1, 1], [0, 0], [0, 0]]), [-1, images.shape[3]])
    right = tf.reshape(tf.pad(upstream, [[0, 0], [0, 2], [0, 0], [0, 0]]), [-1, upstream.shape[3]])
    count = tf.shape(left)[0] - 2 * columns
    rows = tf.stack([
        tf.matmul(left[row * columns : row * columns + count], right[:count], transpose_a=True) for row in range(3)
    ])  # fmt: skip
    if channels < filters:
        return tf.reshape(rows, [3, 3, channels, filters])
    return tf.transpose(tf.reshape(rows, [3, channels, 3, filters]), [0, 2, 1, 3])


def _shifted(maps: tf.Tensor, steps: Sequence[int]) -> tf.Tensor:
    padded = tf.pad(maps, [[0, 0], [0, 0], [1, 1], [0, 0]])
    return tf.concat([padded[:, :, step : step + maps.shape[2]] for step in steps], -1)


class FusedAdam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` with TensorFlow's own kernel for its formula: equal to rounding, one pass over memory.

    Its variables have the names and shapes of Keras' Adam, so that either continues the other's checkpoint. `amsgrad`,
    which the kernel lacks, is a ValueError.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.amsgrad:
            raise ValueError("FusedAdam has no amsgrad: use keras.optimizers.Adam")

    def update_step(self, gradient, variable, learning_rate):
        """Update one variable and its two moments."""
        dtype = tf.as_dtype(variable.dtype)
        place = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value + 1, dtype)
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
