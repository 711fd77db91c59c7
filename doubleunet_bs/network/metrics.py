"""Around the network: grey images in, probability and mask of metastases out, and the pixel counts of a mask (paper,
section 3).

The mask is that of output 2. Precision, sensitivity and F1 follow from the counts:
`pixel_counts.precision_sensitivity_f1`.
"""

from keras import ops

from doubleunet_bs.constants import BENIGN, METASTATIC


def network_input(grey):
    """Divide by 255 and repeat the grey channel three times for the VGG19 encoder.

    The original Double U-Net code divides by 255, too. Its median centring is left out.

    Args:
        grey: (batch, rows, columns) uint8 prepared images.

    Returns:
        (batch, rows, columns, 3) float32 between 0 and 1.

    Example:
        >>> import numpy as np
        >>> network_input(np.array([[[0, 51, 255]]], "uint8")).numpy()[0, 0, :, 0].tolist()
        [0.0, 0.20000000298023224, 1.0]
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
    """Where the class with the largest probability in output 2 is metastatic.

    A tie goes to the class with the smaller number, as with argmax. With a sigmoid head: probability above one half.

    Args:
        outputs: see `segmentation`.

    Returns:
        (batch, rows, columns) bool.

    Example:
        >>> import numpy as np
        >>> outputs = {"output2": np.array([[[[0.2, 0.3, 0.5], [0.4, 0.2, 0.4]]]], "float32")}
        >>> metastatic_mask(outputs).numpy().tolist()
        [[[True, False]]]
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


def segments_skeleton(outputs) -> bool:
    """Whether the network has more classes than air, non-metastatic, metastatic and benign."""
    return segmentation(outputs).shape[-1] > BENIGN + 1


def lesion_mask(outputs):
    """Which lesions the most probable class of output 2 is: what a model of lesions answers.

    Args:
        outputs: see `segmentation`.

    Returns:
        (batch, rows, columns) uint8: 1 metastatic, 2 benign where the network has that class, 0 neither.

    Example:
        >>> import numpy as np
        >>> outputs = {"output2": np.array([[[[0.1, 0.2, 0.4, 0.3], [0.1, 0.2, 0.3, 0.4]]]], "float32")}
        >>> lesion_mask(outputs).numpy().tolist()
        [[[1, 2]]]
    """
    mask = ops.cast(metastatic_mask(outputs), "uint8")
    if segmentation(outputs).shape[-1] <= BENIGN:
        return mask
    return ops.where(ops.equal(region_mask(outputs), BENIGN), ops.cast(2, "uint8"), mask)


def region_mask(outputs):
    """The most probable region in output 2 of a skeleton network; a tie goes to the smaller number.

    Args:
        outputs: see `segmentation`.

    Returns:
        (batch, rows, columns) uint8: 0 not bone, 1 to 12.

    Example:
        >>> import numpy as np
        >>> outputs = {"output2": np.array([[[[0.4, 0.2, 0.4, 0.0], [0.1, 0.2, 0.3, 0.4]]]], "float32")}
        >>> region_mask(outputs).numpy().tolist()
        [[[0, 3]]]
    """
    probabilities = segmentation(outputs)
    best = probabilities[..., 0]
    number = ops.zeros_like(best, "uint8")
    # By comparison, as in `metastatic_mask`.
    for index in range(1, probabilities.shape[-1]):
        own = probabilities[..., index]
        number = ops.where(own > best, ops.cast(index, "uint8"), number)
        best = ops.maximum(best, own)
    return number


def region_probability(outputs):
    """(batch, rows, columns) float32 probability of the region in `region_mask`, where that is 0 of "not bone"."""
    return ops.max(segmentation(outputs), axis=-1)


def region_counts(labels, mask):
    """Count bone pixels in each image, pooled over the regions.

    Args:
        labels, mask: (batch, rows, columns) numbers of regions, 0 not bone.

    Returns:
        (batch, 3) int32: pixels with the right region; predicted ones without; annotated ones without. A pixel in the
        wrong region counts as false positive and as false negative.

    Example:
        >>> import numpy as np
        >>> region_counts(np.array([[[0, 1, 1, 2]]]), np.array([[[3, 1, 2, 0]]])).numpy().tolist()
        [[1, 2, 2]]
    """
    labels, mask = ops.cast(labels, "uint8"), ops.cast(mask, "uint8")
    right, wrong = ops.equal(labels, mask), ops.not_equal(labels, mask)
    bone, found = ops.not_equal(labels, 0), ops.not_equal(mask, 0)
    pairs = ((right, bone), (wrong, found), (wrong, bone))
    return ops.stack([ops.sum(ops.cast(ops.logical_and(a, b), "int32"), axis=(1, 2)) for a, b in pairs], axis=-1)


def confusion_counts(labels, mask):
    """Count metastatic pixels in each image.

    Args:
        labels: (batch, rows, columns) class numbers.
        mask: (batch, rows, columns) bool, True where metastatic is predicted.

    Returns:
        (batch, 3) int32: true positives, false positives, false negatives; zeros where both are empty.

    Example:
        >>> import numpy as np
        >>> confusion_counts(np.array([[[2, 2, 0]]]), np.array([[[True, False, True]]])).numpy().tolist()
        [[1, 1, 1]]
    """
    truth = ops.equal(labels, METASTATIC)
    pairs = ((truth, mask), (ops.logical_not(truth), mask), (truth, ops.logical_not(mask)))
    return ops.stack([ops.sum(ops.cast(ops.logical_and(a, b), "int32"), axis=(1, 2)) for a, b in pairs], axis=-1)
