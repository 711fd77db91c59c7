"""The stages of a fold in their order, each with a folder of its own and each done once (paper, sections 2.5 and 2.6).

    pretrain         another cohort, with transfer               RUN/pretrain                  once for all folds
    mining_model     the positive scans alone, with mining       RUN/fold_01/mining_model
    mined_negatives  its false positives on normal scans         RUN/fold_01/mined_negatives
    fold             what is tested                              RUN/fold_01

A stage is done when its folder has its result, and is not done again; an unfinished one is continued. What a finished
stage was made from is in its folder and is held against what it would be made from now. `RUN/fold_01/stages.json`, for a
reader, says where everything stands.
"""

import dataclasses
from pathlib import Path
from typing import Any

import keras

from doubleunet_bs.dataset.folds import Folds
from doubleunet_bs.errors import RunError
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.preparation.shards import Dataset, ShardedDataset, file_sha256
from doubleunet_bs.training.devices import Replicas, images_at_once
from doubleunet_bs.training.experiments import Experiment
from doubleunet_bs.training.fingerprint import ENVIRONMENT
from doubleunet_bs.training.negative_mining import (
    DESCRIPTION,
    MinedDataset,
    check_unseen,
    load_mined,
    mine_negatives,
    save_mined,
)
from doubleunet_bs.training.run_folder import BEST_WEIGHTS, KERAS_MODEL, Run
from doubleunet_bs.training.trainer import Trainer
from doubleunet_bs.training.transfer import pretraining_cases


@dataclasses.dataclass(frozen=True)
class FoldCases:
    """Indices into the dataset, in its order: the pseudonyms, and so their key, have no say in the result."""

    train: list[int]
    validation: list[int]


def fold_cases(folds: Folds, dataset: Dataset, fold: int, negatives: str) -> FoldCases:
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
    dataset: Dataset,
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


PRETRAIN, MINING_MODEL, MINED_NEGATIVES, FOLD = "pretrain", "mining_model", "mined_negatives", "fold"
STAGES = "stages.json"
FORMAT = 1


def stage_names(experiment: Experiment) -> tuple[str, ...]:
    """The stages that an experiment has, in their order."""
    return (
        *([PRETRAIN] if experiment.transfer else []),
        *([MINING_MODEL, MINED_NEGATIVES] if experiment.negatives == "mining" else []),
        FOLD,
    )


def stage_path(run: Run, fold: int, stage: str) -> Path:
    """The folder of a stage."""
    if stage == PRETRAIN:
        return run.pretrain_path
    return run.fold_path(fold) if stage == FOLD else run.fold_path(fold) / stage


def is_done(run: Run, fold: int, stage: str) -> bool:
    """Whether a stage has its result."""
    return (stage_path(run, fold, stage) / (DESCRIPTION if stage == MINED_NEGATIVES else KERAS_MODEL)).is_file()


def write_stages(run: Run, fold: int) -> None:
    """Write `stages.json` of a fold: what each stage trains on, what it starts from, and whether it is done."""
    experiment = run.experiment
    encoder = experiment.public().encoder_weights
    own_start = "random weights" if encoder == "none" else f"{encoder} weights of the encoder"
    start = f"pretrain/{BEST_WEIGHTS}" if experiment.transfer else own_start
    folder = run.fold_path(fold).name
    negatives = {
        "none": "",
        "otsu": " and normal scans with their Otsu mask",
        "mining": " and normal scans with their mined labels",
    }[experiment.negatives]
    from_mined = experiment.negatives == "mining" and experiment.mining_start == "mined"
    facts = {
        PRETRAIN: ("another cohort", own_start),
        MINING_MODEL: ("positive scans", start),
        MINED_NEGATIVES: ("normal scans, segmented", f"{folder}/{MINING_MODEL}/{KERAS_MODEL}"),
        FOLD: (f"positive scans{negatives}", f"{folder}/{MINING_MODEL}/{BEST_WEIGHTS}" if from_mined else start),
    }
    stages = [
        {
            "stage": stage,
            "folder": str(stage_path(run, fold, stage).relative_to(run.path)),
            "scans": facts[stage][0],
            "starts_from": facts[stage][1],
            "done": is_done(run, fold, stage),
        }
        for stage in stage_names(experiment)
    ]
    write_json(run.fold_path(fold) / STAGES, {"format": FORMAT, "fold": fold, "stages": stages})


def pretraining(run: Run, other: ShardedDataset, replicas: Replicas, **options) -> Trainer:
    """The training on the other cohort.

    Args:
        run: a run with transfer. other: its other cohort. replicas: the devices.
        options: of `Trainer`.
    """
    experiment = run.experiment
    epochs = experiment.pretrain_epochs or experiment.epochs
    train, validation = pretraining_cases(experiment, other)
    return Trainer(
        run.pretrain_path,
        dataclasses.replace(experiment, epochs=epochs),
        other,
        train,
        validation,
        replicas,
        title="pre-training",
        identity={"stage": PRETRAIN, "trained_on": [other.cases[index].case for index in train]},
        augmented=experiment.pretrain_augmentation,
        **options,
    )


