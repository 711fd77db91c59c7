"""The run folder: which experiment on which data, its folds, and one folder for each fold."""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

from doubleunet_bs import __version__
from doubleunet_bs.dataset.folds import Folds, folds_to_json, lesions_of_cases, load_folds, make_folds
from doubleunet_bs.errors import DatasetError, RunError, SettingsError
from doubleunet_bs.files import create_file, json_text, read_json
from doubleunet_bs.preparation.records import scans_are
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.preparation.shards import ShardedDataset, patients_comparable
from doubleunet_bs.training.experiments import Experiment
from doubleunet_bs.training.transfer import check_cohorts

FORMAT = 1
EXPERIMENT = "experiment.json"
FOLDS = "folds.json"
PRETRAIN = "pretrain"
BEST_WEIGHTS = "best.weights.h5"
KERAS_MODEL = "model.keras"
SAVED_MODEL = "saved_model"
HISTORY = "history.csv"
PROGRESS = "progress.png"
STATE = "state.npz"


@dataclasses.dataclass(frozen=True)
class Run:
    """An opened run folder.

    Attributes:
        path: the folder.
        experiment: its settings.
        data: {"path", "fingerprint", "image_shape", "preparation", "scans"} of the shards it trains on; the last one is
            "phantoms", "patients", "mixed" or "unknown".
        pretrain_data: {"path", "fingerprint", "patients_compared"} of the shards it pre-trains on, the last as in
            `preparation.shards.patients_comparable` and missing in older runs; None without transfer.
    """

    path: Path
    experiment: Experiment
    data: dict[str, Any]
    pretrain_data: dict[str, Any] | None = None

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
        """`changed_settings` for results that are meant to be handed on, see `Experiment.public`."""
        return dataclasses.replace(self, experiment=self.experiment.public()).changed_settings()

    @property
    def is_paper_row(self) -> bool:
        """Whether this is a row of the paper in settings and preparation; its data are another matter."""
        return not self.changed_settings()

    @property
    def pretrain_path(self) -> Path:
        """`RUN/pretrain`, one for all folds."""
        return self.path / PRETRAIN

    def folds(self, dataset: ShardedDataset) -> Folds:
        """The folds of this run, read from its `folds.json` and held against the dataset."""
        return load_folds(self.path / FOLDS, dataset.cases)

    def trained_folds(self) -> list[int]:
        """Numbers of the folds whose training has ended."""
        return sorted(
            int(path.name.removeprefix("fold_"))
            for path in self.path.glob("fold_[0-9][0-9]")
            if (path / KERAS_MODEL).is_file()
        )

    def check_data(self, dataset: ShardedDataset, path: str | os.PathLike) -> None:
        """Refuse shards that are not those the run was trained on."""
        if dataset.fingerprint != self.data["fingerprint"]:
            raise RunError(
                f"{path}: not the shards that {self.path} was trained on; give the right ones with --data, "
                "or train a new run on these"
            )


