"""A small network with every kind of layer of the Double U-Net, for tests of what surrounds it."""

import keras

from doubleunet_bs.network.layers import (
    Normalisation,
    aspp,
    class_head,
    conv_block,
    multiply_by_classes,
    upsample_concat,
)


def small_network(
    shape, classes=3, encoder_weights=None, head_bias=None, synchronized=False, bn_momentum=0.99
) -> keras.Model:
    """Arguments and outputs of `double_unet`: two short networks, linked by the image times the classes."""
    norm = Normalisation(bn_momentum, synchronized)
    image = keras.Input(shape, name="image")
    skip = conv_block(image, 8, "encoder", norm)
    x = aspp(keras.layers.MaxPooling2D(2)(skip), 4, "aspp", norm)
    x = conv_block(upsample_concat(x, [skip], "decoder"), 8, "decoder", norm)
    output1 = class_head(x, classes, "output1")
    x = conv_block(multiply_by_classes(image, output1, "link"), 8, "second", norm)
    output2 = class_head(x, classes, "output2")
    if classes == 1:
        return keras.Model(image, keras.layers.Concatenate(name="outputs", dtype=output1.dtype)([output1, output2]))
    return keras.Model(image, {"output1": output1, "output2": output2})
