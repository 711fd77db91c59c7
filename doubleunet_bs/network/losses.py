"""Dice and Focal Tversky loss (paper, section 2.10, equations 1 and 2), with sums over the whole batch.

Both losses see the batch as one large image: the sums in the equations run over all pixels of all images, as in the
original Double U-Net code. So an image without lesions does not degenerate. All sums are in float32 at least. Labels
are class numbers, (batch, rows, columns) of any integer type; no one-hot array is made.
"""

from collections.abc import Sequence

import keras
from keras import ops

from doubleunet_bs.constants import METASTATIC, NON_METASTATIC

# Below this distance from a perfect Tversky index the power is continued by a straight line: its slope is infinite
# there.
_LINEAR_BELOW = 1e-6

_SEPARATE_CLASSES = 3
"""Up to so many channels each class has a pass of its own, which keeps trainings on lesions equal to the last bit."""


class OverlapLoss(keras.losses.Loss):
    """Base class: sums of true positives, false positives and false negatives per class, then a formula over the sums.

    Called like any Keras loss it gives the loss of the images it gets. Where a batch is spread over replicas or
    micro-batches, the training loop adds up their `sums` first and then calls `from_sums`. A subclass gives `formula`.

    Args:
        classes: class numbers that have a term each; the loss is the mean of the terms. The default is non-metastatic
            and metastatic: the paper removes the background. Sigmoid heads have the metastatic term only.
        smooth: at least 0, in pixels, added to numerator and denominator. With 1, a class that neither exists nor is
            predicted costs nothing and has a finite gradient.
        name: name of the loss in Keras' logs.
    """

    def __init__(
        self,
        classes: Sequence[int] = (NON_METASTATIC, METASTATIC),
        smooth: float = 1.0,
        name: str | None = None,
    ):
        super().__init__(name=name, reduction=None, dtype="float32")
        self.classes = tuple(classes)
        self.smooth = float(smooth)

    def call(self, y_true, y_pred, weights=None):
        """The loss of one output.

        Args:
            y_true: (batch, rows, columns) class numbers.
            y_pred: (batch, rows, columns, classes) softmax probabilities, or (batch, rows, columns, 1 or 2) sigmoid
                probabilities of the metastatic class. Two sigmoid channels are the two outputs of the one-class
                network, taken together in one sum as the original does.
            weights: (batch,) weight of each image in the sums, or None for one each.

        Returns:
            A float32 scalar, 0 for a perfect prediction, at most 1.

        Raises:
            ValueError: labels with an axis of channels, one-hot or not.
        """
        return self.from_sums(self.sums(y_true, y_pred, weights))

    def from_sums(self, sums):
        """The loss from (terms, 3) sums, which may have been added up over batches or replicas before."""
        return ops.mean(self.formula(sums[:, 0], sums[:, 1], sums[:, 2]))

    def sums(self, y_true, y_pred, weights=None):
        """The sums that `from_sums` takes, over all pixels of all images.

        Args: as for `call`.

        Returns:
            (terms, 3) float32, or float64 for float64 probabilities: sums of y p, (1 - y) p and y (1 - p), none
            negative.
        """
        if len(y_true.shape) != len(y_pred.shape) - 1:
            raise ValueError(f"labels of shape {y_true.shape}: give class numbers (batch, rows, columns), not one-hot")
        channels = y_pred.shape[-1]
        dtype = keras.backend.result_type(y_pred.dtype, "float32")
        y_pred = ops.cast(y_pred, dtype)
        if channels > _SEPARATE_CLASSES:
            return self._sums_of_many(y_true, y_pred, weights)
        if channels <= 2:
            pairs = [(ops.expand_dims(ops.equal(y_true, METASTATIC), -1), y_pred)]
        else:
            pairs = [
                (ops.expand_dims(ops.equal(y_true, index), -1), y_pred[..., index, None]) for index in self.classes
            ]
        rows = []
        for y, p in pairs:
            y = ops.cast(y, dtype)
            # Each sum is taken by itself: a difference of two large sums may come out negative.
            per_image = [ops.sum(term, axis=(1, 2, 3)) for term in (y * p, (1.0 - y) * p, y * (1.0 - p))]
            if weights is not None:
                per_image = [term * ops.cast(weights, dtype) for term in per_image]
            rows.append(ops.stack([ops.sum(term) for term in per_image]))
        return ops.stack(rows)

    def _sums_of_many(self, y_true, y_pred, weights):
        """The same for many classes: all terms at once instead of a pass for each."""
        p = ops.take(y_pred, self.classes, axis=-1)
        y = ops.cast(ops.equal(ops.expand_dims(ops.cast(y_true, "int32"), -1), list(self.classes)), p.dtype)
        terms = [ops.sum(term, axis=(1, 2)) for term in (y * p, (1.0 - y) * p, y * (1.0 - p))]
        if weights is not None:
            terms = [term * ops.expand_dims(ops.cast(weights, p.dtype), -1) for term in terms]
        return ops.stack([ops.sum(term, axis=0) for term in terms], axis=-1)

    def formula(self, tp, fp, fn):
        """One value per term from its sums of true positives, false positives and false negatives."""
        raise NotImplementedError

    def get_config(self):
        return {"classes": list(self.classes), "smooth": self.smooth, "name": self.name}


