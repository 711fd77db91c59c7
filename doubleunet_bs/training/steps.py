"""One training step and one evaluation step of a replica, and what Keras would do differently.

Keras' own loop scales a loss function that returns a scalar by the number of replicas, and averages where these losses
need one sum over the whole batch. Here each replica sums over its own images, the sums are added over the replicas, every
replica computes the same loss from them, and 1 / replicas of it is differentiated: the gradient is exactly that of one device.
"""

import keras
import tensorflow as tf

from doubleunet_bs.network.inputs import network_input
from doubleunet_bs.network.losses import DiceLoss, FocalTverskyLoss, OverlapLoss
from doubleunet_bs.network.metrics import confusion_counts, metastatic_mask
from doubleunet_bs.training.experiments import Experiment
from doubleunet_bs.training.replicas import Replicas, sum_over_replicas


def make_loss(experiment: Experiment) -> OverlapLoss:
    """The loss of an experiment, with sums over all replicas."""
    common = {"smooth": experiment.smooth, "classes": experiment.loss_classes, "sum_over_replicas": sum_over_replicas}
    if experiment.loss == "dice":
        return DiceLoss(**common)
    return FocalTverskyLoss(**common, alpha=experiment.alpha, beta=experiment.beta, gamma=experiment.gamma)


def output_sums(loss: OverlapLoss, outputs, labels, weights) -> list:
    """The sums of the loss for each output: two for the softmax network, one for the concatenated sigmoid outputs."""
    tensors = [outputs["output1"], outputs["output2"]] if isinstance(outputs, dict) else [outputs]
    return [loss.sums(labels, tensor, weights) for tensor in tensors]


class Steps:
    """The compiled steps of a model under a strategy.

    Args:
        model: the network, built inside the strategy's scope.
        optimizer: built inside the strategy's scope as well.
        loss: see `make_loss`.
        replicas: the devices.
        jit_compile: let XLA compile the steps; possible with one replica only.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        loss: OverlapLoss,
        replicas: Replicas,
        jit_compile=False,
    ):
        self.model, self.optimizer, self.loss, self.replicas = model, optimizer, loss, replicas
        self._train = tf.function(self._run_train, jit_compile=jit_compile or None)
        self._evaluate = tf.function(self._run_evaluate)

    def train(self, iterator) -> tuple[float, list[int], list[int]]:
        """Take the next batch and update the weights with it.

        Args:
            iterator: of the distributed dataset. Taking the batch inside the compiled step keeps its size open: a smaller
                last batch is not traced again.

        Returns:
            The loss before the update; [true positives, false positives, false negatives] of output 2 in metastatic
            pixels; the dataset indices of the images.
        """
        loss, counts, index = self._train(iterator)
        return float(loss), _rounded(counts), [int(value) for part in index for value in part.numpy()]

    def evaluate(self, iterator) -> tuple[tf.Tensor, list[int]]:
        """Sums and counts of the next batch, without an update: add both up over the batches, then `loss_from_sums`."""
        sums, counts = self._evaluate(iterator)
        return sums, _rounded(counts)

    def loss_from_sums(self, sums: tf.Tensor) -> float:
        """The loss over all batches whose (outputs, terms, 3) sums were added up."""
        return float(tf.add_n([self.loss.from_sums(output) for output in tf.unstack(sums)]))

    def _run_train(self, iterator):
        pieces = next(iterator)
        losses, counts = self.replicas.strategy.run(self._train_replica, args=(pieces,))
        return self._local(losses)[0], self._sum(counts), self._local(pieces["index"])

    def _run_evaluate(self, iterator):
        sums, counts = self.replicas.strategy.run(self._evaluate_replica, args=(next(iterator),))
        return self._sum(sums), self._sum(counts)

    def _train_replica(self, piece):
        image, labels, weights = network_input(piece["grey"]), piece["labels"], piece["weights"]
        with tf.GradientTape() as tape:
            outputs = self.model(image, training=True)
            sums = [self.loss.sum_over_replicas(part) for part in output_sums(self.loss, outputs, labels, weights)]
            loss = tf.add_n([self.loss.from_sums(part) for part in sums])
            scaled = self.optimizer.scale_loss(loss / self.replicas.count)
        variables = self.model.trainable_variables
        self.optimizer.apply(tape.gradient(scaled, variables), variables)
        return loss, _counts(outputs, labels, weights)

    def _evaluate_replica(self, piece):
        labels, weights = piece["labels"], piece["weights"]
        outputs = self.model(network_input(piece["grey"]), training=False)
        return tf.stack(output_sums(self.loss, outputs, labels, weights)), _counts(outputs, labels, weights)

    def _local(self, values):
        return self.replicas.strategy.experimental_local_results(values)

    def _sum(self, values):
        return tf.add_n(self._local(values))


def _rounded(counts: tf.Tensor) -> list[int]:
    return [round(float(count)) for count in counts]


def _counts(outputs, labels, weights):
    """(3,) float64 weighted counts; exact, since weights are 1, 0 or the inverse of a small whole number."""
    counts = tf.cast(confusion_counts(labels, metastatic_mask(outputs)), tf.float64)
    return tf.reduce_sum(counts * tf.cast(weights, tf.float64)[:, None], axis=0)
