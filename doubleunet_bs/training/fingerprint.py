"""What makes a training what it is: what an interrupted one must share to be continued, and what `environment.json` says of it."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doubleunet_bs.errors import RunError
from doubleunet_bs.files import read_json
from doubleunet_bs.preparation.shards import file_sha256
from doubleunet_bs.training.devices import deterministic_kernels

PACKAGES = ("doubleunet-bs", "tensorflow", "keras", "numpy", "pydicom", "opencv-python-headless", "scikit-learn")


def describe_environment() -> dict[str, Any]:
    """Versions of Python and the packages, the processor, and the git commit of the source when there is one.

    No host name, user name or address is in it, and of paths on the command line only the last part.
    """
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "source": _git_state(),
        "command": [_without_folders(argument) for argument in sys.argv],
    }


def _without_folders(argument: str) -> str:
    """The last part of a path, whether it ends in a slash or not and whether or not it stands behind `--name=`."""
    name, equals, path = argument.partition("=")
    if os.sep in name or not equals:
        name, equals, path = "", "", argument
    return name + equals + (path.rstrip(os.sep).rsplit(os.sep, 1)[-1] or path[:1])


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Commit and whether files differ from it; None outside a git checkout or without git."""
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


if TYPE_CHECKING:
    from doubleunet_bs.training.trainer import Trainer

ENVIRONMENT = "environment.json"


def training_identity(trainer: "Trainer") -> dict[str, Any]:
    """What must be the same for a saved state to be continued, by name; plain JSON values. Files count by their content."""
    dataset, encoder = trainer.dataset, trainer.experiment.encoder_weights
    own_encoder = trainer.initial_weights is None and encoder not in ("none", "imagenet")
    return {
        "experiment": trainer.experiment.to_json(),
        "data": dataset.fingerprint,
        "training scans": [dataset.cases[index].case for index in trainer.train_cases],
        "validation scans": [dataset.cases[index].case for index in trainer.validation_cases],
        "initial weights": None if trainer.initial_weights is None else file_sha256(trainer.initial_weights),
        "encoder weights": file_sha256(encoder) if own_encoder else None,
        "precision": trainer.precision,
        # They decide the last digits, and those the rest of a training.
        "xla": trainer.jit_compile,
        "replicas": trainer.replicas.count,
        "deterministic": deterministic_kernels(),
        **trainer.identity,
    }


def training_environment(trainer: "Trainer", identity: dict[str, Any]) -> dict[str, Any]:
    """The content of `environment.json`: versions, machine, devices, settings and hashes, no path and no name of a user.

    Versions and devices are those of this start; "starts" has those of all whose epochs are in the result, in their order,
    each with the epochs and batches that were done before it.

    Args:
        trainer: about to train, at its position.
        identity: its `training_identity`.

    Raises:
        RunError: the `environment.json` of what is continued is damaged.
    """
    start = {**describe_environment(), "devices": list(trainer.replicas.devices)}
    done = {"epochs": trainer.position.epoch, "batches": trainer.position.batch}
    return {
        **start,
        "starts": [
            *(_earlier_starts(trainer.path / ENVIRONMENT) if any(done.values()) else ()),
            {"after": done, **start},
        ],
        "replicas": trainer.replicas.count,
        "precision": trainer.precision,
        "xla": trainer.jit_compile,
        "deterministic": identity["deterministic"],
        "experiment": trainer.experiment.public().to_json(),
        "scans": {"training": len(trainer.train_cases), "validation": len(trainer.validation_cases)},
        "data_fingerprint": trainer.dataset.fingerprint,
        "initial_weights_sha256": identity["initial weights"],
        "encoder_weights_sha256": identity["encoder weights"],
        **trainer.identity,
    }


def _earlier_starts(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    content = read_json(path, RunError, "description of a training environment")
    starts = content.get("starts", []) if isinstance(content, dict) else None
    if not isinstance(starts, list):
        raise RunError(f"{path}: not a description of a training environment; remove it to continue without")
    return starts
