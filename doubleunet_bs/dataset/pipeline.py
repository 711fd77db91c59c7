"""Shards -> tf.data batches of grey images and labels (paper, sections 2.7 and 2.8 for what trains).

Batches travel as uint8: grey images and class numbers. Scaling, three channels and everything float happens on the device.

A batch is cut into one piece per replica. Every image has a weight, so that a batch that does not divide evenly gives the
same sums as on a single device.

With augmentation an epoch shows each case in all of its variants, in a common random order, or in one that is drawn for
each case and epoch: which, is a function of (seed, epoch, case) alone.
"""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from doubleunet_bs.dataset.augmentation import Augmentation
from doubleunet_bs.preparation.shards import Dataset

Piece = dict[str, np.ndarray]


class ReadingErrors(contextlib.AbstractContextManager):
    """What reading a piece raised: tf.data hands on its text only, in an error of its own with a traceback of TensorFlow's.

    Given to the pieces as `errors`, and used as a context around whatever takes them: where TensorFlow fails within it and
    reading has, the first error of reading is raised in its place.
    """

    def __init__(self):
        self.first: Exception | None = None

    def __exit__(self, kind, error, traceback) -> None:
        if self.first is not None and isinstance(error, tf.errors.OpError):
            raise self.first from None


def epoch_order(cases: int, seed: int, epoch: int) -> np.ndarray:
    """Permutation of range(cases) for an epoch: a function of (seed, epoch) alone, so that a resumed run repeats it."""
    return np.random.default_rng([seed, epoch]).permutation(cases)


def epoch_images(
    cases: Sequence[int], seed: int, epoch: int, variants: int = 1, all_variants: bool = True
) -> list[tuple[int, int]]:
    """What an epoch shows, in its order: (case, variant) pairs.

    Args:
        cases: indices into the dataset.
        seed, epoch: govern order and choice.
        variants: of each case, see `dataset.augmentation`.
        all_variants: show every case in all of them, `variants` times as many images; otherwise in one, drawn anew in
            each epoch by the case's number, so that it does not depend on which others train.
    """
    images = len(cases) * (variants if all_variants else 1)
    return next(epoch_batches(cases, max(1, images), seed, epoch, variants, all_variants), [])


