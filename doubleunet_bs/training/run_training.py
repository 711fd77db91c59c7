"""Train the folds of a run through all stages of its experiment: what `doubleunet-bs train` does.

Several processes, on any machines that share the run folder, may train at the same time. A fold is trained by one
process (`runs.locks`). The pre-training of a run is done by one process while the others wait.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from doubleunet_bs.dataset.folds import Folds
from doubleunet_bs.errors import RunError, SettingsError, counted, full_disk
from doubleunet_bs.preparation.shards import ShardedDataset
from doubleunet_bs.runs.history import Epoch, read_history
from doubleunet_bs.runs.locks import TAKEOVER_SECONDS, LockedError, locked
from doubleunet_bs.runs.run_folder import (
    HISTORY,
    KERAS_MODEL,
    MINING_MODEL,
    PRETRAIN,
    SAVED_MODEL,
    Run,
    already_begun,
    has_results,
    remove_temporary,
)
from doubleunet_bs.stop_signals import StopSignals
from doubleunet_bs.training.devices import Replicas, check_memory, deterministic_kernels, memory_advice
from doubleunet_bs.training.stages import (
    FOLD,
    FoldStages,
    is_done,
    mining_summary,
    pretraining,
    stage_names,
    write_stages,
)
from doubleunet_bs.training.trainer import Trainer

Export = Callable[[Run, int], object]
# `patients_compared` of the run -> what is said of it.
_PATIENTS_COMPARED = {
    True: ", and no patient",
    False: "; patients could not be compared, their keys differ",
    None: ", and no patient, if both were prepared with the same `prepare --key`",
}


def train_fold(
    run: Run,
    dataset: ShardedDataset,
    fold: int,
    replicas: Replicas,
    pretrain: ShardedDataset | None = None,
    resume: bool = False,
    export: Export | None = None,
) -> Path:
    """Train one fold through all stages of the experiment, and return its folder.

    Args:
        run: the run, see `create_run`.
        dataset: its shards.
        fold: 1 ... number of folds.
        replicas: the devices, see `open_devices`.
        pretrain: the other cohort, for an experiment with transfer. It is pre-trained on first, unless that is done.
        resume: continue an interrupted fold.
        export: called as `export(run, fold)` for the trained fold while it is locked, as `serving.export.export_fold`.

    Raises:
        LockedError: another process trains this fold, and still does after two minutes.
        RunError: the fold has results, and `resume` is off. Or memory ran out: the message says what to change.
        SettingsError, DatasetError: the fold cannot be trained.
        Interrupted: SIGTERM or SIGINT came. A training is saved, mining and export are finished first.

    Example:
        >>> from doubleunet_bs.preparation import open_shards
        >>> from doubleunet_bs.training import create_run, open_devices, paper_experiment, train_fold
        >>> dataset = open_shards("shards")  # doctest: +SKIP
        >>> experiment = paper_experiment("focal-tversky-otsu", epochs=50)
        >>> replicas = open_devices(experiment, dataset.image_shape)  # doctest: +SKIP
        >>> run = create_run("run", experiment, dataset)  # doctest: +SKIP
        >>> train_fold(run, dataset, 1, replicas)  # doctest: +SKIP
        PosixPath('run/fold_01')
    """
    with StopSignals() as signals:
        signals.check()
        if run.experiment.transfer:
            if not is_done(run, fold, PRETRAIN):
                write_stages(run, fold)  # From now on the fold has begun, and `--resume` finds it.
            train_pretraining(run, pretrain, replicas, resume=True)
        with locked(run.path, run.fold_path(fold).name, signals, TAKEOVER_SECONDS):
            _train_locked_fold(run, dataset, run.folds(dataset), fold, replicas, resume, export)
    return run.fold_path(fold)


def train_all_folds(
    run: Run,
    dataset: ShardedDataset,
    replicas: Replicas,
    pretrain: ShardedDataset | None = None,
    resume: bool = False,
    export: Export | None = None,
    numbers: Sequence[int] | None = None,
) -> list[Path]:
    """Train all folds, or those of some `numbers`, except what is trained already or locked by another process.

    The other arguments and errors are those of `train_fold`. Returns the folders of the folds that were trained now.
    """
    trained = []
    with StopSignals() as signals:
        if run.experiment.transfer:
            train_pretraining(run, pretrain, replicas, resume=True)
        folds = run.folds(dataset)
        for fold in range(1, len(folds) + 1) if numbers is None else numbers:
            signals.check()
            try:
                with locked(run.path, run.fold_path(fold).name):
                    if not _is_finished(run, fold, export):
                        _train_locked_fold(run, dataset, folds, fold, replicas, resume, export)
                        trained.append(run.fold_path(fold))
            except LockedError as error:
                print(f"skipping fold {fold}: {error}", flush=True)
    return trained


def train_pretraining(run: Run, other: ShardedDataset | None, replicas: Replicas, resume: bool = False) -> Path:
    """Pre-train on the other cohort, unless that is done, and return the folder. Waits while another process does it.

    Raises `SettingsError` without transfer or without another cohort; the others as `train_fold`.
    """
    if not run.experiment.transfer or other is None:
        raise SettingsError(f"{run.experiment.name}: pre-training needs transfer and --pretrain-data")
    with StopSignals() as signals:
        if not is_done(run, 0, PRETRAIN):
            with locked(run.path, PRETRAIN, signals, float("inf")), _advice_on_memory(run, run.pretrain_path, replicas):
                # Another process may have finished it before it left the lock.
                if not is_done(run, 0, PRETRAIN):
                    _train(Trainer(pretraining(run, other), replicas), resume)
        signals.check()
    return run.pretrain_path


def _is_finished(run: Run, fold: int, export: Export | None) -> bool:
    """Whether a locked fold is trained and exported. If so, that is printed, and what a kill left is removed."""
    path = run.fold_path(fold)
    exported = export is None or (path / SAVED_MODEL / "saved_model.pb").is_file()
    if not (is_done(run, fold, FOLD) and exported):
        return False
    remove_temporary(path, files=False)
    print(f"fold {fold} is trained", flush=True)
    return True


def _train_locked_fold(
    run: Run,
    dataset: ShardedDataset,
    folds: Folds,
    fold: int,
    replicas: Replicas,
    resume: bool,
    export: Export | None,
) -> None:
    path = run.fold_path(fold)
    if not resume and has_results(path):
        raise already_begun(run, fold)
    with StopSignals() as signals, _advice_on_memory(run, path, replicas):
        stages = FoldStages(run, dataset, folds, fold, replicas)
        mining = MINING_MODEL in stage_names(run.experiment)
        # Before anything is written: this finds out what is impossible.
        trainer = stages.mining_model() if mining else stages.final()
        if _is_finished(run, fold, export):
            return
        write_stages(run, fold)
        try:
            if mining:
                _train(trainer, resume=True)
                write_stages(run, fold)
                print(mining_summary(stages.mine()), flush=True)
                write_stages(run, fold)
                signals.check()
                trainer = stages.final()
            _train(trainer, resume=True, tests=len(stages.split.test))
            if export is not None:
                print(f"export      {path}: the best epoch as SavedModel", flush=True)
                export(run, fold)
        finally:
            write_stages(run, fold)
        signals.check()


@contextlib.contextmanager
def _advice_on_memory(run: Run, path: Path, replicas: Replicas) -> Iterator[None]:
    """Turn running out of memory within the block into a message that says what to change."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        if full := full_disk(error, path):
            raise full from None
        advice = memory_advice(run.experiment, tuple(run.data["image_shape"]), replicas)
        raise RunError(f"{path}: out of memory with a batch of {run.experiment.batch_size}: {advice}") from None


