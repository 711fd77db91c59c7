"""The building blocks of the Double U-Net (Jha et al. 2020; paper, section 2.9).

Each function takes and returns Keras tensors of shape (batch, rows, columns, channels). Every layer carries a name made
from `name`, so that weights can be found and compared by name.
"""

import dataclasses

from keras import backend, layers


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """How the batch normalisations of a network work.

    Attributes:
        momentum: of the moving averages; 0.99 is Keras' default and so the original's.
        synchronized: take the statistics over the batches of all replicas, so that several devices normalise as one
            would.
    """

    momentum: float = 0.99
    synchronized: bool = False


def batch_norm_relu(x, name: str, norm: Normalisation):
    """Batch normalisation over batch, rows and columns, then ReLU."""
    x = layers.BatchNormalization(momentum=norm.momentum, synchronized=norm.synchronized, name=f"{name}_bn")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def squeeze_excite(x, name: str):
    """Weigh the channels by a gate computed from their means (Hu et al. 2018), with a reduction by 8.

    Both dense layers are without bias and start He-normal, as in the original Double U-Net code.
    """
    channels = x.shape[-1]
    gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_pool")(x)
    gate = layers.Dense(
        channels // 8, activation="relu", use_bias=False, kernel_initializer="he_normal", name=f"{name}_reduce"
    )(gate)
    gate = layers.Dense(
        channels, activation="sigmoid", use_bias=False, kernel_initializer="he_normal", name=f"{name}_expand"
    )(gate)
    return layers.Multiply(name=f"{name}_scale")([x, gate])


def conv_block(x, filters: int, name: str, norm: Normalisation):
    """(3 x 3 convolution with bias, batch normalisation, ReLU) twice, then squeeze-and-excitation."""
    for step in (1, 2):
        x = layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv{step}")(x)
        x = batch_norm_relu(x, f"{name}_conv{step}", norm)
    return squeeze_excite(x, f"{name}_se")


def aspp(x, filters: int, name: str, norm: Normalisation):
    """Atrous spatial pyramid pooling (Chen et al. 2017): image pooling, 1 x 1, and 3 x 3 at dilation 6, 12 and 18.

    The pooling branch normalises over one value per image: with a single image in the whole batch it passes on nothing
    but its offset. Its convolution has a bias, the others have none, as in the original code.
    """
    rows, columns = x.shape[1:3]
    pooled = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_pool")(x)
    pooled = layers.Conv2D(filters, 1, padding="same", name=f"{name}_pool_conv")(pooled)
    pooled = batch_norm_relu(pooled, f"{name}_pool", norm)
    branches = [layers.UpSampling2D((rows, columns), interpolation="nearest", name=f"{name}_pool_broadcast")(pooled)]
    for branch, (kernel, dilation) in {"conv1": (1, 1), "rate6": (3, 6), "rate12": (3, 12), "rate18": (3, 18)}.items():
        y = layers.Conv2D(
            filters, kernel, dilation_rate=dilation, padding="same", use_bias=False, name=f"{name}_{branch}"
        )(x)
        branches.append(batch_norm_relu(y, f"{name}_{branch}", norm))
    x = layers.Concatenate(name=f"{name}_concat")(branches)
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project")(x)
    return batch_norm_relu(x, f"{name}_project", norm)


def upsample_concat(x, skips, name: str):
    """Double rows and columns bilinearly and append the skip connections, in the order given."""
    x = layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}_up")(x)
    return layers.Concatenate(name=f"{name}_concat")([x, *skips])


def class_head(x, classes: int, name: str):
    """1 x 1 convolution to one map per class, then softmax; with one class, sigmoid.

    Both are float32 in any mixed precision, into which the convolution casts its input: a class that covers a
    thousandth of the pixels is told by small differences of the logits. They are float64 under that policy, in which
    runs are compared beyond rounding.
    """
    dtype = backend.result_type(x.dtype, "float32")
    x = layers.Conv2D(classes, 1, padding="same", dtype=dtype, name=f"{name}_logits")(x)
    return layers.Activation("sigmoid" if classes == 1 else "softmax", dtype=dtype, name=name)(x)


def multiply_by_classes(image, maps, name: str):
    """The image times each class map, concatenated class by class: (batch, rows, columns, classes x channels).

    Paper, section 2.9: "the original input image is multiplied with each output class, resulting in separate images".
    Nothing is detached: network 2 trains network 1 through this product.
    """
    rows, columns, channels = image.shape[1:]
    classes = maps.shape[-1]
    if classes == 1:
        return layers.Multiply(name=name)([image, maps])
    image = layers.Reshape((rows, columns, 1, channels), name=f"{name}_image")(image)
    maps = layers.Reshape((rows, columns, classes, 1), name=f"{name}_maps")(maps)
    product = layers.Multiply(name=f"{name}_product")([maps, image])
    return layers.Reshape((rows, columns, classes * channels), name=name)(product)