@keras.saving.register_keras_serializable(package="doubleunet_bs")
class DiceLoss(OverlapLoss):
    """1 - (2 sum(y p) + s) / (sum(y) + sum(p) + s): paper, equation 1.

    The arguments are those of `OverlapLoss`.

    Example:
        Two pixels of air and one lesion pixel, which gets 0.5. The non-metastatic class is neither there nor predicted.

        >>> import numpy as np
        >>> labels = np.array([[[0, 0, 2]]])
        >>> probabilities = np.array([[[[1, 0, 0], [1, 0, 0], [0.5, 0, 0.5]]]], "float32")
        >>> round(float(DiceLoss(classes=[2])(labels, probabilities)), 3)
        0.2
        >>> float(DiceLoss()(labels, np.eye(3, dtype="float32")[labels]))
        0.0
    """

    def formula(self, tp, fp, fn):
        # The same as 1 minus the coefficient, without the cancellation near 1.
        return (fp + fn) / (2.0 * tp + fp + fn + self.smooth)


@keras.saving.register_keras_serializable(package="doubleunet_bs")
class FocalTverskyLoss(OverlapLoss):
    """(1 - TI)^gamma, TI = (sum(y p) + s) / (sum(y p) + alpha sum((1-y) p) + beta sum(y (1-p)) + s): paper, equation 2.

    Args:
        classes, smooth, name: see `OverlapLoss`.
        alpha: weight of false positives, 0.3 in the paper.
        beta: weight of false negatives, 0.7 in the paper.
        gamma: 0.75 in the paper. Where 1 - TI is below 1e-6 the power is continued by a straight line through zero,
            since its slope is infinite at a perfect prediction.

    Example:
        Of one lesion pixel half is missed, 0.7 x 0.5 = 0.35; the Tversky index is (0.5 + 1) / (0.5 + 0.35 + 1).

        >>> import numpy as np
        >>> labels = np.array([[[0, 0, 2]]])
        >>> probabilities = np.array([[[[1, 0, 0], [1, 0, 0], [0.5, 0, 0.5]]]], "float32")
        >>> round(float(FocalTverskyLoss(classes=[2], gamma=1)(labels, probabilities)), 4)
        0.1892
    """

    def __init__(
        self,
        classes: Sequence[int] = (NON_METASTATIC, METASTATIC),
        smooth: float = 1.0,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 0.75,
        name: str | None = None,
    ):
        super().__init__(classes, smooth, name)
        self.alpha, self.beta, self.gamma = float(alpha), float(beta), float(gamma)

    def formula(self, tp, fp, fn):
        wrong = self.alpha * fp + self.beta * fn
        distance = wrong / (tp + wrong + self.smooth)
        power = ops.power(ops.maximum(distance, _LINEAR_BELOW), self.gamma)
        line = distance * _LINEAR_BELOW ** (self.gamma - 1.0)
        return ops.where(distance < _LINEAR_BELOW, line, power)

    def get_config(self):
        return {**super().get_config(), "alpha": self.alpha, "beta": self.beta, "gamma": self.gamma}
