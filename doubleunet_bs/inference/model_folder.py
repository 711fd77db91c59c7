"""What a folder named with --model is: a fold in its run, a fold away from it, or an exported model."""

import dataclasses
from pathlib import Path

from doubleunet_bs.errors import RunError
from doubleunet_bs.inference.model_description import DESCRIPTION, ModelDescription, describe_fold, describe_saved_model
from doubleunet_bs.inference.trained_fold import TrainedFold, open_fold
from doubleunet_bs.training.run_folder import SAVED_MODEL, open_run


@dataclasses.dataclass(frozen=True)
class ModelFolder:
    """A model on disk.

    Attributes:
        description: its papers.
        saved_model: the SavedModel folder; None when a fold has none, or one of other weights than it has now.
        trained: the fold, when the folder is one in its run.
    """

    description: ModelDescription
    saved_model: Path | None
    trained: TrainedFold | None


def find_model(path: Path) -> ModelFolder:
    """Look into a folder. TensorFlow is not imported.

    Raises:
        RunError: no model is in it, or its description is damaged or of another format.
    """
    if not path.is_dir():
        raise RunError(
            f"{path}: no such model folder; give a fold such as RUN/fold_01, or an exported saved_model folder"
        )
    exported = path if (path / "saved_model.pb").is_file() else path / SAVED_MODEL
    named = path if path.name else path.resolve()  # "." has no name
    number = named.name.removeprefix("fold_")
    if exported != path and (named.parent / "experiment.json").is_file() and number.isdecimal():
        trained = open_fold(open_run(named.parent), int(number))
        description = describe_fold(trained)
        # Trained further since it was exported: the export is of other weights.
        valid = (exported / DESCRIPTION).is_file() and (
            describe_saved_model(exported).weights_sha256 == description.weights_sha256
        )
        return ModelFolder(description, exported if valid else None, trained)
    if exported.is_dir():
        return ModelFolder(describe_saved_model(exported), exported, None)
    if (path / "experiment.json").is_file():
        raise RunError(f"{path}: a run, not a fold of it; give one such as {path / 'fold_01'}")
    raise RunError(f"{path}: not a model folder; give a fold such as RUN/fold_01, or an exported saved_model folder")