def epoch_batches(
    cases: Sequence[int],
    batch_size: int,
    seed: int,
    epoch: int,
    variants: int = 1,
    all_variants: bool = True,
    first: int = 0,
) -> Iterator[list[tuple[int, int]]]:
    """`epoch_images` in batches, the last of which may be smaller, from batch number `first` on.

    Only the order of the whole epoch is in memory, eight bytes for an image: of a hundred thousand scans in fourteen variants
    the pairs would be 200 megabytes.
    """
    order = epoch_order(len(cases) * (variants if all_variants else 1), seed, epoch)
    for start in range(first * batch_size, len(order), batch_size):
        numbers = order[start : start + batch_size].tolist()
        if all_variants:
            yield [(int(cases[number // variants]), number % variants) for number in numbers]
        else:
            chosen = [int(cases[number]) for number in numbers]
            yield [(case, int(np.random.default_rng([seed, epoch, case]).integers(variants))) for case in chosen]


def images_per_epoch(cases: int, augmentation: Augmentation | None = None, all_variants: bool = True) -> int:
    """How many images `epoch_images` lists."""
    return cases * (augmentation.variants if augmentation and all_variants else 1)


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


def pairs_of(batch: Sequence[int], pieces: int) -> list[tuple[list[int], list[float]]]:
    """Deal a short batch out in pieces of two images, some or all of which are shown twice with half the weight.

    A piece of one image would leave batch normalisation a single value in the ASPP pooling branch, whose average would then
    drift away from what full batches show.

    Args:
        batch: at least 2 images, fewer than twice the pieces.

    Returns:
        For each piece its images and their weights; the weights of an image add up to 1.
    """
    slots = [batch[place % len(batch)] for place in range(2 * pieces)]
    return [
        (slots[place : place + 2], [1 / slots.count(image) for image in slots[place : place + 2]])
        for place in range(0, 2 * pieces, 2)
    ]


def evaluation_shares(batch: Sequence[int], replicas: int) -> list[tuple[list[int], list[float]]]:
    """Deal a batch out for evaluation: a replica without an image of its own gets one of weight zero."""
    shares = [list(share) for share in np.array_split(np.asarray(batch), replicas)]
    return [(share or [batch[0]], [1.0] * len(share) or [0.0]) for share in shares]


def load_piece(
    dataset: Dataset,
    indices: Sequence[int],
    weights: Sequence[float],
    variants: Sequence[int] | None = None,
    augmentation: Augmentation | None = None,
) -> Piece:
    """Grey images, labels and weights of some cases.

    Args:
        variants: of the augmentation, one for each case; None without augmentation.

    Returns:
        "grey" (n, rows, columns) uint8, "labels" (n, rows, columns) uint8, "weights" (n,) float32, "index" (n,) int32: the
        number of the case in the dataset, "variant" (n,) int32.
    """
    variants = [0] * len(indices) if variants is None else variants
    grey, labels = (np.empty((len(indices), *dataset.image_shape), np.uint8) for _ in range(2))
    for place, (index, variant) in enumerate(zip(indices, variants, strict=True)):
        if augmentation is None:
            grey[place], labels[place] = dataset.grey(int(index)), dataset.labels(int(index))
        else:
            augmentation.show(int(index), int(variant), out=(grey[place], labels[place]))
    return {
        "grey": grey,
        "labels": labels,
        "weights": np.asarray(weights, np.float32),
        "index": np.asarray(indices, np.int32),
        "variant": np.asarray(variants, np.int32),
    }


def training_pieces(
    dataset: Dataset,
    cases: Sequence[int],
    batch_size: int,
    replicas: int,
    seed: int,
    first_epoch: int,
    last_epoch: int,
    first_batch: int = 0,
    augmentation: Augmentation | None = None,
    all_variants: bool = True,
    errors: ReadingErrors | None = None,
    no_single: bool = False,
) -> tf.data.Dataset:
    """Pieces of all batches of the epochs `first_epoch` ... `last_epoch` - 1, `replicas` pieces for each batch.

    Args:
        dataset: opened shards.
        cases: indices into it that train.
        batch_size: images in a batch over all replicas; the last batch of an epoch may be smaller.
        seed: governs the order, together with the number of the epoch.
        first_batch: how many batches of the first epoch to pass over, for a run that goes on within an epoch.
        augmentation, all_variants: see `epoch_images`; the augmentation must know all `cases`.
        errors: where an error of reading is kept.
        no_single: no piece of one image where the last batch is short but has two, see `pairs_of`.
    """
    variants = augmentation.variants if augmentation else 1

    def plan() -> Iterator[tuple[list[int], list[float], list[int]]]:
        for epoch in range(first_epoch, last_epoch):
            first = first_batch if epoch == first_epoch else 0
            for batch in epoch_batches(cases, batch_size, seed, epoch, variants, all_variants, first):
                # Dealt out by position in the batch: two variants of a case are two images.
                if no_single and replicas > 1 and 2 <= len(batch) < 2 * replicas:
                    dealt = pairs_of(range(len(batch)), replicas)
                else:
                    shares, weight = train_shares(range(len(batch)), replicas)
                    dealt = [(share, [weight] * len(share)) for share in shares]
                for share, weights in dealt:
                    shown = [batch[position] for position in share]
                    yield [case for case, _ in shown], weights, [variant for _, variant in shown]

    return _load_pieces(dataset, plan, augmentation, errors)


def evaluation_pieces(
    dataset: Dataset,
    cases: Sequence[int],
    batch_size: int,
    replicas: int = 1,
    errors: ReadingErrors | None = None,
) -> tf.data.Dataset:
    """Pieces of all batches of `cases` in their order, `replicas` pieces for each batch."""

    def plan() -> Iterator[tuple[list[int], list[float], list[int]]]:
        for start in range(0, len(cases), batch_size):
            for indices, weights in evaluation_shares(list(cases[start : start + batch_size]), replicas):
                yield indices, weights, [0] * len(indices)

    return _load_pieces(dataset, plan, errors=errors)


def _load_pieces(
    dataset: Dataset, plan, augmentation: Augmentation | None = None, errors: ReadingErrors | None = None
) -> tf.data.Dataset:
    rows, columns = dataset.image_shape
    signature = tuple(tf.TensorSpec((None,), dtype) for dtype in (tf.int64, tf.float32, tf.int64))
    names = ("grey", "labels", "weights", "index", "variant")
    shapes = ((None, rows, columns), (None, rows, columns), (None,), (None,), (None,))

    def load(indices: np.ndarray, weights: np.ndarray, variants: np.ndarray):
        try:
            piece = load_piece(dataset, indices, weights, variants, augmentation)
        except Exception as error:
            if errors is not None and errors.first is None:
                errors.first = error
            raise
        return tuple(piece[name] for name in names)

    def shaped(indices: tf.Tensor, weights: tf.Tensor, variants: tf.Tensor) -> dict[str, tf.Tensor]:
        values = tf.numpy_function(
            load, (indices, weights, variants), (tf.uint8, tf.uint8, tf.float32, tf.int32, tf.int32), stateful=False
        )
        for value, shape in zip(values, shapes, strict=True):
            value.set_shape(shape)
        return dict(zip(names, values, strict=True))

    # Only the plan runs in the generator; the pictures are read in parallel and in order.
    pieces = tf.data.Dataset.from_generator(plan, output_signature=signature)
    return pieces.map(shaped, num_parallel_calls=2, deterministic=True).prefetch(4)
