"""Pixel-wise precision, sensitivity and F1 of the metastatic class from integer counts (paper, section 3)."""

from keras import ops

from doubleunet_bs.constants import METASTATIC


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


def segmentation(outputs):
    """Output 2 of the network from whatever the model returns.

    Args:
        outputs: the dict of the softmax network or the two-channel tensor of the sigmoid network.

    Returns:
        (batch, rows, columns, classes) probabilities; classes is 1 for the sigmoid network.
    """
    return outputs["output2"] if isinstance(outputs, dict) else outputs[..., 1:2]


def metastatic_probability(outputs):
    """(batch, rows, columns) float32 probability of the metastatic class, between 0 and 1, from output 2."""
    probabilities = segmentation(outputs)
    return probabilities[..., 0] if probabilities.shape[-1] == 1 else probabilities[..., METASTATIC]


def metastatic_mask(outputs):
    """(batch, rows, columns) bool: the class with the largest probability in output 2 is metastatic.

    A tie goes to the class with the smaller number, as with argmax. With a sigmoid head: probability above one half.
    """
    probabilities = segmentation(outputs)
    if probabilities.shape[-1] == 1:
        return probabilities[..., 0] > 0.5
    # By comparison: Keras' argmax looks at the bits of its input, an operation that other engines do not read.
    own = probabilities[..., METASTATIC : METASTATIC + 1]
    mask = ops.all(own > probabilities[..., :METASTATIC], axis=-1)
    if probabilities.shape[-1] > METASTATIC + 1:
        mask = ops.logical_and(mask, ops.all(own >= probabilities[..., METASTATIC + 1 :], axis=-1))
    return mask


def confusion_counts(labels, mask):
    """(batch, 3) int32: true positives, false positives, false negatives of metastatic pixels in each image.

    Args:
        labels: (batch, rows, columns) class numbers.
        mask: (batch, rows, columns) bool, True where metastatic is predicted.
    """
    truth = ops.equal(labels, METASTATIC)
    pairs = ((truth, mask), (ops.logical_not(truth), mask), (truth, ops.logical_not(mask)))
    return ops.stack([ops.sum(ops.cast(ops.logical_and(a, b), "int32"), axis=(1, 2)) for a, b in pairs], axis=-1)
