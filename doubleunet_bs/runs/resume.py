"""What a run folder holds of its interrupted trainings: which folds, on which devices, and the command that continues.

TensorFlow is not imported, so that a command can answer at once.
"""

import shlex
from pathlib import Path
from typing import Any

from doubleunet_bs.errors import RunError
from doubleunet_bs.files import read_json
from doubleunet_bs.runs.run_folder import ENVIRONMENT, KERAS_MODEL, MINING_MODEL, PRETRAIN, STAGES, Run


def has_results(path: Path) -> bool:
    """Whether a fold's folder holds anything but the list of its stages."""
    return path.is_dir() and any(file.name != STAGES for file in path.iterdir())


def already_begun(run: Run, fold: int) -> RunError:
    """The error for a fold that would be trained twice."""
    path = run.fold_path(fold)
    if run.is_finished(fold):
        return RunError(
            f"{path}: is trained already: choose another --fold, or a new --run with --from {path} to train further"
        )
    return RunError(f"{path}: has results already: continue with `{resume_command(run, fold)}`")


def unfinished_folds(run: Run) -> list[int]:
    """The folds that have begun and are not trained and exported."""
    return [fold for fold in run.begun_folds() if not run.is_finished(fold)]


def to_resume(run: Run, fold: int | str | None) -> list[int | str]:
    """What `train --resume` continues: numbers of folds, or "pretrain". Finished ones that were asked for are in it.

    Args:
        run: the run.
        fold: as the user asked: a number, "all", "pretrain", or None for all that is unfinished.

    Raises:
        RunError: nothing of it has begun: `--resume` never starts a new training.
    """
    unfinished = unfinished_folds(run)
    pretraining = has_results(run.path / PRETRAIN)
    if fold is None:
        if not unfinished and pretraining and not (run.path / PRETRAIN / KERAS_MODEL).is_file():
            return [PRETRAIN]
        if unfinished:
            return list(unfinished)
        trained = ", ".join(map(str, run.trained_folds())) or "none"
        raise RunError(f"{run.path}: nothing to resume (folds trained: {trained}): start another with --fold")
    begun = pretraining if fold in ("all", PRETRAIN) else fold in run.begun_folds()
    if begun or (fold == "all" and run.begun_folds()):
        return [fold]
    what = {"all": "no fold", PRETRAIN: "the pre-training"}.get(str(fold), f"fold {fold}")
    raise RunError(f"{run.path}: nothing to resume, {what} has {'not ' * (what != 'no fold')}begun: leave out --resume")


def earlier_devices(run: Run, fold: int | str) -> dict[str, Any]:
    """The device options with which the interrupted training can be continued, by the names of the options."""
    own = run.path / PRETRAIN
    folders = [own] if not isinstance(fold, int) else [run.fold_path(fold), run.fold_path(fold) / MINING_MODEL, own]
    source = next((path / ENVIRONMENT for path in folders if (path / ENVIRONMENT).is_file()), None)
    content = read_json(source, RunError, "training environment") if source else None
    if not isinstance(content, dict):
        return {}
    devices = content.get("devices")
    names = [name for name in devices if isinstance(name, str)] if isinstance(devices, list) else []
    gpus = [name.removeprefix("GPU:") for name in names if name.startswith("GPU:")]
    cpus = [name.removeprefix("CPU:") for name in names if name.startswith("CPU:")]
    found = {
        "devices": ",".join(gpus) if gpus else "cpu" if len(cpus) == 1 else f"cpu:{','.join(cpus)}" if cpus else None,
        "precision": content.get("precision"),
        "deterministic": content.get("deterministic"),
    }
    return {name: value for name, value in found.items() if value is not None}


def resume_command(run: Run, fold: int | str | None) -> str:
    """The command that continues what was asked for, or starts what has not begun. None: all that is unfinished."""
    words = ["doubleunet-bs", "train", "--run", str(run.path)]
    if fold is None:
        begun = True
    elif isinstance(fold, int):
        # --fold can be left out where the run holds the answer.
        words += [] if unfinished_folds(run) == [fold] else ["--fold", str(fold)]
        begun = fold in run.begun_folds()
    else:
        words += ["--fold", fold]
        begun = bool(run.begun_folds()) or has_results(run.path / PRETRAIN)
    return shlex.join([*words, *(["--resume"] if begun else [])])
