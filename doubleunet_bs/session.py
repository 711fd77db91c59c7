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
        precision: "float32", "mixed_bfloat16" or "mixed_float16".
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
    from doubleunet_bs.training.replicas import check_batch_size, open_replicas
    from doubleunet_bs.training.run_folder import create_run
    from doubleunet_bs.training.trainer import FoldTrainer

    if deterministic:
        tensorflow.config.experimental.enable_op_determinism()
    replicas = open_replicas(devices)
    check_batch_size(experiment.batch_size, replicas.count)
    read_encoder_weights(experiment.encoder_weights)
    run = create_run(run_path, experiment, dataset, data_path, fold)
    trainer = FoldTrainer(run, dataset, fold, replicas, precision)
    print(header(trainer), flush=True)
    try:
        fold_path = trainer.train(resume)
    except tensorflow.errors.ResourceExhaustedError:
        raise RunError(
            f"{trainer.path}: the memory of the device does not hold a batch of {experiment.batch_size}; "
            "use a smaller --batch-size, more devices, or --precision mixed_bfloat16"
        ) from None
    export_fold(run, fold)
    return fold_path


def header(trainer) -> str:
    """What is about to be trained, on what, in a few lines for the terminal."""
    experiment, dataset, replicas = trainer.experiment, trainer.dataset, trainer.replicas
    rows, columns = dataset.image_shape
    changed = "" if experiment.is_paper_row else f"  (changed: {', '.join(experiment.changed_settings())})"
    share = -(-experiment.batch_size // replicas.count)
    return (
        f"experiment  {experiment.name}{changed}\n"
        f"scans       {len(trainer.train_cases)} train, {len(trainer.validation_cases)} validate; "
        f"{rows} x {columns} pixels; fold {trainer.fold} of {len(trainer.folds)}\n"
        f"devices     {', '.join(replicas.devices)}; {replicas.count} replica(s), "
        f"batch {experiment.batch_size} ({share} on each), {trainer.precision}, XLA {'on' if trainer.jit_compile else 'off'}\n"
        f"encoder     {experiment.encoder_weights} weights"
    )