def _train(trainer: Trainer, resume: bool, tests: int = 0) -> None:
    title = trainer.task.title
    done = (trainer.path / KERAS_MODEL).is_file()
    print(f"{title:<11} is trained" if done else trainer_line(trainer, tests), flush=True)
    if not done:
        print("            TensorFlow compiles the network first: the first batch can take several minutes", flush=True)
    trainer.train(resume)
    print(warn_without_findings(title, read_history(trainer.path / HISTORY)), end="", flush=True)
    trainer.signals.check()
    # Otherwise the next network would find this one's still in memory.
    keras.backend.clear_session()


def describe_run(run: Run, dataset: ShardedDataset, replicas: Replicas) -> str:
    """What is about to be trained, on what, in a few lines for the terminal."""
    experiment, changes = run.experiment, run.changed_settings()
    rows, columns = dataset.image_shape
    if experiment.is_skeleton:
        changed = f"changed: {', '.join(changes)}" if changes else "default settings"
    else:
        changed = f"not the paper's row; changed: {', '.join(changes)}" if changes else "the paper's row"
    share = f"{-(-experiment.batch_size // replicas.count)} on each"
    if experiment.accumulate > 1:
        share += f" in {experiment.accumulate} micro-batches"
    encoder = "random start" if experiment.encoder_weights == "none" else f"{experiment.encoder_weights} weights"
    encoder = f"from {experiment.start_from}, like all layers" if experiment.start_from else encoder
    division = "the published split" if experiment.folds == 1 else f"{experiment.folds} folds"
    deterministic = ", deterministic kernels" if deterministic_kernels() else ""
    lines = [
        f"experiment  {experiment.name}  ({changed})",
        f"scans       {len(dataset)} in {division}; {rows} x {columns} pixels",
        f"devices     {', '.join(replicas.devices)}; {counted(replicas.count, 'replica')}, "
        f"batch {experiment.batch_size} ({share})",
        f"precision   {replicas.precision} ({replicas.reason}){deterministic}",
        f"memory      {check_memory(experiment, dataset.image_shape, replicas)}",
        f"encoder     {encoder}",
    ]
    if run.pretrain_data is not None:
        compared = _PATIENTS_COMPARED[run.pretrain_data.get("patients_compared")]
        lines.append(f"transfer    no scan is in both cohorts{compared}")
    train = len(run.folds(dataset).split(1).train)
    if experiment.batch_size > train:
        lines.append(
            f"warning     a batch of {experiment.batch_size} is more than the {train} training scans of a fold"
        )
    if experiment.batch_size // experiment.accumulate < 2:
        lines.append(
            "warning     one image at a time: the ASPP pooling branch learns nothing; "
            "use at least 2 images a micro-batch (--batch-size, --accumulate)"
        )
    return "\n".join(lines)


def trainer_line(trainer: Trainer, tests: int = 0) -> str:
    """Which stage trains now, and on how many scans, of which `tests` are kept for the evaluation."""
    variants = f", each in {trainer.augmentation.variants} variants" if trainer.augmentation else ""
    kept = f", {tests} left for the test" if tests else ""
    return (
        f"{trainer.task.title:<11} {counted(len(trainer.train_cases), 'scan')} to train on{variants}, "
        f"{len(trainer.validation_cases)} to validate on{kept}; {counted(trainer.experiment.epochs, 'epoch')}"
    )


def warn_without_findings(title: str, history: Sequence[Epoch]) -> str:
    """A warning line, if no epoch of a training found a metastatic pixel, else "".

    Such a network may never begin to find any, and neither may one that starts from it: batches without a lesion teach
    it to call nothing metastatic (seen with Focal Tversky, batches of two and a cohort of which half was normal).
    """
    if any(epoch.val_f1 for epoch in history):
        return ""
    return (
        f"warning     {title}: no epoch found a metastatic pixel on the validation scans: "
        "try more epochs, another --batch-size or --seed, and a lower --bn-momentum for few scans\n"
    )
