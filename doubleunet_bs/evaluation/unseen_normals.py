"""Which normal scans a fold may be judged by: those it has not been trained on, and whose patient it has not seen.

In the paper the normal scans are in every training set and in no other. Only experiments without negatives leave them
over; those with Otsu negatives or negative mining have none, unless the normal scan belongs to a patient of the test
set.
"""

from doubleunet_bs.dataset.folds import Folds
from doubleunet_bs.training.experiments import Experiment


def unseen_normals(experiment: Experiment, folds: Folds, fold: int) -> tuple[tuple[str, ...], str | None]:
    """The normal scans that fold `fold` of an experiment can be tested on.

    Returns:
        The cases, in the order of the folds file, and why there are none (None when there are some).
    """
    if not folds.negatives:
        return (), "the shards hold no normal scan"
    split = folds.split(fold)
    seen = {folds.patients[case] for case in (*split.train, *split.validation)}
    trained = set(split.negatives) if experiment.negatives != "none" else set()
    unseen = tuple(case for case in folds.negatives if case not in trained and folds.patients[case] not in seen)
    if unseen:
        return unseen, None
    if trained:
        return (), "the normal scans are training data in every fold of this experiment, as in the paper"
    return (), "every normal scan belongs to a patient whose other scans were trained or validated on"
