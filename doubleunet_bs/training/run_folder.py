"""The run folder: which experiment on which data, its folds, and one folder for each fold.

One pre-training serves all folds of a run with transfer, because none of their scans is in it. That is checked here.
"""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

from doubleunet_bs import __version__
from doubleunet_bs.dataset.folds import Folds, folds_to_json, lesions_of_cases, load_folds, make_folds
from doubleunet_bs.errors import DatasetError, RunError, SettingsError
from doubleunet_bs.files import create_file, json_text, read_json
from doubleunet_bs.preparation.records import count_cohort, scans_are
from doubleunet_bs.preparation.settings import PreparationSettings
from doubleunet_bs.preparation.shards import ShardedDataset, patients_comparable
from doubleunet_bs.training.experiments import Experiment

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
        data: {"path", "fingerprint", "image_shape", "preparation", "scans", "cohort"} of the shards it trains on.
            "scans" is "phantoms", "patients", "mixed" or "unknown". "cohort" is from `records.count_cohort`.
        pretrain_data: {"path", "fingerprint", "patients_compared", "cohort"} of the shards it pre-trains on.
            "patients_compared" is as in `preparation.shards.patients_comparable`. None without transfer.
            Older runs lack some of these entries.
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
        return sorted(
            int(path.name.removeprefix("fold_"))
            for path in self.path.glob("fold_[0-9][0-9]")
            if (path / KERAS_MODEL).is_file()
        )

    def check_data(self, dataset: ShardedDataset, path: str | os.PathLike) -> None:
        """Refuse shards other than those the run was trained on.

        Raises:
            RunError: the fingerprints differ.
        """
        if dataset.fingerprint != self.data["fingerprint"]:
            raise RunError(f"{path}: not the shards that {self.path} was trained on: name those with --data")


def create_run(
    path: str | os.PathLike,
    experiment: Experiment,
    dataset: ShardedDataset,
    fold: int = 1,
    pretrain: ShardedDataset | None = None,
    folds_file: str | os.PathLike | None = None,
    other_patients: bool = False,
) -> Run:
    """Open `path` for this experiment on these shards. A new run is created with its folds.

    Several processes, on any machines, may do so at the same time. They find the same run.

    Args:
        path: the run folder.
        experiment: what to train.
        dataset: opened shards.
        fold: a fold that must exist. An impossible one leaves nothing behind.
        pretrain: the other cohort, if and only if the experiment has transfer.
        folds_file: the user's own `folds.json`. None: the `folds.json` in the new folder, or new folds.
        other_patients: the user confirms that the cohorts share no patients, see `check_cohorts`.

    Raises:
        RunError: the folder holds another experiment, other settings or other data. Each difference is named.
        SettingsError: the folds cannot be made, or `fold` is not among them. Transfer without another cohort, or a
            cohort without transfer. Normal scans should train, and there are none for a fold or for the pre-training.
        DatasetError: the two cohorts do not go together, or the folds file does not fit.
    """
    path = Path(path)
    exists = (path / EXPERIMENT).exists()
    if exists and pretrain is not None:
        # Confirmed once for a run, it need not be repeated for each fold.
        old = open_run(path).pretrain_data or {}
        other_patients |= old.get("patients_compared") is False and old["fingerprint"] == pretrain.fingerprint
    pretrain_data = _pretrain_data(experiment, dataset, pretrain, other_patients)
    if not exists:
        _write_run(path, experiment, dataset, fold, pretrain_data, folds_file)
    run = open_run(path)
    _check_same_experiment(run, experiment)
    run.check_data(dataset, dataset.path)
    if pretrain_data is not None and (run.pretrain_data or {}).get("fingerprint") != pretrain_data["fingerprint"]:
        raise RunError(f"{pretrain_data['path']}: not the shards that {path} pre-trains on: choose a new --run folder")
    folds = run.folds(dataset)
    if folds_file is not None:
        _check_same_folds(path, folds, folds_file, dataset)
    folds.split(fold)
    _check_negatives(dataset, experiment, folds)
    return run


def _write_run(
    path: Path,
    experiment: Experiment,
    dataset: ShardedDataset,
    fold: int,
    pretrain_data: dict[str, Any] | None,
    folds_file: str | os.PathLike | None,
) -> None:
    """Write `folds.json` and `experiment.json`, unless another process has written them meanwhile."""
    # A folder with nothing but a folds.json holds the user's own folds. Hidden files are those of another process that
    # creates the same run at this moment.
    own_folds = path / FOLDS
    if path.exists() and (not path.is_dir() or any(not _may_be_there(file) for file in path.iterdir())):
        if (path / EXPERIMENT).exists():  # Another process has created the run since, and begun to train.
            return
        raise RunError(f"{path}: not empty and not a run folder: choose another --run folder")
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
    _check_negatives(dataset, experiment, folds)
    create_file(own_folds, json_text(folds_to_json(folds)))
    data = {
        "path": str(dataset.path.resolve()),
        "fingerprint": dataset.fingerprint,
        "image_shape": list(dataset.image_shape),
        "preparation": dataset.settings.to_json(),
        "scans": scans_are(dataset.cases),
        "cohort": count_cohort(dataset.cases),
    }
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
    # Last, since a folder with an experiment.json counts as a run.
    create_file(path / EXPERIMENT, json_text(content))


def _may_be_there(file: Path) -> bool:
    return file.name in (FOLDS, EXPERIMENT) or file.name.startswith((".folds-", ".experiment-"))


