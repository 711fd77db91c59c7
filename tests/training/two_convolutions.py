"""A network of two convolutions with batch normalisation in place of the Double U-Net."""

import keras


def two_convolutions(shape, classes=3, *args, **kwargs):
    """Takes the arguments of `network.double_unet` and has its outputs."""
    image = keras.Input(shape, name="image")
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(image)
    x = keras.layers.BatchNormalization(name="bn")(x)
    outputs = {}
    for name in ("output1", "output2"):
        outputs[name] = keras.layers.Conv2D(classes, 1, activation="softmax", name=name)(x)
    return keras.Model(image, outputs)
