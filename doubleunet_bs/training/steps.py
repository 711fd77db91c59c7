"""One training step and one evaluation step of a replica, and what Keras would do differently.

Keras' own loop scales a loss function that returns a scalar by the number of replicas, and averages where these losses
need one sum over the whole batch. Here the loss is a formula over a few sums (true positives, false positives and false
negatives of each class), and the chain rule is split there. The sums are added up over all replicas and micro-batches,
and the formula gives the loss and its slope in each sum. Every micro-batch contributes the gradient of its own sums
times that slope. Added up, this is exactly the gradient of one device that sees the whole batch at once.
"""

import keras
import tensorflow as tf

from doubleunet_bs.network.losses import DiceLoss, FocalTverskyLoss, OverlapLoss
from doubleunet_bs.network.metrics import (
    confusion_counts,
    metastatic_mask,
    network_input,
    region_counts,
    region_mask,
    segments_skeleton,
)
from doubleunet_bs.runs.experiments import Experiment
from doubleunet_bs.training.devices import Replicas, sum_over_replicas
from doubleunet_bs.training.fast_kernels import use_fast_kernels


def make_loss(experiment: Experiment) -> OverlapLoss:
    """The loss of an experiment."""
    classes, smooth = experiment.loss_classes, experiment.smooth
    if experiment.loss == "dice":
        return DiceLoss(classes, smooth)
    return FocalTverskyLoss(classes, smooth, experiment.alpha, experiment.beta, experiment.gamma)


def output_sums(loss: OverlapLoss, outputs, labels, weights) -> tf.Tensor:
    """(outputs, terms, 3) sums of the loss: two outputs with softmax heads, one for the concatenated sigmoid heads."""
    tensors = [outputs["output1"], outputs["output2"]] if isinstance(outputs, dict) else [outputs]
    return tf.stack([loss.sums(labels, tensor, weights) for tensor in tensors])


class Steps:
    """The compiled steps of a model under a strategy.

    Args:
        model, optimizer: built inside the strategy's scope.
        loss: see `make_loss`.
        replicas: the devices.
        accumulate: number of micro-batches of each replica, taken one after the other to save memory. The sums of
            the loss still run over the whole batch: with more than one micro-batch a first pass takes the sums, a
            second one the gradients. Batch normalisation sees each micro-batch by itself.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        loss: OverlapLoss,
        replicas: Replicas,
        accumulate: int = 1,
    ):
        self.model, self.optimizer, self.loss, self.replicas = model, optimizer, loss, replicas
        self.accumulate = accumulate
        # On several GPUs they have not been tried.
        if replicas.count == 1 or not replicas.gpu_numbers:
            use_fast_kernels(model, replicas.devices[0])
        self._train = tf.function(self._run_train, autograph=False)
        self._evaluate = tf.function(self._run_evaluate, autograph=False)

    def train(self, iterator) -> tuple[float, list[int], list[int]]:
        """Take the next batch and update the weights with it.

        The batch is taken inside the compiled step, so that a smaller last batch is not traced again.

        Returns:
            The loss before the update; [true positives, false positives, false negatives] of output 2 in metastatic
            pixels, or bone pixels of all regions; the dataset indices of the images.
        """
        loss, counts, index = self._train(iterator)
        return float(loss), _rounded(counts), [int(value) for part in index for value in part.numpy()]

    def evaluate(self, iterator) -> tuple[tf.Tensor, list[int]]:
        """Sums and counts of the next batch, without an update: add both up over the batches, then `loss_from_sums`."""
        sums, counts = self._evaluate(iterator)
        return sums, _rounded(counts)

    def loss_from_sums(self, sums: tf.Tensor) -> float:
        """The loss over all batches whose (outputs, terms, 3) sums were added up."""
        return float(self._loss(sums))

    def _run_train(self, iterator):
        micro_batches = [next(iterator) for _ in range(self.accumulate)]
        losses, counts = self.replicas.strategy.run(self._train_replica, args=(micro_batches,))
        indices = [part for micro_batch in micro_batches for part in self._local(micro_batch["index"])]
        return self._local(losses)[0], self._sum(counts), indices

    def _run_evaluate(self, iterator):
        sums, counts = self.replicas.strategy.run(self._evaluate_replica, args=(next(iterator),))
        return self._sum(sums), self._sum(counts)

    def _train_replica(self, micro_batches):
        variables = self.model.trainable_variables
        total = self._sums_of_all(micro_batches) if len(micro_batches) > 1 else None
        gradients, all_counts, done = None, [], [] if total is None else [total]
        for micro_batch in micro_batches:
            micro_batch = _after(micro_batch, done)
            with tf.GradientTape() as tape:
                sums, outputs = self._sums(micro_batch, training=True)
                if total is None:
                    total = sum_over_replicas(tf.stop_gradient(sums))
                loss, slope = self._loss_and_slope(total)
                contribution = self.optimizer.scale_loss(tf.reduce_sum(slope * sums))
            new = tape.gradient(contribution, variables)
            gradients = done = new if gradients is None else [a + b for a, b in zip(gradients, new, strict=True)]
            all_counts.append(_counts(outputs, micro_batch["labels"], micro_batch["weights"]))
        self.optimizer.apply(gradients, variables)
        return loss, tf.add_n(all_counts)

    def _sums_of_all(self, micro_batches):
        """Sums over all micro-batches and replicas, in a pass of its own that leaves the moving averages alone."""
        averages = self.model.non_trainable_variables
        before = [tf.identity(average.value) for average in averages]
        total = None
        for micro_batch in micro_batches:
            micro_batch = _after(micro_batch, [] if total is None else [total])
            sums = self._sums(micro_batch, training=True)[0]
            total = sums if total is None else total + sums
        for average, value in zip(averages, before, strict=True):
            average.assign(value)
        return sum_over_replicas(total)

    def _sums(self, micro_batch, training: bool):
        outputs = self.model(network_input(micro_batch["grey"]), training=training)
        return output_sums(self.loss, outputs, micro_batch["labels"], micro_batch["weights"]), outputs

    def _loss(self, total):
        return tf.add_n([self.loss.from_sums(output) for output in tf.unstack(total)])

    def _loss_and_slope(self, total):
        with tf.GradientTape() as tape:
            tape.watch(total)
            loss = self._loss(total)
        return loss, tf.stop_gradient(tape.gradient(loss, total))

    def _evaluate_replica(self, micro_batch):
        sums, outputs = self._sums(micro_batch, training=False)
        return sums, _counts(outputs, micro_batch["labels"], micro_batch["weights"])

    def _local(self, values):
        return self.replicas.strategy.experimental_local_results(values)

    def _sum(self, values):
        return tf.add_n(self._local(values))


def _after(micro_batch: dict[str, tf.Tensor], done: list[tf.Tensor]) -> dict[str, tf.Tensor]:
    """The micro-batch, to be read only after `done`.

    Nothing else keeps a graph from computing all micro-batches at once, in the memory of all of them.
    """
    with tf.control_dependencies(done):
        return {name: tf.identity(value) for name, value in micro_batch.items()}


def _rounded(counts: tf.Tensor) -> list[int]:
    return [round(float(count)) for count in counts]


def _counts(outputs, labels, weights):
    """(3,) float64 weighted counts; exact, since weights are 1, 0 or the inverse of a small whole number."""
    if segments_skeleton(outputs):
        counts = tf.cast(region_counts(labels, region_mask(outputs)), tf.float64)
    else:
        counts = tf.cast(confusion_counts(labels, metastatic_mask(outputs)), tf.float64)
    return tf.reduce_sum(counts * tf.cast(weights, tf.float64)[:, None], axis=0)
