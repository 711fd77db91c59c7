"""Shards -> tf.data batches of grey images and labels (paper, sections 2.7 and 2.8 for what trains).

Batches travel to the device as uint8: grey images and class numbers. Scaling, three channels and everything in floating
point happen there.

A batch is split into micro-batches, one for each replica and, with gradient accumulation, several for each. Every image
has a weight, so that a batch that does not divide evenly gives the same sums as on a single device.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from doubleunet_bs.dataset.augmentation import Augmentation
from doubleunet_bs.preparation.shards import Dataset

MicroBatch = dict[str, np.ndarray]


class ReadingErrors(contextlib.AbstractContextManager):
    """The first error of reading shards, of which tf.data hands on only the text.

    Given to the micro-batches as `errors`, and used as a context around whatever takes them: it raises that error.
    """

    def __init__(self) -> None:
        self.first: Exception | None = None

    def __exit__(self, kind, error, traceback) -> None:
        if self.first is not None and isinstance(error, tf.errors.OpError):
            raise self.first from None


def epoch_order(images: int, seed: int, epoch: int) -> np.ndarray:
    """Permutation of range(images) for an epoch: a function of (seed, epoch) alone, so a resumed run repeats it."""
    return np.random.default_rng([seed, epoch]).permutation(images)


@dataclasses.dataclass(frozen=True)
class EpochPlan:
    """Which images each epoch shows, and in which order: a function of the seed, the epoch and the cases alone.

    Attributes:
        cases: indices into the dataset.
        batch_size: images in a batch over all replicas; the last batch of an epoch may be smaller.
        seed: of order and choice.
        variants: of each case, see `dataset.augmentation`.
        all_variants: show every case in all of them, `variants` times as many images; otherwise in one, drawn again in
            each epoch by the case's number, so that it does not depend on the other cases.
        no_single: leave no micro-batch of one image where the last batch is short but has two, see `split_into_pairs`.

    Example:
        >>> plan = EpochPlan(cases=[3, 8], batch_size=3, seed=0, variants=2)
        >>> len(plan), sorted(plan.images(epoch=0))
        (4, [(3, 0), (3, 1), (8, 0), (8, 1)])
        >>> [len(batch) for batch in plan.batches(epoch=0)]
        [3, 1]
    """

    cases: Sequence[int]
    batch_size: int
    seed: int
    variants: int = 1
    all_variants: bool = True
    no_single: bool = False

    def __len__(self) -> int:
        """Images of one epoch."""
        return len(self.cases) * (self.variants if self.all_variants else 1)

    def images(self, epoch: int) -> list[tuple[int, int]]:
        """(case, variant) of every image of an epoch, in its order."""
        return [image for batch in self.batches(epoch) for image in batch]

    def batches(self, epoch: int, first: int = 0) -> Iterator[list[tuple[int, int]]]:
        """The images of an epoch in batches, from batch number `first` on."""
        order = epoch_order(len(self), self.seed, epoch)
        for start in range(first * self.batch_size, len(order), self.batch_size):
            numbers = order[start : start + self.batch_size].tolist()
            if self.all_variants:
                yield [(int(self.cases[number // self.variants]), number % self.variants) for number in numbers]
            else:
                yield [(case, self._drawn(epoch, case)) for case in (int(self.cases[number]) for number in numbers)]

    def _drawn(self, epoch: int, case: int) -> int:
        return int(np.random.default_rng([self.seed, epoch, case]).integers(self.variants))


def split_for_training(batch: Sequence[int], replicas: int) -> tuple[list[list[int]], float]:
    """Split a training batch over the replicas so that none is empty, and give the weight of each image.

    A batch of fewer images than `replicas` is repeated until every replica has the same number of images, with the
    weight that undoes the repetition.
    """
    if len(batch) >= replicas:
        return [list(share) for share in np.array_split(np.asarray(batch), replicas)], 1.0
    repeats = replicas // np.gcd(len(batch), replicas)
    repeated = np.tile(np.asarray(batch), repeats)
    return [list(share) for share in np.array_split(repeated, replicas)], 1.0 / float(repeats)


def split_into_pairs(batch: Sequence[int], count: int) -> list[tuple[list[int], list[float]]]:
    """Split a short batch into micro-batches of two images, some or all of which are shown twice with half the weight.

    A micro-batch of one image would leave batch normalisation a single value in the ASPP pooling branch.

    Args:
        batch: at least 2 images, fewer than twice `count`.

    Returns:
        For each of `count` micro-batches its images and their weights. The weights of an image add up to 1.
    """
    slots = [batch[place % len(batch)] for place in range(2 * count)]
    return [
        (slots[place : place + 2], [1 / slots.count(image) for image in slots[place : place + 2]])
        for place in range(0, 2 * count, 2)
    ]


def split_for_evaluation(batch: Sequence[int], replicas: int) -> list[tuple[list[int], list[float]]]:
    """Split a batch over the replicas: one without an image of its own gets an image of weight zero."""
    shares = [list(share) for share in np.array_split(np.asarray(batch), replicas)]
    return [(share or [batch[0]], [1.0] * len(share) or [0.0]) for share in shares]


def load_micro_batch(
    dataset: Dataset,
    indices: Sequence[int] | np.ndarray,
    weights: Sequence[float] | np.ndarray,
    variants: Sequence[int] | np.ndarray | None = None,
    augmentation: Augmentation | None = None,
) -> MicroBatch:
    """Grey images, labels and weights of some cases, shown in the variants of the augmentation, if any.

    Returns:
        "grey" (n, rows, columns) uint8, "labels" (n, rows, columns) uint8, "weights" (n,) float32, "index" (n,) int32:
        the number of the case in the dataset, "variant" (n,) int32.
    """
    variants = [0] * len(indices) if variants is None else variants
    grey, labels = (np.empty((len(indices), *dataset.image_shape), np.uint8) for _ in range(2))
    for place, (index, variant) in enumerate(zip(indices, variants, strict=True)):
        if augmentation is None:
            grey[place], labels[place] = dataset.grey(int(index)), dataset.labels(int(index))
        else:
            grey[place], labels[place] = augmentation.show(int(index), int(variant))
    return {
        "grey": grey,
        "labels": labels,
        "weights": np.asarray(weights, np.float32),
        "index": np.asarray(indices, np.int32),
        "variant": np.asarray(variants, np.int32),
    }


def training_micro_batches(
    dataset: Dataset,
    plan: EpochPlan,
    epochs: range,
    replicas: int,
    first_batch: int = 0,
    augmentation: Augmentation | None = None,
    errors: ReadingErrors | None = None,
) -> tf.data.Dataset:
    """The micro-batches of all batches of some epochs, `replicas` for each batch.

    A run that is resumed within an epoch skips the batches before `first_batch`. The augmentation, if any, must know
    all cases of the plan and have as many variants.
    """

    def images() -> Iterator[tuple[list[int], list[float], list[int]]]:
        for epoch in epochs:
            for batch in plan.batches(epoch, first_batch if epoch == epochs[0] else 0):
                # Split by position in the batch: two variants of a case are two images.
                if plan.no_single and replicas > 1 and 2 <= len(batch) < 2 * replicas:
                    parts = split_into_pairs(range(len(batch)), replicas)
                else:
                    shares, weight = split_for_training(range(len(batch)), replicas)
                    parts = [(share, [weight] * len(share)) for share in shares]
                for share, weights in parts:
                    shown = [batch[position] for position in share]
                    yield [case for case, _ in shown], weights, [variant for _, variant in shown]

    return _load(dataset, images, augmentation, errors)


def evaluation_micro_batches(
    dataset: Dataset,
    cases: Sequence[int],
    batch_size: int,
    replicas: int = 1,
    errors: ReadingErrors | None = None,
) -> tf.data.Dataset:
    """The micro-batches of all batches of `cases` in their order, `replicas` for each batch."""

    def images() -> Iterator[tuple[list[int], list[float], list[int]]]:
        for start in range(0, len(cases), batch_size):
            for indices, weights in split_for_evaluation(list(cases[start : start + batch_size]), replicas):
                yield indices, weights, [0] * len(indices)

    return _load(dataset, images, errors=errors)


def _load(
    dataset: Dataset,
    images: Callable[[], Iterator[tuple[list[int], list[float], list[int]]]],
    augmentation: Augmentation | None = None,
    errors: ReadingErrors | None = None,
) -> tf.data.Dataset:
    rows, columns = dataset.image_shape
    signature = tuple(tf.TensorSpec((None,), dtype) for dtype in (tf.int64, tf.float32, tf.int64))
    names = ("grey", "labels", "weights", "index", "variant")
    shapes = ((None, rows, columns), (None, rows, columns), (None,), (None,), (None,))

    def load(indices: np.ndarray, weights: np.ndarray, variants: np.ndarray):
        try:
            loaded = load_micro_batch(dataset, indices, weights, variants, augmentation)
        except Exception as error:
            # Raised again by TensorFlow, which keeps only its text.
            if errors is not None and errors.first is None:
                errors.first = error
            raise
        return tuple(loaded[name] for name in names)

    def shaped(indices: tf.Tensor, weights: tf.Tensor, variants: tf.Tensor) -> dict[str, tf.Tensor]:
        values = tf.numpy_function(
            load, (indices, weights, variants), (tf.uint8, tf.uint8, tf.float32, tf.int32, tf.int32), stateful=False
        )
        for value, shape in zip(values, shapes, strict=True):
            value.set_shape(shape)
        return dict(zip(names, values, strict=True))

    # Only the numbers come from the generator; the images are read in parallel and in order.
    planned = tf.data.Dataset.from_generator(images, output_signature=signature)
    return planned.map(shaped, num_parallel_calls=2, deterministic=True).prefetch(4)
