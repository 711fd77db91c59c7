"""From a prepared grey image to the network's input, on the device."""

from keras import ops


def network_input(grey):
    """Divide by 255 and repeat the grey channel three times for the VGG19 encoder.

    Decided here: division by 255 as in the original Double U-Net code. Its median centring is left out, since the median
    of a mostly black image says nothing.

    Args:
        grey: (batch, rows, columns) uint8 prepared images.

    Returns:
        (batch, rows, columns, 3) float32 between 0 and 1.
    """
    image = ops.expand_dims(ops.cast(grey, "float32") / 255.0, axis=-1)
    return ops.repeat(image, 3, axis=-1)
