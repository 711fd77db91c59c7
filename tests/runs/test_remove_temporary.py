"""What SIGKILL leaves in a fold's folder goes."""

import os
import subprocess
import sys

import pytest

from doubleunet_bs.runs.run_folder import remove_temporary

# Real processes that end without any clean-up, at the place that is named.
KILLED = """
import os, sys
from pathlib import Path
from doubleunet_bs import files as module
from doubleunet_bs.files import new_folder
fold, where = Path(sys.argv[1]), sys.argv[2]
if where == "mining":
    with new_folder(fold / "mined_negatives") as folder:
        (folder / "labels.npz").write_bytes(b"half")
        os._exit(9)
rename, renames = os.rename, []
def counted(*paths):
    renames.append(paths)
    if where == f"before rename {len(renames)}":
        os._exit(9)
    rename(*paths)
module.os.rename = counted
if where == "before removal":
    module.shutil.rmtree = lambda *arguments, **options: os._exit(9)
with module.replaced_folder(fold / "saved_model") as folder:
    (folder / "saved_model.pb").write_text("new")
    if where == "writing":
        os._exit(9)
"""


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("mining", "old"),
        ("writing", "old"),
        ("before rename 1", "old"),
        ("before rename 2", None),
        ("before removal", "new"),
    ],
)
def test_a_killed_process(tmp_path, where, kept):
    fold = tmp_path / "fold_01"
    (fold / "saved_model").mkdir(parents=True)
    (fold / "saved_model" / "saved_model.pb").write_text("old")
    assert subprocess.run([sys.executable, "-c", KILLED, fold, where], check=False).returncode == 9
    assert [file.name for file in fold.iterdir() if file.name.startswith(".")], "the kill has left nothing: no test"
    assert (fold / "saved_model").exists() == (where != "before rename 2")
    remove_temporary(fold)
    assert [path.read_text() for path in fold.rglob("*.pb")] == ([kept] if kept else [])
    assert not list(fold.glob(".*"))


def test_files_go_and_the_folders_of_others_stay(tmp_path):
    for name in (".predictions-x", "tensorboard", "mined_negatives"):
        (tmp_path / name).mkdir()
    for name in (".best-00001.weights.h5", ".state-x.npz", "history.csv"):
        (tmp_path / name).touch()
    remove_temporary(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".predictions-x", "history.csv", "mined_negatives", "tensorboard"]
    remove_temporary(tmp_path / "gone")
