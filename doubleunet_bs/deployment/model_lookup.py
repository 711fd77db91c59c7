"""What a model folder says of its model, without loading it."""

from pathlib import Path

from doubleunet_bs.deployment.model_description import (
    DESCRIPTION,
    ModelDescription,
    describe_fold,
    read_description,
)
from doubleunet_bs.errors import RunError


def look_up_model(path: Path) -> ModelDescription:
    """The description of the model that `Predictor(path)` would open. TensorFlow is not imported.

    Args:
        path: a fold of a run, or an exported `saved_model` folder.

    Raises:
        RunError: no such model, not a model folder, or damaged.
    """
    from doubleunet_bs.evaluation.trained_fold import open_fold
    from doubleunet_bs.training.run_folder import SAVED_MODEL, open_run

    if not path.is_dir():
        raise RunError(
            f"{path}: no such model folder; give a fold such as RUN/fold_01, or an exported saved_model folder"
        )
    exported = path if (path / "saved_model.pb").is_file() else path / SAVED_MODEL
    named = path if path.name else path.resolve()
    number = named.name.removeprefix("fold_")
    if exported != path and (named.parent / "experiment.json").is_file() and number.isdecimal():
        return describe_fold(open_fold(open_run(named.parent), int(number)))
    if (exported / "saved_model.pb").is_file():
        return read_description(exported / DESCRIPTION)
    raise RunError(f"{path}: not a model folder; give a fold such as RUN/fold_01, or an exported saved_model folder")
