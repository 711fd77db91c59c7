"""From shards to SavedModels: the stages of a fold, of one or of all, in the order of `train.py`."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from doubleunet_bs.errors import RunError, SettingsError, counted
from doubleunet_bs.files import read_json
from doubleunet_bs.preparation.shards import ShardedDataset
from doubleunet_bs.stop_signals import StopSignals
from doubleunet_bs.tensorflow_setup import import_tensorflow
from doubleunet_bs.training.experiments import Experiment

ALL_FOLDS = "all"
PRETRAINING_ONLY = "pretrain"
# `patients_compared` of the run -> what is said of it.
_PATIENTS_COMPARED = {
    True: "nor is a patient",
    False: "patients could not be compared, their keys differ",
    None: "nor is a patient, if both were prepared with the same `prepare --key`",
}


def train_and_export(
    run_path: str | os.PathLike,
    data_path: str | os.PathLike,
    dataset: ShardedDataset,
    experiment: Experiment,
    fold: int | str,
    devices: str = "all",
    precision: str = "float32",
    xla: str = "auto",
    deterministic: bool = False,
    resume: bool = False,
    pretrain: tuple[ShardedDataset, str | os.PathLike] | None = None,
    folds_file: str | os.PathLike | None = None,
    other_patients: bool = False,
) -> list[Path]:
    """Train one fold, or all of them, through all stages of the experiment, and export each.

    Processes on any machines that share the run folder may do this at the same time. Nobody works on a fold that another
    one works on; the pre-training is done by one of them while the others wait.

    Args:
        run_path: the run folder, made when it is new.
        data_path: where `dataset` was opened; noted in the run for `evaluate.py`.
        dataset: opened shards.
        experiment: what to train.
        fold: 1 ... number of folds. "all": all of them, one after the other, but for those that are trained already and
            those that another process works on. "pretrain": the pre-training and nothing else.
        devices: see `training.replicas.open_replicas`.
        precision, xla: see `training.machine.choose_machine`.
        deterministic: only kernels that give the same bits every time.
        resume: continue what was interrupted; what was not begun begins.
        pretrain: the other cohort of a run with transfer, and where it was opened.
        folds_file: the user's own division of the scans.
        other_patients: the user's word that nobody is in both cohorts, where their keys differ.

    Returns:
        The folders of the folds that are trained now, each with `saved_model/` in it, or that of the pre-training.

    Raises:
        BoneScanError: whatever stands in the way; nothing of the run is written before the settings are found possible.
        Interrupted: SIGTERM or SIGINT came. What trains is saved, what mines or exports is finished first; `resume` goes on.
            A second signal acts as usual.
    """
    with StopSignals() as signals:
        import_tensorflow()
        from doubleunet_bs.network.encoder_weights import known_source
        from doubleunet_bs.training.run_folder import create_run

        if fold == PRETRAINING_ONLY and not experiment.transfer:
            raise SettingsError(f"{experiment.name} does not pre-train: give a fold")
        experiment = dataclasses.replace(experiment, encoder_weights=known_source(experiment.encoder_weights))
        replicas, machine, memory = settle_machine(
            dataset.image_shape, experiment, devices, precision, xla, deterministic
        )
        number = fold if isinstance(fold, int) else 1
        run = create_run(run_path, experiment, dataset, data_path, number, pretrain, folds_file, other_patients)
        folds = len(run.folds(dataset))
        print(header(run, dataset, replicas, machine, memory, folds, deterministic), flush=True)
        session = Session(run, dataset, replicas, machine, memory.advice, resume, signals)
        signals.check()
        if experiment.transfer:
            session.pretrain(pretrain[0])
        if fold == PRETRAINING_ONLY:
            return [run.pretrain_path]
        return session.all_folds(folds) if fold == ALL_FOLDS else [session.fold(fold)]


def settle_machine(
    image_shape: tuple[int, int],
    experiment: Experiment,
    devices: str = "all",
    precision: str = "float32",
    xla: str = "auto",
    deterministic: bool = False,
):
    """Find out whether this machine can train an experiment, and how. Nothing is written but a download of the encoder.

    Args: see `train_and_export`; `image_shape` is (rows, columns).

    Returns:
        `training.replicas.Replicas`, `training.machine.Machine` and `training.memory.MemoryNeed`.

    Raises:
        SettingsError, RunError: devices, precision, memory or encoder weights stand in the way.
    """
    tensorflow = import_tensorflow()
    from doubleunet_bs.network.encoder_weights import check_encoder_weights
    from doubleunet_bs.training.devices import check_batch_size, check_memory, choose_machine, open_replicas

    if deterministic:
        tensorflow.config.experimental.enable_op_determinism()
    replicas = open_replicas(devices)
    check_batch_size(experiment.batch_size, replicas.count, experiment.accumulate)
    machine = choose_machine(replicas, precision, xla)
    memory = check_memory(image_shape, experiment, replicas, machine.precision)
    check_encoder_weights(experiment.encoder_weights)
    return replicas, machine, memory


class Session:
    """What one process does for a run.

    Args:
        run: the run. dataset: its shards. replicas, machine: the devices and their arithmetic.
        advice: what to change when memory runs out.
        resume: continue what was interrupted.
        signals: after which no further stage begins; whoever opens the session installs them.
    """

    def __init__(
        self, run, dataset: ShardedDataset, replicas, machine, advice: str, resume: bool, signals: StopSignals
    ):
        self.run, self.dataset, self.replicas, self.machine = run, dataset, replicas, machine
        self.advice, self.resume, self.signals = advice, resume, signals
        self.options = {"precision": machine.precision, "jit_compile": machine.xla, "signals": signals}

    def pretrain(self, other: ShardedDataset) -> None:
        """Pre-train, unless that is done; while another process does it, wait."""
        from doubleunet_bs.training.locks import Lock, lock_or_wait
        from doubleunet_bs.training.stages import PRETRAIN, is_done, pretraining

        def done() -> bool:
            return is_done(self.run, 0, PRETRAIN)

        with lock_or_wait(Lock(self.run.path, PRETRAIN), done, signals=self.signals) as mine:
            if mine:
                with self._advice_on_memory(self.run.pretrain_path):
                    self._train(pretraining(self.run, other, self.replicas, **self.options), self.resume)

    def fold(self, fold: int) -> Path:
        """All stages of a fold, and its export.

        Raises:
            LockedError: another process works on it. RunError: it has results, and `resume` is off.
        """
        from doubleunet_bs.training.locks import Lock, acquire_unless_alive

        lock = Lock(self.run.path, self.run.fold_path(fold).name)
        acquire_unless_alive(lock, signals=self.signals)
        with lock:
            return self._stages(fold)

    def all_folds(self, folds: int) -> list[Path]:
        """All folds that are not trained yet and that nobody else works on.

        Raises:
            RunError: one was interrupted, and `resume` is off.
        """
        from doubleunet_bs.training.locks import Lock, LockedError, acquire_unless_alive

        trained: list[Path] = []
        elsewhere: dict[int, str] = dict.fromkeys(range(1, folds + 1), "")
        progress, patient = True, False
        # Once more after each pass that did something: who held a fold may have ended in the meantime. After one that did
        # nothing, the last word is a sign of life of each holder: one on another machine may have been killed just now.
        while elsewhere and (progress or not patient):
            progress, patient = False, not progress
            for fold in list(elsewhere):
                self.signals.check()
                lock = Lock(self.run.path, self.run.fold_path(fold).name)
                try:
                    if patient:
                        acquire_unless_alive(lock, signals=self.signals)
                    else:
                        lock.acquire()
                except LockedError as error:
                    elsewhere[fold] = str(error)
                    continue
                with lock:
                    if not self._is_finished(fold):
                        trained.append(self._stages(fold))
                progress = True
                del elsewhere[fold]
        for fold, reason in elsewhere.items():
            print(f"fold {fold} is left to another process: {reason}", flush=True)
        return trained

    def _is_finished(self, fold: int) -> bool:
        """Whether a fold, whose lock is held, is trained and exported. Then that is said, and what a kill left goes."""
        from doubleunet_bs.training.run_folder import SAVED_MODEL, remove_leftover_folders
        from doubleunet_bs.training.stages import FOLD, is_done

        path = self.run.fold_path(fold)
        if not (is_done(self.run, fold, FOLD) and (path / SAVED_MODEL / "saved_model.pb").is_file()):
            return False
        remove_leftover_folders(path)
        print(f"fold {fold} is trained", flush=True)
        return True

    def _stages(self, fold: int) -> Path:
        path = self.run.fold_path(fold)
        if not self.resume and path.exists() and any(path.iterdir()):
            raise RunError(f"{path}: has results already; go on with --resume, or choose another --run folder")
        with self._advice_on_memory(path):
            self._work(fold)
        return path

    def _work(self, fold: int) -> None:
        from doubleunet_bs.serving.export import export_fold
        from doubleunet_bs.training.stages import MINING_MODEL, FoldStages, stage_names, write_stages

        stages = FoldStages(self.run, self.dataset, fold, self.replicas, **self.options)
        mining = MINING_MODEL in stage_names(self.run.experiment)
        # Made before anything is written: it finds out what is impossible.
        trainer = stages.mining_model() if mining else stages.final()
        if self._is_finished(fold):
            return
        write_stages(self.run, fold)
        try:
            if mining:
                self._train(trainer, resume=True)
                write_stages(self.run, fold)
                print(mining_summary(stages.mine()), flush=True)
                write_stages(self.run, fold)
                self.signals.check()
                trainer = stages.final()
            self._train(trainer, resume=True, tests=len(stages.split.test))
            print(f"export      {self.run.fold_path(fold)}: the best epoch as SavedModel", flush=True)
            export_fold(self.run, fold)
        finally:
            write_stages(self.run, fold)
        self.signals.check()

    @contextlib.contextmanager
    def _advice_on_memory(self, path: Path) -> Iterator[None]:
        """Whatever runs out of memory within the block ends with what to change."""
        import tensorflow

        try:
            yield
        except tensorflow.errors.ResourceExhaustedError:
            batch = self.run.experiment.batch_size
            raise RunError(f"{path}: out of memory with a batch of {batch}; {self.advice}") from None

    def _train(self, trainer, resume: bool, tests: int = 0) -> None:
        import keras

        from doubleunet_bs.training.history import read_history
        from doubleunet_bs.training.run_folder import HISTORY, KERAS_MODEL

        done = (trainer.path / KERAS_MODEL).is_file()
        print(f"{trainer.title:<11} is trained" if done else trainer_line(trainer, tests), flush=True)
        trainer.train(resume)
        print(nothing_found(trainer.title, read_history(trainer.path / HISTORY)), end="", flush=True)
        self.signals.check()
        # The next network would find this one's still in memory.
        keras.backend.clear_session()


def header(run, dataset, replicas, machine, memory, folds: int, deterministic: bool) -> str:
    """What is about to be trained, on what, in a few lines for the terminal."""
    experiment, changes = run.experiment, run.changed_settings()
    rows, columns = dataset.image_shape
    changed = f"  (not the paper's row; changed: {', '.join(changes)})" if changes else "  (the paper's row)"
    share = -(-experiment.batch_size // replicas.count)
    pieces = f" in {experiment.accumulate} pieces" if experiment.accumulate > 1 else ""
    frozen = f", frozen for {counted(experiment.freeze_encoder, 'epoch')}" if experiment.freeze_encoder else ""
    transfer = (
        f"\ntransfer    no scan is in both cohorts; {_PATIENTS_COMPARED[run.pretrain_data.get('patients_compared')]}"
        if experiment.transfer
        else ""
    )
    alone = (
        "\nwarning     one image at a time: batch normalisation leaves nothing of the ASPP pooling branch in training, and the "
        "tested network is another; take at least 2 images a batch and a piece (--batch-size, --accumulate)"
        if experiment.batch_size // experiment.accumulate < 2
        else ""
    )
    return (
        f"experiment  {experiment.name}{changed}\n"
        f"scans       {len(dataset)} in {folds} folds; {rows} x {columns} pixels\n"
        f"devices     {', '.join(replicas.devices)}; {counted(replicas.count, 'replica')}, "
        f"batch {experiment.batch_size} ({share} on each{pieces})\n"
        f"arithmetic  {machine.precision} ({machine.reason}), XLA {'on' if machine.xla else 'off'}"
        f"{', deterministic kernels' if deterministic else ''}\n"
        f"memory      {memory}\n"
        f"encoder     {'random start' if experiment.encoder_weights == 'none' else f'{experiment.encoder_weights} weights'}{frozen}{transfer}{alone}"
    )


def trainer_line(trainer, tests: int = 0) -> str:
    """Which stage trains now, on how many scans; `tests` more are kept for `evaluate.py`."""
    shown = f", each in {trainer.augmentation.variants} variants" if trainer.augmentation else ""
    return (
        f"{trainer.title:<11} {counted(len(trainer.train_cases), 'scan')} to train on{shown}, {len(trainer.validation_cases)} to validate on"
        f"{f', {tests} left for the test' if tests else ''}; {counted(trainer.experiment.epochs, 'epoch')}"
    )


def nothing_found(title: str, history: Sequence) -> str:
    """A warning, one line with its end, when no epoch of a training found a metastatic pixel; else nothing.

    Such a network may never begin to find any, nor may what starts from it: batches without a lesion teach it to call nothing
    metastatic (seen with Focal Tversky, batches of two and a cohort of which half was normal).
    """
    if any(epoch.val_f1 for epoch in history):
        return ""
    return (
        f"warning     {title}: no epoch found a metastatic pixel on the validation scans, and what starts from it may not "
        "either; more epochs, larger batches or another --seed may help\n"
    )


def mining_summary(folder: Path) -> str:
    """What mining found, in one line."""
    from doubleunet_bs.training.negative_mining import DESCRIPTION

    pixels = read_json(folder / DESCRIPTION, RunError)["false_positive_pixels"]
    hit = sum(bool(number) for number in pixels.values())
    return f"mining      {sum(pixels.values())} false-positive pixels on {hit} of {len(pixels)} normal scans"
