"""Several folds of a run as one model: the mean of their probabilities, and the class that is most probable in it.

An ensemble is for scans outside of the cross-validation. Every scan of it was a training scan of some fold, so that an
ensemble's result on it says nothing.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from doubleunet_bs.inference.model_description import DESCRIPTION, ModelDescription, describe_ensemble, describe_fold
from doubleunet_bs.deployment.replaced_folder import replaced_folder
from doubleunet_bs.serving.export import load_network, write_saved_model
from doubleunet_bs.errors import RunError, SettingsError
from doubleunet_bs.inference.keras_model import mean_of
from doubleunet_bs.inference.trained_fold import open_fold
from doubleunet_bs.training.run_folder import Run


def export_ensemble(run: Run, out: str | os.PathLike, folds: Sequence[int] | None = None) -> ModelDescription:
    """Write a SavedModel with the endpoints of a fold's, whose probabilities are the mean over the folds.

    Args:
        run: the opened run.
        out: the folder; an ensemble that is there already is replaced by the finished new one.
        folds: at least two trained folds; None: all that are trained.

    Returns:
        Its description, which names its members.

    Raises:
        SettingsError: fewer than two folds, one named twice, or `out` is something else than an exported model.
        RunError: a fold is not trained or damaged, or the folds do not belong together.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / DESCRIPTION).is_file())):
        raise SettingsError(f"{out}: exists and is not an exported model; choose another --out folder")
    folds = run.trained_folds() if folds is None else list(folds)
    if len(folds) < 2 or len(set(folds)) < len(folds):
        raise SettingsError(
            f"{run.path}: an ensemble is made of two different trained folds or more, not of "
            f"{', '.join(map(str, folds)) or 'none'}"
        )
    members = [open_fold(run, fold) for fold in sorted(folds)]
    divisions = {member.folds_sha256 for member in members}
    if len(divisions) > 1:
        raise RunError(f"{run.path}: its folds were trained on different divisions of the scans; train them again")
    descriptions = [describe_fold(member) for member in members]
    description = describe_ensemble(descriptions)
    networks = [load_network(member, own) for member, own in zip(members, descriptions, strict=True)]
    with replaced_folder(out) as folder:
        write_saved_model(folder, mean_of(networks), description)
    return description
