"""Precision, sensitivity and F1 from counts (paper, section 3). Without Keras: scores are read where nothing is computed."""


def precision_sensitivity_f1(tp: int, fp: int, fn: int) -> tuple[float | None, float | None, float | None]:
    """Fractions between 0 and 1 from pixel counts.

    Returns:
        precision, None when nothing was predicted; sensitivity, None when there is nothing to find; F1, None when there
        is neither a metastatic pixel nor a predicted one.
    """
    precision = tp / (tp + fp) if tp + fp else None
    sensitivity = tp / (tp + fn) if tp + fn else None
    f1 = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None
    return precision, sensitivity, f1