def create_run(
    path: str | os.PathLike,
    experiment: Experiment,
    dataset: ShardedDataset,
    data_path: str | os.PathLike,
    fold: int = 1,
    pretrain: tuple[ShardedDataset, str | os.PathLike] | None = None,
    folds_file: str | os.PathLike | None = None,
    other_patients: bool = False,
) -> Run:
    """Open `path` for this experiment on these shards, creating it with its folds when it is new.

    Several processes, on any machines, may do so at the same time: they find the same run.

    Args:
        fold: a fold that must exist; an impossible one leaves nothing behind.
        pretrain: the other cohort, with its path; given when, and only when, the experiment has transfer.
        folds_file: the user's own division; None takes a `folds.json` that lies in the new folder, or makes one.
        other_patients: the user's word that nobody is in both cohorts, see `check_cohorts`.

    Raises:
        RunError: the folder holds another experiment, other settings or other data; each difference is named.
        SettingsError: the folds cannot be made, or `fold` is not among them; transfer without another cohort, or a
            cohort without transfer; normal scans are to train, and there are none for some fold or for the pre-training.
        DatasetError: the two cohorts do not go together, or the folds file does not fit.
    """
    path = Path(path)
    data = {
        "path": str(Path(data_path).resolve()),
        "fingerprint": dataset.fingerprint,
        "image_shape": list(dataset.image_shape),
        "preparation": dataset.settings.to_json(),
        "scans": scans_are(dataset.cases),
    }
    if (path / EXPERIMENT).exists() and pretrain is not None:
        # Whoever gave his word for a run need not repeat it for each fold.
        old = open_run(path).pretrain_data or {}
        other_patients |= old.get("patients_compared") is False and old["fingerprint"] == pretrain[0].fingerprint
    pretrain_data = _pretrain_data(experiment, dataset, pretrain, other_patients)
    if (path / EXPERIMENT).exists():
        return _open_again(path, experiment, dataset, data_path, fold, pretrain_data, folds_file)
    # A folder with nothing but a folds.json is the user's own division, to be honoured. Hidden files are another
    # process's, which makes the same run at this moment.
    own_folds = path / FOLDS
    if path.exists() and (not path.is_dir() or any(not _may_be_there(file) for file in path.iterdir())):
        if (path / EXPERIMENT).exists():  # Another process has made the run since, and begun to train.
            return _open_again(path, experiment, dataset, data_path, fold, pretrain_data, folds_file)
        raise RunError(f"{path}: not empty and not a run folder; choose another --run folder")
    source = own_folds if own_folds.exists() else folds_file
    if source is None:
        folds = make_folds(dataset.cases, experiment.folds, experiment.seed, lesions_of_cases(dataset))
    else:
        folds = load_folds(source, dataset.cases)
        if len(folds) != experiment.folds:
            raise SettingsError(f"{source}: has {len(folds)} parts, the experiment {experiment.folds}: set --folds")
    if folds_file is not None and source != folds_file:
        _check_same_folds(path, folds, folds_file, dataset)
    folds.split(fold)
    _check_negatives(data_path, experiment, folds)
    create_file(own_folds, json_text(folds_to_json(folds)))
    # Last, since a folder with an experiment.json counts as a run.
    run = Run(path, experiment, data, pretrain_data)
    content = {
        "format": FORMAT,
        "version": __version__,
        "experiment": experiment.to_json(),
        "is_paper_row": run.is_paper_row,
        "changed_settings": run.changed_settings(),
        "data": data,
        "pretrain_data": pretrain_data,
    }
    create_file(path / EXPERIMENT, json_text(content))
    return _open_again(path, experiment, dataset, data_path, fold, pretrain_data, folds_file)


def _may_be_there(file: Path) -> bool:
    return file.name in (FOLDS, EXPERIMENT) or file.name.startswith((".folds-", ".experiment-"))


def _pretrain_data(
    experiment: Experiment,
    dataset: ShardedDataset,
    pretrain: tuple[ShardedDataset, str | os.PathLike] | None,
    other_patients: bool,
) -> dict[str, Any] | None:
    if experiment.transfer and pretrain is None:
        raise SettingsError(f"{experiment.name} starts from another cohort: name its shards with --pretrain-data")
    if pretrain is None:
        return None
    other, path = pretrain
    if not experiment.transfer:
        raise SettingsError(
            f"{experiment.name} does not pre-train: leave out --pretrain-data, or use --set transfer=yes"
        )
    check_cohorts(dataset, other, other_patients)
    if experiment.pretrain_negatives != "none" and not any(case.group == "negative" for case in other.cases):
        raise SettingsError(
            f"{path}: {experiment.name} pre-trains with normal scans as well, and none of these is; say which are normal in "
            "patients.csv and prepare them again, or use --set pretrain_negatives=none"
        )
    return {
        "path": str(Path(path).resolve()),
        "fingerprint": other.fingerprint,
        "patients_compared": patients_comparable(dataset, other),
    }


def _check_negatives(data_path: str | os.PathLike, experiment: Experiment, folds: Folds) -> None:
    """Without this a row with normal scans would train without one, and bear the row's name all the same."""
    if experiment.negatives == "none":
        return
    if not folds.negatives:
        raise SettingsError(
            f"{data_path}: {experiment.name} trains with normal scans, and none of these is; say which are normal in "
            "patients.csv and prepare them again, or use --set negatives=none"
        )
    for fold in range(1, len(folds) + 1):
        if not folds.split(fold).negatives:
            raise SettingsError(
                f"{data_path}: {experiment.name} trains with normal scans, and all of them are of patients who test or "
                f"validate in fold {fold}; prepare normal scans of other patients, or use --set negatives=none"
            )


