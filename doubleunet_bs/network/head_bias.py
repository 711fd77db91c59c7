"""Where the biases of the heads start (decided here; the original starts from zeros).

A lesion covers well under one per cent of the pixels. From zeros every class starts at equal probability everywhere, the
lesion term of either loss is flat, and the lesion class is learnt only after many hundred steps. Starting from the class
frequencies changes neither the number of parameters nor what the network can compute.
"""

import math
from collections.abc import Sequence


def prior_head_bias(pixels_per_class: Sequence[int], classes: int) -> list[float]:
    """Starting biases that make an untrained head predict the class frequencies.

    Args:
        pixels_per_class: number of training pixels of air, non-metastatic and metastatic.
        classes: 3 for softmax heads: the logarithms of the frequencies; 1 for sigmoid heads: the logit of the metastatic
            frequency.

    Returns:
        One number per class. A class without a pixel counts as one pixel, which keeps the logarithm finite.
    """
    counts = [max(int(count), 1) for count in pixels_per_class]
    if classes == 1:
        return [math.log(counts[-1] / sum(counts[:-1]))]
    return [math.log(count / sum(counts)) for count in counts]
