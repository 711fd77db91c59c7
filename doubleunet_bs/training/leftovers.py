"""What a killed process leaves in the folder of a stage: files and folders that were being written, all with hidden names."""

import os
import shutil
from pathlib import Path

from doubleunet_bs.training.run_folder import SAVED_MODEL

FOLDERS = (".mined_negatives-*", f".{SAVED_MODEL}-*")
"""As `files.new_folder` and `replaced_folder` name them. Hidden folders of others, an evaluation say, are left alone."""


def remove_leftovers(path: Path) -> None:
    """Remove hidden files and the folders in which mined labels and an export were being written.

    An export that was killed between its two renames has left the older SavedModel in such a folder and none in its place:
    that one is put back first. Nothing happens where `path` does not exist.

    Args:
        path: the folder of a stage, whose lock is held.
    """
    for leftover in path.glob(".*"):
        if leftover.is_file():
            leftover.unlink()
    remove_leftover_folders(path)


def remove_leftover_folders(path: Path) -> None:
    """The part of `remove_leftovers` that concerns folders."""
    saved_model = path / SAVED_MODEL
    for folder in sorted(folder for pattern in FOLDERS for folder in path.glob(pattern)):
        old = folder / "old"
        if folder.match(f".{SAVED_MODEL}-*") and old.is_dir() and not saved_model.exists():
            os.rename(old, saved_model)
        shutil.rmtree(folder)
