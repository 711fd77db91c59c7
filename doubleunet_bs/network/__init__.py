"""The Double U-Net and its losses (paper, sections 2.9 and 2.10). Imports Keras only: any Keras backend can run it.

To add a loss, subclass `losses.OverlapLoss` with a `formula` over the sums of true positives, false positives and false
negatives of a class. The training loop adds the sums up over devices and micro-batches.

    >>> from doubleunet_bs.network.losses import OverlapLoss
    >>> class JaccardLoss(OverlapLoss):
    ...     def formula(self, tp, fp, fn):
    ...         return (fp + fn) / (tp + fp + fn + self.smooth)
    >>> import numpy as np
    >>> labels = np.array([[[1, 2, 2]]])
    >>> float(JaccardLoss()(labels, np.eye(3, dtype="float32")[[[[1, 1, 2]]]]))
    0.3333333432674408

Then name it in `training.steps.make_loss`, and in `loss` of `runs.experiments.Experiment`.

To add a network, write a function with the arguments and outputs of `double_unet`, out of the blocks in `layers` for
instance, and call it in `training.build_network`. `tests/small_network.py` is a short one.
"""

from doubleunet_bs.network.double_unet import double_unet
from doubleunet_bs.network.losses import DiceLoss, FocalTverskyLoss

__all__ = ["DiceLoss", "FocalTverskyLoss", "double_unet"]
