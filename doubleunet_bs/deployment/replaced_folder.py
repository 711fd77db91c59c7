"""A folder that takes the place of an older one when it is finished."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from doubleunet_bs.deployment.result_files import exists_already
from doubleunet_bs.files import umask


@contextmanager
def replaced_folder(path: Path, replace: bool = True) -> Iterator[Path]:
    """Yield an empty folder beside `path` that takes its place when the block ends without an error.

    What was at `path` stays untouched until then, and comes back when anything, Ctrl-C too, stops the renaming. A crash
    between the two renames leaves the old folder beside it under a hidden name, and nothing half-written at `path`.

    Args:
        path: the folder.
        replace: False where nothing may be replaced, not even what another process has put there meanwhile.

    Raises:
        RunError: without `replace`, when there is something at `path` in the end.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    # mkdtemp is for the owner alone; a server under another account must be able to read.
    new, old = aside / "new", aside / "old"
    try:
        new.mkdir(mode=0o777 & ~umask())
        yield new
        try:
            if replace and path.exists():
                os.rename(path, old)
            os.rename(new, path)
        except BaseException as cause:
            if old.exists() and not path.exists():
                os.rename(old, path)
            if not replace and isinstance(cause, OSError) and path.exists():
                raise exists_already(path) from None
            raise
    finally:
        # Stopped once more while it was put back, the old folder stays where it is.
        if path.exists() or not old.exists():
            shutil.rmtree(aside, ignore_errors=True)