def _check_same_folds(path: Path, folds: Folds, folds_file: str | os.PathLike, dataset: ShardedDataset) -> None:
    if load_folds(folds_file, dataset.cases).sha256() != folds.sha256():
        raise RunError(f"{path}: has other folds than {folds_file}; choose another --run folder")


def _open_again(
    path: Path,
    experiment: Experiment,
    dataset: ShardedDataset,
    data_path: str | os.PathLike,
    fold: int,
    pretrain_data: dict[str, Any] | None,
    folds_file: str | os.PathLike | None,
) -> Run:
    """Open a run that must be this one."""
    run = open_run(path)
    old, new = run.experiment.to_json(), experiment.to_json()
    differences = [f"{key} {old.get(key)} there, {new[key]} here" for key in new if old.get(key) != new[key]]
    if differences:
        raise RunError(f"{path}: a run with other settings ({'; '.join(differences)}); choose another --run folder")
    run.check_data(dataset, data_path)
    if pretrain_data is not None and run.pretrain_data["fingerprint"] != pretrain_data["fingerprint"]:
        raise RunError(
            f"{pretrain_data['path']}: not the shards that {path} pre-trains on; choose another --run folder"
        )
    if folds_file is not None:
        _check_same_folds(path, run.folds(dataset), folds_file, dataset)
    folds = run.folds(dataset)
    folds.split(fold)
    _check_negatives(data_path, experiment, folds)
    return run


def open_run(path: str | os.PathLike) -> Run:
    """Open an existing run folder.

    Raises:
        RunError: there is none, or its `experiment.json` is damaged or of another format.
    """
    path = Path(path)
    source = path / EXPERIMENT
    if not source.is_file():
        raise RunError(f"{path}: not a run folder (it has no {EXPERIMENT})")
    content = read_json(source, RunError, "run description")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RunError(f"{source}: not a run description of format {FORMAT}")
    data = content.get("data")
    kinds = {"path": str, "fingerprint": str, "image_shape": list, "preparation": dict}
    if not isinstance(data, dict) or not all(isinstance(data.get(key), kind) for key, kind in kinds.items()):
        raise RunError(f"{source}: the description of the data is incomplete")
    try:
        PreparationSettings.from_json(data["preparation"])
    except DatasetError as error:
        raise RunError(f"{source}: {error}") from None
    experiment = Experiment.from_json(content.get("experiment") or {}, str(source))
    pretrain_data = content.get("pretrain_data")
    if experiment.transfer and not (
        isinstance(pretrain_data, dict)
        and all(isinstance(pretrain_data.get(key), str) for key in ("path", "fingerprint"))
        and pretrain_data.get("patients_compared") in (True, False, None)
    ):
        raise RunError(f"{source}: the description of the data for pre-training is incomplete")
    return Run(path=path, experiment=experiment, data=data, pretrain_data=pretrain_data)


FOLDERS = (".mined_negatives-*", f".{SAVED_MODEL}-*")
"""As `files.new_folder` and `replaced_folder` name them. Hidden folders of others, an evaluation say, are left alone."""


def remove_leftovers(path: Path) -> None:
    """Remove hidden files and the folders in which mined labels and an export were being written.

    An export that was killed between its two renames has left the older SavedModel in such a folder and none in its place:
    that one is put back first. Nothing happens where `path` does not exist.

    Args:
        path: the folder of a stage, whose lock is held.
    """
    for leftover in path.glob(".*"):
        if leftover.is_file():
            leftover.unlink()
    remove_leftover_folders(path)


def remove_leftover_folders(path: Path) -> None:
    """The part of `remove_leftovers` that concerns folders."""
    saved_model = path / SAVED_MODEL
    for folder in sorted(folder for pattern in FOLDERS for folder in path.glob(pattern)):
        old = folder / "old"
        if folder.match(f".{SAVED_MODEL}-*") and old.is_dir() and not saved_model.exists():
            os.rename(old, saved_model)
        shutil.rmtree(folder)
