"""Which scans may train together, and what weights they may start from: no patient is tested by who has seen them.

One pre-training serves all folds of a run with transfer, because none of their scans is in it (paper, section 2.6). A
run may also start from the folds of an earlier one. Then no patient of its test and validation scans may have trained
that fold.
"""

import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from doubleunet_bs.dataset.folds import Folds, choose_folds, in_training_part, keep_parts, lesions_of_cases
from doubleunet_bs.dataset.joined_shards import (
    SkeletonDataset,
    check_no_common_scan,
    check_prepared_alike,
    different_keys,
    open_all_shards,
    parts_of,
)
from doubleunet_bs.errors import DatasetError, RunError, SettingsError
from doubleunet_bs.preparation.records import count_cohort, scans_are
from doubleunet_bs.preparation.shards import ShardedDataset, patients_comparable
from doubleunet_bs.runs.experiments import Experiment
from doubleunet_bs.runs.run_folder import BEST_WEIGHTS, EXPERIMENT, KERAS_MODEL, Run, fold_number, open_run


def check_cohorts(dataset: ShardedDataset, other: ShardedDataset, other_patients: bool = False) -> None:
    """Check that `dataset` can start from a pre-training on `other` (paper, section 2.6).

    They must be of one kind, prepared alike, and share no patient and no scan; `DatasetError` names folder and case.
    Patients are compared by pseudonym, which needs one `prepare --key` for both, unless `other_patients`: the user
    confirms that there is none in both. Scans are compared by their counts and files as well, which needs no key.
    """
    if other.fingerprint in [part.fingerprint for part in (dataset, *parts_of(dataset))]:
        raise DatasetError(f"{other.path}: the same shards as {dataset.path}: pre-train on another cohort")
    if other.image_shape != dataset.image_shape:
        shapes = [" x ".join(map(str, cohort.image_shape)) for cohort in (other, dataset)]
        raise DatasetError(f"{other.path}: images of {shapes[0]} pixels, {dataset.path} has {shapes[1]}")
    _check_comparable(dataset, other, other_patients)
    check_no_common_scan(dataset, other, patients=True)


def _check_comparable(dataset: ShardedDataset, other: ShardedDataset, other_patients: bool) -> None:
    check_prepared_alike(dataset, other)
    kinds = [scans_are(cohort.cases) for cohort in (other, dataset)]
    if kinds[0] != kinds[1]:
        # What a report says of its figures rests on the scans of the folds alone.
        raise DatasetError(
            f"{other.path}: its scans are {kinds[0]}, those of {dataset.path} {kinds[1]}: use scans of the same kind"
        )
    if patients_comparable(dataset, other) is False and not other_patients:
        raise different_keys(dataset, other)


def check_normal_scans(dataset: ShardedDataset, experiment: Experiment, folds: Folds) -> None:
    """Refuse (`SettingsError`) a row with normal scans that has none for a fold: it would train without."""
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


