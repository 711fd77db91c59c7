"""One fold of a cross-validation as a training: which cases train, which validate, and where the result goes (paper, 2.8)."""

import dataclasses
from pathlib import Path
from typing import Any

from doubleunet_bs.dataset.folds import Folds
from doubleunet_bs.preparation.shards import ShardedDataset
from doubleunet_bs.training.devices import Replicas
from doubleunet_bs.training.run_folder import Run
from doubleunet_bs.training.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class FoldCases:
    """Indices into the dataset, in its order: the pseudonyms, and so their key, have no say in the result."""

    train: list[int]
    validation: list[int]


def fold_cases(folds: Folds, dataset: ShardedDataset, fold: int, negatives: str) -> FoldCases:
    """The cases of fold 1 ... len(folds); negative scans train unless `negatives` is "none".

    Raises:
        SettingsError: fold out of range.
    """
    split = folds.split(fold)
    numbers = {case.case: index for index, case in enumerate(dataset.cases)}
    train = split.train + (split.negatives if negatives != "none" else ())
    return FoldCases(sorted(numbers[case] for case in train), sorted(numbers[case] for case in split.validation))


def fold_trainer(
    run: Run,
    dataset: ShardedDataset,
    fold: int,
    replicas: Replicas,
    *,
    path: Path | None = None,
    negatives: str | None = None,
    title: str | None = None,
    identity: dict[str, Any] | None = None,
    **options,
) -> Trainer:
    """A training on the scans of one fold of a run.

    Args:
        run: the run folder.
        dataset: its shards.
        fold: 1 ... number of folds.
        replicas: the devices.
        path: where it goes; None for the fold's own folder.
        negatives: see `fold_cases`; None for what the experiment says.
        title: None for "fold 1".
        identity: of `Trainer`, added to the fold, its division and the scans it trains on.
        options: of `Trainer`: precision, jit_compile, initial_weights, show_progress.

    Raises:
        SettingsError: fold out of range, or a batch smaller than the replicas.
        DatasetError: the fold has no lesion to learn or to validate on.
    """
    folds = run.folds(dataset)
    cases = fold_cases(folds, dataset, fold, run.experiment.negatives if negatives is None else negatives)
    return Trainer(
        run.fold_path(fold) if path is None else path,
        run.experiment,
        dataset,
        cases.train,
        cases.validation,
        replicas,
        title=f"fold {fold}" if title is None else title,
        identity={
            "fold": fold,
            "folds_sha256": folds.sha256(),
            "trained_on": [dataset.cases[index].case for index in cases.train],
            **(identity or {}),
        },
        **options,
    )