class FoldStages:
    """The stages of one fold after the pre-training.

    Args:
        run: the run. dataset: its shards. fold: 1 ... number of folds. replicas: the devices.
        options: of `Trainer`: precision, jit_compile, show_progress.

    Raises:
        RunError: the pre-training is missing, or a finished stage was made from something else.
        SettingsError, DatasetError: see `Trainer`.
    """

    def __init__(self, run: Run, dataset: ShardedDataset, fold: int, replicas: Replicas, **options):
        self.run, self.dataset, self.fold, self.replicas, self.options = run, dataset, fold, replicas, options
        self.folds = run.folds(dataset)
        self.split = self.folds.split(fold)
        self._numbers = {case.case: index for index, case in enumerate(dataset.cases)}
        self._pretrained = self._pretrained_weights()

    def mining_model(self) -> Trainer:
        """The training on the positive scans alone, whose model mines."""
        title = f"fold {self.fold} mining model"
        return self._trainer(MINING_MODEL, self.dataset, self._pretrained, negatives="none", title=title)

    def mine(self) -> Path:
        """Segment the normal scans with the finished mining model and keep what it finds.

        Returns:
            The folder `mined_negatives`.

        Raises:
            RunError: the model has seen what this fold validates or tests on, or is not that of this fold.
        """
        path = stage_path(self.run, self.fold, MINED_NEGATIVES)
        model_path = stage_path(self.run, self.fold, MINING_MODEL)
        self._check_mining_model(model_path)
        if not is_done(self.run, self.fold, MINED_NEGATIVES):
            model = keras.models.load_model(model_path / KERAS_MODEL, compile=False)
            masks = mine_negatives(model, self.dataset, self._normal_scans(), images_at_once(self.run.experiment))
            save_mined(path, self.dataset, masks, file_sha256(model_path / BEST_WEIGHTS))
        return path

    def final(self) -> Trainer:
        """The training whose model is tested."""
        experiment = self.run.experiment
        dataset: Dataset = self.dataset
        weights, mined = self._pretrained, {}
        if experiment.negatives == "mining":
            model_path = stage_path(self.run, self.fold, MINING_MODEL)
            mined_path = stage_path(self.run, self.fold, MINED_NEGATIVES)
            self._check_mining_model(model_path)
            weights_sha256 = file_sha256(model_path / BEST_WEIGHTS)
            dataset = MinedDataset(dataset, load_mined(mined_path, dataset, self._normal_scans(), weights_sha256))
            mined = {"mining_model_sha256": weights_sha256}
            if experiment.mining_start == "mined":
                weights = model_path / BEST_WEIGHTS
        return self._trainer(FOLD, dataset, weights, mined)

    def _trainer(
        self, stage: str, dataset: Dataset, weights: Path | None, made_from: dict | None = None, **options
    ) -> Trainer:
        pretrained = {"pretrain_sha256": file_sha256(self._pretrained)} if self._pretrained else {}
        path = stage_path(self.run, self.fold, stage)
        trainer = fold_trainer(
            self.run,
            dataset,
            self.fold,
            self.replicas,
            path=path,
            identity={"stage": stage, **pretrained, **(made_from or {})},
            initial_weights=weights,
            **options,
            **self.options,
        )
        if is_done(self.run, self.fold, stage):
            check_made_from(path, {**trainer.identity, "data_fingerprint": dataset.fingerprint})
        return trainer

    def _normal_scans(self) -> list[int]:
        return sorted(self._numbers[case] for case in self.split.negatives)

    def _check_mining_model(self, path: Path) -> None:
        made_from = check_made_from(path, {"stage": MINING_MODEL, "fold": self.fold})
        trained_on = made_from.get("trained_on")
        if not isinstance(trained_on, list):
            raise RunError(f"{path / ENVIRONMENT}: does not say what the mining model was trained on")
        check_unseen(trained_on, self.split.negatives, self.split, self.folds.patients)

    def _pretrained_weights(self) -> Path | None:
        """The weights that all folds start from, of one and the same pre-training."""
        if not self.run.experiment.transfer:
            return None
        path = self.run.pretrain_path
        if not (path / KERAS_MODEL).is_file():
            raise RunError(f"{path}: the pre-training is not finished")
        check_made_from(path, {"stage": PRETRAIN, "data_fingerprint": self.run.pretrain_data["fingerprint"]})
        weights = path / BEST_WEIGHTS
        sha256 = file_sha256(weights)
        for environment in sorted(self.run.path.glob(f"fold_[0-9][0-9]/{ENVIRONMENT}")):
            content = read_json(environment, RunError, "description of a training environment")
            other = content.get("pretrain_sha256") if isinstance(content, dict) else None
            if other not in (None, sha256):
                raise RunError(
                    f"{environment.parent}: started from another pre-training than {weights}; all folds of a run share one"
                )
        return weights


def check_made_from(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Hold a stage's folder against what it must have been made from.

    Returns:
        What its `environment.json` says.

    Raises:
        RunError: another fold's, or made from other scans or weights; the first difference is named.
    """
    content = read_json(path / ENVIRONMENT, RunError, "description of a training environment")
    if not isinstance(content, dict):
        raise RunError(f"{path / ENVIRONMENT}: not a description of a training environment")
    for key, value in identity.items():
        if content.get(key) != value:
            raise RunError(f"{path}: its {key} is not that of this run and fold; remove the folder to train it again")
    return content
