"""What one training is made from: its task, the fingerprint it is continued by, and its `environment.json`."""

import dataclasses
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from doubleunet_bs.errors import RunError
from doubleunet_bs.files import read_json
from doubleunet_bs.preparation.records import count_cohort
from doubleunet_bs.preparation.shards import Dataset, file_sha256
from doubleunet_bs.runs.experiments import Experiment
from doubleunet_bs.runs.run_folder import ENVIRONMENT
from doubleunet_bs.training.devices import Replicas, deterministic_kernels
from doubleunet_bs.training.training_state import TrainingState

PACKAGES = ("doubleunet-bs", "tensorflow", "keras", "numpy", "pydicom", "opencv-python-headless", "scikit-learn")


@dataclasses.dataclass(frozen=True)
class TrainingTask:
    """One training: of a fold, of its mining model, or the pre-training.

    Attributes:
        path: the folder for the results.
        title: heads the progress bar and the picture: "fold 1".
        experiment: what is trained.
        dataset: opened shards.
        train_cases: indices into the dataset.
        validation_cases: indices into the dataset.
        initial_weights: weights of the whole network to start from. None: the experiment's own start.
        made_from: further facts that an interrupted training must share to be continued, by name: plain JSON values.
        augmented: show the training scans in the variants that the experiment asks for.
    """

    path: Path
    title: str
    experiment: Experiment
    dataset: Dataset
    train_cases: list[int]
    validation_cases: list[int]
    initial_weights: Path | None = None
    made_from: dict[str, Any] = dataclasses.field(default_factory=dict)
    augmented: bool = True


def training_fingerprint(task: TrainingTask, replicas: Replicas) -> dict[str, Any]:
    """What must be equal for a saved state to be continued, by name: plain JSON values. Files count by content."""
    dataset, encoder = task.dataset, task.experiment.encoder_weights
    own_encoder = task.initial_weights is None and encoder not in ("none", "imagenet")
    return {
        "experiment": task.experiment.to_json(),
        "data": dataset.fingerprint,
        "training scans": [dataset.cases[index].case for index in task.train_cases],
        "validation scans": [dataset.cases[index].case for index in task.validation_cases],
        "initial weights": None if task.initial_weights is None else file_sha256(task.initial_weights),
        "encoder weights": file_sha256(Path(encoder)) if own_encoder else None,
        "precision": replicas.precision,
        # These decide the last digits, and the last digits decide the rest of a training.
        "xla": False,  # of states that were saved when XLA could be switched on
        "replicas": replicas.count,
        "deterministic": deterministic_kernels(),
        **task.made_from,
    }


def training_environment(
    task: TrainingTask, replicas: Replicas, fingerprint: dict[str, Any], state: TrainingState
) -> dict[str, Any]:
    """The content of `environment.json`: versions, devices, settings and hashes, without a path or a user's name.

    Versions and devices are those of this start, from `state`. "starts" lists all starts whose epochs are in the
    result, each with the epochs and batches that were done before it.

    Raises `RunError` where the `environment.json` of the interrupted training is damaged.
    """
    start = {**describe_environment(), "devices": list(replicas.devices)}
    done = {"epochs": state.epoch, "batches": state.batch}
    earlier = _earlier_starts(task.path / ENVIRONMENT) if any(done.values()) else []
    return {
        **start,
        "starts": [*earlier, {"after": done, **start}],
        "replicas": replicas.count,
        "precision": replicas.precision,
        "deterministic": fingerprint["deterministic"],
        "experiment": task.experiment.public().to_json(),
        "scans": {"training": len(task.train_cases), "validation": len(task.validation_cases)},
        "cohorts": {
            name: count_cohort(task.dataset.cases[index] for index in cases)
            for name, cases in (("training", task.train_cases), ("validation", task.validation_cases))
        },
        "data_fingerprint": task.dataset.fingerprint,
        "initial_weights_sha256": fingerprint["initial weights"],
        "encoder_weights_sha256": fingerprint["encoder weights"],
        **task.made_from,
    }


def read_environment(path: Path) -> dict[str, Any]:
    """The `environment.json` of a training's folder; `RunError` where it is missing or damaged."""
    content = read_json(path / ENVIRONMENT, RunError, "description of a training environment")
    if not isinstance(content, dict):
        raise RunError(f"{path / ENVIRONMENT}: not a description of a training environment")
    return content


def check_made_from(path: Path, made_from: dict[str, Any]) -> dict[str, Any]:
    """Compare the folder of a finished training with what it must have been made from, and return its environment.

    Raises `RunError`: made for another fold, or from other scans or weights. The first difference is named.
    """
    content = read_environment(path)
    for key, value in made_from.items():
        if content.get(key) != value:
            raise RunError(f"{path}: made from another {key} than this fold needs: remove the folder to train it again")
    return content


def _earlier_starts(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    starts = read_environment(path.parent).get("starts", [])
    if not isinstance(starts, list):
        raise RunError(f"{path}: not a description of a training environment: remove it to continue without")
    return starts


def describe_environment() -> dict[str, Any]:
    """Versions of Python and the packages, the processor, and the git commit of the source if there is one.

    It holds no host name, user name, address or path.
    """
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "source": _git_state(),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Commit, and whether files differ from it. None outside a git checkout or without git."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit, status = (
            subprocess.run(
                ["git", "-C", root, *command], capture_output=True, text=True, timeout=10, check=True
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "modified": bool(status)}
