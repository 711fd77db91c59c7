"""One fold from shards to a SavedModel: the steps of `train.py` in their order."""

import os
from pathlib import Path

from doubleunet_bs.errors import RunError
from doubleunet_bs.preparation.shards import ShardedDataset
from doubleunet_bs.quiet import import_tensorflow
from doubleunet_bs.training.experiments import Experiment


def train_and_export(
    run_path: str | os.PathLike,
    data_path: str | os.PathLike,
    dataset: ShardedDataset,
    experiment: Experiment,
    fold: int,
    devices: str = "all",
    precision: str = "float32",
    xla: str = "auto",
    deterministic: bool = False,
    resume: bool = False,
) -> Path:
    """Train one fold and export it.

    Args:
        run_path: the run folder, made when it is new.
        data_path: where `dataset` was opened; noted in the run for `evaluate.py`.
        dataset: opened shards.
        experiment: what to train.
        fold: 1 ... number of folds.
        devices: see `training.replicas.open_replicas`.
        precision, xla: see `training.machine.choose_machine`.
        deterministic: only kernels that give the same bits every time.
        resume: continue an interrupted fold.

    Returns:
        The fold's folder, with `saved_model/` in it.

    Raises:
        BoneScanError: whatever stands in the way; nothing of the run is written before the settings are found possible.
    """
    tensorflow = import_tensorflow()
    from doubleunet_bs.deployment.saved_model import export_fold
    from doubleunet_bs.network.encoder_weights import read_encoder_weights
    from doubleunet_bs.training.fold_training import fold_trainer
    from doubleunet_bs.training.machine import choose_machine
    from doubleunet_bs.training.memory import check_memory
    from doubleunet_bs.training.replicas import check_batch_size, open_replicas
    from doubleunet_bs.training.run_folder import create_run

    if deterministic:
        tensorflow.config.experimental.enable_op_determinism()
    replicas = open_replicas(devices)
    check_batch_size(experiment.batch_size, replicas.count, experiment.accumulate)
    machine = choose_machine(replicas, precision, xla)
    memory = check_memory(dataset.image_shape, experiment, replicas, machine.precision)
    read_encoder_weights(experiment.encoder_weights)
    run = create_run(run_path, experiment, dataset, data_path, fold)
    trainer = fold_trainer(run, dataset, fold, replicas, precision=machine.precision, jit_compile=machine.xla)
    print(header(trainer, machine, memory, len(run.folds(dataset)), deterministic), flush=True)
    try:
        fold_path = trainer.train(resume)
    except tensorflow.errors.ResourceExhaustedError:
        raise RunError(
            f"{trainer.path}: out of memory with a batch of {experiment.batch_size}; {memory.advice}"
        ) from None
    export_fold(run, fold)
    return fold_path


def header(trainer, machine, memory, folds: int, deterministic: bool) -> str:
    """What is about to be trained, on what, in a few lines for the terminal."""
    experiment, dataset, replicas = trainer.experiment, trainer.dataset, trainer.replicas
    rows, columns = dataset.image_shape
    changed = "" if experiment.is_paper_row else f"  (changed: {', '.join(experiment.changed_settings())})"
    share = -(-experiment.batch_size // replicas.count)
    pieces = f" in {experiment.accumulate} pieces" if experiment.accumulate > 1 else ""
    frozen = f", frozen for {experiment.freeze_encoder} epochs" if experiment.freeze_encoder else ""
    return (
        f"experiment  {experiment.name}{changed}\n"
        f"scans       {len(trainer.train_cases)} train, {len(trainer.validation_cases)} validate; "
        f"{rows} x {columns} pixels; {trainer.title} of {folds}\n"
        f"devices     {', '.join(replicas.devices)}; {replicas.count} replica{'s' if replicas.count > 1 else ''}, "
        f"batch {experiment.batch_size} ({share} on each{pieces})\n"
        f"arithmetic  {machine.precision} ({machine.reason}), XLA {'on' if machine.xla else 'off'}"
        f"{', deterministic kernels' if deterministic else ''}\n"
        f"memory      {memory}\n"
        f"encoder     {experiment.encoder_weights} weights{frozen}"
    )
