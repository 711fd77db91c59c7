"""The run folder: which experiment on which data, its folds, one folder for each fold, and what can be resumed of it.

What is read here may come from a colleague: it is checked before it becomes a path, a size or a promise.
"""

import dataclasses
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

from doubleunet_bs.dataset.folds import Folds, load_folds
from doubleunet_bs.errors import DatasetError, RunError
from doubleunet_bs.files import read_json
from doubleunet_bs.preparation.records import MIXED, PATIENTS, PHANTOMS, DataSource, parse_sources
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.preparation.shards import ShardedDataset
from doubleunet_bs.runs.experiments import Experiment

FORMAT = 1
EXPERIMENT = "experiment.json"
FOLDS = "folds.json"
ABOUT_DATA = "about_data.txt"
"""The user's own words on licence and citation of the data, for the model card."""
PRETRAIN = "pretrain"
MINING_MODEL = "mining_model"
STAGES = "stages.json"
ENVIRONMENT = "environment.json"
BEST_WEIGHTS = "best.weights.h5"
KERAS_MODEL = "model.keras"
SAVED_MODEL = "saved_model"
HISTORY = "history.csv"
PROGRESS = "progress.png"
STATE = "state.npz"
SCANS_ARE = (PHANTOMS, PATIENTS, MIXED)


@dataclasses.dataclass(frozen=True)
class Run:
    """An opened run folder.

    Attributes:
        path: the folder.
        experiment: its settings.
        data: {"fingerprint", "parts", "image_shape", "preparation", "scans", "cohort", "sources"} of the shards it
            trains on. "scans" is "phantoms", "patients" or "mixed". "cohort" is from `records.count_cohort`.
        pretrain_data: {"path", "fingerprint", "patients_compared", "cohort"} of the shards it pre-trains on.
            "patients_compared" is as in `preparation.shards.patients_comparable`. None without transfer.
        disjoint_patients: the user confirmed that cohorts whose patients cannot be compared share none.
    """

    path: Path
    experiment: Experiment
    data: dict[str, Any]
    pretrain_data: dict[str, Any] | None = None
    disjoint_patients: bool = False

    @property
    def parts(self) -> list[dict[str, Any]]:
        """{"path", "fingerprint"} of each of the shard folders it trains on."""
        return self.data["parts"]

    @property
    def sources(self) -> tuple[DataSource, ...]:
        """The public data sets it trains on."""
        return parse_sources(self.data["sources"])

    def fold_path(self, fold: int) -> Path:
        """`RUN/fold_01` for fold 1."""
        return self.path / f"fold_{fold:02d}"

    def changed_settings(self) -> dict[str, Any]:
        """What differs from the paper's row of the same name: settings, and how the scans were prepared."""
        prepared = PreparationSettings.from_json(self.data["preparation"]).changes()
        return {
            **self.experiment.changed_settings(),
            **{f"preparation.{name}": value for name, value in prepared.items()},
        }

    def public_changes(self) -> dict[str, Any]:
        """`changed_settings` for results that are handed on, see `Experiment.public`."""
        return dataclasses.replace(self, experiment=self.experiment.public()).changed_settings()

    @property
    def is_paper_row(self) -> bool:
        """Whether settings and preparation are those of a row of the paper. The scans are not compared."""
        return not self.changed_settings()

    @property
    def pretrain_path(self) -> Path:
        """`RUN/pretrain`, one for all folds."""
        return self.path / PRETRAIN

    def folds(self, dataset: ShardedDataset) -> Folds:
        """Read the folds from `folds.json` and check them against the dataset."""
        return load_folds(self.path / FOLDS, dataset.cases)

    def trained_folds(self) -> list[int]:
        """Numbers of the folds whose training has ended."""
        return [fold for fold in self.begun_folds() if (self.fold_path(fold) / KERAS_MODEL).is_file()]

    def begun_folds(self) -> list[int]:
        """Numbers of the folds that have a folder with something in it."""
        folders = sorted(path for path in self.path.glob("fold_[0-9][0-9]") if path.is_dir() and any(path.iterdir()))
        return [fold for path in folders if (fold := fold_number(path)) is not None]

    def is_finished(self, fold: int) -> bool:
        """Whether a fold is trained and exported."""
        path = self.fold_path(fold)
        return (path / KERAS_MODEL).is_file() and (path / SAVED_MODEL / "saved_model.pb").is_file()

    def check_data(self, dataset: ShardedDataset, path: str | os.PathLike) -> None:
        """Refuse (`RunError`) shards other than those the run was trained on."""
        if dataset.fingerprint != self.data["fingerprint"]:
            raise RunError(f"{path}: not the shards that {self.path} was trained on: name those with --data")


