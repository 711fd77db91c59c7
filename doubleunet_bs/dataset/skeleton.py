"""Shards as the skeleton experiment sees them: their labels are the regions of the skeleton."""

import dataclasses
from typing import Self

import numpy as np

from doubleunet_bs.dataset.joined_shards import parts_of
from doubleunet_bs.errors import DatasetError
from doubleunet_bs.preparation.shards import ShardedDataset


class SkeletonDataset(ShardedDataset):
    """The cases of a shard folder whose skeleton is annotated, with and without metastases.

    `labels` gives the regions: 0 not bone, 1 to 12. Every case counts as "positive", so that folds are split over all
    patients, and `metastatic_pixels` of its record is the number of its bone pixels.

    Attributes:
        parts: the shard folders, see `joined_shards`.
    """

    parts: tuple[ShardedDataset, ...]

    @classmethod
    def of(cls, dataset: ShardedDataset) -> Self:
        """The skeleton view of an opened shard folder; `DatasetError` where no skeleton is annotated in it."""
        numbers = [index for index, case in enumerate(dataset.cases) if case.has_regions]
        if not numbers:
            raise DatasetError(f"{dataset.path}: no skeleton is annotated in it: run prepare with --regions")
        cases = [
            dataclasses.replace(
                dataset.cases[index],
                group="positive",
                metastatic_pixels=int(np.count_nonzero(dataset.regions(index))),
            )
            for index in numbers
        ]
        shards = dataset.shards
        view = cls(
            dataset.path, cases, dataset.settings, dataset.fingerprint, shards, dataset.key_mark, dataset.sources
        )
        view.parts = parts_of(dataset)
        return view

    def labels(self, index: int) -> np.ndarray:
        """uint8 array of `image_shape`: 0 not bone, 1 to 12. A read-only view of the mapped file."""
        return self.regions(index)

    def lesions(self, index: int) -> np.ndarray:
        """uint8 array of `image_shape` of lesion classes, as `ShardedDataset.labels`."""
        return super().labels(index)
