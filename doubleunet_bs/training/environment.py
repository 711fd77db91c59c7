"""What a result depends on besides the settings: versions, devices and the state of the source."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

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