def fold_number(path: Path) -> int | None:
    """The number in the name `fold_01`; None where the name is another."""
    found = re.fullmatch(r"fold_(\d\d)", path.name)
    return int(found[1]) if found and int(found[1]) else None


def open_run(path: str | os.PathLike) -> Run:
    """Open an existing run folder.

    Raises:
        RunError: there is none, its `experiment.json` is damaged or of another format.
    """
    path = Path(path)
    source = path / EXPERIMENT
    if not path.exists():
        raise RunError(f"{path}: no such folder: give the --run folder of a training")
    if not source.is_file():
        raise RunError(
            f"{path}: not a run folder, it has no {EXPERIMENT}: give the --run folder of a training, not a fold"
        )
    content = read_json(source, RunError, "run description")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RunError(f"{source}: not a run description of format {FORMAT}")
    data = content.get("data")
    parts = data.get("parts") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(parts, list) or not parts or not _describes_shards(*parts):
        raise RunError(f"{source}: the description of the data is incomplete")
    try:
        PreparationSettings.from_json(data.get("preparation"))
        parse_sources(data.get("sources"))
    except DatasetError as error:
        raise RunError(f"{source}: {error}") from None
    shape = data.get("image_shape")
    sides = shape if isinstance(shape, list) and len(shape) == 2 else [0]
    if (
        not all(type(side) is int and 0 < side <= 4096 for side in sides)
        or data.get("scans") not in SCANS_ARE
        or not isinstance(data.get("fingerprint"), str)
        or not isinstance(data.get("cohort"), dict)
    ):
        raise RunError(f"{source}: the description of the data is damaged")
    experiment = Experiment.from_json(content.get("experiment") or {}, str(source))
    pretrain_data = content.get("pretrain_data")
    if experiment.transfer and not (
        isinstance(pretrain_data, dict)
        and _describes_shards(pretrain_data)
        and pretrain_data.get("patients_compared", "") in (True, False, None)
    ):
        raise RunError(f"{source}: the description of the data for pre-training is incomplete")
    disjoint = content.get("disjoint_patients") is True
    return Run(path=path, experiment=experiment, data=data, pretrain_data=pretrain_data, disjoint_patients=disjoint)


def _describes_shards(*entries: Any) -> bool:
    """Whether each entry has a path and a fingerprint."""
    return all(
        isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("path", "fingerprint"))
        for entry in entries
    )


TEMPORARY_FOLDERS = (".mined_negatives-*", f".{SAVED_MODEL}-*")
"""As `files.new_folder` and `replaced_folder` name them. Hidden folders of others, such as an evaluation, are kept."""


def remove_temporary(path: Path, files: bool = True) -> None:
    """Remove what a killed process left in the folder of a stage: hidden `files`, half-written labels and exports.

    The lock of the stage is held. Nothing happens if `path` does not exist. An export that was killed between its two
    renames is made again.
    """
    for hidden in filter(Path.is_file, path.glob(".*") if files else ()):
        hidden.unlink()
    for folder in (folder for pattern in TEMPORARY_FOLDERS for folder in path.glob(pattern)):
        shutil.rmtree(folder)


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


def no_trained_fold(run: Run) -> RunError:
    """What to say of a run without a trained fold, with the command that trains one."""
    fold: int | None = None
    try:
        to_resume(run, fold)
    except RunError:  # Nothing was interrupted.
        fold = 1
    return RunError(f"{run.path}: no fold is trained yet: use `{resume_command(run, fold)}`")


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
