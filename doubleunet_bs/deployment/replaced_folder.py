"""A folder that takes the place of an older one when it is finished."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` that takes its place when the block ends without an error.

    What was at `path` stays untouched until then. A crash between the two renames leaves the old folder beside it
    under a hidden name, and nothing half-written at `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    # mkdtemp is for the owner alone; a server under another account must be able to read.
    mask = os.umask(0)
    os.umask(mask)
    try:
        new, old = aside / "new", aside / "old"
        new.mkdir(mode=0o777 & ~mask)
        yield new
        if path.exists():
            os.rename(path, old)
        try:
            os.rename(new, path)
        except OSError:
            if old.exists():
                os.rename(old, path)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
