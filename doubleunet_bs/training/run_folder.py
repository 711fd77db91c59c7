"""The run folder: which experiment on which data, its folds, and one folder for each fold."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from doubleunet_bs import __version__
from doubleunet_bs.dataset.folds import Folds, load_folds, make_folds, save_folds
from doubleunet_bs.errors import RunError
from doubleunet_bs.files import read_json, write_json
from doubleunet_bs.preparation.shards import ShardedDataset
from doubleunet_bs.training.experiments import Experiment

FORMAT = 1
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
        data: {"path", "fingerprint", "image_shape", "preparation"} of the shards it trains on.
    """

    path: Path
    experiment: Experiment
    data: dict[str, Any]

    def fold_path(self, fold: int) -> Path:
        """`RUN/fold_01` for fold 1."""
        return self.path / f"fold_{fold:02d}"

    def folds(self, dataset: ShardedDataset) -> Folds:
        """The folds of this run, read from its `folds.json` and held against the dataset."""
        return load_folds(self.path / "folds.json", dataset.cases)

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
) -> Run:
    """Open `path` for this experiment on these shards, creating it with its folds when it is new.

    Args:
        fold: a fold that must exist; an impossible one leaves nothing behind.

    Raises:
        RunError: the folder holds another experiment, other settings or other data; each difference is named.
        SettingsError: the folds cannot be made, or `fold` is not among them.
    """
    path = Path(path)
    data = {
        "path": str(Path(data_path).resolve()),
        "fingerprint": dataset.fingerprint,
        "image_shape": list(dataset.image_shape),
        "preparation": dataset.settings.to_json(),
    }
    if (path / "experiment.json").exists():
        run = open_run(path)
        old, new = run.experiment.to_json(), experiment.to_json()
        differences = [f"{key} {old.get(key)} there, {new[key]} here" for key in new if old.get(key) != new[key]]
        if differences:
            raise RunError(f"{path}: a run with other settings ({'; '.join(differences)}); choose another --run folder")
        run.check_data(dataset, data_path)
        return run
    # A folder with nothing but a folds.json is the user's own division, to be honoured.
    own_folds = path / "folds.json"
    if path.exists() and (not path.is_dir() or any(file != own_folds for file in path.iterdir())):
        raise RunError(f"{path}: not empty and not a run folder; choose another --run folder")
    folds = (
        load_folds(own_folds, dataset.cases)
        if own_folds.exists()
        else make_folds(dataset.cases, experiment.folds, experiment.seed)
    )
    folds.split(fold)
    if not own_folds.exists():
        save_folds(folds, own_folds)
    # Last, since a folder with an experiment.json counts as a run.
    write_json(
        path / "experiment.json",
        {
            "format": FORMAT,
            "version": __version__,
            "experiment": experiment.to_json(),
            "is_paper_row": experiment.is_paper_row,
            "changed_settings": experiment.changed_settings(),
            "data": data,
        },
    )
    return Run(path=path, experiment=experiment, data=data)


def open_run(path: str | os.PathLike) -> Run:
    """Open an existing run folder.

    Raises:
        RunError: there is none, or its `experiment.json` is damaged or of another format.
    """
    path = Path(path)
    source = path / "experiment.json"
    if not source.is_file():
        raise RunError(f"{path}: not a run folder (it has no experiment.json)")
    content = read_json(source, RunError, "run description")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RunError(f"{source}: not a run description of format {FORMAT}")
    data = content.get("data")
    kinds = {"path": str, "fingerprint": str, "image_shape": list, "preparation": dict}
    if not isinstance(data, dict) or not all(isinstance(data.get(key), kind) for key, kind in kinds.items()):
        raise RunError(f"{source}: the description of the data is incomplete")
    return Run(path=path, experiment=Experiment.from_json(content.get("experiment") or {}, str(source)), data=data)
