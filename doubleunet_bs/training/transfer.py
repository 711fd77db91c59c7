"""Pre-training on another cohort: what may be trained on, and what of it trains (paper, section 2.6).

The paper pre-trains with 100 scans of prostate-cancer patients and fine-tunes on breast cancer. One pre-training serves all
folds of a run, since none of their scans is in it; that is checked here and not taken on trust.
"""

from doubleunet_bs.dataset.folds import hold_out, lesions_of_cases
from doubleunet_bs.errors import DatasetError, SettingsError
from doubleunet_bs.preparation.records import scans_are
from doubleunet_bs.preparation.shards import ShardedDataset, patients_comparable
from doubleunet_bs.training.experiments import Experiment


def check_cohorts(dataset: ShardedDataset, other: ShardedDataset, other_patients: bool = False) -> None:
    """Refuse to pre-train for `dataset` on `other` when they share a patient or a scan, or were not prepared alike.

    Patients are compared by pseudonym, which tells only when both cohorts were prepared with the same key (`prepare --key`);
    scans are compared by their counts and their files as well, which needs no key.

    Args:
        other_patients: the user's word that no patient is in both, for cohorts with different keys.

    Raises:
        DatasetError: naming the two folders and the case. Also when one holds phantoms and the other patients, and when
            their keys differ and nobody gave his word.
    """
    if other.fingerprint == dataset.fingerprint:
        raise DatasetError(f"{other.path}: the same shards as {dataset.path}; pre-train on another cohort")
    if other.image_shape != dataset.image_shape:
        shapes = [" x ".join(map(str, cohort.image_shape)) for cohort in (other, dataset)]
        raise DatasetError(f"{other.path}: images of {shapes[0]} pixels, {dataset.path} has {shapes[1]}")
    here = dataset.settings.to_json()
    different = [
        f"{name} {there} there, {here[name]} here" for name, there in other.settings.changes(dataset.settings).items()
    ]
    if different:
        raise DatasetError(
            f"{other.path}: prepared with other settings than {dataset.path} ({'; '.join(different)}); prepare one again"
        )
    kinds = [scans_are(cohort.cases) for cohort in (other, dataset)]
    if kinds[0] != kinds[1]:
        # What is said of the figures rests on the scans of the folds alone.
        raise DatasetError(
            f"{other.path}: its scans are {kinds[0]}, those of {dataset.path} {kinds[1]}; pre-train on scans of the same kind, "
            "and prepare shards again that do not know theirs"
        )
    if patients_comparable(dataset, other) is False and not other_patients:
        raise DatasetError(
            f"{other.path}: its pseudonyms are of another key than those of {dataset.path}, so nobody can tell whether a patient "
            "is in both, who would be tested by a network that has seen him; prepare it again with --key and the key file of "
            "the other, or say with --assume-disjoint-patients that you know of none"
        )
    for what, attribute in (("patient", "patient"), ("scan", "pixel_sha256"), ("source file", "source_sha256")):
        known = {getattr(case, attribute): case.case for case in dataset.cases}
        for case in other.cases:
            value = getattr(case, attribute)
            if value and value in known:
                raise DatasetError(
                    f"{other.path}: {case.case} is of the same {what} as {known[value]} in {dataset.path}, which would be "
                    "tested by a network that has seen it; leave it out of one of the two"
                )


def pretraining_cases(experiment: Experiment, dataset: ShardedDataset) -> tuple[list[int], list[int]]:
    """The scans of the other cohort that train, and those that choose the best epoch and the learning rate.

    Decided here: all positive scans take part (and the normal ones, `experiment.pretrain_negatives`); one part by patient
    of as many as the run has folds validates, the others train.

    Returns:
        Indices into `dataset`, in its order.

    Raises:
        DatasetError: fewer than 3 patients with metastases, or no normal scan where they are to train.
    """
    try:
        split = hold_out(dataset.cases, experiment.folds, experiment.seed, lesions_of_cases(dataset))
    except SettingsError as error:
        raise DatasetError(f"{dataset.path}: cannot pre-train: {error}") from None
    if experiment.pretrain_negatives == "otsu" and not split.negatives:
        raise DatasetError(
            f"{dataset.path}: cannot pre-train: no normal scan is left to train on beside the validating patients; prepare "
            "more of them, or use --set pretrain_negatives=none"
        )
    train = set(split.train + (split.negatives if experiment.pretrain_negatives == "otsu" else ()))
    validation = set(split.validation)
    return (
        [index for index, case in enumerate(dataset.cases) if case.case in train],
        [index for index, case in enumerate(dataset.cases) if case.case in validation],
    )
