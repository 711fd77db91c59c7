"""Make a run folder, or open it for the same experiment on the same shards."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from doubleunet_bs import __version__
from doubleunet_bs.dataset.folds import Folds, folds_to_json, load_folds
from doubleunet_bs.dataset.joined_shards import SkeletonDataset, parts_of
from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.files import create_file, json_text
from doubleunet_bs.preparation.records import count_cohort, scans_are
from doubleunet_bs.preparation.shards import ShardedDataset
from doubleunet_bs.runs.cohorts import check_normal_scans, check_start, new_folds, pretrain_data
from doubleunet_bs.runs.experiments import Experiment
from doubleunet_bs.runs.run_folder import ABOUT_DATA, EXPERIMENT, FOLDS, FORMAT, Run, open_run


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A run that passed all checks. Nothing of it is written yet unless its folder `exists`."""

    run: Run
    folds: Folds
    exists: bool

    def create(self) -> Run:
        """Write `folds.json` and `experiment.json`, unless another process has written them meanwhile."""
        run = self.run
        if not self.exists:
            create_file(run.path / FOLDS, json_text(folds_to_json(self.folds)))
            content = {
                "format": FORMAT,
                "version": __version__,
                "experiment": run.experiment.to_json(),
                "is_paper_row": run.is_paper_row,
                "changed_settings": run.changed_settings(),
                "data": run.data,
                "pretrain_data": run.pretrain_data,
                "disjoint_patients": run.disjoint_patients,
            }
            # Last, since a folder with an experiment.json counts as a run.
            create_file(run.path / EXPERIMENT, json_text(content))
        written = open_run(run.path)
        _check_same(written, run)
        return written


def plan_run(
    path: str | os.PathLike,
    experiment: Experiment,
    dataset: ShardedDataset,
    folds_to_train: Sequence[int] = (1,),
    pretrain: ShardedDataset | None = None,
    folds_file: str | os.PathLike | None = None,
    other_patients: bool = False,
) -> PlannedRun:
    """Check everything about a run that can be known without TensorFlow. Nothing is written.

    The folds to train must exist and may start from the weights they start from. For the rest see `create_run`.
    """
    path = Path(path)
    if experiment.is_skeleton != isinstance(dataset, SkeletonDataset):
        raise SettingsError(f"{dataset.path}: wrap the shards as SkeletonDataset for skeleton, and only for it")
    if experiment.has_benign and dataset.settings.benign != "own":
        raise SettingsError(f"{dataset.path}: has no benign class: prepare it with --benign own")
    if experiment.classes == 3 and dataset.settings.benign == "own":
        raise SettingsError(
            f"{dataset.path}: has a benign class: leave out --set classes=3, or prepare without --benign own"
        )
    old = open_run(path) if (path / EXPERIMENT).exists() else None
    # Confirmed once for a run, it need not be repeated for each fold.
    other_patients |= old is not None and old.disjoint_patients
    if old is not None and pretrain is not None:
        earlier = old.pretrain_data or {}
        other_patients |= earlier.get("patients_compared") is False and earlier["fingerprint"] == pretrain.fingerprint
    run = Run(
        path=path,
        experiment=experiment,
        data=_describe_data(dataset),
        pretrain_data=pretrain_data(experiment, dataset, pretrain, other_patients),
        disjoint_patients=other_patients,
    )
    if old is not None:
        _check_same(old, run)
        run, folds = old, old.folds(dataset)
    else:
        folds = _folds_of_new_run(path, experiment, dataset, folds_file)
    if folds_file is not None and load_folds(folds_file, dataset.cases).sha256() != folds.sha256():
        raise RunError(f"{path}: has other folds than {folds_file}: choose another --run folder")
    for fold in folds_to_train:
        folds.split(fold)  # complains about a number out of range
    check_normal_scans(dataset, experiment, folds)
    for fold in folds_to_train:
        check_start(experiment, dataset, folds, fold, other_patients)
    return PlannedRun(run, folds, old is not None)


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
        other_patients: the user confirms that the cohorts share no patients, see `check_cohorts` and `check_start`.

    Raises:
        RunError: the folder holds another experiment, other settings or other data. Each difference is named.
        SettingsError: the folds cannot be made, or `fold` is not among them. Transfer without another cohort, or a
            cohort without transfer. Normal scans should train, and there are none for a fold or for the pre-training.
        DatasetError: the cohorts do not go together, the folds file does not fit, or a patient whom the fold tests has
            trained the weights that it starts from.
    """
    return plan_run(path, experiment, dataset, (fold,), pretrain, folds_file, other_patients).create()


def _describe_data(dataset: ShardedDataset) -> dict[str, Any]:
    parts = [{"path": str(part.path.resolve()), "fingerprint": part.fingerprint} for part in parts_of(dataset)]
    return {
        "fingerprint": dataset.fingerprint,
        "parts": parts,
        "image_shape": list(dataset.image_shape),
        "preparation": dataset.settings.to_json(),
        "scans": scans_are(dataset.cases),
        "cohort": count_cohort(dataset.cases),
        "sources": [source.to_json() for source in dataset.sources],
    }


def _folds_of_new_run(
    path: Path, experiment: Experiment, dataset: ShardedDataset, folds_file: str | os.PathLike | None
) -> Folds:
    # A folder with nothing but a folds.json and about_data.txt holds what the user put there. Hidden files are those of
    # another process that creates the same run at this moment.
    own = path / FOLDS
    if path.exists() and (not path.is_dir() or any(not _may_be_there(file) for file in path.iterdir())):
        if (path / EXPERIMENT).exists():  # Another process has created the run since, and begun to train.
            return open_run(path).folds(dataset)
        raise RunError(f"{path}: not empty and not a run folder: choose another --run folder")
    source = own if own.exists() else folds_file
    if source is None:
        return new_folds(experiment, dataset)
    folds = load_folds(source, dataset.cases)
    if len(folds) != experiment.folds:
        raise SettingsError(f"{source}: has {len(folds)} parts, the experiment {experiment.folds}: set --folds")
    return folds


def _may_be_there(file: Path) -> bool:
    return file.name in (FOLDS, EXPERIMENT, ABOUT_DATA) or file.name.startswith((".folds-", ".experiment-"))


def _check_same(old: Run, new: Run) -> None:
    """Refuse another experiment or other data than a run folder holds."""
    there, here = old.experiment.to_json(), new.experiment.to_json()
    differences = [
        f"{key} {there.get(key, 'unset')} there, {here.get(key, 'unset')} here"
        # Another row differs in many settings, which its name says.
        for key in ({**here, **there} if here["name"] == there["name"] else ["name"])
        if there.get(key) != here.get(key)
    ]
    if differences:
        advice = "choose another --run folder"
        if trained := old.trained_folds():
            advice += f", with --from {old.fold_path(trained[0])} to start from its weights"
        raise RunError(f"{old.path}: a run with other settings ({'; '.join(differences)}): {advice}")
    if new.data["fingerprint"] != old.data["fingerprint"]:
        paths = " ".join(part["path"] for part in new.parts)
        raise RunError(f"{paths}: not the shards that {old.path} was trained on: name those with --data")
    pretrained = new.pretrain_data
    if pretrained is not None and (old.pretrain_data or {}).get("fingerprint") != pretrained["fingerprint"]:
        raise RunError(f"{pretrained['path']}: not the shards that {old.path} pre-trains on: choose a new --run folder")
