"""Trainers and trained folds on the CPU, for tests."""

from doubleunet_bs.runs.create_run import create_run
from doubleunet_bs.runs.run_folder import Run
from doubleunet_bs.training.devices import Replicas, open_replicas
from doubleunet_bs.training.run_training import describe_run, train_all_folds, train_fold, train_pretraining
from doubleunet_bs.training.stages import FoldStages
from doubleunet_bs.training.trainer import Trainer


def fold_trainer(run: Run, dataset, fold: int, replicas: Replicas | None = None) -> Trainer:
    """The last training of a fold, without a progress bar."""
    return FoldStages(run, dataset, run.folds(dataset), fold, replicas or open_replicas("cpu"), False).final()


def train_run(path, experiment, dataset, fold, pretrain=None, resume=False, export=None) -> list:
    """What `doubleunet-bs train` does: train a fold, "all" of them, or "pretrain" alone."""
    run = create_run(path, experiment, dataset, fold if isinstance(fold, int) else 1, pretrain)
    replicas = open_replicas("cpu")
    print(describe_run(run, dataset, replicas))
    if fold == "pretrain":
        return [train_pretraining(run, pretrain, replicas, resume)]
    if fold == "all":
        return train_all_folds(run, dataset, replicas, pretrain, resume, export)
    return [train_fold(run, dataset, fold, replicas, pretrain, resume, export)]