def pretrain_data(
    experiment: Experiment, dataset: ShardedDataset, pretrain: ShardedDataset | None, other_patients: bool
) -> dict[str, Any] | None:
    """Check the other cohort of an experiment with transfer and describe it for `experiment.json`.

    Raises:
        SettingsError: it is missing, or there is one without transfer, or it has no normal scans where they train.
        DatasetError: see `check_cohorts`.
    """
    if experiment.transfer and pretrain is None:
        raise SettingsError(f"{experiment.name} pre-trains on another cohort: name its shards with --pretrain-data")
    if pretrain is None:
        return None
    if not experiment.transfer:
        raise SettingsError(
            f"{experiment.name} does not pre-train: leave out --pretrain-data"
            + ("" if experiment.is_skeleton else ", or use --set transfer=yes")
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


@dataclasses.dataclass(frozen=True)
class StartFold:
    """A trained fold of an earlier run, whose weights a fold starts from."""

    run: Run
    fold: int

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.run.fold_path(self.fold)

    @property
    def weights(self) -> Path:
        """Its `best.weights.h5`."""
        return self.path / BEST_WEIGHTS


def start_fold(experiment: Experiment, fold: int) -> StartFold | None:
    """What `fold` of an experiment starts from, None without `start_from`; `RunError` where that is no trained fold."""
    if not experiment.start_from:
        return None
    run, own = _start_run(experiment.start_from)
    found = StartFold(run, own or fold)
    if not (found.path / KERAS_MODEL).is_file() or not found.weights.is_file():
        trained = ", ".join(map(str, found.run.trained_folds())) or "none"
        raise RunError(f"{found.path}: not a trained fold (trained: {trained}): give another with --from")
    return found


def _start_run(start_from: str) -> tuple[Run, int | None]:
    """The run that is named, and the fold if one of it is."""
    path = Path(start_from)
    if (path / EXPERIMENT).is_file():
        return open_run(path), None
    fold = fold_number(path)
    if fold is None or not (path.parent / EXPERIMENT).is_file():
        raise RunError(f"{path}: not a run or a fold of one: give --from RUN or --from RUN/fold_01")
    return open_run(path.parent), fold


def check_start(experiment: Experiment, dataset: ShardedDataset, folds: Folds, fold: int, other_patients: bool) -> None:
    """Check that a fold may start from the weights of `experiment.start_from`.

    The network and the preparation must be the same. Nobody whom the fold tests or validates on may have trained those
    weights, nor what they started from in turn. Who chose their epoch may validate again, but not test.
    With `other_patients` the user confirms this of patients that cannot be compared.

    Raises:
        RunError: another network, no trained fold.
        DatasetError: prepared otherwise, a patient in both, or patients that cannot be compared.
    """
    start = start_fold(experiment, fold)
    if start is None:
        return
    if start.run.experiment.classes != experiment.classes:
        raise RunError(
            f"{start.path}: a network of {start.run.experiment.classes} classes, not {experiment.classes}: "
            "choose another fold or --experiment"
        )
    split = folds.split(fold)
    # Without training on them, the evaluation takes the normal scans for scans that the fold has not seen.
    unseen = folds.negatives if experiment.negatives == "none" else ()
    tested = {*split.test, *(folds.negative_parts[0] if folds.is_published else unseen)}
    for seen, trained, validated in seen_by_start(start, other_patients):
        _check_comparable(dataset, seen, other_patients)
        for held_out, by in ((tested, {*trained, *validated}), ({*split.validation}, trained)):
            case = _common_patient(dataset, held_out, seen, by)
            if case is not None:
                raise DatasetError(
                    f"{start.path}: trained on the patient of {case}, whom fold {fold} tests or validates: "
                    f"give --from {start.run.path}, where each fold has one of its own"
                )


def _common_patient(
    dataset: ShardedDataset, cases: Collection[str], other: ShardedDataset, of_other: Collection[str]
) -> str | None:
    """The first of some cases whose patient or scan is also among some cases of another data set."""
    for attribute in ("patient", "pixel_sha256", "source_sha256"):
        known = {getattr(case, attribute) for case in other.cases if case.case in of_other} - {""}
        for case in dataset.cases:
            if case.case in cases and getattr(case, attribute) in known:
                return case.case
    return None


def seen_by_start(
    start: StartFold | None, other_patients: bool = False
) -> Iterator[tuple[ShardedDataset, set[str], set[str]]]:
    """The data sets that some weights come from, the cases that trained them, and those that chose their epoch.

    A data set that is gone, or another one now, is a `DatasetError`; with `other_patients` it is passed over, since the
    user answers for it.
    """
    if start is None:
        return
    run = start.run
    dataset = _training_data(run, other_patients)
    if dataset is not None:
        split = run.folds(dataset).split(start.fold)
        negatives = () if run.experiment.negatives == "none" else split.negatives
        yield dataset, {*split.train, *negatives}, {*split.validation}
    if run.pretrain_data is not None:
        pretrained = open_parts([run.pretrain_data], other_patients, run.path)
        if pretrained is not None:
            yield pretrained, {case.case for case in pretrained.cases}, set()
    yield from seen_by_start(start_fold(run.experiment, start.fold), other_patients)


def recorded_shards(run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    """(stage, {"path", "fingerprint"}) of all shards that the folds of a run come from, those of earlier runs too."""
    yield from (("training", part) for part in run.parts)
    if run.pretrain_data is not None:
        yield "pre-training", run.pretrain_data
    if run.experiment.start_from:
        earlier, _ = _start_run(run.experiment.start_from)
        yield from (("earlier training", part) for _, part in recorded_shards(earlier))


def _training_data(run: Run, may_be_gone: bool) -> ShardedDataset | None:
    """The data set that a run was trained on, as its experiment sees it; None as `open_parts`."""
    dataset = open_parts(run.parts, may_be_gone, run.path)
    return SkeletonDataset.of(dataset) if dataset is not None and run.experiment.is_skeleton else dataset


def open_parts(parts: list[dict[str, Any]], may_be_gone: bool, run_path: Path) -> ShardedDataset | None:
    """Open the shards that a run has recorded; None when they are gone or others and `may_be_gone`."""
    paths = [Path(part["path"]) for part in parts]
    missing = next((path for path in paths if not path.is_dir()), None)
    if missing is None:
        dataset = open_all_shards(paths, other_patients=True)
        if {part.fingerprint for part in parts_of(dataset)} == {part["fingerprint"] for part in parts}:
            return dataset
        missing = dataset.path
    if may_be_gone:
        return None
    raise DatasetError(
        f"{missing}: the shards that trained {run_path} are not there: restore them, or give --assume-disjoint-patients"
    )


def new_folds(experiment: Experiment, dataset: ShardedDataset) -> Folds:
    """Folds for a new run: the published split for 1 fold, or drawn by the seed from what may train in it.

    With `start_from` patients of the earlier run keep their parts.

    Raises:
        SettingsError: see `make_folds`; an earlier run with another number of folds.
    """
    if experiment.start_from and experiment.folds > 1:
        run, _ = _start_run(experiment.start_from)
        earlier = _training_data(run, True)
        if earlier is not None and patients_comparable(dataset, earlier) is not False:
            folds = run.folds(earlier)
            known = {folds.patients[case] for part in folds.parts for case in part}
            if known & {case.patient for case in dataset.cases}:
                if len(folds) != experiment.folds:
                    raise SettingsError(
                        f"{run.path}: has {len(folds)} folds of these patients: give --folds {len(folds)}"
                    )
                return keep_parts(folds, in_training_part(dataset.cases), lesions_of_cases(dataset))
    return choose_folds(dataset, experiment.folds, experiment.seed)
