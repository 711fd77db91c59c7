"""Several shard folders as one data set, a cohort prepared in parts or of several hospitals; and their skeletons."""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from doubleunet_bs.errors import DatasetError, SettingsError
from doubleunet_bs.preparation.shards import ShardedDataset, open_shards, patients_comparable

Paths = str | os.PathLike | Sequence[str | os.PathLike]


def as_paths(paths: Paths) -> list[Path]:
    """One path or several, as a list."""
    return [Path(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]


class JoinedShards(ShardedDataset):
    """The cases of several shard folders (`parts`), made by `open_all_shards`. `path` names all, for messages."""

    def __init__(self, parts: Sequence[ShardedDataset]):
        cases, first = [], 0
        for part in parts:
            cases += [dataclasses.replace(case, shard=first + case.shard) for case in part.cases]
            first += len(part.shards["counts"])
        fingerprint = hashlib.sha256("".join(part.fingerprint for part in parts).encode()).hexdigest()
        marks = {part.key_mark for part in parts}
        super().__init__(
            path=Path(" + ".join(str(part.path) for part in parts)),
            cases=cases,
            settings=parts[0].settings,
            fingerprint=fingerprint,
            shards={kind: [array for part in parts for array in part.shards[kind]] for kind in parts[0].shards},
            # Pseudonyms of several keys can be compared with those of no other data set.
            key_mark=None if None in marks else marks.pop() if len(marks) == 1 else fingerprint,
            sources=tuple(dict.fromkeys(source for part in parts for source in part.sources)),
        )
        self.parts = tuple(parts)


def parts_of(dataset: Any) -> tuple[Any, ...]:
    """The data sets that were joined, or the one data set itself."""
    return getattr(dataset, "parts", (dataset,))


class SkeletonDataset(ShardedDataset):
    """The cases of a shard folder whose skeleton is annotated, with and without metastases.

    `labels` gives the regions: 0 not bone, 1 to 12. Every case counts as "positive", so that folds are split over all
    patients, and `metastatic_pixels` of its record is the number of its bone pixels.

    Attributes:
        parts: the shard folders, see `parts_of`.
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


def open_all_shards(
    paths: Sequence[str | os.PathLike], verify: bool = False, other_patients: bool = False
) -> ShardedDataset:
    """Open one shard folder or join several, see `open_shards`. The order in which they are named does not matter.

    With `other_patients` the user confirms that folders with different keys share no patients.

    Raises:
        SettingsError: a folder twice.
        DatasetError: the folders were prepared with different settings, have a scan in common, or their patients cannot
            be compared.
    """
    parts = [open_shards(path, verify) for path in paths]
    if len({part.fingerprint for part in parts}) < len(parts):
        raise SettingsError(f"{' '.join(map(str, paths))}: the same shards twice: name each folder once")
    for number, other in enumerate(parts):
        for earlier in parts[:number]:
            check_prepared_alike(earlier, other)
            if patients_comparable(earlier, other) is False and not other_patients:
                raise different_keys(earlier, other)
            check_no_common_scan(earlier, other)
    return join_shards(parts)


def join_shards(parts: Sequence[ShardedDataset]) -> ShardedDataset:
    """The one data set itself, or several as one, in an order that their contents decide."""
    return parts[0] if len(parts) == 1 else JoinedShards(sorted(parts, key=lambda part: part.fingerprint))


def check_prepared_alike(one: ShardedDataset, other: ShardedDataset) -> None:
    """Refuse shards that were prepared with other settings; DatasetError names each."""
    here, changes = one.settings.to_json(), other.settings.changes(one.settings)
    different = [f"{name} {there} there, {here[name]} here" for name, there in changes.items()]
    if different:
        raise DatasetError(
            f"{other.path}: prepared with other settings than {one.path} ({'; '.join(different)}): prepare one again"
        )


def check_no_common_scan(one: ShardedDataset, other: ShardedDataset, patients: bool = False) -> None:
    """Refuse shards that have a scan in common, with `patients` also a patient; DatasetError names the case."""
    if other.fingerprint == one.fingerprint:
        raise DatasetError(f"{other.path}: holds the same scans as {one.path}: name other shards")
    common = (("case", "case"), ("scan", "pixel_sha256"), ("source file", "source_sha256"))
    for what, attribute in (("patient", "patient"), *common[1:]) if patients else common:
        known = {getattr(case, attribute): case.case for case in one.cases}
        for case in other.cases:
            value = getattr(case, attribute)
            if value and value in known:
                advice = ", or name two patients in patients.csv if they are two people" if what == "patient" else ""
                raise DatasetError(
                    f"{other.path}: {case.case} is of the same {what} as {known[value]} in {one.path}: leave one out"
                    f"{advice}"
                )


def different_keys(one: ShardedDataset, other: ShardedDataset) -> DatasetError:
    """The error for shards whose patients cannot be compared."""
    return DatasetError(
        f"{other.path}: prepared with another key than {one.path}, so patients cannot be compared: prepare it "
        "again with the other's --key file, or give --assume-disjoint-patients"
    )