def _pretrain_data(
    experiment: Experiment, dataset: ShardedDataset, pretrain: ShardedDataset | None, other_patients: bool
) -> dict[str, Any] | None:
    if experiment.transfer and pretrain is None:
        raise SettingsError(f"{experiment.name} pre-trains on another cohort: name its shards with --pretrain-data")
    if pretrain is None:
        return None
    if not experiment.transfer:
        raise SettingsError(
            f"{experiment.name} does not pre-train: leave out --pretrain-data, or use --set transfer=yes"
        )
    check_cohorts(dataset, pretrain, other_patients)
    if experiment.pretrain_negatives != "none" and not any(case.group == "negative" for case in pretrain.cases):
        raise SettingsError(
            f"{pretrain.path}: no normal scans to pre-train {experiment.name} with: "
            "mark them in patients.csv and prepare again, or use --set pretrain_negatives=none"
        )
    return {
        "path": str(pretrain.path.resolve()),
        "fingerprint": pretrain.fingerprint,
        "patients_compared": patients_comparable(dataset, pretrain),
        "cohort": count_cohort(pretrain.cases),
    }


def check_cohorts(dataset: ShardedDataset, other: ShardedDataset, other_patients: bool = False) -> None:
    """Check that `dataset` can start from a pre-training on `other` (paper, section 2.6).

    They must share no patient and no scan, and be prepared alike. Patients are compared by pseudonym, which requires
    that both cohorts were prepared with the same key (`prepare --key`). Scans are compared by their counts and files as
    well, which needs no key.

    Args:
        dataset: the shards of the run.
        other: the shards of the other cohort.
        other_patients: the user confirms that the cohorts share no patients, for cohorts with different keys.

    Raises:
        DatasetError: naming the folder and the case. Also when one holds phantoms and the other patients, and when
            their keys differ without `other_patients`.
    """
    if other.fingerprint == dataset.fingerprint:
        raise DatasetError(f"{other.path}: the same shards as {dataset.path}: pre-train on another cohort")
    if other.image_shape != dataset.image_shape:
        shapes = [" x ".join(map(str, cohort.image_shape)) for cohort in (other, dataset)]
        raise DatasetError(f"{other.path}: images of {shapes[0]} pixels, {dataset.path} has {shapes[1]}")
    here = dataset.settings.to_json()
    different = [
        f"{name} {there} there, {here[name]} here" for name, there in other.settings.changes(dataset.settings).items()
    ]
    if different:
        raise DatasetError(
            f"{other.path}: prepared with other settings than {dataset.path} ({'; '.join(different)}): prepare one "
            "again"
        )
    kinds = [scans_are(cohort.cases) for cohort in (other, dataset)]
    if kinds[0] != kinds[1]:
        # What a report says of its figures rests on the scans of the folds alone.
        raise DatasetError(
            f"{other.path}: its scans are {kinds[0]}, those of {dataset.path} {kinds[1]}: pre-train on scans of the "
            "same kind"
        )
    if patients_comparable(dataset, other) is False and not other_patients:
        raise DatasetError(
            f"{other.path}: prepared with another key than {dataset.path}, so patients cannot be compared: prepare it "
            "again with the other's --key file, or give --assume-disjoint-patients"
        )
    for what, attribute in (("patient", "patient"), ("scan", "pixel_sha256"), ("source file", "source_sha256")):
        known = {getattr(case, attribute): case.case for case in dataset.cases}
        for case in other.cases:
            value = getattr(case, attribute)
            if value and value in known:
                raise DatasetError(
                    f"{other.path}: {case.case} is of the same {what} as {known[value]} in {dataset.path}: leave one "
                    "out"
                )


def _check_negatives(dataset: ShardedDataset, experiment: Experiment, folds: Folds) -> None:
    """Without this, a row with normal scans would train without one, under the row's name."""
    if experiment.negatives == "none":
        return
    if not folds.negatives:
        raise SettingsError(
            f"{dataset.path}: no normal scans to train {experiment.name} with: mark them in patients.csv and prepare "
            "again, or use --set negatives=none"
        )
    for fold in range(1, len(folds) + 1):
        if not folds.split(fold).negatives:
            raise SettingsError(
                f"{dataset.path}: all normal scans are of patients who test or validate in fold {fold}: prepare normal "
                "scans of other patients, or use --set negatives=none"
            )


def _check_same_experiment(run: Run, experiment: Experiment) -> None:
    old, new = run.experiment.to_json(), experiment.to_json()
    differences = [f"{key} {old.get(key)} there, {new[key]} here" for key in new if old.get(key) != new[key]]
    if differences:
        raise RunError(f"{run.path}: a run with other settings ({'; '.join(differences)}): choose another --run folder")


def _check_same_folds(path: Path, folds: Folds, folds_file: str | os.PathLike, dataset: ShardedDataset) -> None:
    if load_folds(folds_file, dataset.cases).sha256() != folds.sha256():
        raise RunError(f"{path}: has other folds than {folds_file}: choose another --run folder")


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


TEMPORARY_FOLDERS = (".mined_negatives-*", f".{SAVED_MODEL}-*")
"""As `files.new_folder` and `replaced_folder` name them. Hidden folders of others, such as an evaluation, are kept."""


def remove_temporary(path: Path, files: bool = True) -> None:
    """Remove what a killed process left in the folder of a stage: hidden files, half-written mined labels and exports.

    An export that was killed between its two renames has left the older SavedModel under a hidden name and none in its
    place. That one is put back first. Nothing happens if `path` does not exist.

    Args:
        path: the folder of a stage, whose lock is held.
        files: remove hidden files too.
    """
    for hidden in path.glob(".*") if files else ():
        if hidden.is_file():
            hidden.unlink()
    saved_model = path / SAVED_MODEL
    for folder in sorted(folder for pattern in TEMPORARY_FOLDERS for folder in path.glob(pattern)):
        old = folder / "old"
        if folder.match(f".{SAVED_MODEL}-*") and old.is_dir() and not saved_model.exists():
            os.rename(old, saved_model)
        shutil.rmtree(folder)
