"""The stages of a fold in their order, each with a folder of its own and each done once (paper, sections 2.5 and 2.6).

    pretrain         another cohort, with transfer               RUN/pretrain                  once for all folds
    mining_model     the positive scans alone, with mining       RUN/fold_01/mining_model
    mined_negatives  its false positives on normal scans         RUN/fold_01/mined_negatives
    fold             what is tested                              RUN/fold_01

A stage is done when its folder has its result. A finished stage is not repeated, an unfinished one is continued. The
folder of a finished stage says what it was made from. That is compared with what it would be made from now. For the
reader, `RUN/fold_01/stages.json` lists the stages and which are done.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from doubleunet_bs.dataset.folds import Folds, hold_out, lesions_of_cases
from doubleunet_bs.errors import DatasetError, RunError, SettingsError
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.preparation.shards import Dataset, ShardedDataset, file_sha256
from doubleunet_bs.runs.cohorts import check_start, start_fold
from doubleunet_bs.runs.experiments import Experiment
from doubleunet_bs.runs.run_folder import (
    BEST_WEIGHTS,
    ENVIRONMENT,
    KERAS_MODEL,
    MINING_MODEL,
    PRETRAIN,
    STAGES,
    Run,
)
from doubleunet_bs.training.devices import Replicas, images_at_once
from doubleunet_bs.training.negative_mining import (
    DESCRIPTION,
    MinedDataset,
    load_mined,
    mine_negatives,
    save_mined,
)
from doubleunet_bs.training.trainer import Trainer
from doubleunet_bs.training.training_state import TrainingTask, check_made_from, read_environment

MINED_NEGATIVES, FOLD = "mined_negatives", "fold"
FORMAT = 1


def stage_names(experiment: Experiment) -> tuple[str, ...]:
    """The stages that an experiment has, in their order.

    >>> from doubleunet_bs.runs.experiments import paper_experiment
    >>> stage_names(paper_experiment("dice-mining"))
    ('mining_model', 'mined_negatives', 'fold')
    """
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
    """Write `stages.json` of a fold: its stages, their folders, and which are done."""
    stages = [
        {
            "stage": stage,
            "folder": str(stage_path(run, fold, stage).relative_to(run.path)),
            "done": is_done(run, fold, stage),
        }
        for stage in stage_names(run.experiment)
    ]
    write_json(run.fold_path(fold) / STAGES, {"format": FORMAT, "fold": fold, "stages": stages})


def pretraining(run: Run, other: ShardedDataset) -> TrainingTask:
    """The training on the other cohort of a run with transfer; errors as of `pretraining_cases`."""
    experiment = run.experiment
    train, validation = pretraining_cases(experiment, other)
    return TrainingTask(
        path=run.pretrain_path,
        title="pre-training",
        experiment=dataclasses.replace(experiment, epochs=experiment.pretrain_epochs or experiment.epochs),
        dataset=other,
        train_cases=train,
        validation_cases=validation,
        made_from={"stage": PRETRAIN, "trained_on": [other.cases[index].case for index in train]},
        augmented=experiment.pretrain_augmentation,
    )


def pretraining_cases(experiment: Experiment, dataset: ShardedDataset) -> tuple[list[int], list[int]]:
    """Indices of scans of the other cohort: those that train, and those that choose the best epoch and learning rate.

    All positive scans take part, and the normal ones by `experiment.pretrain_negatives`. The patients are split into as
    many parts as the run has folds. One part validates, the others train.

    Raises:
        DatasetError: fewer than 3 patients with metastases, or no normal scan where normal scans should train.
    """
    try:
        parts = experiment.folds if experiment.folds > 1 else Experiment.folds
        split = hold_out(dataset.cases, parts, experiment.seed, lesions_of_cases(dataset))
    except SettingsError as error:
        raise DatasetError(f"{dataset.path}: cannot pre-train: {error}") from None
    if experiment.pretrain_negatives == "otsu" and not split.negatives:
        raise DatasetError(
            f"{dataset.path}: cannot pre-train: no normal scan is left beside the validating patients; "
            "prepare more of them, or use --set pretrain_negatives=none"
        )
    negatives = split.negatives if experiment.pretrain_negatives == "otsu" else ()
    return _indices(dataset, split.train + negatives), _indices(dataset, split.validation)


def _indices(dataset: ShardedDataset, names: Sequence[str]) -> list[int]:
    """Indices of cases in the order of the dataset, so that the pseudonyms and their key do not affect the result."""
    wanted = set(names)
    return [index for index, case in enumerate(dataset.cases) if case.case in wanted]


class FoldStages:
    """The stages of one fold after the pre-training, with the `folds` of `Run.folds`.

    Raises:
        RunError: the pre-training is missing, or a finished stage was made from something else.
        SettingsError: fold out of range.
        DatasetError: see `cohorts.check_start`.
    """

    def __init__(
        self,
        run: Run,
        dataset: ShardedDataset,
        folds: Folds,
        fold: int,
        replicas: Replicas,
        show_progress: bool = True,
    ):
        self.run, self.dataset, self.folds, self.fold = run, dataset, folds, fold
        self.replicas, self.show_progress = replicas, show_progress
        self.split = folds.split(fold)
        check_start(run.experiment, dataset, folds, fold, run.disjoint_patients)
        start = start_fold(run.experiment, fold)
        self._start = self._pretrained_weights() if start is None else start.weights

    def mining_model(self) -> Trainer:
        """The training on the positive scans alone, whose model mines."""
        return self._trainer(self._mining_task())

    def mine(self) -> Path:
        """Segment the normal scans with the finished mining model, keep its false positives, and return their folder.

        Raises `RunError` for a model that was not trained on exactly the training scans of this fold.
        """
        path = stage_path(self.run, self.fold, MINED_NEGATIVES)
        model_path = self._checked_mining_model()
        if not is_done(self.run, self.fold, MINED_NEGATIVES):
            model = keras.models.load_model(model_path / KERAS_MODEL, compile=False)
            normal = _indices(self.dataset, self.split.negatives)
            masks = mine_negatives(model, self.dataset, normal, images_at_once(self.run.experiment))
            save_mined(path, self.dataset, masks, file_sha256(model_path / BEST_WEIGHTS))
        return path

    def final(self) -> Trainer:
        """The training whose model is tested."""
        experiment = self.run.experiment
        dataset: Dataset = self.dataset
        weights, mined_with = self._start, {}
        if experiment.negatives == "mining":
            model_path = self._checked_mining_model()
            sha256 = file_sha256(model_path / BEST_WEIGHTS)
            normal = _indices(self.dataset, self.split.negatives)
            mined = load_mined(stage_path(self.run, self.fold, MINED_NEGATIVES), self.dataset, normal, sha256)
            dataset, mined_with = MinedDataset(self.dataset, mined), {"mining_model_sha256": sha256}
            if experiment.mining_start == "mined":
                weights = model_path / BEST_WEIGHTS
        train = self.split.train + (() if experiment.negatives == "none" else self.split.negatives)
        return self._trainer(self._task(FOLD, train, dataset, weights, **mined_with))

    def _mining_task(self) -> TrainingTask:
        return self._task(MINING_MODEL, self.split.train, self.dataset, self._start)

    def _task(
        self, stage: str, train: Sequence[str], dataset: Dataset, weights: Path | None, **made_from: Any
    ) -> TrainingTask:
        train_cases = _indices(self.dataset, train)
        started_from = "pretrain_sha256" if self.run.experiment.transfer else "start_sha256"
        started = {started_from: file_sha256(self._start)} if self._start else {}
        return TrainingTask(
            path=stage_path(self.run, self.fold, stage),
            title=f"fold {self.fold}" + (" mining model" if stage == MINING_MODEL else ""),
            experiment=self.run.experiment,
            dataset=dataset,
            train_cases=train_cases,
            validation_cases=_indices(self.dataset, self.split.validation),
            initial_weights=weights,
            made_from={
                "fold": self.fold,
                "folds_sha256": self.folds.sha256(),
                "trained_on": [self.dataset.cases[index].case for index in train_cases],
                "stage": stage,
                **started,
                **made_from,
            },
        )

    def _trainer(self, task: TrainingTask) -> Trainer:
        if (task.path / KERAS_MODEL).is_file():
            check_made_from(task.path, {**task.made_from, "data_fingerprint": task.dataset.fingerprint})
        return Trainer(task, self.replicas, self.show_progress)

    def _checked_mining_model(self) -> Path:
        """The folder of this fold's mining model, which has not seen what the fold validates or tests on."""
        task = self._mining_task()
        check_made_from(task.path, task.made_from)
        return task.path

    def _pretrained_weights(self) -> Path | None:
        """The weights that all folds start from, of one and the same pre-training."""
        if not self.run.experiment.transfer:
            return None
        path = self.run.pretrain_path
        if not (path / KERAS_MODEL).is_file():
            raise RunError(f"{path}: the pre-training is not finished")
        fingerprint = (self.run.pretrain_data or {}).get("fingerprint")
        check_made_from(path, {"stage": PRETRAIN, "data_fingerprint": fingerprint})
        weights = path / BEST_WEIGHTS
        sha256 = file_sha256(weights)
        for environment in sorted(self.run.path.glob(f"fold_[0-9][0-9]/{ENVIRONMENT}")):
            if read_environment(environment.parent).get("pretrain_sha256") not in (None, sha256):
                raise RunError(
                    f"{environment.parent}: started from another pre-training than {weights}: remove it to train it "
                    "again"
                )
        return weights


def mining_summary(path: Path) -> str:
    """What mining found, from the folder `mined_negatives`, as one line for the terminal."""
    pixels = read_json(path / DESCRIPTION, RunError, "description of mined labels")["false_positive_pixels"]
    hit = sum(bool(number) for number in pixels.values())
    return f"mining      {sum(pixels.values())} false-positive pixels on {hit} of {len(pixels)} normal scans"
