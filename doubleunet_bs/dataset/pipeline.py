"""Shards -> tf.data batches of grey images and labels (paper, section 2.8 for what trains).

Batches travel as uint8: grey images and class numbers. Scaling, three channels and everything float happens on the device.

A batch is cut into one piece per replica. Every image has a weight, so that a batch that does not divide evenly gives the
same sums as on a single device.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from doubleunet_bs.preparation.shards import ShardedDataset

Piece = dict[str, np.ndarray]


def epoch_order(cases: int, seed: int, epoch: int) -> np.ndarray:
    """Permutation of range(cases) for an epoch: a function of (seed, epoch) alone, so that a resumed run repeats it."""
    return np.random.default_rng([seed, epoch]).permutation(cases)


def train_shares(batch: Sequence[int], replicas: int) -> tuple[list[list[int]], float]:
    """Deal a training batch out to the replicas so that none is empty, and give the weight of each image.

    A batch of at least `replicas` images is cut into nearly equal pieces of weight 1. A smaller one (the last of an epoch)
    is repeated until every replica has the same number of images, with the weight that undoes the repetition: batch
    normalisation and the losses see what one device would see.
    """
    if len(batch) >= replicas:
        return [list(share) for share in np.array_split(np.asarray(batch), replicas)], 1.0
    repeats = replicas // np.gcd(len(batch), replicas)
    repeated = np.tile(np.asarray(batch), repeats)
    return [list(share) for share in np.array_split(repeated, replicas)], 1.0 / float(repeats)


def evaluation_shares(batch: Sequence[int], replicas: int) -> list[tuple[list[int], list[float]]]:
    """Deal a batch out for evaluation: a replica without an image of its own gets one of weight zero."""
    shares = [list(share) for share in np.array_split(np.asarray(batch), replicas)]
    return [(share or [batch[0]], [1.0] * len(share) or [0.0]) for share in shares]


def load_piece(dataset: ShardedDataset, indices: Sequence[int], weights: Sequence[float]) -> Piece:
    """Grey images, labels and weights of some cases.

    Returns:
        "grey" (n, rows, columns) uint8, "labels" (n, rows, columns) uint8, "weights" (n,) float32, "index" (n,) int32: the
        number of the case in the dataset.
    """
    return {
        "grey": np.stack([dataset.grey(int(index)) for index in indices]),
        "labels": np.stack([dataset.labels(int(index)) for index in indices]),
        "weights": np.asarray(weights, np.float32),
        "index": np.asarray(indices, np.int32),
    }


def training_pieces(
    dataset: ShardedDataset,
    cases: Sequence[int],
    batch_size: int,
    replicas: int,
    seed: int,
    first_epoch: int,
    last_epoch: int,
    first_batch: int = 0,
) -> tf.data.Dataset:
    """Pieces of all batches of the epochs `first_epoch` ... `last_epoch` - 1, `replicas` pieces for each batch.

    Args:
        dataset: opened shards.
        cases: indices into it that train.
        batch_size: images in a batch over all replicas; the last batch of an epoch may be smaller.
        seed: governs the order, together with the number of the epoch.
        first_batch: how many batches of the first epoch to pass over, for a run that goes on within an epoch.
    """

    def plan() -> Iterator[tuple[list[int], list[float]]]:
        for epoch in range(first_epoch, last_epoch):
            order = np.asarray(cases)[epoch_order(len(cases), seed, epoch)]
            skipped = first_batch * batch_size if epoch == first_epoch else 0
            for start in range(skipped, len(order), batch_size):
                shares, weight = train_shares(order[start : start + batch_size].tolist(), replicas)
                for share in shares:
                    yield share, [weight] * len(share)

    return _load_pieces(dataset, plan)


def evaluation_pieces(
    dataset: ShardedDataset, cases: Sequence[int], batch_size: int, replicas: int = 1
) -> tf.data.Dataset:
    """Pieces of all batches of `cases` in their order, `replicas` pieces for each batch."""

    def plan() -> Iterator[tuple[list[int], list[float]]]:
        for start in range(0, len(cases), batch_size):
            yield from evaluation_shares(list(cases[start : start + batch_size]), replicas)

    return _load_pieces(dataset, plan)


def _load_pieces(dataset: ShardedDataset, plan) -> tf.data.Dataset:
    rows, columns = dataset.image_shape
    signature = (tf.TensorSpec((None,), tf.int64), tf.TensorSpec((None,), tf.float32))

    def load(indices: np.ndarray, weights: np.ndarray):
        piece = load_piece(dataset, indices, weights)
        return piece["grey"], piece["labels"], piece["weights"], piece["index"]

    def shaped(indices: tf.Tensor, weights: tf.Tensor) -> dict[str, tf.Tensor]:
        grey, labels, weights, index = tf.numpy_function(
            load, (indices, weights), (tf.uint8, tf.uint8, tf.float32, tf.int32), stateful=False
        )
        grey.set_shape((None, rows, columns))
        labels.set_shape((None, rows, columns))
        weights.set_shape((None,))
        index.set_shape((None,))
        return {"grey": grey, "labels": labels, "weights": weights, "index": index}

    # Only the plan runs in the generator; the pictures are read in parallel and in order.
    pieces = tf.data.Dataset.from_generator(plan, output_signature=signature)
    return pieces.map(shaped, num_parallel_calls=2, deterministic=True).prefetch(4)
